"""The images of a report as pictures in a page."""

import base64
import io
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["data_uri"]

_SMALL = 128  # pixels: below, every one of them counts


def data_uri(image: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> str:
    """Return an image as a data URI: PNG where it is small, otherwise JPEG.

    Args:
        image: float32 (C, height, width), normalized as its model expects; the first three channels are shown.
        mean: what was subtracted from each channel in [0, 1]; None stretches the image between its extremes.
        std: what was divided by.
    """
    from PIL import Image

    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    if mean is None or std is None:
        low, high = torch.quantile(shown.flatten()[::7], torch.tensor([0.002, 0.998]))
        shown = (shown - low) / (high - low).clamp_min(1e-6)
    else:
        shown = shown * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    pixels = (shown.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    kind, options = ("png", {}) if max(pixels.shape[:2]) <= _SMALL else ("jpeg", {"quality": 88})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
