"""``dropkey evaluate`` of a detector: its options, all that is measured, and the table."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from dropkey.runs.numbers import PositiveInt
from dropkey.runs.options import option
from dropkey.runs.prepared import Prepared
from dropkey.tasks.detection.average_precision import average_precision
from dropkey.tasks.detection.detections import Detections, detections_of
from dropkey.tasks.detection.module import Detection
from dropkey.tasks.evaluation import EvaluationOptions
from dropkey.text_table import text_table

__all__ = ["DetectionEvaluation", "detected", "measure", "table"]

_NAMES = {
    "mAP": "mAP (IoU 0.50 to 0.95)",
    "AP50": "AP50",
    "AP75": "AP75",
    "mAP_small": "mAP, small (under 32 x 32 pixels)",
    "mAP_medium": "mAP, medium",
    "mAP_large": "mAP, large (over 96 x 96 pixels)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(EvaluationOptions):
    """Options of ``dropkey evaluate`` for a detector."""

    batch_size: int = option(16, "images per pass", kind=PositiveInt)


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over the validation images."""

    found: Sequence[Detections]
    seconds: float


_PASSES: WeakKeyDictionary[Detection, Pass] = WeakKeyDictionary()  # measures, predictions and page share one


def detected(trained: Prepared) -> Pass:
    """Return what a detector finds in the validation images, in their order."""
    module = trained.module
    assert isinstance(module, Detection)
    if module not in _PASSES:
        _PASSES[module] = _passed(trained, module)
    return _PASSES[module]


@torch.no_grad()
def _passed(trained: Prepared, module: Detection) -> Pass:
    network, sizes = trained.network.eval(), module.truth["val"].sizes
    device = next(network.parameters()).device
    found: list[Detections] = []
    start = time.monotonic()
    for batch in trained.data.val_dataloader()[0]:
        images = {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask") if name in batch}
        output = network(**images)
        found += detections_of(module.family, output.logits, output.pred_boxes, batch["indices"], sizes)
    return Pass(sorted(found, key=lambda image: image.index), time.monotonic() - start)


def measure(trained: Prepared) -> dict[str, Any]:
    """Return everything that is measured, as plain data; None where there is nothing to find."""
    module, one_pass = trained.module, detected(trained)
    assert isinstance(module, Detection)
    truth = {image.index: module.truth["val"].boxes(image.index) for image in one_pass.found}
    precision = average_precision(truth, one_pass.found, len(module.classes))
    return {
        "images": len(truth),
        "boxes": sum(int((~boxes.is_crowd).sum()) for boxes in truth.values()),
        **precision.summary(),
        "classes": {name: precision.of_class(label) for label, name in enumerate(module.classes)},
        "precision_over_recall": precision.over_recall(),
        "images_per_second": round(len(truth) / one_pass.seconds, 1),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return what was measured as text."""
    means = [["", ""], *([words, _number(result[name])] for name, words in _NAMES.items())]
    classes = [["class", "mAP", "AP50", "AP75"]]
    classes += [[name, *(_number(row[key]) for key in classes[0][1:])] for name, row in result["classes"].items()]
    last = f"{result['images']} images, {result['boxes']} boxes; {result['images_per_second']:.0f} images/s here"
    return "\n".join([text_table(means[1:]), "", text_table(classes), "", last])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
