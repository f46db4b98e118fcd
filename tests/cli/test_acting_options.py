"""Every option that is given acts or is refused by name: the cases come from the table that help and refusals read."""

import pytest
import yaml

from dropkey.cli import main
from dropkey.cli.compare import CompareOptions
from dropkey.cli.experiment import ExperimentOptions
from dropkey.cli.tune import TuneOptions
from dropkey.cli.verify import VerifyOptions
from dropkey.runs.options import GROUPS, acting, flag, idle_because, options_of
from dropkey.tasks.classification.config import ClassificationConfig
from dropkey.tasks.classification.evaluation import ClassificationEvaluation
from dropkey.tasks.classification.task import TASK

# For each condition of the table, options that break it.
BREAKING = {
    "data": ["--data", "digits"],
    "regularizer other than none": ["--regularizer", "none"],
    "regularizer dropkey": ["--regularizer", "dropout"],
    "pattern": ["--pattern", "token"],
    "lr_schedule": ["--lr-schedule", "cosine"],
    "schedule": ["--schedule", "0.3,0.2,0.1,0"],
    "draws": ["--occlusion", ""],
}
VALUES = {
    "data_dir": ".",
    "drop_ratio": "0.2",
    "schedule": "constant",
    "pattern": "block",
    "window_size": "5",
    "finetune_epochs": "1",
    "mirror": "false",
    "random_crop": "false",
    "lr_drop_epoch": "3",
    "consistency": "1",
    "top_share": "0.5",
    "seed": "3",
}
COMMANDS = {"train": ClassificationConfig, "verify": VerifyOptions}


def breaking(when):
    return BREAKING.get(f"{when.option} {when.words}") or BREAKING[when.option]


def cases():
    for command, config_class in COMMANDS.items():
        for field in options_of(config_class):
            for when in field.metadata["when"]:
                if command == "verify" and when.option == "regularizer":
                    continue  # it has none
                name = ["vit_mini_patch2_8"] if command == "verify" else []
                yield pytest.param(command, name, field.name, when, id=f"{command} {field.name}: {when}")


@pytest.mark.parametrize("in_file", [False, True], ids=["on the line", "in a file"])
@pytest.mark.parametrize(("command", "name", "option", "when"), list(cases()))
def test_an_idle_option_is_refused_by_name(command, name, option, when, in_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [flag(option), VALUES[option]]
    if in_file:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({option: yaml.safe_load(VALUES[option])}))
        words = ["--config", "c.yaml"]
    assert main([command, *name, *words, *breaking(when)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"dropkey: {flag(option)} acts only with "), err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_chains_are_followed(capsys):
    """--window-size needs --pattern block, which needs --regularizer dropkey."""
    assert main(["train", "--regularizer", "dropout", "--pattern", "block", "--window-size", "3"]) == 2
    assert "--pattern acts only with --regularizer dropkey" in capsys.readouterr().err
    assert main(["train", "--regularizer", "none", "--window-size", "3"]) == 2
    assert "--window-size acts only with --pattern block or cross" in capsys.readouterr().err


REFUSED = {
    "a warm-up that fills the run": (["train", "--epochs", "2", "--warmup-epochs", "2"], "must be below --epochs (2)"),
    "fine-tuning alone": (["train", "--epochs", "2", "--finetune-epochs", "2"], "nothing would be dropped in any"),
    "a regularizer that no arm takes": (["compare", "--regularizer", "dropout"], "--regularizer acts in no arm"),
    "a pattern that no arm takes": (["compare", "--arms", "none", "dropout", "--pattern", "block"], "which no arm has"),
    "an arm's own idle option": (
        ["compare", "--arms", "none:drop-ratio=0.2"],
        "0.2': --drop-ratio acts only",
    ),
    "seed of nothing random": (
        ["evaluate", ".", "--occlusion", "", "--seed", "3"],
        "--seed acts only with",
    ),
    "a bench of nothing": (["bench", "attention", "--drop-ratio", "0"], "--drop-ratio must be a number in (0, 1)"),
}


@pytest.mark.parametrize(("command", "named"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_act_elsewhere_is_refused_too(command, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_option_for_all_arms_acts_in_those_that_can(capsys):
    """none and dropout take no pattern, dropkey does; a wrong output folder ends it before anything trains."""
    assert main(["compare", "--pattern", "block", "--output", "/proc/none"]) == 2
    assert "cannot make the folder /proc/none" in capsys.readouterr().err


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("order", [0, 1])
def test_the_command_line_goes_before_the_file_wherever_it_stands(order, tmp_path):
    (tmp_path / "c.yaml").write_text("drop_ratio: 0.5\nepochs: 1\n")
    parts = [["--drop-ratio", "0.25"], ["--config", str(tmp_path / "c.yaml")]]
    words = [word for part in (parts if order else parts[::-1]) for word in part]
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["drop_ratio"], config["epochs"]) == (0.25, 1)


def test_config_of_a_run_lists_what_acts_and_repeats_it():
    config = TASK.resolve({"regularizer": "none", "epochs": 2})
    listed = acting(config)
    assert "drop_ratio" not in listed
    assert "window_size" not in listed
    assert TASK.resolve(listed, asked=listed) == config


@pytest.mark.parametrize(
    "config_class",
    [ClassificationConfig, ClassificationEvaluation, VerifyOptions, CompareOptions, ExperimentOptions, TuneOptions],
)
def test_the_table_is_whole(config_class):
    names = [field.name for field in options_of(config_class)]
    config = config_class()
    for field in options_of(config_class):
        assert field.metadata["group"] in GROUPS
        for when in field.metadata["when"]:
            assert hasattr(config, when.option), (field.name, when)
            assert not when.is_flag or when.option in names
        idle_because(config, field.name)


@pytest.mark.parametrize(
    "command", ["train", "compare", "experiment", "tune", "evaluate", "verify", "bench attention", "bench model"]
)
def test_help_speaks_of_options_and_not_of_python(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--help"])
    assert done.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for word in ("null", "None", "type:", "Literal", "Union", "<class '", "NoneType"):
        assert word not in out
    config_class = COMMANDS.get(command)
    for field in options_of(config_class) if config_class else ():
        conditions = [when for when in field.metadata["when"] if flag(when.option) in out]
        for when in conditions:
            assert f"{when}" in out, field.name


def test_help_shows_the_recipe_of_the_data(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", "imagenet", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "any timm model name (default: deit_small_patch16_224)" in out
    assert "passes over the training data (default: 300)" in out
    assert "peak learning rate of AdamW (default: 0.0005)" in out
