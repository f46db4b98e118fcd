"""Who does what with what in images, as flat arrays: what is measured, saved and drawn."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dropkey.data.paired_images import PairedImages
from dropkey.tasks.detection.families import corners
from dropkey.tasks.interaction.found_pairs import FoundPairs
from dropkey.tasks.interaction.metrics import Pairs, Persons

__all__ = ["Interactions", "best_interactions", "joined", "true_pairs", "unpaired_persons"]

_MOST = 100  # an image, as the published evaluators count them


class Interactions(NamedTuple):
    """Predicted interactions, one verb a row, the surest of an image first.

    Args:
        images: int64 (N,), indices of the images in their split.
        subjects: float64 (N, 4), corners in pixels of the image as its source gives it.
        object_boxes: likewise; 0 where there is no object.
        objects: int64 (N,), classes.
        verbs: int64 (N,).
        scores: float64 (N,).
        queries: int64 (N, 2), queries that found person and object.
    """

    images: Any
    subjects: Any
    object_boxes: Any
    objects: Any
    verbs: Any
    scores: Any
    queries: Any

    def pairs(self) -> Pairs:
        """Return them for the measures."""
        return Pairs(self.images, self.subjects, self.object_boxes, self.objects, self.verbs, self.scores)

    def of(self, image: int) -> "Interactions":
        """Return those of one image."""
        rows = self.images == image
        return Interactions(*(column[rows] for column in self))


@torch.no_grad()
def best_interactions(
    found: FoundPairs, possible: Any, indices: Any, sizes: Sequence[tuple[int, int]], most: int = _MOST
) -> Interactions:
    """Return the surest interactions of each image, after those that cannot be are taken out.

    Args:
        found: in a batch.
        possible: bool (verbs, classes), which verb can be done with which object; without an object all can.
        indices: (B,), of the images in their split.
        sizes: (rows, cols) of every image of the split.
        most: interactions an image.
    """
    allowed = torch.as_tensor(np.asarray(possible).T, device=found.scores.device)[found.objects]
    scores = found.scores.where(allowed | ~found.has_object.unsqueeze(-1), 0)
    num_verbs = scores.shape[-1]
    best, places = scores.flatten(1).topk(min(most, scores[0].numel()), dim=1)
    rows, verbs = places // num_verbs, places % num_verbs
    images = torch.as_tensor(indices)
    scale = torch.tensor([[sizes[int(i)][1], sizes[int(i)][0]] * 2 for i in images], dtype=torch.float64)

    def pixels(boxes: torch.Tensor) -> Any:
        chosen = boxes.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
        return (corners(chosen.double().cpu()) * scale[:, None]).flatten(0, 1).numpy()

    there = found.has_object.gather(1, rows).flatten().cpu().numpy()
    kept = (best > 0).flatten().cpu().numpy()
    queries = found.queries.gather(1, rows.unsqueeze(-1).expand(-1, -1, 2)).flatten(0, 1)
    columns = Interactions(
        images.cpu().repeat_interleave(best.shape[1]).numpy(),
        pixels(found.subject_boxes),
        pixels(found.object_boxes) * there[:, None],
        found.objects.gather(1, rows).flatten().cpu().numpy(),
        verbs.flatten().cpu().numpy(),
        best.double().flatten().cpu().numpy(),
        queries.cpu().numpy(),
    )
    return Interactions(*(column[kept] for column in columns))


def joined(parts: Iterable[Interactions]) -> Interactions:
    """Return the interactions of several batches as one, in the order of their images."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Interactions(*(column[order] for column in columns))


def true_pairs(images: PairedImages, indices: Iterable[int]) -> Pairs:
    """Return the true pairs of some images, for the measures."""
    parts = []
    for index in indices:
        boxes, pairs = images.boxes(index), images.pairs(index)
        rows, verbs = np.nonzero(pairs.verbs)
        padded = np.concatenate([boxes.xyxy, np.zeros((1, 4))])  # the last one is that of NO_OBJECT
        labels = np.concatenate([boxes.labels, [0]])
        subjects, objects = pairs.subjects[rows], pairs.objects[rows]
        parts.append((np.full(len(rows), index), padded[subjects], padded[objects], labels[objects], verbs))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def unpaired_persons(images: PairedImages, indices: Iterable[int], subject: int) -> Persons:
    """Return the persons who are the subject of no pair: nobody says whether they were looked at."""
    found, numbers = [np.zeros((0, 4))], []
    for index in indices:
        boxes = images.boxes(index)
        alone = boxes.labels == subject
        alone[images.pairs(index).subjects] = False
        found.append(boxes.xyxy[alone])
        numbers += [index] * int(alone.sum())
    return Persons(np.array(numbers, dtype=int), np.concatenate(found), np.zeros(len(numbers), dtype=bool))
