"""--task interaction from the command line: train, resume, evaluate, save, start from a detector, refuse."""

import csv
import json

import pytest
import torch

from dropkey.cli import main
from dropkey.data import digit_pairs as drawn
from dropkey.data import digit_scenes as drawn_scenes
from dropkey.data.pair_sources import load_pair_source
from dropkey.runs.checkpoints import Checkpoints
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.loading import load_run

SMALL = ["--task", "interaction", "--epochs", "2", "--batch-size", "4", "--drop-ratio", "0.2"]


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "_SCENES", {"train": 8, "val": 6})
        patch.setattr(drawn_scenes, "_SCENES", {"train": 8, "val": 4})
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with DropKey in the decoder."""
    root = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, "--where", "decoder", "--output", str(root)]) == 0
    return root


def metrics(root):
    with (root / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["task"], summary["measure"], summary["better"]) == ("interaction", "mAP", "higher")
    assert {site["name"].split(".")[2] for site in summary["sites"]} == {"decoder"}
    assert summary["drop_ratios"][0] == pytest.approx(0.2)
    assert (run / "curves.png").exists()


class PowerCutError(Exception):
    """Nothing is saved after it."""


@pytest.mark.slow
@pytest.mark.parametrize("place", [(0, 1), (1, 1)])
def test_a_run_that_was_cut_off_resumes_to_equal_measures(run, place, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_stop(self, trainer, here):
        save(self, trainer, here)
        if here == place:
            raise PowerCutError

    root = tmp_path / "run"
    command = ["train", *SMALL, "--where", "decoder", "--save-seconds", "0", "--output", str(root)]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(PowerCutError):
            main(command)
    assert main(["train", "--resume", "--output", str(root)]) == 0
    assert metrics(root) == metrics(run)


def test_evaluate_saves_predictions_and_a_page(run, tmp_path, capsys):
    file = tmp_path / "predictions.json"
    assert main(["evaluate", str(run), "--save-predictions", str(file)]) == 0
    said = capsys.readouterr().out
    result = json.loads((run / "evaluation.json").read_text())
    assert "known object, all-point" in said
    assert f"{result['pairs']} true interactions" in said
    final = json.loads((run / "summary.json").read_text())["final"]
    assert result["mAP"] == pytest.approx(final, abs=1e-6)
    source = load_pair_source("digit_pairs")
    assert [image["file_name"] for image in json.loads(file.read_text())] == list(source.val.file_names)
    page = (run / "evaluation.html").read_text()
    assert page.count("<h2>") == sum(len(source.val.pairs(index)) > 0 for index in range(6))
    assert "decoder.layers.2.self_attn" in page
    assert "http" not in page


@pytest.mark.slow
def test_qpic_starts_from_a_run_of_detection(tmp_path, capsys):
    """Both box heads are the detector's, and the classes are found by their names."""
    detector = tmp_path / "detector"
    common = ["--model", "detr_mini", "--epochs", "1", "--batch-size", "4", "--regularizer", "none"]
    assert main(["train", "--task", "detection", *common, "--output", str(detector)]) == 0
    pairs = tmp_path / "pairs"
    command = ["train", "--task", "interaction", *common, "--weights", str(detector), "--lr", "1e-9"]
    assert main([*command, "--output", str(pairs)]) == 0
    before = load_run(RunFolder(detector)).network
    after = load_run(RunFolder(pairs)).network
    torch.testing.assert_close(after.object_class.weight, before.class_labels_classifier.weight)
    for head in (after.subject_box, after.object_box):
        for ours, theirs in zip(head.parameters(), before.bbox_predictor.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "hico"], "unknown data 'hico'"),
        (["--data", "hico_det"], "--data hico_det needs --data-dir"),
        (["--data-dir", "x"], "--data-dir acts only with --data hico_det or vcoco"),
        (["--broken", "skip"], "--broken acts only with --data hico_det or vcoco"),
        (["--model", "yolos_mini"], "--heads pair: yolos_mini has no decoder"),
        (["--heads", "unary"], "--heads must be one of pair, qpic, got unary"),
        (["--where", "cross"], "--where cross"),
        (["--flip", "0.5"], "a mirror image of digit_pairs shows something else"),
        (["--img-size", "100"], "multiples of 32"),
        (["--weights", "nowhere.safetensors"], "no weights file nowhere.safetensors"),
        (["--model", "d_fine_minni"], "did you mean 'd_fine_mini'"),
    ],
)
def test_refusals_in_one_line(options, words, tmp_path, capsys):
    assert main(["train", *SMALL, *options, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
