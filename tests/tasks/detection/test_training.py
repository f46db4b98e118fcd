"""A detection run from the command line: trained, resumed, compared, evaluated; and every option acts."""

import csv
import json

import pytest
import torch

from dropkey.cli import main
from dropkey.runs import training
from dropkey.runs.checkpoints import Checkpoints

pytestmark = [pytest.mark.usefixtures("few_scenes"), pytest.mark.filterwarnings("ignore::UserWarning")]

PLAIN = ["--task", "detection", "--epochs", "2", "--batch-size", "8", "--img-size", "64"]
OPTIONS = {
    "flip": "1.0",
    "photometric": "1.0",
    "zoom-out": "1.0",
    "iou-crop": "1.0",
    "where": "decoder",
    "regularizer": "dropout",
    "drop-ratio": "0.5",
    "lr-schedule": "step",
    "backbone-lr": "0.01",
    "weight-decay": "0.5",
    "clip-grad": "0.1",
    "accumulate": "2",
    "ema": "0.5",
    "precision": "bf16-mixed",
}
OF_EVERY_TASK = ("clip-grad", "accumulate", "ema", "precision")


def train(tiny, output, *more):
    return main(["train", *PLAIN, "--model", str(tiny), *more, "--output", str(output)])


def rows(root):
    return list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))


def measured(root):
    names = ("train_loss", "val_loss", "val_mAP", "val_AP50", "clean_train_mAP")
    return [tuple(row[name] for name in names) for row in rows(root)]


