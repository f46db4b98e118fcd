"""Trials as Optuna keeps them: reported, pruned, told, opened by another process."""

import pickle
import time

import pytest

from dropkey.errors import RunError
from dropkey.experiments.job import Stopped
from dropkey.runs.measure import Measure

optuna = pytest.importorskip("optuna", reason="needs the extra tune")

from dropkey.experiments.tuning.budget import Budget  # noqa: E402
from dropkey.experiments.tuning.trials import Storage, Trials, Watching  # noqa: E402

EPOCHS = 6


@pytest.fixture(params=["search.db", "search.log"])
def place(request, tmp_path):
    return str(tmp_path / request.param)


def trials_in(place, better="higher"):
    return Trials(Storage(place, "test", Measure("score", "", better), EPOCHS))


def begun(trials, tmp_path):
    return trials.ask(lambda trial: {"lr": trial.suggest_float("lr", 0.0, 1.0)}, lambda number: tmp_path / str(number))


def row(epoch, score):
    return {"epoch": epoch, "val_score": score}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_what_falls_behind_is_stopped_and_what_leads_is_not(better, tmp_path):
    place = str(tmp_path / "search.log")
    sign = 1 if better == "higher" else -1
    trials = trials_in(place, better)
    for _ in range(5):
        trial = begun(trials, tmp_path)
        Watching(trials.storage, trial.number)(row(2, sign * 0.5))
        trials.finish(trial.number, sign * 0.5)
    good, bad = begun(trials, tmp_path), begun(trials, tmp_path)
    for epoch in range(EPOCHS):
        Watching(trials.storage, good.number)(row(epoch, sign * 0.6))
    watching = pickle.loads(pickle.dumps(Watching(trials.storage, bad.number)))  # as another process gets it
    watching(row(0, sign * 0.4))
    watching(row(1, sign * 0.4))  # a third of the epochs is not judged
    with pytest.raises(Stopped, match="behind the others after 3 of 6 epochs"):
        watching(row(2, sign * 0.4))
    trials.stop(bad.number, "behind")
    trials.finish(good.number, sign * 0.6)
    again = {trial.number: trial for trial in trials_in(place, better).all()}
    assert (again[good.number].state, again[good.number].value) == ("finished", sign * 0.6)
    assert (again[bad.number].state, again[bad.number].value, again[bad.number].why) == (
        "stopped",
        sign * 0.4,
        "behind",
    )


def test_a_run_that_goes_on_may_report_an_epoch_twice(place, tmp_path):
    trials = trials_in(place)
    trial = begun(trials, tmp_path)
    for epoch in (0, 1, 1, 2):
        Watching(trials.storage, trial.number)(row(epoch, 0.1))
    assert trials.all()[0].value == 0.1


def test_out_of_time(place, tmp_path):
    trials = trials_in(place)
    trial = begun(trials, tmp_path)
    with pytest.raises(Stopped, match="out of time after 1 of 6 epochs"):
        Watching(trials.storage, trial.number, until=time.time() - 1)(row(0, 0.1))


def test_a_search_that_goes_on_draws_anew(place, tmp_path):
    first = begun(trials_in(place), tmp_path)
    second = begun(trials_in(place), tmp_path)  # by another process
    assert first.options != second.options
    assert [trial.number for trial in trials_in(place).all()] == [0, 1]


def test_diverged_at_once(place, tmp_path):
    trials = trials_in(place)
    trials.stop(begun(trials, tmp_path).number, "the loss is not finite")
    assert trials.all()[0].value is None
    begun(trials, tmp_path)


def test_importance_finds_what_matters(tmp_path):
    trials = trials_in(str(tmp_path / "search.log"))
    for count in range(12):
        trial = trials.ask(
            lambda trial: {name: trial.suggest_float(name, 0.0, 1.0) for name in ("lr", "drop_path")},
            lambda number: tmp_path / str(number),
        )
        assert count != 4 or trials.importance(["lr", "drop_path"]) == {}
        trials.finish(trial.number, trial.options["lr"] + 0.01 * trial.options["drop_path"])
    shares = trials.importance(["lr", "drop_path"])
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("place", ["/nowhere/search.db", "nosuch://x", "/nowhere/search.log"])
def test_storage_that_cannot_be(place, tmp_path):
    with pytest.raises(RunError, match=r"cannot keep a search in --storage"):
        trials_in(place).all()


def test_budget_counts_trials_and_time_of_earlier_commands():
    assert Budget(trials=2).allows(1)
    assert not Budget(trials=2).allows(2)
    assert Budget(hours=1, spent=3500).allows(1000)
    assert not Budget(hours=1, spent=3700).allows(0)
    assert not Budget(hours=1, spent=3500, reserve=200).allows(0)
    assert not Budget(trials=2, hours=1).allows(2)
