"""Object detection with transformers' DETRs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropkey.data.box_batches import BoxData
from dropkey.data.box_transforms import BoxAugmentation, DetectorInput
from dropkey.data.boxed_images import DetectionSource
from dropkey.data.detection_sources import load_detection_source
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import build_regularizer, parts_of
from dropkey.tasks.detection import evaluation
from dropkey.tasks.detection.config import DetectionConfig
from dropkey.tasks.detection.evaluation import DetectionEvaluation
from dropkey.tasks.detection.model_input import check_sides
from dropkey.tasks.detection.module import Detection
from dropkey.tasks.detection.network import build_detector, family_of
from dropkey.tasks.detection.page import detection_page
from dropkey.tasks.detection.parts import apply_to_parts
from dropkey.tasks.detection.predictions import write_predictions
from dropkey.tasks.detection.recipes import recipe
from dropkey.tasks.detection.weights import load_detector_weights
from dropkey.tasks.task import Built, Task

__all__ = ["TASK", "DetectionTask"]

_TRIAL_CLASSES = 10


class DetectionTask(Task[DetectionConfig, DetectionSource]):
    """Any detector of transformers on any source of images with boxes."""

    name = "detection"
    config_class = DetectionConfig
    evaluation_class = DetectionEvaluation
    measures = (
        Measure("mAP", "fraction", "higher"),
        Measure("AP50", "fraction", "higher"),
        Measure("loss", "", "lower"),
    )

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return recipe(given)

    def load_source(self, config: DetectionConfig) -> DetectionSource:
        data_dir = Path(config.data_dir) if config.data_dir else None
        return load_detection_source(config.data, data_dir, config.mend_boxes)

    def build(self, config: DetectionConfig, source: DetectionSource, *, fresh: bool) -> Built:
        network = _network(config, len(source.classes), fresh=fresh)
        notes = load_detector_weights(network, Path(config.weights)) if config.weights and fresh else []
        regularizer = build_regularizer(config)
        handle = None if regularizer is None else apply_to_parts(network, regularizer, parts_of(config.where))
        return Built(network, handle, [*source.notes, *notes])

    def batches(self, config: DetectionConfig, source: DetectionSource, network: nn.Module) -> BoxData:
        family = family_of(network)
        wanted = DetectorInput(config.sides, family.pads, family.mean, family.std)
        augmentation = BoxAugmentation(config.flip, config.photometric, config.zoom_out, config.iou_crop)
        return BoxData(source, wanted, augmentation, config.batch_size, config.seed, config.workers, config.cache_mb)

    def module(self, config: DetectionConfig, source: DetectionSource, built: Built) -> Detection:
        return Detection(built.network, config, source, built.handle)

    def trial(self, config: DetectionConfig, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        network = _network(config, _TRIAL_CLASSES)
        return network, {"pixel_values": torch.randn(batch_size, 3, *config.sides)}

    def evaluate(self, trained: Prepared, options: DetectionEvaluation) -> dict[str, Any]:
        return evaluation.measure(trained)

    def table(self, result: Mapping[str, Any]) -> str:
        return evaluation.table(result)

    def save_predictions(self, trained: Prepared, path: Path) -> None:
        assert isinstance(trained.data, BoxData)
        write_predictions(evaluation.detected(trained).found, trained.data.source, path)

    def page(self, trained: Prepared, result: Mapping[str, Any]) -> str:
        assert isinstance(trained.data, BoxData)
        source, config = trained.data.source, trained.config
        title = f"{config.model} on {config.data}, {config.regularizer}, seed {config.seed}"
        return detection_page(title, result, evaluation.detected(trained).found, source.val, source.classes)


def _network(config: DetectionConfig, num_classes: int, *, fresh: bool = True) -> nn.Module:
    network = build_detector(config.model, num_classes, config.sides, pretrained=config.pretrained, fresh=fresh)
    check_sides(network, config.sides)
    return network


TASK = DetectionTask()
