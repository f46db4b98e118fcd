"""``dropkey evaluate`` from the outside."""

import csv
import json

import pytest
import torch

from dropkey.cli import main
from dropkey.runs.checkpoints import read_checkpoint
from dropkey.tasks.classification import evaluation

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    root = tmp_path_factory.mktemp("runs") / "run"
    command = ["train", "--epochs", "3", "--warmup-epochs", "1", "--batch-size", "24", "--drop-ratio", "0.4"]
    assert main([*command, "--schedule", "constant", "--output", str(root)]) == 0
    return root


def test_agrees_with_the_run(run, capsys):
    assert main(["evaluate", str(run), "--monte-carlo", "4", "--occlusion", "0,1"]) == 0
    result, summary = (json.loads((run / name).read_text()) for name in ("evaluation.json", "summary.json"))
    assert result["accuracy"] == pytest.approx(summary["final_val_accuracy"], abs=1e-6)
    assert result["loss"] == pytest.approx(summary["final_val_loss"], abs=1e-5)
    assert result["occlusion"]["0"] == result["accuracy"]
    assert result["images"] == 40
    assert result["images_per_second"] > 0
    assert 0 <= result["calibration_error"] <= 1
    assert result["monte_carlo"]["loss"] != result["loss"]
    out = capsys.readouterr().out
    assert "Monte Carlo, 4 passes" in out
    assert "100% of patches hidden" in out


def test_same_seed_same_numbers(run, tmp_path):
    results = []
    for count in range(2):
        output = tmp_path / f"{count}.json"
        assert main(["evaluate", str(run), "--monte-carlo", "3", "--output", str(output)]) == 0
        results.append(json.loads(output.read_text()) | {"images_per_second": None})
    assert results[0] == results[1]


def test_a_timm_name_with_the_weights_of_the_run_gives_the_same(run, tmp_path):
    torch.save(read_checkpoint(run / "checkpoints/last.ckpt"), tmp_path / "w.pth")
    output = tmp_path / "e.json"
    command = ["evaluate", "vit_mini_patch2_8", "--weights", str(tmp_path / "w.pth"), "--output", str(output)]
    assert main(command) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(output.read_text())["accuracy"] == pytest.approx(summary["final_val_accuracy"], abs=1e-6)


def test_weights_of_other_classes_are_named(run, tmp_path, capsys):
    checkpoint = read_checkpoint(run / "checkpoints/last.ckpt")
    torch.save({**checkpoint, "classes": list("abcdefghij")}, tmp_path / "w.pth")
    assert main(["evaluate", "vit_mini_patch2_8", "--weights", str(tmp_path / "w.pth")]) == 2
    assert "was trained on 10 classes" in capsys.readouterr().err


def test_monte_carlo_without_a_regularizer_is_refused_first(tmp_path, monkeypatch, capsys):
    command = ["train", "--epochs", "1", "--regularizer", "none", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    monkeypatch.setattr(evaluation, "evaluate", None)
    assert main(["evaluate", str(tmp_path / "run"), "--monte-carlo", "4"]) == 2
    assert "--monte-carlo averages over what a regularizer drops" in capsys.readouterr().err


def test_checkpoints_and_predictions(run, tmp_path):
    """The last and the best checkpoint give their own accuracies, and the predictions count up to them."""
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert json.loads((run / "summary.json").read_text())["best_epoch"] == accuracies.index(max(accuracies))
    for which, expected in (("last", accuracies[-1]), ("best", max(accuracies))):
        out, file = tmp_path / f"{which}.json", tmp_path / f"{which}.csv"
        command = ["evaluate", str(run), "--checkpoint", which, "--output", str(out), "--save-predictions", str(file)]
        assert main(command) == 0
        assert json.loads(out.read_text())["accuracy"] == pytest.approx(expected, abs=1e-6)
        predictions = list(csv.DictReader(file.read_text().splitlines()))
        right = sum(row["label"] == row["predicted"] for row in predictions)
        assert right / len(predictions) == pytest.approx(expected, abs=1e-6)
        for row in predictions:
            probabilities = {name[2:-1]: float(row[name]) for name in row if name.startswith("p(")}
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
            assert max(probabilities, key=probabilities.get) == row["predicted"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["nowhere"], "timm has no model 'nowhere'"),
        (["runs/nowhere"], "no folder runs/nowhere: give the folder of a run"),
        (["vit_mini_patch2_8"], "--weights FILE or --pretrained"),
        (["vit_mini_patch2_8", "--weights", "none.pth"], "no weights file"),
        (["vit_mini_patch2_8", "--checkpoint", "best"], "--checkpoint acts only with the folder of a run"),
        (["RUN", "--data", "cifar10"], "--data acts only with the name of a model"),
        (["RUN", "--weights", "none.pth"], "--weights acts only with the name of a model"),
        (["RUN", "--pretrained"], "--pretrained acts only with the name of a model"),
        (["RUN", "--img-size", "16"], "--img-size acts only with the name of a model"),
        (["RUN", "--regularizer", "dropkey"], "--regularizer acts only with the name of a model"),
        (["RUN", "--drop-ratio", "0.3"], "--drop-ratio acts only with the name of a model"),
        (["RUN", "--monte-carlo", "1"], "--monte-carlo must be 2 or more"),
        (["RUN", "--occlusion", "half"], "--occlusion"),
        (["RUN", "--occlusion", "2"], "--occlusion shares must be in [0, 1]"),
        (["RUN", "--output", "/proc/none/e.json"], "cannot write /proc/none/e.json"),
    ],
)
def test_errors(run, command, named, capsys):
    assert main(["evaluate", *[str(run) if part == "RUN" else part for part in command]]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert named in err


def test_a_later_evaluation_keeps_what_an_earlier_one_measured(run, tmp_path, capsys):
    """Of the same weights on the same data; those of another checkpoint are not mixed in."""
    out = tmp_path / "out.json"
    command = ["evaluate", str(run), "--occlusion", "", "--output", str(out)]
    assert main([*command, "--monte-carlo", "3"]) == 0
    first = json.loads(out.read_text())
    assert main(command) == 0
    assert "kept from an earlier evaluation of the same weights: monte_carlo" in capsys.readouterr().out
    assert json.loads(out.read_text())["monte_carlo"] == first["monte_carlo"]
    out.write_text(json.dumps({**first, "evaluated": {**first["evaluated"], "weights_crc32": "00000000"}}))
    assert main(command) == 0
    assert "monte_carlo" not in json.loads(out.read_text())
    out.write_text("{")  # cut short
    assert main(command) == 0
    assert json.loads(out.read_text())["accuracy"] == first["accuracy"]
