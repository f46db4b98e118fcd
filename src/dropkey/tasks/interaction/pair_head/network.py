"""A detector with a head that pairs its most likely persons with its most likely objects."""

from typing import Any

import torch
from torch import Tensor, nn

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.interaction.found_pairs import FoundPairs, PairResult
from dropkey.tasks.interaction.pair_head.box_features import NUM_BOX_FEATURES, box_features
from dropkey.tasks.interaction.pair_head.candidates import Candidates, candidate_pairs, rows_of, token_labels
from dropkey.tasks.interaction.qpic.heads import verb_head
from dropkey.tasks.interaction.qpic.losses import verb_loss

__all__ = ["PairHead", "PairHeadNetwork"]

_WIDTH, _HEADS, _LAYERS = 96, 4, 2


class PairHead(nn.Module):
    """Attention between pairs of a person and an object, and what the one does with the other.

    Args:
        width: of the detector's hidden states.
        num_verbs: what can be done.
    """

    def __init__(self, width: int, num_verbs: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, _WIDTH))
        self.placed = nn.Sequential(
            nn.Linear(NUM_BOX_FEATURES, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
        )
        self.joined = nn.Sequential(nn.Linear(2 * _WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(_LAYERS)
        )
        self.norm = nn.LayerNorm(_WIDTH)
        self.verbs = verb_head(_WIDTH, num_verbs)

    def forward(self, subjects: Tensor, objects: Tensor, subject_boxes: Tensor, object_boxes: Tensor) -> Tensor:
        """Return logits of verbs (B, N, verbs).

        Args:
            subjects: (B, N, width), hidden states of the persons.
            objects: likewise of the objects.
            subject_boxes: (B, N, 4), center and sides in shares of the image.
            object_boxes: likewise.
        """
        seen = self.seen(torch.cat([subjects, objects], dim=-1))
        tokens = self.joined(torch.cat([seen, self.placed(box_features(subject_boxes, object_boxes))], dim=-1))
        for layer in self.encoder:
            tokens = layer(tokens)
        logits: Tensor = self.verbs(self.norm(tokens))
        return logits


class PairHeadNetwork(nn.Module):
    """A detector of transformers with a pair head, trained together.

    Boxes and classes are learned by the detector's own loss from all boxes, paired or not. Pairs without an object are
    not found.

    Args:
        detector: with ``num_classes`` classes.
        num_classes: classes of boxes.
        num_verbs: what can be done.
        subject: class of those who do something.
        others: classes of objects.
        guesses: classes that each object is taken for, the likeliest ones; fewer if there are not as many.

    Source: the two stages of UPT, Zhang et al., CVPR 2022, on queries of D-FINE, with a smaller head and QPIC's loss.
    """

    def __init__(
        self, detector: nn.Module, num_classes: int, num_verbs: int, subject: int, others: list[int], guesses: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.subject = subject
        self.guesses = min(guesses, len(others))
        config: Any = detector.config
        self.config = config
        self.detector = detector
        self.pair_head = PairHead(config.d_model, num_verbs)
        self.is_object: Tensor
        self.register_buffer("is_object", torch.isin(torch.arange(num_classes), torch.tensor(others)), persistent=False)

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        pairs: list[PairTarget] | None = None,
    ) -> PairResult:
        """Find pairs; see ``PairNetwork``."""
        out = self.detector(pixel_values, pixel_mask=pixel_mask, labels=labels)
        queries = self.config.num_queries  # those of denoising come first in training
        hidden, logits, boxes = (part[:, -queries:] for part in (out.last_hidden_state, out.logits, out.pred_boxes))
        boxes = boxes.detach().float().clamp(0, 1)
        chosen = candidate_pairs(self._probabilities(logits.detach()), self.subject, self.is_object, self.guesses)
        both = (chosen.subjects, chosen.objects)
        subjects, objects = ((rows_of(hidden, rows), rows_of(boxes, rows)) for rows in both)
        verb_logits = self.pair_head(subjects[0], objects[0], subjects[1], objects[1])
        found = _found(chosen, verb_logits, subjects[1], objects[1])
        if pairs is None:
            return PairResult(None, found)
        wanted = [token_labels(subjects[1][image], objects[1][image], target) for image, target in enumerate(pairs)]
        return PairResult(out.loss + verb_loss(verb_logits, torch.stack(wanted)), found)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Return (B, Q, classes); one more logit than classes means that classes exclude each other."""
        if logits.shape[-1] > self.num_classes:
            return logits.float().softmax(-1)[..., : self.num_classes]
        return logits.float().sigmoid()


@torch.no_grad()
def _found(chosen: Candidates, verb_logits: Tensor, subject_boxes: Tensor, object_boxes: Tensor) -> FoundPairs:
    """Return each pair once for every class that its object is taken for: a less likely one ranks lower."""
    scores = chosen.probabilities.unsqueeze(-1) * verb_logits.float().sigmoid().unsqueeze(2)
    labels = chosen.labels.flatten(1)
    queries = torch.stack([chosen.subjects, chosen.objects], dim=-1)
    persons, things, queries = (
        part.repeat_interleave(chosen.labels.shape[2], dim=1) for part in (subject_boxes, object_boxes, queries)
    )
    return FoundPairs(scores.flatten(1, 2), labels, torch.ones_like(labels, dtype=torch.bool), persons, things, queries)
