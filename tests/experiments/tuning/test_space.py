"""What a search varies: options that act, in every task, and none that the user has fixed."""

import pytest

from dropkey.experiments.tuning.space import chosen_by, space_of
from dropkey.runs.options import flag
from dropkey.tasks.registry import TASKS, named_task

optuna = pytest.importorskip("optuna", reason="needs the extra tune")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def drawn(task, given, count=16):
    """What random trials suggest."""
    base = task.resolve({**given, "output": "-"})
    space = space_of(base, given)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    resolve = lambda chosen: task.resolve({**given, **chosen, "output": "-"})  # noqa: E731
    return [chosen_by(study.ask(), space, resolve) for _ in range(count)]


@pytest.mark.parametrize("name", TASKS)
def test_all_that_is_suggested_acts(name):
    task = named_task(name)
    trials = drawn(task, {}, count=8)
    for chosen in trials:
        task.resolve({**chosen, "output": "-"}, chosen)  # refuses what does not act
    assert any(chosen["regularizer"] == "none" for chosen in trials)
    for option in ("drop_ratio", "schedule", "pattern"):
        assert all((option in chosen) == (chosen["regularizer"] == "dropkey") for chosen in trials)
    assert all(("window_size" in chosen) == (chosen.get("pattern") in ("block", "cross")) for chosen in trials)
    assert all("lr" in chosen for chosen in trials)


@pytest.mark.parametrize("given", [{"lr": 1e-3}, {"pattern": "block", "regularizer": "dropkey"}, {"drop_ratio": 0.2}])
def test_what_is_given_is_not_searched(given):
    for chosen in drawn(named_task("classification"), given):
        assert not set(chosen) & set(given)


def test_dropout_has_no_pattern():
    for chosen in drawn(named_task("classification"), {"regularizer": "dropout"}):
        assert "pattern" not in chosen
        assert "drop_ratio" in chosen


def test_values_are_short_and_within_their_range():
    base = named_task("classification").resolve({"output": "-"})
    for chosen in drawn(named_task("classification"), {}):
        assert base.lr / 4.2 <= chosen["lr"] <= base.lr * 4.2
        assert all(float(f"{value:.2g}") == value for value in chosen.values() if isinstance(value, float)), flag("lr")
        assert 0.05 <= chosen.get("drop_ratio", 0.1) <= 0.6
