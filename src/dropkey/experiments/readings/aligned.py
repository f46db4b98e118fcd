"""Accuracy, loss and calibration of a classifier, evaluated once or averaged over drawn masks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.classification.measuring import evaluate, evaluate_monte_carlo
from dropkey.tasks.classification.module import Classification

__all__ = ["Aligned"]


@dataclass(frozen=True)
class Aligned:
    """The last weights on some of the validation images, spread evenly over all of them.

    Args:
        samples: passes with DropKey on, whose probabilities are averaged; 0 for one pass without.
        images: most images to measure on.
    """

    samples: int = 0
    images: int = 1000

    measures = (
        Measure("accuracy", "fraction", "higher"),
        Measure("loss", "", "lower"),
        Measure("calibration_error", "", "lower"),
    )

    @property
    def name(self) -> str:
        return f"aligned-{self.samples}-samples-{self.images}-images"

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        assert isinstance(trained.module, Classification)
        classes, batches = len(trained.module.classes), self._batches(trained)
        if self.samples:
            found = evaluate_monte_carlo(trained.network, batches, classes, self.samples, trained.config.seed)[0]
        else:
            found = evaluate(trained.network, batches, classes)
        return {measure.name: getattr(found, measure.name) for measure in self.measures}

    def _batches(self, trained: Prepared) -> Iterable[tuple[Tensor, Tensor]]:
        total = trained.data.sizes["val"]
        places = range(0, total, -(-total // self.images))
        dataset = trained.data.clean_dataset("val", places)
        return torch.utils.data.DataLoader(dataset, batch_size=trained.data.eval_batch_size)
