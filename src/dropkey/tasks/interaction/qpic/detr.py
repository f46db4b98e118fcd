"""QPIC itself: DETR with heads for pairs."""

import torch
from torch import Tensor, nn
from transformers import DetrForObjectDetection

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.interaction.found_pairs import FoundPairs, PairResult
from dropkey.tasks.interaction.qpic.heads import box_head, verb_head
from dropkey.tasks.interaction.qpic.losses import qpic_loss
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

__all__ = ["QpicDetr", "found_by_queries"]


class QpicDetr(nn.Module):
    """DETR whose queries find pairs: class of the object, verbs and both boxes of every query, in every layer.

    Args:
        detector: gives backbone, encoder and decoder; its own heads are left out.
        num_classes: classes of objects.
        num_verbs: what can be done.
        may_miss: whether a pair may have no object, which is one more class.

    Source: Tamura et al., "QPIC", CVPR 2021. Here the logits of verbs begin at -3.
    """

    def __init__(self, detector: DetrForObjectDetection, num_classes: int, num_verbs: int, may_miss: bool) -> None:
        super().__init__()
        width = detector.config.d_model
        detector.config.auxiliary_loss = True  # hidden states of all layers, not the last one alone
        self.num_classes = num_classes
        self.config = detector.config
        self.detr = detector.model
        self.object_class = nn.Linear(width, num_classes + may_miss + 1)
        self.verbs = verb_head(width, num_verbs)
        self.subject_box, self.object_box = box_head(width), box_head(width)

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
