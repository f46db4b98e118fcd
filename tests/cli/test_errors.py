"""Everything that a user can get wrong ends in one line on stderr that names it, and exit code 2."""

import pytest
from PIL import Image

from dropkey.cli import main


def image_tree(root, classes=("cat", "dog"), per_class=3, size=8):
    for split in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for count in range(per_class):
                Image.new("RGB", (size + count, size), (80 * label, 20 * count, 0)).save(folder / f"{count}.png")
    return root


BAD_OPTIONS = {
    "no such subcommand": (["trian"], "did you mean 'train'"),
    "no such option": (["train", "--drop-ration", "0.1"], "did you mean '--drop-ratio'"),
    "ratio of 1.2": (["train", "--drop-ratio", "1.2"], "drop_ratio must be in [0, 1)"),
    "ratio is a word": (["train", "--drop-ratio", "much"], "drop_ratio"),
    "negative ratio": (["train", "--drop-ratio", "-0.1"], "drop_ratio must be in [0, 1)"),
    "unknown model": (["train", "--model", "vit_mini_patch2_9"], "did you mean 'vit_mini_patch2_8'"),
    "model without attention": (["train", "--model", "resnet18"], "no attention that dropkey knows"),
    "unknown data": (["train", "--data", "digit"], "did you mean 'digits'"),
    "unknown regulariser": (["train", "--regularizer", "dropky"], "regularizer"),
    "unknown schedule": (["train", "--schedule", "linear"], "did you mean 'linear_decay'"),
    "schedule of wrong length": (["train", "--schedule", "0.3,0.1"], "4 blocks"),
    "schedule of wrong ratios": (["train", "--schedule", "0.3,1.1"], "drop_ratio must be in [0, 1)"),
    "schedule half a list": (["train", "--schedule", "0.3,x"], "--schedule"),
    "unknown pattern": (["train", "--pattern", "blok"], "did you mean 'block'"),
    "even window": (["train", "--pattern", "block", "--window-size", "2"], "window_size must be an odd number"),
    "window without block": (["train", "--window-size", "3"], "--window-size belongs to"),
    "no epochs": (["train", "--epochs", "0"], "--epochs must be 1 or more"),
    "half an epoch": (["train", "--epochs", "0.5"], "epochs"),
    "empty batch": (["train", "--batch-size", "0"], "--batch-size must be 1 or more"),
    "learning rate of 0": (["train", "--lr", "0"], "--lr must be above 0"),
    "negative decay": (["train", "--weight-decay", "-1"], "--weight-decay must be 0 or more"),
    "too many fine-tuning epochs": (["train", "--epochs", "2", "--finetune-epochs", "3"], "--finetune-epochs"),
    "smoothing of 1": (["train", "--label-smoothing", "1"], "--label-smoothing must be in [0, 1)"),
    "size that is no multiple": (["train", "--img-size", "9"], "patches of 2"),
    "folder without a folder": (["train", "--data", "folder"], "--data-dir"),
    "missing folder": (["train", "--data", "folder", "--data-dir", "nowhere"], "no folder nowhere"),
    "resume what": (["train", "--resume"], "--output"),
    "missing config": (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
    "verify nothing": (["verify"], "name"),
    "verify unknown model": (["verify", "vit_tiny_patch16_223"], "did you mean"),
    "verify a model without attention": (["verify", "resnet18"], "no attention that dropkey knows"),
    "verify a folder that is no run": (["verify", "."], "no run folder"),
}


@pytest.mark.parametrize(("command", "named"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(command, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    check_one_line(capsys.readouterr().err, named)
    assert list(tmp_path.iterdir()) == []  # a run that cannot start leaves nothing


def check_one_line(err, named):
    assert len(err.splitlines()) == 1, err
    assert err.startswith("dropkey: ")
    assert named in err


def truncate(root):
    file = root / "train" / "dog" / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    return "train/dog/1.png"


def write_text(root):
    (root / "val" / "cat" / "2.png").write_text("no image at all")
    return "val/cat/2.png"


def empty_class(root):
    (root / "train" / "emu").mkdir()
    (root / "val" / "emu").mkdir()
    return "train/emu holds no images"


def lone_class(root):
    (root / "train" / "emu").mkdir()
    Image.new("RGB", (8, 8)).save(root / "train" / "emu" / "0.png")
    return "different classes: only one has emu"


def no_val(root):
    (root / "val").rename(root / "validation")
    return "no folder"


@pytest.mark.parametrize("spoil", [truncate, write_text, empty_class, lone_class, no_val])
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_folders(spoil, workers, tmp_path, capsys):
    named = spoil(image_tree(tmp_path / "images"))
    command = ["train", "--data", "folder", "--data-dir", str(tmp_path / "images"), "--model", "vit_mini_patch2_8"]
    command += ["--epochs", "1", "--warmup-epochs", "0", "--workers", str(workers)]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    check_one_line(capsys.readouterr().err, named)


BAD_CONFIGS = {
    "unknown key": ("drop_ratoi: 0.1", "drop_ratoi"),
    "wrong type": ("epochs: many", "epochs"),
    "no mapping": ("- 1", ""),
    "code": ("model: !!python/object/apply:os.mkdir [hacked]", "python/object"),
    "no yaml": ("a: [", ""),
}


@pytest.mark.parametrize(("text", "named"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configs(text, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "--config", "c.yaml"]) == 2
    check_one_line(capsys.readouterr().err, named)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
