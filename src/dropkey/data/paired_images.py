"""What a source of images with pairs gives: who does what with which object."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from dropkey.data.boxed_images import BoxedImages, DetectionSource

__all__ = ["NO_OBJECT", "ImagePairs", "PairSource", "PairTarget", "PairedImages"]

NO_OBJECT = -1  # in place of the index of an object's box


@dataclass(frozen=True)
class ImagePairs:
    """The pairs of one image, each of a person and an object once, with all that the one does with the other.

    Args:
        subjects: int64 (pairs,), indices of the persons' boxes among the boxes of the image.
        objects: int64 (pairs,), indices of the objects' boxes; NO_OBJECT where there is none to be seen.
        verbs: bool (pairs, verbs), what is done.
    """

    subjects: Any
    objects: Any
    verbs: Any

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int]], num_verbs: int) -> "ImagePairs":
        """Return pairs from (subject, object, verb), of which several may be about the same pair."""
        places = {pair: place for place, pair in enumerate(dict.fromkeys((row[0], row[1]) for row in rows))}
        verbs = np.zeros((len(places), num_verbs), dtype=bool)
        for subject, other, verb in rows:
            verbs[places[subject, other], verb] = True
        boxes = np.array(list(places), dtype=np.int64).reshape(-1, 2)
        return cls(boxes[:, 0], boxes[:, 1], verbs)

    def __len__(self) -> int:
        return len(self.subjects)


class PairedImages(BoxedImages, Protocol):
    """Images with boxes, and pairs of them."""

    file_names: Sequence[str]

    def pairs(self, index: int) -> ImagePairs:
        """Return the pairs of an image."""


class PairTarget(NamedTuple):
    """The true pairs of one image, as losses want them.

    Args:
        objects: int64 (pairs,), classes of the objects; the number of classes where there is none.
        has_object: bool (pairs,).
        verbs: float32 (pairs, verbs), 1 for what is done.
        subject_boxes: float32 (pairs, 4), center and sides in shares of the image.
        object_boxes: likewise; 0 where there is none.
    """

    objects: Tensor
    has_object: Tensor
    verbs: Tensor
    subject_boxes: Tensor
    object_boxes: Tensor


@dataclass(frozen=True, kw_only=True)
class PairSource(DetectionSource):
    """Training and validation images with boxes and pairs of them.

    Args:
        train: training images.
        val: validation images.
        verbs: names of what can be done.
        verb_ids: what the source calls them, for files of predictions.
        possible: bool (verbs, classes), which verb can be done with which object.
        subject: label of those who do something.
        rare: (verb, label of the object) of what is rare in training.
        roles: verbs that V-COCO's measure counts; empty for HICO-DET's measure.
        may_miss: whether a pair may have no object.
        notes: what the user should know of the data, one line each.
    """

    train: PairedImages
    val: PairedImages
    verbs: Sequence[str]
    verb_ids: Sequence[int]
    possible: Any
    subject: int
    rare: Collection[tuple[int, int]] = ()
    roles: Sequence[int] = ()
    may_miss: bool = False
    notes: Sequence[str] = ()
