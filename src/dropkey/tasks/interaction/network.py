"""A detector with heads for pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dropkey.data.paired_images import PairSource
from dropkey.errors import ArgumentError
from dropkey.tasks.detection.network import build_detector, family_of
from dropkey.tasks.interaction.config import InteractionConfig
from dropkey.tasks.interaction.pair_head.network import PairHeadNetwork
from dropkey.tasks.interaction.qpic.d_fine import QpicDFine
from dropkey.tasks.interaction.qpic.detr import QpicDetr
from dropkey.tasks.interaction.weights import start_from_detector

__all__ = ["build_pair_network"]

_GUESSES = 10


def build_pair_network(
    config: InteractionConfig, source: PairSource, *, fresh: bool = True
) -> tuple[nn.Module, list[str]]:
    """Return the network that the options name, and what the user should know of it, one line each.

    Args:
        config: of the run.
        source: its classes and verbs.
        fresh: False where other weights will be loaded.

    Raises:
        ArgumentError: no such model, or heads that it cannot have.
        RunError: weights that do not fit.
    """
    missing_class = int(config.heads == "qpic" and source.may_miss)
    num_labels = len(source.classes) + missing_class
    detector = build_detector(config.model, num_labels, config.sides, pretrained=config.pretrained, fresh=fresh)
    starts = bool(config.weights) and fresh
    notes = start_from_detector(detector, Path(config.weights), source.classes) if starts else []
    return _with_heads(detector, config, source), notes


def _with_heads(detector: Any, config: InteractionConfig, source: PairSource) -> nn.Module:
    if config.heads == "pair":
        others = np.flatnonzero(np.asarray(source.possible).any(0)).tolist()
        if not hasattr(detector.config, "d_model"):
            raise ArgumentError(f"--heads pair: {config.model} has no decoder whose queries could be paired")
        guesses = 1 if len(source.roles) else _GUESSES  # roles name no class: a second guess would be a second find
        return PairHeadNetwork(detector, len(source.classes), len(source.verbs), source.subject, others, guesses)
    family = family_of(detector).name
    if family not in _QPIC:
        raise ArgumentError(
            f"--heads qpic takes {' or '.join(_QPIC)}, and {config.model} is a {family}: leave out --heads"
        )
    return _QPIC[family](detector, source)


def _on_detr(detector: Any, source: PairSource) -> nn.Module:
    return QpicDetr(detector, len(source.classes), len(source.verbs))


def _on_d_fine(detector: Any, source: PairSource) -> nn.Module:
    return QpicDFine(detector, len(source.classes), len(source.verbs))


_QPIC: dict[str, Callable[[Any, PairSource], nn.Module]] = {"detr": _on_detr, "d_fine": _on_d_fine}
