"""Experiments: what they train, that shared arms are trained once, and what is read off runs."""

import dataclasses
import json
import math

import pytest

from dropkey.cli import main
from dropkey.errors import RunError
from dropkey.experiments.cost import Cost, _examples, as_text, dry_run
from dropkey.experiments.experiment import Experiment, Row, Table, said_by
from dropkey.experiments.launcher import Serial
from dropkey.experiments.papers.registry import EXPERIMENTS, WITH_IMAGES, named_experiment
from dropkey.experiments.reading import readings_of
from dropkey.experiments.readings.aligned import Aligned
from dropkey.experiments.readings.attention import Attention, Change
from dropkey.experiments.readings.collapse import SimilarBlocks
from dropkey.experiments.readings.occlusion import Occlusion
from dropkey.experiments.scales import SCALES
from dropkey.experiments.study import Study, config_of
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.loading import load_run
from dropkey.tasks.registry import named_task

TINY = {"data": "digits", "epochs": 1, "batch_size": 40, "train_per_class": 4, "attention_every": 1, "threads": 1}


def tiny(scale, data, data_dir):
    """A claim about tiny runs.

    Claim: nothing.
    """
    options = {"regularizer": "dropkey", "drop_ratio": 0.3}
    none, drop = (
        Row(name, each, (Aligned(),)) for name, each in (("none", {"regularizer": "none"}), ("drop", options))
    )
    read = Row("averaged", options, (Aligned(2, images=30),))
    tables = [Table("First", [none, drop, read]), Table("Second", [drop, none])]
    return Experiment(tables, TINY, seeds=2, readings=(Attention(4), Occlusion(0.5)))


@pytest.fixture
def named_tiny(monkeypatch):
    monkeypatch.setattr("dropkey.cli.experiment.named_experiment", lambda name: tiny)
    monkeypatch.setattr("dropkey.cli.experiment.WITH_IMAGES", ("tiny",))


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", list(SCALES))
def test_every_row_at_every_scale_can_be_trained_as_far_as_options_say(name, scale):
    recipe = named_experiment(name)
    data = "imagenet" if scale == "paper" else "cifar10"
    experiment = recipe(SCALES[scale], data, "somewhere")
    rows = list(experiment.rows())
    assert len({row.arm for row in rows}) == len(rows) >= 2
    for row in rows:
        config = config_of(experiment, row)
        assert config.regularizer == row.options.get("regularizer", "none")
        for option, value in {**experiment.shared, **row.options}.items():
            assert getattr(config, option) == value
    for table in experiment.tables:
        assert len({row.label for row in table.rows}) == len(table.rows) >= 2
        read = {tuple(measure.name for reading in row.readings for measure in reading.measures) for row in table.rows}
        assert len(read) == 1  # else a column would have holes
    claim = said_by(recipe)
    assert claim.words.startswith("Claim: ")
    assert not claim.title.endswith(".")


def test_arms_that_experiments_share_are_trained_once_and_alike():
    """In one pool, equal names of arms stand for equal options: else one experiment would refuse the other's folder."""
    seen = {}
    for name in WITH_IMAGES:
        experiment = named_experiment(name)(SCALES["small"], "cifar10", "")
        for row in experiment.rows():
            config = config_of(experiment, row)
            assert seen.setdefault((experiment.pool, row.arm), config) == config
    vit = [key for key in seen if key[0] == "vit"]
    assert len(vit) < sum(
        len(list(named_experiment(name)(SCALES["small"], "cifar10", "").rows()))
        for name in ("regularizers", "schedules", "structured", "alignment", "attention_maps")
    )


def test_other_images_have_other_numbers_per_class():
    shared = named_experiment("schedules")(SCALES["small"], "cifar100", "").shared
    assert (shared["data"], shared["train_per_class"]) == ("cifar100", 20)


