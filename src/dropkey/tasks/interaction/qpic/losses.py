"""QPIC's losses: the object's class, the verbs and both boxes of a pair."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.detection.families import corners
from dropkey.tasks.interaction.qpic.matcher import Assignment, assign
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

__all__ = ["box_loss", "mean_number_of_pairs", "object_loss", "qpic_loss", "verb_loss"]

_NO_PAIR_WEIGHT = 0.1
_L1_WEIGHT = 2.5


def qpic_loss(layers: Sequence[PairOutput], targets: Sequence[PairTarget]) -> Tensor:
    """Return QPIC's loss, summed over the layers of a decoder, each with an assignment of its own.

    Cross-entropy of the object's class + focal loss of the verbs + 2.5 (L1 of both boxes) + (GIoU of both boxes).

    Args:
        layers: what each layer predicts, its classes with "no pair" last.
        targets: the true pairs of each image.

    Source: Tamura et al., "QPIC", CVPR 2021, section 3.3; the code divides the losses of objects' boxes by the number
    of pairs that have an object, here all are divided by the number of pairs.
    """
    count = mean_number_of_pairs(targets)
    total = layers[0].verb_logits.new_zeros(())
    for output in layers:
        assignments = assign(output, targets)
        total = total + object_loss(output.object_logits, targets, assignments)
        total = total + verb_loss(output.verb_logits, verb_labels(output.verb_logits, targets, assignments))
        total = total + box_loss(output.subject_boxes, [target.subject_boxes for target in targets], assignments, count)
        total = total + box_loss(
            output.object_boxes, [target.object_boxes for target in targets], assignments, count, _there(targets)
        )
    return total


def object_loss(logits: Tensor, targets: Sequence[PairTarget], assignments: Sequence[Assignment]) -> Tensor:
    """Return the cross-entropy of (B, Q, classes + 1); "no pair", the last class, weighs a tenth."""
    no_pair = logits.shape[-1] - 1
    labels = torch.full(logits.shape[:2], no_pair, device=logits.device)
    for image, (queries, pairs) in enumerate(assignments):
        labels[image, queries.to(logits.device)] = targets[image].objects[pairs.to(logits.device)]
    weights = logits.new_ones(logits.shape[-1], dtype=torch.float32)
    weights[no_pair] = _NO_PAIR_WEIGHT
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), weights)


def verb_labels(logits: Tensor, targets: Sequence[PairTarget], assignments: Sequence[Assignment]) -> Tensor:
    """Return what each query should say of the verbs: (B, Q, verbs); nothing where it is to find no pair."""
    labels = torch.zeros_like(logits, dtype=torch.float32)
    for image, (queries, pairs) in enumerate(assignments):
        labels[image, queries.to(logits.device)] = targets[image].verbs[pairs.to(logits.device)]
    return labels


def verb_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the focal loss of verbs over all queries, divided by the number of positive labels.

    -(1 - p)^2 log p where the label is 1, -p^2 log(1 - p) where it is 0.
    """
    logits = logits.float()
    p = logits.sigmoid()
    positive = (1 - p).square() * F.logsigmoid(logits) * labels
    negative = p.square() * F.logsigmoid(-logits) * (1 - labels)
    loss: Tensor = -(positive.sum() + negative.sum()) / labels.sum().clamp(min=1)
    return loss


def box_loss(
    boxes: Tensor,
    true: Sequence[Tensor],
    assignments: Sequence[Assignment],
    count: Tensor,
    there: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return 2.5 L1 + GIoU loss of the boxes that are to find a pair, divided by the number of pairs.

    Args:
        boxes: (B, Q, 4), center and sides.
        true: of each image (pairs, 4).
        assignments: of each image.
        count: number of pairs.
        there: of each image (pairs,), False where there is no box; all are there by default.
    """
    found = torch.cat([boxes[image, queries.to(boxes.device)] for image, (queries, _) in enumerate(assignments)])
    wanted = torch.cat([true[image][pairs.to(boxes.device)] for image, (_, pairs) in enumerate(assignments)])
    giou: Tensor = generalized_box_iou_loss(corners(found.float()), corners(wanted))
    losses = giou + _L1_WEIGHT * (found.float() - wanted).abs().sum(1)
    if there is not None:
        counted = torch.cat([there[image][pairs.to(boxes.device)] for image, (_, pairs) in enumerate(assignments)])
        losses = losses.where(counted, 0)
    return losses.sum() / count


def mean_number_of_pairs(targets: Sequence[PairTarget]) -> Tensor:
    """Return the number of pairs in a batch, 1 or more; the mean over the processes, so that they weigh the same."""
    count = targets[0].verbs.new_tensor(sum(len(target.objects) for target in targets))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)


def _there(targets: Sequence[PairTarget]) -> list[Tensor]:
    return [target.has_object for target in targets]
