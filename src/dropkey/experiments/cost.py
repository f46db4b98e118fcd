"""What an experiment would take: every model built, one training step each, and the rest counted."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dropkey.adapters.apply import apply
from dropkey.errors import RunError
from dropkey.experiments.experiment import Experiment, Row
from dropkey.experiments.study import config_of
from dropkey.runs.config import RunConfig
from dropkey.runs.regularizer_options import (
    ReAttentionOptions,
    build_locality_attention,
    build_re_attention,
    build_regularizer,
)
from dropkey.tasks.registry import named_task
from dropkey.text_table import text_table

__all__ = ["Cost", "as_text", "dry_run"]

_BATCH = 2
_RATE = 1e14  # operations a second: a tenth of what an H100 can do in bfloat16
_BACKWARD = 2  # times the operations of the forward pass

# Training examples and classes of what is published or sampled.
_EXAMPLES = {"digits": 1437, "fashion_mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}
_EXAMPLES |= {"coco": 117_266, "hico_det": 37_633}
_CLASSES = {"digits": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000}


@dataclass(frozen=True)
class Cost:
    """Of one row, all seeds.

    Args:
        label: of the row.
        parameters: of its model.
        operations: floating-point operations of the forward pass of one example; a multiply-add counts as two.
        examples: that it is trained on in all, over epochs and seeds; None if only the data know.
    """

    label: str
    parameters: int
    operations: float
    examples: int | None

    @property
    def gpu_hours(self) -> float | None:
        """Hours of a GPU that computes 10^14 operations a second, data and evaluation left out."""
        if self.examples is None:
            return None
        return self.examples * self.operations * (1 + _BACKWARD) / _RATE / 3600


def dry_run(experiment: Experiment, seeds: int) -> list[Cost]:
    """Build the model of every row, apply its regularizer and take the gradients of one step on random inputs.

    Raises:
        DropKeyError: options, a model or a regularizer that cannot be.
        RunError: a gradient that is not finite.
    """
    return [_cost(experiment, row, seeds) for row in experiment.rows()]


def as_text(costs: list[Cost]) -> str:
    """Return a row for each model, and what the experiment takes in all."""
    header = ["row", "parameters", "GFLOP per example", "examples in all", "GPU hours"]
    body = [
        [
            cost.label,
            f"{cost.parameters:,}",
            f"{cost.operations / 1e9:.2f}",
            "-" if cost.examples is None else f"{cost.examples:,}",
            "-" if cost.gpu_hours is None else f"{cost.gpu_hours:,.1f}",
        ]
        for cost in costs
    ]
    known = [cost.gpu_hours for cost in costs if cost.gpu_hours is not None]
    total = f"in all {sum(known):,.0f} GPU hours" if len(known) == len(costs) else "in all: only the data know"
    rate = f"at {_RATE / 1e12:.0f} TFLOP/s, data and evaluation left out"
    return f"{text_table([header, *body])}\n{total}, {rate}"


def _cost(experiment: Experiment, row: Row, seeds: int) -> Cost:
    config: RunConfig = _from_nothing(config_of(experiment, row))
    network, inputs = named_task(config.task).trial(config, _BATCH)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _called(network.eval(), inputs)
    for regularizer in (*_always_acting(config), build_regularizer(config)):
        if regularizer is not None:
            apply(network, regularizer)
    _step(row, network.train(), inputs)
    examples = _examples(config)
    total = None if examples is None else examples * config.epochs * seeds
    return Cost(row.label, parameters, counter.get_total_flops() / _BATCH, total)


def _from_nothing(config: Any) -> Any:
    """Return a config without weights to start from, which cost nothing and may have to be downloaded."""
    empty = {"pretrained": False, "weights": ""}
    return dataclasses.replace(config, **{name: value for name, value in empty.items() if hasattr(config, name)})


def _always_acting(config: RunConfig) -> list[Any]:
    """Return what acts in evaluation too."""
    if not isinstance(config, ReAttentionOptions):
        return []
    return [build_re_attention(config), build_locality_attention(config)]


def _step(row: Row, network: nn.Module, inputs: Mapping[str, Any]) -> None:
    outputs = [leaf for leaf in torch.utils._pytree.tree_leaves(_called(network, inputs)) if _has_gradient(leaf)]
    losses = [output.float().square().mean() for output in outputs]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise RunError(f"the row {row.label!r}: the gradient of {name} is not finite")


def _called(network: nn.Module, inputs: Mapping[str, Any]) -> Any:
    keyword = {name: value for name, value in inputs.items() if name}
    return network(*(value for name, value in inputs.items() if not name), **keyword)


def _has_gradient(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _examples(config: RunConfig) -> int | None:
    per_class = getattr(config, "train_per_class", 0)
    if per_class:
        return per_class * _CLASSES[config.data] if config.data in _CLASSES else None
    return getattr(config, "bodies", None) if config.data == "bodies" else _EXAMPLES.get(config.data)
