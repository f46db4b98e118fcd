"""What a model finds in a batch: pairs with scores of every verb."""

from typing import NamedTuple, Protocol

from torch import Tensor

from dropkey.data.paired_images import PairTarget

__all__ = ["FoundPairs", "PairNetwork", "PairResult"]


class FoundPairs(NamedTuple):
    """Pairs that a model finds in a batch, N an image; one pair may be there once for each class its object may be.

    Args:
        scores: (B, N, verbs), in [0, 1].
        objects: (B, N), classes of the objects.
        has_object: (B, N), False where the pair has no object.
        subject_boxes: (B, N, 4), center and sides in shares of the image.
        object_boxes: likewise.
        queries: (B, N, 2), queries of the decoder that found the person and the object.
    """

    scores: Tensor
    objects: Tensor
    has_object: Tensor
    subject_boxes: Tensor
    object_boxes: Tensor
    queries: Tensor


class PairResult(NamedTuple):
    """What a model says of a batch; without labels there is no loss."""

    loss: Tensor | None
    found: FoundPairs


class PairNetwork(Protocol):
    """A network that finds pairs."""

    def __call__(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        pairs: list[PairTarget] | None = None,
    ) -> PairResult:
        """Find pairs.

        Args:
            pixel_values: (B, 3, rows, cols), normalized.
            pixel_mask: (B, rows, cols), 0 on padding.
            labels: of each image ``class_labels`` (boxes,) and ``boxes`` (boxes, 4), paired or not.
            pairs: of each image.
        """
