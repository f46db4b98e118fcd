"""``dropkey evaluate`` of a network that finds pairs: its options, all that is measured, and the table."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch

from dropkey.runs.numbers import PositiveInt
from dropkey.runs.options import option
from dropkey.runs.prepared import Prepared
from dropkey.tasks.evaluation import EvaluationOptions
from dropkey.tasks.interaction import protocols
from dropkey.tasks.interaction.interactions import Interactions, best_interactions, joined
from dropkey.tasks.interaction.module import Interaction

__all__ = ["InteractionEvaluation", "found_pairs", "measure", "table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InteractionEvaluation(EvaluationOptions):
    """Options of ``dropkey evaluate`` for a network that finds pairs."""

    batch_size: int = option(16, "images per pass", kind=PositiveInt)


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over the validation images."""

    found: Interactions
    seconds: float


_PASSES: WeakKeyDictionary[Interaction, Pass] = WeakKeyDictionary()  # measures, predictions and page share one


def found_pairs(trained: Prepared) -> Pass:
    """Return what a network finds in the validation images, in their order."""
    module = trained.module
    assert isinstance(module, Interaction)
    if module not in _PASSES:
        _PASSES[module] = _passed(trained, module)
    return _PASSES[module]


@torch.no_grad()
def _passed(trained: Prepared, module: Interaction) -> Pass:
    network, sizes = trained.network.eval(), module.source.val.sizes
    device = next(network.parameters()).device
    parts = []
    start = time.monotonic()
    for batch in trained.data.val_dataloader()[0]:
        images = {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask") if name in batch}
        parts.append(best_interactions(network(**images).found, module.source.possible, batch["indices"], sizes))
    return Pass(joined(parts), time.monotonic() - start)


def measure(trained: Prepared) -> dict[str, Any]:
    """Return everything that is measured, as plain data; None where there is nothing to find."""
    module, one_pass = trained.module, found_pairs(trained)
    assert isinstance(module, Interaction)
    images = module.source.val
    count = len(images.sizes)
    result = module.protocol.measure(images, range(count), one_pass.found)
    return {"images": count, **result, "images_per_second": round(count / one_pass.seconds, 1)}


def table(result: Mapping[str, Any]) -> str:
    """Return what was measured as text."""
    last = f"{result['images']} images, {result['pairs']} true interactions; {result['images_per_second']:.0f} images/s"
    return f"{protocols.table(result)}\n\n{last} here"
