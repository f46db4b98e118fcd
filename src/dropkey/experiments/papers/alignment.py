"""Aligning training and evaluation."""

import dataclasses

from dropkey.experiments.experiment import Experiment, Row, Table
from dropkey.experiments.papers.arms import dropkey
from dropkey.experiments.readings.aligned import Aligned
from dropkey.experiments.scales import Scale

__all__ = ["alignment"]


def alignment(scale: Scale, data: str, data_dir: str) -> Experiment:
    """Fine-tuning without drop and Monte Carlo against evaluating as trained.

    Claim: both align the expectation in evaluation with that in training, and fine-tuning does it better (DropKey,
    CVPR 2023; neither the number of samples nor of epochs is published).

    All rows train for as many epochs in all; fine-tuning takes its epochs without drop from their end. Everything is
    measured on the same 1,000 of the validation images, since 64 passes over all of them would take most of the time.

    Small: 9 runs of about 90 seconds on one core, 3 of them those of regularizers, and some minutes of passes.
    ``dropkey experiment alignment``; at the paper's scale ``--dry-run`` says what it takes.
    """
    options = scale.options(data, data_dir)
    ratio, tenth = scale.drop_ratio, max(1, int(options["epochs"]) // 10)
    plain = dropkey(ratio)
    tuned = [dropkey(ratio, finetune_epochs=count) for count in (tenth, 3 * tenth)]
    rows = [
        _read(plain, "evaluated as trained", 0),
        *(_read(plain, f"Monte Carlo, K = {samples}", samples) for samples in (4, 16, 64)),
        *(_read(row, f"fine-tuned for {row.options['finetune_epochs']} epochs", 0) for row in tuned),
        _read(tuned[0], f"fine-tuned for {tenth} epochs, then Monte Carlo, K = 16", 16),
    ]
    return Experiment([Table("Against evaluating as trained", rows)], options, seeds=3)


def _read(row: Row, label: str, samples: int) -> Row:
    return dataclasses.replace(row, label=label, readings=(Aligned(samples),))
