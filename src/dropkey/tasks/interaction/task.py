"""Human-object interaction with transformers' detectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.data.box_transforms import BoxAugmentation, DetectorInput
from dropkey.data.digit_pairs import digit_pairs
from dropkey.data.pair_batches import PairData
from dropkey.data.pair_sources import load_pair_source
from dropkey.data.paired_images import PairSource, PairTarget
from dropkey.errors import ArgumentError
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import build_regularizer, parts_of
from dropkey.tasks.detection.families import DetectorFamily, family_called
from dropkey.tasks.detection.model_input import check_sides
from dropkey.tasks.detection.parts import apply_to_parts
from dropkey.tasks.interaction import evaluation
from dropkey.tasks.interaction.config import InteractionConfig
from dropkey.tasks.interaction.evaluation import InteractionEvaluation
from dropkey.tasks.interaction.module import Interaction
from dropkey.tasks.interaction.network import build_pair_network
from dropkey.tasks.interaction.page import interaction_page
from dropkey.tasks.interaction.predictions import write_predictions
from dropkey.tasks.interaction.recipes import recipe
from dropkey.tasks.task import Built, Task

__all__ = ["TASK", "InteractionTask"]


class InteractionTask(Task[InteractionConfig, PairSource]):
    """Detectors of transformers with heads for pairs, on any source of images with pairs."""

    name = "interaction"
    config_class = InteractionConfig
    evaluation_class = InteractionEvaluation
    measures = (Measure("mAP", "fraction", "higher"), Measure("loss", "", "lower"))
    has_examples = True

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return recipe(given)

    def load_source(self, config: InteractionConfig) -> PairSource:
        return load_pair_source(config.data, Path(config.data_dir) if config.data_dir else None, config.broken)

    def build(self, config: InteractionConfig, source: PairSource, *, fresh: bool) -> Built:
        network, notes = _network(config, source, fresh=fresh)
        notes = [*source.notes, *notes]
        if config.heads == "pair" and source.may_miss:
            notes.append("pairs without an object are not learned by --heads pair: --heads qpic finds them too")
        regularizer = build_regularizer(config)
        handle = None if regularizer is None else apply_to_parts(network, regularizer, parts_of(config.where))
        return Built(network, handle, notes)

    def batches(self, config: InteractionConfig, source: PairSource, network: nn.Module) -> PairData:
        family = _family(config, network)
        if config.flip and not source.flips:
            raise ArgumentError(f"--flip: a mirror image of {source.name} shows something else, leave it out")
        wanted = DetectorInput(config.sides, family.pads, family.mean, family.std)
        augmentation = BoxAugmentation(config.flip, config.photometric, config.zoom_out, config.iou_crop)
        return PairData(source, wanted, augmentation, config.batch_size, config.seed, config.workers, config.cache_mb)

    def module(self, config: InteractionConfig, source: PairSource, built: Built) -> Interaction:
        return Interaction(built.network, config, source, built.handle)

    def trial(self, config: InteractionConfig, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        source = digit_pairs()
        network, _ = _network(config, source)
        # Pairs too: what is found has no gradient, the loss has.
        labels, target = _one_pair(len(source.verbs))
        images = torch.randn(batch_size, 3, *config.sides)
        return network, {"pixel_values": images, "labels": [labels] * batch_size, "pairs": [target] * batch_size}

    def evaluate(self, trained: Prepared, options: InteractionEvaluation) -> dict[str, Any]:
        return evaluation.measure(trained)

    def table(self, result: Mapping[str, Any]) -> str:
        return evaluation.table(result)

    def save_predictions(self, trained: Prepared, path: Path) -> None:
        assert isinstance(trained.module, Interaction)
        write_predictions(evaluation.found_pairs(trained).found, trained.module.source, path)

    def page(self, trained: Prepared, result: Mapping[str, Any]) -> str:
        return interaction_page({trained.config.regularizer: trained})

    def examples(self, trained: Mapping[str, Prepared]) -> str:
        return interaction_page(trained)


def _network(config: InteractionConfig, source: PairSource, *, fresh: bool = True) -> tuple[nn.Module, list[str]]:
    network, notes = build_pair_network(config, source, fresh=fresh)
    check_sides(network, config.sides)
    return network, notes


def _one_pair(num_verbs: int) -> tuple[dict[str, Tensor], PairTarget]:
    """Return the truth of an image with two boxes side by side that make a pair."""
    boxes = torch.tensor([[0.3, 0.5, 0.2, 0.4], [0.7, 0.5, 0.2, 0.4]])
    classes, pair = torch.tensor([0, 1]), torch.ones(1, dtype=torch.bool)
    target = PairTarget(classes[1:], pair, torch.ones(1, num_verbs), boxes[:1], boxes[1:])
    return {"class_labels": classes, "boxes": boxes}, target


def _family(config: InteractionConfig, network: nn.Module) -> DetectorFamily:
    detector: Any = network.config
    return family_called(detector.model_type, config.model)


TASK = InteractionTask()
