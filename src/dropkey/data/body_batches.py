"""Bodies as batches: pictures turned, zoomed and tinted in training, with the bodies turned along."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dropkey.data.batches import RunData, Split
from dropkey.data.body_source import BodyExample, BodyImages, BodySource
from dropkey.data.order import Place
from dropkey.data.seeds import seed_of

__all__ = ["BodyAugmentation", "BodyBatch", "BodyData"]

_MEAN, _STD = 0.5, 0.25


class BodyBatch(NamedTuple):
    """A batch, or one example without the first axis.

    Args:
        images: float32 (B, 3, size, size), normalized.
        vertices: (B, V, 3) in meters around the pelvis, in the camera's axes.
        joints: (B, J, 3) likewise.
        joints_2d: (B, J, 2) column and row in the picture, from -1 to 1.
    """

    images: Tensor
    vertices: Tensor
    joints: Tensor
    joints_2d: Tensor


@dataclass(frozen=True)
class BodyAugmentation:
    """How training changes pictures.

    Args:
        rotation: turn in the picture by up to this many degrees; the body turns along.
        scale: zoom by up to this share.
        color_noise: brighten or darken each channel by up to this share.
    """

    rotation: float = 0.0
    scale: float = 0.0
    color_noise: float = 0.0

    def change(self, example: BodyExample, draw: np.random.Generator) -> BodyExample:
        """Return an example as training sees it.

        There is no mirroring: the mirrored body would need a partner for each vertex on the other side.
        """
        angle, zoom = np.deg2rad(draw.uniform(-1, 1) * self.rotation), 1 + draw.uniform(-1, 1) * self.scale
        tint = 1 + draw.uniform(-1, 1, 3) * self.color_noise
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]], np.float32)
        image = example.image
        if self.rotation or self.scale:
            image = _turned(image, zoom * turn)
        if self.color_noise:
            image = Image.fromarray((np.asarray(image) * tint).clip(0, 255).astype(np.uint8))
        around = np.eye(3, dtype=np.float32)
        around[:2, :2] = turn
        vertices, joints = example.vertices_mm @ around.T, example.joints_mm @ around.T
        return BodyExample(image, vertices, joints, example.joints_2d @ (np.float32(zoom) * turn).T)


def _turned(image: Image.Image, matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Image.Image:
    """Apply a 2 x 2 matrix to the places of a picture around its middle."""
    back = np.linalg.inv(matrix)
    middle = np.array(image.size) / 2
    shift = middle - back @ middle
    data = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


class BodyData(RunData):
    """A source of bodies as batches.

    Args:
        source: the bodies.
        img_size: side of the pictures that the model takes.
        augmentation: how training changes them.
        batch_size: bodies per batch and process.
        seed: seed of the run.
        workers: processes that read pictures, beside each training process.
    """

    max_clean_train = 1_000  # a body costs a hundred times what a digit does

    def __init__(
        self,
        source: BodySource,
        img_size: int,
        augmentation: BodyAugmentation,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__((len(source.train), len(source.val)), batch_size, seed, workers)
        self.source = source
        self.img_size = img_size
        self.augmentation = augmentation

    def fingerprint(self) -> str:
        return f"{self.source.train.fingerprint()}-{self.source.val.fingerprint()}"

    def train_dataset(self) -> Dataset[BodyBatch]:
        return _Changed(self.source.train, self.img_size, self.augmentation, self.seed)

    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[BodyBatch]:
        images = self.source.train if split == "train" else self.source.val
        return _Clean(images, self.img_size, indices)


class _Changed(Dataset[BodyBatch]):
    """Training examples; what changes them depends on (seed, epoch, index) alone."""

    def __init__(self, examples: BodyImages, img_size: int, augmentation: BodyAugmentation, seed: int) -> None:
        self.examples, self.img_size, self.augmentation, self.seed = examples, img_size, augmentation, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: Place) -> BodyBatch:
        epoch, index = place
        draw = np.random.default_rng(seed_of(self.seed, "augmentation", epoch, index))
        return _as_tensors(self.augmentation.change(self.examples[index], draw), self.img_size)


class _Clean(Dataset[BodyBatch]):
    """Examples as evaluation sees them."""

    def __init__(self, examples: BodyImages, img_size: int, indices: Sequence[int]) -> None:
        self.examples, self.img_size, self.indices = examples, img_size, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> BodyBatch:
        return _as_tensors(self.examples[self.indices[place]], self.img_size)


def _as_tensors(example: BodyExample, img_size: int) -> BodyBatch:
    image = example.image
    if image.size != (img_size, img_size):
        image = image.resize((img_size, img_size), Image.Resampling.BICUBIC)
    pixels = (np.asarray(image, np.float32) / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)
    vertices, joints = (
        torch.from_numpy(np.ascontiguousarray(part / np.float32(1000)))
        for part in (example.vertices_mm, example.joints_mm)
    )
    joints_2d = torch.from_numpy(np.ascontiguousarray(example.joints_2d, np.float32))
    return BodyBatch(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), vertices, joints, joints_2d)
