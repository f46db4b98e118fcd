"""Image classification with timm's models: the default task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.apply import apply
from dropkey.adapters.handle import Handle
from dropkey.adapters.maps import attention_maps
from dropkey.data.augmentation import Augmentation, ImageFormat
from dropkey.data.loaders import ImageData
from dropkey.data.source import ImageSource
from dropkey.data.sources import load_source
from dropkey.data.subset import few_per_class, hold_out
from dropkey.errors import ArgumentError, RunError
from dropkey.models.timm_dropout import check_dropout, dropout_arguments
from dropkey.models.timm_network import build_network, check_model_name, own_img_size
from dropkey.models.weights import load_weights, read_origin
from dropkey.ops.map_similarity import map_similarity
from dropkey.regularizers import DropKey
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import build_locality_attention, build_re_attention, build_regularizer
from dropkey.tasks.classification import evaluation
from dropkey.tasks.classification.config import ClassificationConfig
from dropkey.tasks.classification.model_kwargs import parse_model_kwargs
from dropkey.tasks.classification.module import Classification
from dropkey.tasks.classification.predictions import write_predictions
from dropkey.tasks.classification.recipes import recipe
from dropkey.tasks.task import Built, Task

__all__ = ["TASK", "ClassificationTask"]

_TRIAL_CLASSES = 10


class ClassificationTask(Task[ClassificationConfig, ImageSource]):
    """Any timm model on any source of labeled images."""

    name = "classification"
    config_class = ClassificationConfig
    evaluation_class = evaluation.ClassificationEvaluation
    measures = (Measure("accuracy", "fraction", "higher", counts_images=True), Measure("loss", "", "lower"))

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return recipe(given)

    def load_source(self, config: ClassificationConfig) -> ImageSource:
        source = load_source(config.data, Path(config.data_dir) if config.data_dir else None)
        if config.val_share:
            source = hold_out(source, config.val_share)
        return few_per_class(source, config.train_per_class) if config.train_per_class else source

    def build(self, config: ClassificationConfig, source: ImageSource, *, fresh: bool) -> Built:
        network = _network(config, len(source.classes), pretrained=config.pretrained and fresh)
        example = _example(network, config.img_size)
        if config.patch_drop or config.head_drop:
            check_dropout(network, config.model, config.patch_drop, config.head_drop, example)
        learned = [each for each in (build_re_attention(config), build_locality_attention(config)) if each is not None]
        notes = [str(apply(network, each, example=example)) for each in learned]
        if config.weights and fresh:  # after what has parameters, which they may hold
            notes = [*load_weights(network, Path(config.weights)), *notes]
        regularizer = build_regularizer(config)
        handle = None if regularizer is None else apply(network, regularizer, example=example)
        if config.map_similarity_loss:
            _listen(network, example, handle)
        return Built(network, handle, notes)

    def batches(self, config: ClassificationConfig, source: ImageSource, network: nn.Module) -> ImageData:
        augmentation = Augmentation(
            shifts=source.shifts,
            crops=config.random_crop,
            flips=source.flips and config.mirror,
            rand_augment=config.rand_augment,
            color_jitter=config.color_jitter,
            random_erasing=config.random_erasing,
        )
        image_format = ImageFormat.of(network, config.img_size)
        pairs = bool(config.mixup or config.cutmix)
        return ImageData(source, image_format, augmentation, config.batch_size, config.seed, config.workers, pairs)

    def module(self, config: ClassificationConfig, source: ImageSource, built: Built) -> Classification:
        return Classification(built.network, config, source.classes, built.handle)

    def trial(self, config: ClassificationConfig, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        network = _network(config, _TRIAL_CLASSES)
        size = ImageFormat.of(network, config.img_size).img_size
        return network, {"": torch.randn(batch_size, 3, size, size)}

    def evaluate(self, trained: Prepared, options: evaluation.ClassificationEvaluation) -> dict[str, Any]:
        return evaluation.measure(trained, options)

    def table(self, result: Mapping[str, Any]) -> str:
        return evaluation.table(result)

    def save_predictions(self, trained: Prepared, path: Path) -> None:
        write_predictions(trained, path)

    def load_named(self, name: str, options: evaluation.ClassificationEvaluation) -> Prepared:
        """Return a timm model with trained weights and a head for the classes of the data.

        Raises:
            ArgumentError: no such model, or neither a weights file nor pretrained weights.
            RunError: weights without such a head.
        """
        check_model_name(name)
        if not options.weights and not options.pretrained:
            raise ArgumentError(f"{name} has no trained weights: give --weights FILE or --pretrained")
        names = ("data", "data_dir", "weights", "pretrained", "img_size", "regularizer", "drop_ratio")
        said = {key: getattr(options, key) for key in names if getattr(options, key)}
        asked = [key for key in ("data_dir",) if key in said]
        prepared = self.prepare(self.resolve({**said, "model": name, "workers": 0}, asked))
        if options.weights:
            if prepared.notes:
                raise RunError(f"nothing to evaluate: {prepared.notes[0]}")
            prepared.module.check(read_origin(Path(options.weights)), Path(options.weights))
        return prepared


def _network(config: ClassificationConfig, num_classes: int, *, pretrained: bool = False) -> nn.Module:
    return build_network(
        config.model,
        num_classes,
        img_size=None if config.img_size == own_img_size(config.model) else config.img_size,
        pretrained=pretrained,
        **({"drop_path_rate": config.drop_path} if config.drop_path else {}),
        **dropout_arguments(config.patch_drop, config.head_drop),
        **parse_model_kwargs(config.model_kwargs),
    )


def _example(network: nn.Module, img_size: int) -> Tensor:
    """Return an image (1, 3, height, width) that the network takes."""
    size = ImageFormat.of(network, img_size).img_size
    return torch.zeros(1, 3, size, size)


def _listen(network: nn.Module, image: Tensor, handle: Handle | None) -> None:
    """See to it that the maps of a network can be compared, or raise a DropKeyError that says why not."""
    if handle is None:
        apply(network, DropKey(0.0)).disable()
    with torch.no_grad(), attention_maps(network.eval()) as maps:
        network(image)
    map_similarity(maps)
    network.train()


TASK = ClassificationTask()
