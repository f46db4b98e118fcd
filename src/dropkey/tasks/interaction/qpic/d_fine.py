"""QPIC's heads on the queries of D-FINE, which learn from scratch far sooner than those of DETR."""

import torch
from torch import Tensor, nn
from transformers import DFineForObjectDetection

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.interaction.found_pairs import PairResult
from dropkey.tasks.interaction.qpic.detr import found_by_queries
from dropkey.tasks.interaction.qpic.heads import inverse_sigmoid, refining_box_head, verb_head
from dropkey.tasks.interaction.qpic.losses import box_loss, mean_number_of_pairs, verb_labels, verb_loss
from dropkey.tasks.interaction.qpic.matcher import assign
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

__all__ = ["QpicDFine"]


class QpicDFine(nn.Module):
    """D-FINE whose queries find the objects of pairs by its own loss, and by QPIC's persons and verbs beside them.

    The box of the person is a change of that of the object, which it does not move. A pair without an object is of a
    class of its own, at the box of the person.

    Args:
        detector: with ``num_classes`` classes, and one more if pairs may have no object.
        num_classes: classes of objects.
        num_verbs: what can be done.
    """

    def __init__(self, detector: DFineForObjectDetection, num_classes: int, num_verbs: int) -> None:
        super().__init__()
        width, layers = detector.config.d_model, detector.config.decoder_layers
        self.num_classes = num_classes
        self.config = detector.config
        self.detector = detector
        self.verbs = nn.ModuleList(verb_head(width, num_verbs) for _ in range(layers))
        self.subject_box = nn.ModuleList(refining_box_head(width) for _ in range(layers))

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        pairs: list[PairTarget] | None = None,
    ) -> PairResult:
        """Find pairs; see ``PairNetwork``."""
        objects = None if pairs is None else [_as_labels(target) for target in pairs]
        out = self.detector(pixel_values, pixel_mask=pixel_mask, labels=objects)
        layers = self._layers(out)
        loss = None if pairs is None else out.loss + _subject_and_verb_loss(layers, pairs)
        return PairResult(loss, found_by_queries(layers[-1], self.num_classes))

    def _layers(self, out: object) -> list[PairOutput]:
        """Return what the layers say: in training all, otherwise the last; queries of denoising come first and go."""
        hidden, logits, boxes = (getattr(out, f"intermediate_{name}") for name in _INTERMEDIATE)
        queries = self.config.num_queries
        count = min(len(hidden), logits.shape[1])
        return [
            self._output(layer, hidden[layer][:, -queries:], logits[:, place, -queries:], boxes[:, place, -queries:])
            for layer, place in zip(range(len(hidden))[-count:], range(-count, 0), strict=True)
        ]

    def _output(self, layer: int, hidden: Tensor, logits: Tensor, boxes: Tensor) -> PairOutput:
        boxes = boxes.clamp(0, 1)
        subjects = (self.subject_box[layer](hidden) + inverse_sigmoid(boxes.detach())).sigmoid()
        return PairOutput(logits, logits.float().sigmoid(), self.verbs[layer](hidden), subjects, boxes)


_INTERMEDIATE = ("hidden_states", "logits", "reference_points")


def _as_labels(target: PairTarget) -> dict[str, Tensor]:
    boxes = torch.where(target.has_object.unsqueeze(1), target.object_boxes, target.subject_boxes)
    return {"class_labels": target.objects, "boxes": boxes}


def _subject_and_verb_loss(layers: list[PairOutput], targets: list[PairTarget]) -> Tensor:
    count = mean_number_of_pairs(targets)
    total = layers[0].verb_logits.new_zeros(())
    for output in layers:
        assignments = assign(output, targets)
        total = total + verb_loss(output.verb_logits, verb_labels(output.verb_logits, targets, assignments))
        total = total + box_loss(output.subject_boxes, [target.subject_boxes for target in targets], assignments, count)
    return total
