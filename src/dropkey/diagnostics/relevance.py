"""What of an image speaks for a class: gradient-weighted rollout of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import Found
from dropkey.adapters.restoring import evaluating
from dropkey.diagnostics.capture import hearing
from dropkey.diagnostics.heard import Heard
from dropkey.diagnostics.measures.rollout import class_rollout
from dropkey.errors import ArgumentError, SiteError

__all__ = ["class_relevance"]


def class_relevance(model: nn.Module, images: Tensor, classes: Sequence[int] | None = None) -> Tensor:
    """Return how much every input token speaks for a class, by ``class_rollout`` over the model's self-attention.

    The model runs in evaluation mode on one image at a time, with fused attention: the gradient of a map is computed
    from that of its output, gradient of (map @ value) @ value^T.

    Args:
        model: a classifier; returns logits (B, classes), by themselves, as ``.logits`` or under "logits".
        images: (B, C, height, width), normalized as the model expects them, on its device.
        classes: one for each image; by default those that the model predicts.

    Returns:
        float32 (B, N, N), not negative. Of a model with a class token, row 0 without its prefix tokens is the picture.

    Raises:
        ArgumentError: no logits, another number of classes, or blocks that do not all see the same tokens.
        SiteError: no plain self-attention, or a module whose map's gradient cannot be had.

    Example:
        >>> import torch
        >>> from torchvision.models import VisionTransformer
        >>> from dropkey.diagnostics import class_relevance
        >>> class_relevance(VisionTransformer(32, 8, 2, 2, 16, 32), torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 17, 17])

    Source: Chefer et al., "Generic attention-model explainability", 2021 (arXiv 2103.15679).
    """
    if classes is not None and len(classes) != len(images):
        raise ArgumentError(f"classes must be one for each of the {len(images)} images, got {len(classes)}")
    calls: list[Heard] = []
    rows = []
    with torch.inference_mode(False), evaluating(model), hearing(model, calls.append, _is_plain):
        for place, image in enumerate(torch.split(images.detach(), 1)):
            calls.clear()
            with torch.enable_grad():
                logits = _logits(model(image.clone().requires_grad_()))
            target = int(logits.argmax()) if classes is None else classes[place]
            if not 0 <= target < logits.shape[1]:
                raise ArgumentError(f"classes must be 0 to {logits.shape[1] - 1}, got {target}")
            gradients = _gradients(calls, logits[0, target])
            rows.append(class_rollout([heard.maps() for heard in calls], gradients).float())
    return torch.cat(rows)


def _is_plain(found: Found) -> bool:
    return found.kind == "self" and found.entry.maps_per_head == 1


def _gradients(calls: Sequence[Heard], score: Tensor) -> list[Tensor]:
    """Return the gradient of a score with respect to every map."""
    outputs = [heard.record.out if heard.record.mixed is None else heard.record.mixed for heard in calls]
    lost = [heard.found.name for heard, out in zip(calls, outputs, strict=True) if not out.requires_grad]
    if lost:
        raise SiteError(f"{lost[0]} gives no gradient of its maps: let it call scaled_dot_product_attention")
    found: tuple[Tensor | None, ...] = torch.autograd.grad(score, outputs, allow_unused=True)
    gradients = []
    for heard, gradient in zip(calls, found, strict=True):
        if gradient is None:  # a block that the class does not depend on
            gradient = torch.zeros_like(heard.record.out)
        gradients.append(gradient if heard.value is None else gradient.to(heard.dtype) @ heard.value.mT.to(heard.dtype))
    return gradients


def _logits(output: Any) -> Tensor:
    logits: Any = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    logits = getattr(logits, "logits", logits)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ArgumentError(
            f"class_relevance takes a model that returns logits (B, classes), got a {type(output).__name__}"
        )
    return logits
