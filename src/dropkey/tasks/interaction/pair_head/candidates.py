"""Which queries of a detector are paired, and which of these pairs are true."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.detection.families import corners

__all__ = ["Candidates", "candidate_pairs", "rows_of", "token_labels"]

_MIN_OVERLAP = 0.5


class Candidates(NamedTuple):
    """Pairs of queries, N an image, with G guesses at the class of the object.

    Args:
        subjects: (B, N), queries of the persons.
        objects: (B, N), queries of the objects.
        labels: (B, N, G), the most likely classes of the object, the likeliest first.
        probabilities: (B, N, G), of person and object together; 0 where both are the same query.
    """

    subjects: Tensor
    objects: Tensor
    labels: Tensor
    probabilities: Tensor


@torch.no_grad()
def candidate_pairs(probabilities: Tensor, subject: int, is_object: Tensor, guesses: int) -> Candidates:
    """Return each of the most likely persons with each of the most likely objects.

    A tenth of the queries as persons and a fifth as objects, at least 5 and 10, at most 15 and 20.

    Args:
        probabilities: (B, Q, classes).
        subject: class of those who do something.
        is_object: (classes,), what something can be done with.
        guesses: classes that each object is taken for, no more than there are classes of objects.
    """
    queries = probabilities.shape[1]
    best = probabilities.masked_fill(~is_object, -1).topk(guesses, dim=-1)
    person_p, persons = probabilities[..., subject].topk(min(queries, min(15, max(5, queries // 10))), dim=1)
    objects = best.values[..., 0].topk(min(queries, min(20, max(10, queries // 5))), dim=1).indices
    object_p, labels = rows_of(best.values, objects), rows_of(best.indices, objects)
    count = persons.shape[1], objects.shape[1]
    subjects, others = persons.repeat_interleave(count[1], dim=1), objects.repeat(1, count[0])
    both = person_p.repeat_interleave(count[1], dim=1).unsqueeze(-1) * object_p.repeat(1, count[0], 1)
    differ = (subjects != others).unsqueeze(-1)
    return Candidates(subjects, others, labels.repeat(1, count[0], 1), both.where(differ, 0))


def rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """Return the chosen rows (B, N, D) of values (B, Q, D); rows are (B, N)."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


@torch.no_grad()
def token_labels(subject_boxes: Tensor, object_boxes: Tensor, target: PairTarget) -> Tensor:
    """Return what is true of each pair of boxes of an image: (N, verbs).

    A pair has the verbs of every true pair with which both of its boxes overlap by 0.5.
    """
    overlap = torch.minimum(
        box_iou(corners(subject_boxes), corners(target.subject_boxes)),
        box_iou(corners(object_boxes), corners(target.object_boxes)).where(target.has_object, 0),
    )
    return ((overlap >= _MIN_OVERLAP).float() @ target.verbs).clamp(max=1)
