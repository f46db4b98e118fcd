"""Results of runs that were never trained, for tests of tables and pages."""

import math

import numpy as np

from dropkey.experiments.comparison import Result
from dropkey.tasks.registry import named_task

__all__ = ["made_results", "results_of"]

MACHINE = {"device": "A CPU, 2 cores", "threads": 1, "dropkey": "1", "torch": "2", "timm": "3", "python": "4"}


def results_of(finals, task="classification", epochs=1, val_images=100):
    """Return results and measures of runs whose headline ends at these values.

    Args:
        finals: for each arm, by label: the value of each seed, by seed.
        task: name of the task.
        epochs: number of rows; the values approach the last from where an untrained network would be.
        val_images: number of validation images.
    """
    measures = named_task(task).measures
    config = named_task(task).resolve({"regularizer": "none", "output": "nowhere", "epochs": epochs})
    return [
        _result(label, seed, final, measures, config, epochs, val_images)
        for label, values in finals.items()
        for seed, final in values.items()
    ], measures


def made_results(effects, task="classification", seeds=4, epochs=40):
    """Return results and measures of runs in which each arm differs from the first by about its effect."""
    generator = np.random.default_rng(0)
    base = generator.normal(0.84, 0.012, seeds)
    scale = 1.0 if named_task(task).measures[0].better == "higher" else 100.0
    finals = {
        label: {seed: scale * (base[seed] + effect + generator.normal(0, 0.004)) for seed in range(seeds)}
        for label, effect in effects.items()
    }
    return results_of(finals, task, epochs)


def _result(label, seed, final, measures, config, epochs, val_images):
    headline = measures[0]
    generator = np.random.default_rng([seed, len(label)])
    rows = []
    for epoch in range(epochs):
        left = math.exp(-6 * (epoch + 1) / epochs) if epoch + 1 < epochs else 0.0
        start = 5.0 if headline.better == "lower" else 0.1
        row = {"epoch": epoch, "train_loss": 2.3 * left + 0.1 * generator.random()}
        for measure in measures:
            value = final * (1 + (start - 1) * left)
            row |= {measure.val: value, measure.clean_train: value * (0.9 if headline.better == "lower" else 1.05)}
        rows.append(row)
    finals = {f"final_val_{measure.name}": rows[-1][measure.val] for measure in measures}
    sites = [{"name": f"blocks.{n}.attn", "block": n, "drop_ratio": 0.3 * (1 - n / 4)} for n in range(4)]
    summary = {
        **finals,
        f"best_val_{headline.name}": final,
        "generalization_gap": headline.gap(rows[-1]),
        "train_seconds": 12.5,
        "num_parameters": 1_234_567,
        "num_train": 900,
        "num_val": val_images,
        "machine": MACHINE,
        "sites": [] if label == "none" else sites,
    }
    return Result(label, seed, summary, rows, config)
