"""From decoded pixels and boxes to what a detector takes: how training changes both, and how evaluation does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dropkey.data.boxed_images import Boxes

__all__ = [
    "BoxAugmentation",
    "DetectorInput",
    "Example",
    "clean_example",
    "detector_batch",
    "train_example",
    "train_steps",
]

Example = tuple[Tensor, Tensor, Tensor, int]  # pixels, class labels, boxes (cxcywh, in shares of the image), index


@dataclass(frozen=True)
class DetectorInput:
    """What a detector takes.

    Args:
        sides: (rows, cols) in pixels. Where images are padded, the shorter side of an image fits the shorter of these
            and the longer the longer, whatever its orientation.
        pads: whether images keep their shape, to be padded in a batch, or are stretched to the sides.
        mean: of the colors, from 0 to 1, which is taken away; ``std`` divides what is left.
        std: see ``mean``.
    """

    sides: tuple[int, int]
    pads: bool
    mean: Sequence[float]
    std: Sequence[float]

    def size_of(self, rows: int, cols: int) -> tuple[int, int]:
        """Return the (rows, cols) that an image of this size gets."""
        if not self.pads:
            return self.sides
        factor = min(min(self.sides) / min(rows, cols), max(self.sides) / max(rows, cols))
        return max(1, round(rows * factor)), max(1, round(cols * factor))


@dataclass(frozen=True)
class BoxAugmentation:
    """How training changes an image: the share of images to which each step is done.

    Args:
        flip: mirrored from left to right.
        photometric: other brightness, contrast, hue and saturation.
        zoom_out: put onto a canvas of up to twice its sides.
        iou_crop: cut so that the boxes left overlap with the cut as SSD wants it.
    """

    flip: float = 0.0
    photometric: float = 0.0
    zoom_out: float = 0.0
    iou_crop: float = 0.0


def train_steps(augmentation: BoxAugmentation, mean: Sequence[float]) -> v2.Transform | None:
    """Return the steps from an image with boxes to a changed one, or None if nothing is to be changed."""
    fill = {tv_tensors.Image: [round(255 * value) for value in mean]}
    steps: list[Any] = []
    if augmentation.photometric:
        steps.append(v2.RandomApply([v2.RandomPhotometricDistort(p=0.5)], augmentation.photometric))
    if augmentation.zoom_out:
        steps.append(v2.RandomZoomOut(fill, side_range=(1.0, 2.0), p=augmentation.zoom_out))
    if augmentation.iou_crop:
        steps.append(v2.RandomApply([v2.RandomIoUCrop()], augmentation.iou_crop))
        steps.append(v2.SanitizeBoundingBoxes(labels_getter=lambda inputs: inputs[2]))
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.flip))
    return v2.Compose(steps) if steps else None


def train_example(pixels: Any, boxes: Boxes, index: int, steps: v2.Transform | None, wanted: DetectorInput) -> Example:
    """Return a training example; crowds are left out: there is no one object to learn."""
    alone = ~boxes.is_crowd
    image, labels = _tensor(pixels), torch.from_numpy(boxes.labels[alone])
    xyxy = torch.from_numpy(boxes.xyxy[alone]).float()
    if steps is not None:
        framed = tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=image.shape[-2:])
        image, framed, labels = steps(tv_tensors.Image(image), framed, labels)
        image, xyxy = image.as_subclass(Tensor), framed.as_subclass(Tensor)
    rows, cols = image.shape[-2:]
    return _fitted(image, wanted), labels, _shares(xyxy, rows, cols), index


def clean_example(pixels: Any, boxes: Boxes, index: int, wanted: DetectorInput) -> Example:
    """Return an example as evaluation sees it."""
    return train_example(pixels, boxes, index, None, wanted)


def _tensor(pixels: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _fitted(image: Tensor, wanted: DetectorInput) -> Tensor:
    """Return uint8 (3, rows, cols) as float32 at the size that is wanted, normalized."""
    size = wanted.size_of(*image.shape[-2:])
    if tuple(image.shape[-2:]) != size:
        image = v2.functional.resize(image, list(size), antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (wanted.mean, wanted.std))
    return image.float().div_(255).sub_(mean).div_(std)


def _shares(xyxy: Tensor, rows: int, cols: int) -> Tensor:
    """Return boxes as center and sides in shares of the image."""
    corners = xyxy / torch.tensor([cols, rows, cols, rows])
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)


def detector_batch(examples: Sequence[Example]) -> dict[str, Any]:
    """Return a batch as transformers' detectors take it, with the indices of its images.

    Images of one shape are stacked. Otherwise they are padded at the right and the bottom to the largest, and
    ``pixel_mask`` (B, rows, cols) is 1 on pixels of images and 0 on padding.
    """
    images = [example[0] for example in examples]
    batch: dict[str, Any] = {
        "labels": [{"class_labels": labels, "boxes": boxes} for _, labels, boxes, _ in examples],
        "indices": torch.tensor([example[3] for example in examples]),
    }
    if len({image.shape for image in images}) == 1:
        return {"pixel_values": torch.stack(images), **batch}
    rows, cols = (max(image.shape[side] for image in images) for side in (1, 2))
    pixels, mask = torch.zeros(len(images), 3, rows, cols), torch.zeros(len(images), rows, cols, dtype=torch.long)
    for place, image in enumerate(images):
        pixels[place, :, : image.shape[1], : image.shape[2]] = image
        mask[place, : image.shape[1], : image.shape[2]] = 1
    return {"pixel_values": pixels, "pixel_mask": mask, **batch}