@pytest.fixture(scope="module")
def plain(tiny, few_scenes, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "plain"
    assert train(tiny, root) == 0
    return root


def test_a_run_says_what_was_measured(plain):
    summary = json.loads((plain / "summary.json").read_text())
    assert [summary[key] for key in ("task", "measure", "better", "unit")] == ["detection", "mAP", "higher", "fraction"]
    assert summary["final"] == float(rows(plain)[-1]["val_mAP"])
    assert summary["final_val_AP50"] == float(rows(plain)[-1]["val_AP50"])
    assert len(summary["sites"]) == 3
    assert list(plain.glob("events.out.tfevents*"))
    assert (plain / "curves.png").exists()


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Those of ``plain`` are drawn; each drawing is a quarter of such a run."""
    monkeypatch.setattr(training, "draw_curves", lambda *arguments: None)


def test_options_of_every_task(plain, tiny, tmp_path):
    """All in one run; which of them does what is for tests/runs, and for the slow test below."""
    given = [part for name in OF_EVERY_TASK for part in (f"--{name}", OPTIONS[name])]
    assert train(tiny, tmp_path / "run", "--epochs", "1", *given) == 0
    assert measured(tmp_path / "run")[-1] != measured(plain)[0]


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_acts(option, plain, tiny, tmp_path):
    """The first epoch alone is compared, where it differs there."""
    epochs = [] if option == "lr-schedule" else ["--epochs", "1", "--lr-schedule", "step", "--lr-drop-epoch", "0"]
    assert train(tiny, tmp_path / "run", *epochs, f"--{option}", OPTIONS[option]) == 0
    assert measured(tmp_path / "run")[-1] != measured(plain)[len(rows(tmp_path / "run")) - 1]


class CrashError(Exception):
    pass


@pytest.mark.parametrize("crash_batch", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_run_resumes_exactly(crash_batch, plain, tiny, tmp_path, monkeypatch):
    def on_train_batch_start(self, trainer, pl_module, data, batch_idx):
        self.seconds = 0.0  # save whenever it is allowed
        if (trainer.current_epoch, batch_idx) == (1, crash_batch):
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_start", on_train_batch_start)
        with pytest.raises(CrashError):
            train(tiny, tmp_path / "run")
    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 0
    assert measured(tmp_path / "run") == measured(plain)


def test_what_a_run_found_is_measured_again(plain, tmp_path, capsys):
    """Evaluation of the last checkpoint finds what the last epoch did, and its file gives the same to pycocotools."""
    predictions = tmp_path / "predictions.json"
    assert main(["evaluate", str(plain), "--save-predictions", str(predictions)]) == 0
    result = json.loads((plain / "evaluation.json").read_text())
    assert result["mAP"] == pytest.approx(float(rows(plain)[-1]["val_mAP"]), abs=2e-6)
    assert result["AP50"] == pytest.approx(float(rows(plain)[-1]["val_AP50"]), abs=2e-6)
    assert list(result["classes"]) == [str(digit) for digit in range(10)]
    found = json.loads(predictions.read_text())
    assert set(found[0]) == {"image_id", "category_id", "bbox", "score"}
    assert {row["image_id"] for row in found} == set(range(8))
    page = (plain / "evaluation.html").read_text()
    assert page.count('<figure class="picture">') == 12
    assert "Precision over recall" in page
    out = capsys.readouterr().out
    assert "AP50" in out
    assert "8 images" in out


def test_arms_are_compared(tiny, tmp_path, capsys):
    output = tmp_path / "c"
    command = ["compare", *PLAIN, "--epochs", "1", "--model", str(tiny), "--seeds", "1", "--output", str(output)]
    assert main([*command, "--arms", "none", "dropkey:drop-ratio=0.3:where=decoder"]) == 0
    out = capsys.readouterr().out
    assert "mAP" in out
    assert (output / "report.html").exists()


def test_weights_of_a_run(plain, tiny, tmp_path, capsys):
    assert train(tiny, tmp_path / "run", "--weights", str(plain), "--lr", "1e-9", "--epochs", "1") == 0
    assert rows(tmp_path / "run")[0]["val_mAP"] == pytest.approx(rows(plain)[-1]["val_mAP"])
    assert "starts anew" not in capsys.readouterr().out


def test_weights_of_transformers_with_other_classes(tiny, tmp_path, capsys):
    from dropkey.tasks.detection.network import build_detector

    torch.manual_seed(1)
    network = build_detector(str(tiny), 4, (64, 64))
    network.save_pretrained(tmp_path / "saved")
    assert train(tmp_path / "saved", tmp_path / "run", "--weights", str(tmp_path / "saved"), "--epochs", "1") == 0
    assert "what tells classes apart starts anew" in capsys.readouterr().out


def test_weights_of_another_model(tiny, plain, tmp_path, capsys):
    assert main(["train", *PLAIN, "--weights", str(plain), "--output", str(tmp_path / "run")]) == 2
    assert "does not fit the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--img-size", "100"], "multiples of 32, such as 96 for 100"),
        (["--img-size", "big"], "--img-size takes a side in pixels, or HEIGHTxWIDTH"),
        (["--model", "d_fine_mimi"], "did you mean 'd_fine_mini'"),
        (["--model", "d_fine_mini", "--pretrained"], "d_fine_mini has no pretrained weights"),
        (["--where", "decoder,cros"], "got 'cros'; did you mean 'cross'"),
        (["--where", "cross"], "has none with keys to drop"),
        (["--data", "cocoo"], "did you mean 'coco'"),
        (["--data", "coco"], "--data coco needs --data-dir"),
        (["--data-dir", "x"], "--data-dir acts only with --data coco or yolo"),
        (["--weights", "nothing.pt"], "no weights file nothing.pt"),
        (["--model", "yolos_mini", "--backbone-lr", "1e-5"], "yolos_mini has no backbone"),
        (["--lr-drop-epoch", "1"], "--lr-drop-epoch acts only with --lr-schedule step"),
        (["--lr-schedule", "step", "--lr-drop-epoch", "2"], "must be below --epochs"),
        (["--flip", "1.5"], "--flip must be a number in [0, 1]"),
    ],
)
def test_bad_options_are_one_line(more, named, tmp_path, capsys):
    assert main(["train", *PLAIN, *more, "--output", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_a_model_that_is_no_detector(tmp_path, capsys):
    import transformers

    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    assert main(["train", *PLAIN, "--model", str(tmp_path / "vit"), "--output", str(tmp_path / "run")]) == 2
    assert "is a vit, and detection takes detr, conditional_detr" in capsys.readouterr().err
