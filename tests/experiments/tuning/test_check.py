"""What is said of a difference, and the command that trains what was found."""

import math
import shlex

import pytest

from dropkey.cli.options import Parser
from dropkey.experiments.statistics import Difference
from dropkey.runs.measure import Measure
from dropkey.tasks.registry import named_task

pytest.importorskip("optuna", reason="needs the extra tune")

from dropkey.experiments.tuning.check import command, finding

HIGHER, LOWER = Measure("accuracy", "fraction", "higher"), Measure("MPJPE", "mm", "lower")


@pytest.mark.parametrize(
    ("difference", "measure", "use"),
    [
        (Difference(0.02, 0.01, 0.03), HIGHER, True),
        (Difference(0.02, -0.01, 0.05), HIGHER, False),
        (Difference(-0.02, -0.03, -0.01), HIGHER, False),
        (Difference(-0.02, -0.03, -0.01), LOWER, True),
        (Difference(0.02, 0.01, 0.03), LOWER, False),
        (Difference(0.02, math.nan, math.nan), HIGHER, False),  # one seed, or seeds that differ by the same
        (Difference(0.0, 0.0, 0.0), HIGHER, False),
    ],
)
def test_use_it_only_where_the_interval_says_so(difference, measure, use):
    found = finding(difference, measure)
    assert found.use is use
    assert found.words.startswith("use it" if use else "use none")


def test_worse_is_said():
    assert "worse" in finding(Difference(-0.02, -0.03, -0.01), HIGHER).words
    assert "worse" in finding(Difference(0.02, 0.01, 0.03), LOWER).words


@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": "dropkey", "drop_ratio": 0.15, "schedule": "constant", "pattern": "block", "window_size": 5},
        {"regularizer": "none", "lr": 0.0012, "model_kwargs": "depth=2,embed_dim=24", "drop_path": 0.1},
        {"data": "folder", "data_dir": "/my images/it's", "mirror": False, "lr": 3e-05},
    ],
)
def test_command_gives_the_options_back(options):
    program, subcommand, *words = shlex.split(command(options))
    assert (program, subcommand) == ("dropkey", "train")
    task = named_task("classification")
    parser = Parser("dropkey train", "")
    parser.add_options(task.config_class)
    given = parser.read(words)
    assert task.resolve({**given.values, "output": "-"}, given.asked) == task.resolve({**options, "output": "-"})
