"""Experiments by name: the one place that knows them all."""

import importlib
from collections.abc import Callable

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.experiments.experiment import Experiment
from dropkey.experiments.scales import Scale

__all__ = ["EXPERIMENTS", "WITH_IMAGES", "named_experiment"]

Recipe = Callable[[Scale, str, str], Experiment]  # scale, data, folder of the data

EXPERIMENTS = (
    "regularizers",
    "schedules",
    "structured",
    "alignment",
    "attention_maps",
    "depth",
    "backbones",
    "detection",
    "interaction",
    "mesh",
)
WITH_IMAGES = EXPERIMENTS[:7]  # which train classifiers: they take other images


def named_experiment(name: str) -> Recipe:
    """Return the function of an experiment, or raise an ArgumentError that lists the known ones."""
    if name not in EXPERIMENTS:
        raise ArgumentError(f"no experiment {name!r}{did_you_mean(name, EXPERIMENTS)}; known: {', '.join(EXPERIMENTS)}")
    recipe: Recipe = getattr(importlib.import_module(f"dropkey.experiments.papers.{name}"), name)
    return recipe