def test_tables_are_what_the_runs_say_and_an_arm_is_trained_once(named_tiny, tmp_path, capsys):
    words = ["experiment", "tiny", "--output", str(tmp_path), "--seeds", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "A claim about tiny runs" in out
    assert "4/4" in out
    assert "5/4" not in out
    runs = sorted(tmp_path.glob("vit/*/seed-*/summary.json"))
    assert len(runs) == 4
    saved = json.loads((tmp_path / "tiny.json").read_text())
    assert [table["title"] for table in saved["tables"]] == ["First", "Second"]
    first, second = saved["tables"]
    assert [row["label"] for row in first["rows"]] == ["none", "drop", "averaged"]
    assert [row["label"] for row in second["rows"]] == ["drop", "none"]
    summaries = {
        arm: [json.loads((tmp_path / "vit" / arm / f"seed-{seed}" / "summary.json").read_text()) for seed in (0, 1)]
        for arm in ("none", "dropkey-drop-ratio=0.3")
    }
    for row, arm in zip(first["rows"], ("none", "dropkey-drop-ratio=0.3"), strict=False):
        expected = sum(summary["final_val_accuracy"] for summary in summaries[arm]) / 2
        assert row["accuracy"] == pytest.approx(expected, abs=1e-5)
    drop = summaries["dropkey-drop-ratio=0.3"]
    assert first["accuracy_by_seed"]["drop"] == {
        str(seed): pytest.approx(drop[seed]["final_val_accuracy"], abs=1e-5) for seed in (0, 1)
    }
    none = summaries["none"]
    difference = sum(drop[seed]["final_val_accuracy"] - none[seed]["final_val_accuracy"] for seed in (0, 1)) / 2
    assert first["rows"][1]["difference"]["mean"] == pytest.approx(difference, abs=1e-5)
    assert second["rows"][1]["difference"]["mean"] == pytest.approx(-difference, abs=1e-5)
    assert "Second" in (tmp_path / "tiny.html").read_text()
    document = (tmp_path / "tiny.md").read_text()
    assert document.startswith(f"`dropkey experiment tiny --output {tmp_path} --seeds 2`")
    assert "**Second**" in document
    assert document.count("| none |") == 2
    assert main(words) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().out


def test_readings_are_of_the_trained_model_and_kept(tmp_path):
    experiment = tiny(SCALES["small"], "digits", "")
    study = Study(experiment, tmp_path, 1)
    study.run(Serial(), lambda line: None)
    folder = study.comparison.folder("dropkey:drop-ratio=0.3", 0)
    trained = load_run(folder)
    summary = folder.read_summary()
    plain = Aligned(0, images=10_000).read(trained, folder)
    assert plain["accuracy"] == pytest.approx(summary["final_val_accuracy"], abs=1e-6)
    assert plain["loss"] == pytest.approx(summary["final_val_loss"], abs=1e-5)
    averaged = Aligned(2, images=10_000).read(trained, folder)
    assert averaged["loss"] != plain["loss"]
    assert averaged == Aligned(2, images=10_000).read(trained, folder)
    attention = Attention(4).read(trained, folder)
    assert 0 < attention["entropy"] <= math.log(16)
    assert 1 / 16 <= attention["peak"] <= 1
    assert Change().read(trained, folder) == {"entropy_change": 0.0, "peak_change": 0.0}  # a single look
    blocks = SimilarBlocks(images=4).read(trained, folder)
    assert 0 <= blocks["similar_blocks"] <= 3
    assert blocks["similarity_of_neighbors"] <= 1
    kept = folder.root / "readings" / "attention-4-images.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "entropy": 1.25}))
    assert readings_of(folder, [Attention(4)])["entropy"] == 1.25
    kept.write_text("{")
    with pytest.raises(RunError, match="delete it, and it is measured again"):
        readings_of(folder, [Attention(4)])


def test_a_run_that_never_looked_at_attention_is_named(tmp_path):
    with pytest.raises(RunError, match="attention_every"):
        Change().read(None, RunFolder(tmp_path))


def test_dry_run_counts_what_a_hand_count_gives(named_tiny, capsys):
    """vit_mini_patch2_8: patches of 12 numbers, 16 tokens of width 64, 4 blocks, mlp ratio 2, 10 classes."""
    assert main(["experiment", "tiny", "--dry-run", "--seeds", "3"]) == 0
    out = capsys.readouterr().out
    block = 2 * 16 * 64 * (3 * 64 + 64 + 2 * 128) + 2 * 2 * 16 * 16 * 64
    count = 2 * 16 * 12 * 64 + 4 * block + 2 * 64 * 10
    assert f"{count / 1e9:.2f}" in out
    assert f"{4 * 10 * 1 * 3:,}" in out  # images a class, classes, epochs, seeds
    assert "0.0 GPU hours" in out or "in all 0 GPU hours" in out


def test_images_that_nobody_has_counted_are_not_guessed():
    """HUMBI is read as it lies there; the number of sampled bodies is an option of another source."""
    assert Cost("none", 1, 1.0, None).gpu_hours is None
    assert _examples(named_task("mesh").resolve({"data": "bodies", "bodies": 50})) == 50
    assert _examples(named_task("mesh").resolve({"data": "humbi", "data_dir": "humbi"})) is None
    assert "in all: only the data know" in as_text([Cost("none", 1, 1.0, None)])


@pytest.mark.parametrize(("name", "images"), [("detection", 117_266), ("interaction", 37_633)])
def test_dry_run_of_a_task_gives_every_row_a_gradient(name, images):
    """At the options of the paper's scale but for the size of its images."""
    experiment = named_experiment(name)(SCALES["paper"], "cifar10", "")
    small = dataclasses.replace(experiment, shared={**experiment.shared, "img_size": "64x96"})
    first, *others = dry_run(small, 3)
    assert first.examples == images * 150 * 3
    assert [cost.parameters for cost in others] == [first.parameters] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["regularizer"], "no experiment 'regularizer'; did you mean 'regularizers'"),
        (["mesh", "--data", "cifar100"], "--data acts in regularizers"),
        (["schedules", "--data", "cifar1000"], "unknown data 'cifar1000'"),
        (["schedules", "--data", "folder"], "--data folder needs --data-dir"),
        (["schedules", "--scale", "large"], "--scale must be"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_list_names_all_with_their_claims(capsys):
    assert main(["experiment", "list"]) == 0
    out = capsys.readouterr().out
    for name in EXPERIMENTS:
        assert f"{name}: " in out
    assert out.count("Claim: ") == len(EXPERIMENTS)


def test_a_table_without_the_row_that_others_are_compared_with_is_left_out(tmp_path, monkeypatch):
    """Else another row would silently take its place."""
    study = Study(tiny(SCALES["small"], "digits", ""), tmp_path, 1)
    monkeypatch.setattr(study.comparison, "run", lambda launcher, say: study.comparison.diverged.update({"none": None}))
    monkeypatch.setattr(study, "_result", lambda row, seed: row.label)
    said = []
    (left,) = study.run(Serial(), said.append)
    assert (left.table.title, left.results) == ("Second", ["drop"])
    assert "left out: First, since the row that the others are compared with diverged" in said
