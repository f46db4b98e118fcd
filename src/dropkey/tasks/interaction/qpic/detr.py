"""QPIC itself: DETR with heads for pairs."""

import copy

import torch
from torch import Tensor, nn
from transformers import DetrForObjectDetection

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.interaction.found_pairs import FoundPairs, PairResult
from dropkey.tasks.interaction.qpic.heads import verb_head
from dropkey.tasks.interaction.qpic.losses import qpic_loss
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

__all__ = ["QpicDetr", "found_by_queries"]


class QpicDetr(nn.Module):
    """DETR whose queries find pairs: class of the object, verbs and both boxes of every query, in every layer.

    Args:
        detector: with ``num_classes`` classes, and one more if pairs may have no object; its class head and its box
            head become those of the object, and a copy of the latter that of the person.
        num_classes: classes of objects.
        num_verbs: what can be done.

    Source: Tamura et al., "QPIC", CVPR 2021. Here the logits of verbs begin at -3.
    """

    def __init__(self, detector: DetrForObjectDetection, num_classes: int, num_verbs: int) -> None:
        super().__init__()
        width = detector.config.d_model
        detector.config.auxiliary_loss = True  # hidden states of all layers, not the last one alone
        self.num_classes = num_classes
        self.config = detector.config
        self.detr = detector.model
        self.object_class = detector.class_labels_classifier
        self.verbs = verb_head(width, num_verbs)
        self.object_box = detector.bbox_predictor
        self.subject_box = copy.deepcopy(self.object_box)

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        pairs: list[PairTarget] | None = None,
    ) -> PairResult:
        """Find pairs; see ``PairNetwork``."""
        hidden = self.detr(pixel_values, pixel_mask=pixel_mask).intermediate_hidden_states
        layers = [self._output(layer) for layer in hidden]
        loss = None if pairs is None else qpic_loss(layers, pairs)
        return PairResult(loss, found_by_queries(layers[-1], self.num_classes))

    def _output(self, hidden: Tensor) -> PairOutput:
        logits = self.object_class(hidden)
        boxes = [head(hidden).sigmoid() for head in (self.subject_box, self.object_box)]
        return PairOutput(logits, logits.float().softmax(-1)[..., :-1], self.verbs(hidden), *boxes)


@torch.no_grad()
def found_by_queries(output: PairOutput, num_classes: int) -> FoundPairs:
    """Return one pair of each query; a class after those of the data is that of pairs without an object."""
    probability, objects = output.object_probabilities.max(-1)
    scores = probability.unsqueeze(-1) * output.verb_logits.float().sigmoid()
    queries = torch.arange(scores.shape[1], device=scores.device).view(1, -1, 1).expand(len(scores), -1, 2)
    has_object = objects < num_classes
    boxes = (output.subject_boxes.float(), output.object_boxes.float())
    return FoundPairs(scores, objects.where(has_object, 0), has_object, *boxes, queries)
