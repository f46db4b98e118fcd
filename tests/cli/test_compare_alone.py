"""``dropkey compare`` without an option of training."""

import yaml

from dropkey.cli import compare, main
from dropkey.cli.compare import CompareOptions
from dropkey.tasks.classification.task import TASK


def test_it_trains_on_few_digits_and_says_so(tmp_path, monkeypatch, capsys):
    few = {"train_per_class": 3, "val_share": 0.7, "epochs": 1, "evaluate_every": 1, "drop_ratio": 0.5}
    monkeypatch.setattr(compare, "_FEW_DIGITS", few)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--arms", "none", "dropkey", "--seeds", "1", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "no option of training, so on few digits: --train-per-class 3 --val-share 0.7 --epochs 1" in out
    config = yaml.safe_load((tmp_path / "runs/compare-digits/dropkey/seed-0/config.yaml").read_text())
    assert {name: config[name] for name in few} == few
    assert main(["compare", "--epochs", "1", "--arms", "none", "--seeds", "1", "--output", "other"]) == 0
    assert "few digits" not in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "other/none/seed-0/config.yaml").read_text())
    assert config["train_per_class"] == 0


def test_what_it_trains_by_itself_can_be_trained():
    config = TASK.resolve({**compare._FEW_DIGITS, "regularizer": "dropkey"}, set(compare._FEW_DIGITS))
    assert config.epochs % config.evaluate_every == 0
    assert len(TASK.load_source(config).val) > 1000
    assert CompareOptions().arms == ("none", "dropout", "dropkey")
