"""What a run is made of, whatever its task."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dropkey.adapters.handle import Handle
from dropkey.data.batches import RunData
from dropkey.runs.config import RunConfig
from dropkey.runs.measure import Measure
from dropkey.runs.module import RunModule

__all__ = ["Prepared"]


@dataclass(frozen=True)
class Prepared:
    """All that training and evaluation need.

    Args:
        config: options of the run.
        data: batches.
        module: network, regularizer, loss and measures.
        measures: what the module measures, the headline first.
        notes: what the user should know before training, one line each.
    """

    config: RunConfig
    data: RunData
    module: RunModule
    measures: Sequence[Measure]
    notes: Sequence[str] = ()

    @property
    def network(self) -> nn.Module:
        return self.module.network

    @property
    def handle(self) -> Handle | None:
        return self.module.handle

    @property
    def headline(self) -> Measure:
        return self.measures[0]
