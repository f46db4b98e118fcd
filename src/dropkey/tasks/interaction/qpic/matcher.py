"""Which query is to find which true pair: the assignment of least cost, as in QPIC."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.detection.families import corners
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

__all__ = ["Assignment", "assign", "matching_cost"]

Assignment = tuple[Tensor, Tensor]  # queries, and the pair that each is to find; both of an image
_L1_WEIGHT = 2.5


@torch.no_grad()
def assign(output: PairOutput, targets: Sequence[PairTarget]) -> list[Assignment]:
    """Return for each image the queries and the true pairs they are to find, each pair once."""
    result = []
    for image, target in enumerate(targets):
        cost = matching_cost(output, image, target)
        queries, pairs = linear_sum_assignment(cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy())
        result.append((torch.as_tensor(queries, dtype=torch.long), torch.as_tensor(pairs, dtype=torch.long)))
    return result


def matching_cost(output: PairOutput, image: int, target: PairTarget) -> Tensor:
    """Return what it costs to let each query of an image find each pair: (Q, pairs).

    -p_object + verb cost + 2.5 max(L1 of the subject, of the object) + max(-GIoU of the subject, of the object), where
    the verb cost is -(mean p over the pair's verbs + mean (1 - p) over the others) / 2. Where a pair has no object, the
    subject alone decides about boxes.
    """
    objects = output.object_probabilities[image].float()[:, target.objects]
    verbs = output.verb_logits[image].float().sigmoid()
    done, not_done = target.verbs.T, 1 - target.verbs.T
    verb_cost = -(_mean(verbs, done) + _mean(1 - verbs, not_done)) / 2
    l1, giou = zip(
        *(
            (torch.cdist(found, true, p=1), generalized_box_iou(corners(found), corners(true)))
            for found, true in (
                (output.subject_boxes[image].float(), target.subject_boxes),
                (output.object_boxes[image].float(), target.object_boxes),
            )
        ),
        strict=True,
    )
    object_l1 = torch.where(target.has_object, l1[1], l1[0])
    object_giou = torch.where(target.has_object, giou[1], giou[0])
    boxes = _L1_WEIGHT * torch.maximum(l1[0], object_l1) + torch.maximum(-giou[0], -object_giou)
    return -objects + verb_cost + boxes


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the means of (Q, verbs) over the verbs chosen by each column of (verbs, pairs); 0 over none."""
    return values @ chosen / chosen.sum(0).clamp(min=1)
