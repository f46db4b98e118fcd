"""The families of transformers' detectors: what each takes, and how its scores are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropkey.errors import ArgumentError

__all__ = ["FAMILIES", "DetectorFamily", "corners", "family_called"]

Scores = tuple[Tensor, Tensor, Tensor]  # score, class and query of each detection


def best_class_of_each_query(logits: Tensor, most: int) -> Scores:
    """Read (B, Q, classes + 1) logits whose last class is "no object": one detection a query."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    scores, queries = scores.topk(min(most, scores.shape[1]), dim=1)
    return scores, labels.gather(1, queries), queries


def best_pairs(logits: Tensor, most: int) -> Scores:
    """Read (B, Q, classes) logits of independent classes: the best pairs of query and class."""
    num_classes = logits.shape[-1]
    scores, places = logits.sigmoid().flatten(1).topk(min(most, logits.shape[1] * num_classes), dim=1)
    return scores, places % num_classes, places // num_classes


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectorFamily:
    """A family of detectors.

    Args:
        name: transformers' model type.
        pads: images keep their shape, smaller ones of a batch are padded, and the model gets a mask of pixels;
            otherwise images are stretched to one size.
        multiple: sides of stretched images must be multiples of this many pixels.
        read_scores: from logits and the most detections that are wanted to scores, classes and queries, best first.
        class_parameters: parts of the names of parameters whose shapes follow the number of classes.
        most: detections that are kept of an image; None for as many as there are queries.
        mean: of the colors, from 0 to 1, as its published weights expect them normalized.
        std: likewise.
    """

    name: str
    pads: bool
    multiple: int
    read_scores: Callable[[Tensor, int], Scores]
    class_parameters: tuple[str, ...]
    most: int | None = 100
    mean: Sequence[float] = _IMAGENET_MEAN
    std: Sequence[float] = _IMAGENET_STD

    def detections(self, logits: Tensor, boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (scores, labels, boxes) of every image, each (B, detections), best first; boxes stay as they are.

        Args:
            logits: (B, Q, ...), of the last layer.
            boxes_cxcywh: (B, Q, 4), in shares of the image.
        """
        scores, labels, queries = self.read_scores(logits.float(), self.most or logits.shape[1])
        boxes = boxes_cxcywh.float().gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
        return scores, labels, boxes


_LAST_LAYER = ("class_labels_classifier",)
_PLAIN = (None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_EVERY_LAYER = ("class_embed", "enc_score_head", "denoising_class_embed")
FAMILIES = {
    family.name: family
    for family in (
        DetectorFamily("detr", True, 1, best_class_of_each_query, _LAST_LAYER),
        DetectorFamily("conditional_detr", True, 1, best_pairs, _LAST_LAYER),
        DetectorFamily("deformable_detr", True, 1, best_pairs, _EVERY_LAYER),
        DetectorFamily("rt_detr_v2", False, 32, best_pairs, _EVERY_LAYER, *_PLAIN),
        DetectorFamily("d_fine", False, 32, best_pairs, _EVERY_LAYER, *_PLAIN),
        DetectorFamily("yolos", False, 1, best_class_of_each_query, _LAST_LAYER),
    )
}


def family_called(model_type: str, where: str) -> DetectorFamily:
    """Return a family, or raise an ArgumentError that lists them.

    Args:
        model_type: of a configuration of transformers.
        where: what has it, for the message.
    """
    if model_type not in FAMILIES:
        raise ArgumentError(f"{where} is a {model_type}, and detection takes {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def corners(boxes_cxcywh: Tensor) -> Tensor:
    """Return boxes as left, top, right, bottom."""
    centers, sides = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centers - sides / 2, centers + sides / 2], dim=-1)
