"""``dropkey tune`` from its first trial to what it says: held-out seeds, going on, trials that diverge."""

import numpy as np
import pytest
import yaml

from dropkey.cli import main
from dropkey.errors import DivergedError
from dropkey.experiments import job as module
from dropkey.runs.interruption import Interrupted

pytest.importorskip("optuna", reason="needs the extra tune")
pytestmark = pytest.mark.usefixtures("few_digits")

COMMAND = ["tune", "--epochs", "1", "--warmup-epochs", "0", "--model-kwargs", "depth=1", "--trials", "4"]
COMMAND += ["--check-seeds", "2"]


def read(path):
    return yaml.safe_load(path.read_text())  # JSON is YAML


@pytest.fixture(scope="module")
def root(tmp_path_factory, few_digits):
    """A search whose third trial diverged, that was stopped in its fourth, and that went on."""
    root, once = tmp_path_factory.mktemp("runs") / "search", module.run_once

    def run_once(config, watch):
        if config.seed == 1002:
            raise DivergedError("the loss is not finite at step 1")
        if config.seed == 1003:
            (root / "under way").write_text(repr(config))
            raise Interrupted
        return once(config, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_once", run_once)
        assert main([*COMMAND, "--output", str(root)]) == 130
    assert main([*COMMAND, "--output", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def found(root):
    return read(root / "found.json")


def test_a_trial_under_way_goes_on_with_its_options(root, found):
    config = read(root / "trials" / "0003" / "config.yaml")
    last = found["trials"][3]
    assert (last["state"], last["number"]) == ("finished", 3)
    assert {name: config[name] for name in last["options"]} == last["options"]
    before = (root / "under way").read_text()
    assert all(f"{name}={value!r}" in before for name, value in last["options"].items())


def test_a_trial_that_diverged_is_not_the_end(found):
    third = found["trials"][2]
    assert (third["state"], third["value"], third["why"]) == ("stopped", None, "the loss is not finite at step 1")
    assert [trial["state"] for trial in found["trials"]] == ["finished", "finished", "stopped", "finished"]


def test_the_first_trials_are_the_defaults_without_and_with_dropkey(found):
    none, dropkey = (trial["options"] for trial in found["trials"][:2])
    assert none == {"regularizer": "none", "lr": 0.003, "drop_path": 0.0, "rand_augment": 0.0}
    assert dropkey["drop_ratio"] == 0.1
    assert dropkey["pattern"] == "element"


def test_the_check_shares_neither_seeds_nor_validation_images_with_the_search(root):
    trials = [read(path) for path in root.glob("trials/*/config.yaml")]
    checks = [read(path) for path in root.glob("check/*/*/*/config.yaml")]
    assert len(checks) == 4
    assert {config["seed"] for config in checks} == {0, 1}
    assert {config["seed"] for config in trials} == {1000, 1001, 1003}
    assert {config["val_share"] for config in trials} == {0.2}
    assert {config["val_share"] for config in checks} == {0.0}
    (fingerprint,) = {read(path)["data_fingerprint"] for path in root.glob("check/*/*/*/summary.json")}
    assert fingerprint not in {read(path)["data_fingerprint"] for path in root.glob("trials/*/summary.json")}


def test_the_best_is_checked_and_the_difference_is_that_of_the_runs(root, found):
    finished = [trial for trial in found["trials"] if trial["state"] == "finished"]
    best = max((t for t in finished if t["options"]["regularizer"] == "dropkey"), key=lambda t: t["value"])
    assert {name: found["best"][name] for name in best["options"]} == best["options"]
    for trial in finished:
        summary = read(root / "trials" / f"{trial['number']:04d}" / "summary.json")
        assert summary["final_val_accuracy"] == trial["value"]
    ends = [
        [read(path)["final_val_accuracy"] for path in sorted(root.glob(f"check/*/{arm}/*/summary.json"))]
        for arm in ("dropkey", "none")
    ]
    assert found["difference"]["mean"] == pytest.approx(np.mean(ends[0]) - np.mean(ends[1]))
    assert (found["use"] == "dropkey") == (found["difference"]["low"] > 0 and ends[0] != ends[1])


def test_run_again_it_trains_nothing_and_says_the_same(root, found, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_once", None)
    assert main([*COMMAND, "--output", str(root)]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs are finished already" in said
    assert found["reading"] in said
    assert f"\n{found['command']}\n" in said
    assert read(root / "found.json") == found


def test_what_was_found_can_be_trained(root, tmp_path):
    assert main(["train", "--config", str(root / "found.yaml"), "--output", str(tmp_path / "run")]) == 0


def test_other_options_are_another_search(root, capsys):
    assert main([*COMMAND, "--lr", "0.002", "--output", str(root)]) == 2
    assert "holds a search with lr unset, not 0.002" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "how long to search: --trials 20"),
        (["--trials", "2", "--regularizer", "none"], "--regularizer none leaves nothing to compare"),
        (["--trials", "2", "--pattern", "element", "--window-size", "3"], "--window-size acts only with"),
        (["--trials", "2", "--seed", "3"], "no option --seed"),
        (["--trials", "2", "--cluster", "auto", "--jobs", "2"], "--jobs acts only with --cluster left out"),
        (["--trials", "2", "--storage", "/nowhere/x.db"], "cannot keep a search in --storage /nowhere/x.db"),
    ],
)
def test_bad_words(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *words]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) == 1


def test_all_diverge(tmp_path, capsys, monkeypatch):
    def diverge(config, watch):
        raise DivergedError("the loss is not finite")

    monkeypatch.setattr(module, "run_once", diverge)
    assert main([*COMMAND, "--output", str(tmp_path)]) == 2
    assert "no trial with a regularizer has ended: more --trials" in capsys.readouterr().err
