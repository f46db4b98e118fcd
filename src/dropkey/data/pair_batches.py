"""Images with pairs as batches: boxes change as in detection, and pairs go with their boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dropkey.data.batches import Split
from dropkey.data.box_batches import BoxData
from dropkey.data.box_transforms import DetectorInput, detector_batch, train_example, train_steps
from dropkey.data.boxed_images import Boxes
from dropkey.data.order import Place
from dropkey.data.paired_images import ImagePairs, PairedImages, PairSource, PairTarget
from dropkey.data.pixel_cache import PixelCache
from dropkey.data.seeds import seed_cpu

__all__ = ["PairData", "pair_example"]

PairExample = tuple[Tensor, Tensor, Tensor, int, PairTarget]  # as in detection, and the pairs


class PairData(BoxData):
    """A source of images with pairs as batches, see ``BoxData``; a batch has ``pairs`` too, a target for each image."""

    source: PairSource

    @staticmethod
    def collate(examples: list[Any]) -> dict[str, Any]:
        return {**detector_batch([example[:4] for example in examples]), "pairs": [example[4] for example in examples]}

    def train_dataset(self) -> Dataset[Any]:
        steps = train_steps(self.augmentation, self.wanted.mean)
        return _Pairs(self.source.train, self.pixels["train"], self.wanted, self._num_classes, steps, self.seed)

    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[Any]:
        images = self.source.train if split == "train" else self.source.val
        return _Clean(_Pairs(images, self.pixels[split], self.wanted, self._num_classes, None, self.seed), indices)

    @property
    def _num_classes(self) -> int:
        return len(self.source.classes)


class _Pairs(Dataset[PairExample]):
    """Images, each changed by random numbers that depend on (seed, epoch, index) alone, or not at all."""

    def __init__(
        self,
        images: PairedImages,
        pixels: PixelCache,
        wanted: DetectorInput,
        num_classes: int,
        steps: Any,
        seed: int,
    ) -> None:
        self.images = images
        self.pixels = pixels
        self.wanted = wanted
        self.num_classes = num_classes
        self.steps = steps
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images.sizes)

    def __getitem__(self, place: Place) -> PairExample:
        epoch, index = place
        pixels = self.pixels[index]
        if self.steps is not None:
            seed_cpu(self.seed, "augmentation", epoch, index)
        boxes, pairs = self.images.boxes(index), self.images.pairs(index)
        return pair_example(pixels, boxes, pairs, index, self.steps, self.wanted, self.num_classes)


class _Clean(Dataset[PairExample]):
    """Images as evaluation sees them, those at some indices, in their order."""

    def __init__(self, pairs: _Pairs, indices: Sequence[int]) -> None:
        self.pairs = pairs
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> PairExample:
        return self.pairs[0, self.indices[place]]


def pair_example(
    pixels: Any, boxes: Boxes, pairs: ImagePairs, index: int, steps: Any, wanted: DetectorInput, num_classes: int
) -> PairExample:
    """Return an image as a model takes it, with its boxes and the pairs whose boxes are still in it."""
    numbered = Boxes.of(boxes.xyxy, np.arange(len(boxes)))  # the numbers tell which boxes a crop has left
    image, kept, shares, _ = train_example(pixels, numbered, index, steps, wanted)
    labels = torch.from_numpy(boxes.labels)[kept]
    return image, labels, shares, index, _target(pairs, kept, len(boxes), labels, shares, num_classes)


def _target(
    pairs: ImagePairs, kept: Tensor, num_boxes: int, labels: Tensor, shares: Tensor, num_classes: int
) -> PairTarget:
    places = torch.full((num_boxes + 1,), -1)  # the last one is that of NO_OBJECT
    places[kept] = torch.arange(len(kept))
    subjects, objects = (places[torch.from_numpy(numbers)] for numbers in (pairs.subjects, pairs.objects))
    has_object = torch.from_numpy(pairs.objects >= 0)
    there = (subjects >= 0) & ((objects >= 0) | ~has_object)
    subjects, objects, has_object = subjects[there], objects[there], has_object[there]
    padded_labels = torch.cat([labels, labels.new_full((1,), num_classes)])
    padded_shares = torch.cat([shares, shares.new_zeros(1, 4)])
    verbs = torch.from_numpy(pairs.verbs).float()[there]
    return PairTarget(padded_labels[objects], has_object, verbs, shares[subjects], padded_shares[objects])
