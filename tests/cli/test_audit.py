"""``dropkey audit`` from the outside."""

import pytest

from dropkey.cli import main


def test_a_model_that_does_what_it_says(capsys):
    assert main(["audit", "vit_mini_patch2_8", "--drop-path", "0.1", "--model-kwargs", "attn_drop_rate=0.2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "VisionTransformer, untrained, on images (4, 3, 8, 8)\nVisionTransformer: 10 places that drop"
    )
    assert "no problem" in out
    assert "p 0.2" in out


def test_a_model_without_rates(capsys):
    assert main(["audit", "vit_mini_patch2_8"]) == 0
    assert "Nothing in it drops" in capsys.readouterr().out


def test_a_problem_of_a_library_is_exit_code_1(capsys):
    """timm's CoaT makes dropout modules that it never calls."""
    assert main(["audit", "coat_lite_tiny", "--img-size", "64", "--model-kwargs", "attn_drop_rate=0.1"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM  serial_blocks{1-4}.{0-1}.factoratt_crpe.attn_drop (8): never runs" in out


def test_a_run_and_its_dropkey(few_digits, tmp_path, capsys):
    run = str(tmp_path / "run")
    options = ["--epochs", "1", "--workers", "0", "--drop-ratio", "0.3", "--schedule", "constant", "--drop-path", "0.1"]
    assert main(["train", "--output", run, *options]) == 0
    capsys.readouterr()
    assert main(["audit", run]) == 0
    out = capsys.readouterr().out
    assert f"trained in {run}, on images (4, 3, 8, 8)" in out
    assert "blocks.{0-3}.attn (4)" in out
    assert "DropKey" in out
    assert "drop path" in out
    assert main(["audit", run, "--img-size", "16"]) == 2
    assert "--img-size acts only with the name of a model" in capsys.readouterr().err


BAD = {
    "vit_mini_patch2_9": "no model 'vit_mini_patch2_9'",
    "vit_mini_patch2_8 --batch-size 1": "--batch-size must be 2 or more",
    "vit_mini_patch2_8 --data-dir x": "--data-dir acts only with a run",
    "vit_mini_patch2_8 --model-kwargs drop_path": "--model-kwargs takes name=value",
    "vit_mini_patch2_8 --model-kwargs dropp=0.1": "cannot build the model 'vit_mini_patch2_8'",
    "transformers:levit --img-size 8": "does not run; try another --img-size or --batch-size",
    "tests": "tests is neither a run folder nor a model of transformers",
}


@pytest.mark.parametrize(("command", "named"), BAD.items())
def test_a_bad_name_or_option_is_one_line(command, named, capsys):
    assert main(["audit", *command.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert named in err
