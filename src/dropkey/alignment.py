"""Aligning what a model expects in training with what it sees in evaluation: Monte Carlo over drawn masks."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.adapters.site import site_of
from dropkey.adapters.slots.drop_slot import DropSlot
from dropkey.arguments import check_count, check_model
from dropkey.errors import ArgumentError, SiteError

__all__ = ["MonteCarlo", "monte_carlo"]

_ONE_AT_A_TIME = threading.RLock()  # modes belong to the model, whichever thread sets them


class MonteCarlo(NamedTuple):
    """Class probabilities over drawn masks."""

    mean: Tensor  # (B, classes, ...), sums to 1 over the classes
    std: Tensor  # the same shape, standard deviation over the draws: an uncertainty


@torch.no_grad()
def monte_carlo(model: nn.Module, images: Any, samples: int = 16) -> MonteCarlo:
    """Average class probabilities over several forward passes in which DropKey draws masks as in training.

    Only DropKey is active: dropout, drop path and batch statistics are as in evaluation. The modes are restored
    afterwards. Other threads may evaluate the same model meanwhile: nothing is dropped there. Masks follow torch's
    generator: ``torch.manual_seed`` repeats a result.

    Args:
        model: a classifier with DropKey applied; returns logits (B, classes) or, of a segmentation, (B, classes,
            height, width), by themselves, as ``.logits`` or under "logits".
        images: what the model takes, usually (B, 3, height, width).
        samples: number of passes, 2 or more. The paper does not say how many it used.

    Returns:
        MonteCarlo(mean, std), both float32 (float64 for float64), of the shape of the logits.

    Raises:
        ArgumentError: fewer than 2 samples, or a model that returns something else than logits.
        SiteError: the model has no DropKey, or none that would drop anything, or runs in threads of nn.DataParallel.

    Source: Li et al., CVPR 2023: one of the paper's two ways to align expectations (fine-tuning without drop is the
    other, and does better there).
    """
    samples = check_count("samples, to have a standard deviation,", samples, 2)
    slots = [slot for slot in _drop_slots(check_model(model)) if slot.enabled and slot.is_positive]
    if not slots:
        raise SiteError("monte_carlo needs a model with DropKey applied, enabled and a drop ratio above 0")
    if any(isinstance(module, nn.DataParallel) and len(module.device_ids) > 1 for module in model.modules()):
        raise SiteError("monte_carlo cannot follow nn.DataParallel into its threads: pass the model inside, .module")
    mean = squares = torch.zeros(())
    with _ONE_AT_A_TIME, _sampling(model, slots):
        for count in range(1, samples + 1):
            probabilities = _probabilities(model(images))
            step = probabilities - mean
            mean = mean + step / count
            squares = squares + step * (probabilities - mean)
    return MonteCarlo(mean, (squares / (samples - 1)).sqrt())


def _drop_slots(model: nn.Module) -> list[DropSlot]:
    sites = [site for site in map(site_of, model.modules()) if site is not None]
    return [slot for site in sites for slot in site.slots if isinstance(slot, DropSlot) and slot.samples]


@contextlib.contextmanager
def _sampling(model: nn.Module, slots: list[DropSlot]) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()  # runs around the attention of nn.TransformerEncoderLayer
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    for slot in slots:
        slot.sampling = True
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for slot in slots:
            slot.sampling = False
        for module, training in modes.items():
            module.training = training


def _probabilities(output: Any) -> Tensor:
    logits = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    logits = getattr(logits, "logits", logits)
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 4):
        what = (
            f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        )
        raise ArgumentError(
            f"monte_carlo takes logits (B, classes) or (B, classes, height, width), and this model returns {what}: "
            "wrap it in a module that returns the logits alone"
        )
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
