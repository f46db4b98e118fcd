"""What a model says of pairs: one of each query."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["PairOutput"]


@dataclass(frozen=True)
class PairOutput:
    """Pairs that a layer of a decoder predicts.

    Args:
        object_logits: (B, Q, classes), plus one for "no pair" where classes exclude each other; they may be one more
            than those of the data, for "no object".
        object_probabilities: (B, Q, classes), without "no pair".
        verb_logits: (B, Q, verbs).
        subject_boxes: (B, Q, 4), center and sides in shares of the image.
        object_boxes: likewise.
    """

    object_logits: Tensor
    object_probabilities: Tensor
    verb_logits: Tensor
    subject_boxes: Tensor
    object_boxes: Tensor
