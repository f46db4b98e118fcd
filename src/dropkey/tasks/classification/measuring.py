"""How good a classifier is: accuracy, loss, calibration, under occlusion, and how fast it is."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from dropkey.alignment import monte_carlo
from dropkey.data.seeds import seed_all

__all__ = ["Measures", "evaluate", "evaluate_monte_carlo", "images_per_second", "occluded"]

Batches = Iterable[tuple[Tensor, Tensor]]
_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Measures:
    """Accuracy and expected calibration error in [0, 1], and the mean cross-entropy."""

    accuracy: float
    loss: float
    calibration_error: float


@torch.no_grad()
def evaluate(
    network: nn.Module, batches: Batches, num_classes: int, change: Callable[[Tensor], Tensor] | None = None
) -> Measures:
    """Measure a classifier in evaluation mode.

    Args:
        network: (B, 3, size, size) -> (B, classes) logits.
        batches: images and labels.
        num_classes: number of classes.
        change: what is done to the images before, such as occlusion.
    """
    network.eval()
    device = next(network.parameters()).device
    collected = _Collected(num_classes, device)
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        logits = network(images if change is None else change(images)).float()
        collected.add(logits.log_softmax(-1), labels)
    return collected.measures()


def evaluate_monte_carlo(
    network: nn.Module, batches: Batches, num_classes: int, samples: int, seed: int
) -> tuple[Measures, dict[str, float | None]]:
    """Measure the mean of the class probabilities over drawn masks: the paper's Monte Carlo alignment.

    Returns:
        The measures of the mean, and the mean standard deviation of the predicted class's probability over the draws,
        where the answer is right and where it is wrong (None if it never is): a useful uncertainty is larger there.
    """
    device = next(network.parameters()).device
    collected = _Collected(num_classes, device)
    spread: dict[bool, list[Tensor]] = {True: [], False: []}
    seed_all(seed, "monte carlo")
    for images, labels in batches:
        mean, std = monte_carlo(network.eval(), images.to(device), samples)
        labels = labels.to(device)
        collected.add(mean.log(), labels)
        predicted = mean.argmax(-1, keepdim=True)
        right = predicted.squeeze(-1) == labels
        for is_right, chosen in ((True, right), (False, ~right)):
            spread[is_right].append(std.gather(-1, predicted).squeeze(-1)[chosen])
    means = {name: _mean(torch.cat(spread[is_right])) for name, is_right in (("right", True), ("wrong", False))}
    return collected.measures(), means


def occluded(images: Tensor, share: float, patch_size: int, generator: torch.Generator) -> Tensor:
    """Set a share of the patches of each image to 0, the mean of normalized images.

    Args:
        images: (B, 3, size, size).
        share: of patches, in [0, 1]; the number of patches is rounded.
        patch_size: side of a patch in pixels.
        generator: draws which ones, on the CPU.
    """
    batch, _, rows, cols = images.shape
    grid = -(-rows // patch_size), -(-cols // patch_size)
    count = round(share * grid[0] * grid[1])
    order = torch.rand(batch, grid[0] * grid[1], generator=generator).argsort(-1).argsort(-1)
    keep = (order >= count).view(batch, 1, *grid).to(images.device)
    keep = keep.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
    return images * keep[:, :, :rows, :cols]


@torch.no_grad()
def images_per_second(network: nn.Module, images: Tensor, seconds: float = 2.0) -> float:
    """Return how many images per second a network classifies in batches like this one, without reading them."""
    network.eval()
    network(images)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or count == 0:
        network(images)
        _wait(images.device)
        count += 1
    return count * len(images) / elapsed


def occlusion_curve(
    network: nn.Module, batches: Batches, num_classes: int, shares: Sequence[float], patch_size: int, seed: int
) -> dict[str, float]:
    """Return the accuracy with each share of patches hidden, by the share as text."""
    result = {}
    for share in shares:
        generator = torch.Generator().manual_seed(seed)  # more hidden patches include the fewer ones
        change = functools.partial(occluded, share=share, patch_size=patch_size, generator=generator)
        result[f"{share:g}"] = evaluate(network, batches, num_classes, change).accuracy
    return result


class _Collected:
    """Torchmetrics over batches of log-probabilities."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.accuracy: Any = MulticlassAccuracy(num_classes, average="micro").to(device)
        self.loss: Any = MeanMetric().to(device)
        self.calibration: Any = MulticlassCalibrationError(num_classes, n_bins=_CALIBRATION_BINS).to(device)

    def add(self, log_probabilities: Tensor, labels: Tensor) -> None:
        probabilities = log_probabilities.exp()
        self.accuracy.update(probabilities, labels)
        self.calibration.update(probabilities, labels)
        self.loss.update(F.nll_loss(log_probabilities, labels), len(labels))

    def measures(self) -> Measures:
        accuracy, loss, calibration = (float(m.compute()) for m in (self.accuracy, self.loss, self.calibration))
        return Measures(accuracy, loss, calibration)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
