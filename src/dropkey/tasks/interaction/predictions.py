"""Interactions in the JSON that the evaluators of QPIC, PPDM and CDN read."""

import json
from pathlib import Path
from typing import Any

from dropkey.data.paired_images import NO_OBJECT, PairSource
from dropkey.runs.run_folder import write_atomically
from dropkey.tasks.interaction.interactions import Interactions

__all__ = ["prediction_list", "write_predictions"]


def write_predictions(found: Interactions, source: PairSource, path: Path) -> None:
    """Write the interactions in the validation images; boxes are corners in pixels of the image."""
    write_atomically(path, json.dumps(prediction_list(found, source)).encode())


def prediction_list(found: Interactions, source: PairSource) -> list[dict[str, Any]]:
    """Return for each validation image ``file_name``, ``predictions`` (boxes) and ``hoi_prediction``.

    An interaction points to the boxes of its person and its object, -1 for none, and has the source's number of the
    verb as ``category_id``, and a ``score``.
    """
    return [
        {"file_name": name, **_of_image(found.of(index), source)} for index, name in enumerate(source.val.file_names)
    ]


def _of_image(found: Interactions, source: PairSource) -> dict[str, Any]:
    places: dict[tuple[int, tuple[float, ...]], int] = {}

    def place(label: int, box: Any) -> int:
        if not box.any():
            return NO_OBJECT
        return places.setdefault((int(label), tuple(box.tolist())), len(places))

    rows = [
        {
            "subject_id": place(source.subject, found.subjects[row]),
            "object_id": place(found.objects[row], found.object_boxes[row]),
            "category_id": int(source.verb_ids[found.verbs[row]]),
            "score": float(found.scores[row]),
        }
        for row in range(len(found.scores))
    ]
    boxes = [{"bbox": list(box), "category_id": int(source.category_ids[label])} for label, box in places]
    return {"predictions": boxes, "hoi_prediction": rows}
