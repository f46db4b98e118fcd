"""Starting from a trained detector, and the published recipe."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from layouts.pairs import hico_lists, listed

from dropkey.cli import main
from dropkey.cli.options import read_file
from dropkey.data.hoi_names import COCO_CLASSES
from dropkey.errors import RunError
from dropkey.tasks.detection.network import build_detector
from dropkey.tasks.interaction.task import TASK
from dropkey.tasks.interaction.weights import start_from_detector

RECIPE = Path(__file__).parents[3] / "examples" / "qpic_hico_det.yaml"


@pytest.fixture
def detr(tmp_path):
    """A DETR of COCO as it is published: 91 classes by their ids, and one for no object."""
    torch.manual_seed(0)
    network = build_detector("detr_mini", 91, (64, 64))
    network.config.save_pretrained(tmp_path / "detr")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "detr" / "model.safetensors")
    return tmp_path / "detr", network


def as_published(folder, network):
    return folder


def as_a_checkpoint(folder, network):
    """Of a run: its networks are parts of what is trained."""
    path = folder / "last.ckpt"
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, path)
    return path


@pytest.mark.parametrize("written", [as_published, as_a_checkpoint])
def test_classes_are_taken_by_their_names(detr, written):
    """In any order, with underscores or without; those that are not there start anew."""
    published = detr[1]
    folder = written(*detr)
    classes = ["baseball_bat", "zebra", "person", "unicorn"]
    torch.manual_seed(1)
    ours = build_detector("detr_mini", len(classes), (64, 64))
    before = ours.class_labels_classifier.weight.detach().clone()
    notes = start_from_detector(ours, folder, classes)
    ids = {name: number for number, name in COCO_CLASSES.items()}
    head, theirs = ours.class_labels_classifier.weight, published.class_labels_classifier.weight
    for row, name in enumerate(["baseball bat", "zebra", "person"]):
        assert torch.equal(head[row], theirs[ids[name]])
    assert torch.equal(head[3], before[3])
    assert torch.equal(head[4], theirs[91])
    assert torch.equal(ours.bbox_predictor.layers[2].weight, published.bbox_predictor.layers[2].weight)
    assert notes == [f"{folder} does not know the classes unicorn: these start anew"]


def test_a_file_without_classes_says_that_all_start_anew(detr):
    folder, published = detr
    kept = {name: value for name, value in published.state_dict().items() if "class_labels" not in name}
    safetensors.torch.save_file(kept, folder / "model.safetensors")
    ours = build_detector("detr_mini", 2, (64, 64))
    assert start_from_detector(ours, folder, ["cat", "zebra"]) == [
        f"{folder} does not know the classes cat, zebra: these start anew"
    ]


def by_transformers(folder, network):
    """Of parameters that share their memory, one is kept."""
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("written", [as_a_checkpoint, by_transformers])
@pytest.mark.parametrize("model", ["detr_mini", "d_fine_mini"])
def test_every_weight_is_taken(tmp_path, model, written):
    """That of classes too, in the same order here: all of COCO's."""
    torch.manual_seed(0)
    trained = build_detector(model, 80, (64, 64))
    (tmp_path / "run").mkdir()
    path = written(tmp_path / "run", trained)
    torch.manual_seed(1)
    ours = build_detector(model, 80, (64, 64))
    assert start_from_detector(ours, path, list(COCO_CLASSES.values())) == []
    for (name, one), other in zip(ours.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_weights_of_another_detector_are_refused(detr):
    with pytest.raises(RunError, match="does not fit the model"):
        start_from_detector(build_detector("d_fine_mini", 3, (64, 64)), detr[0], ["a", "b", "c"])
    with pytest.raises(RunError, match="holds no weights"):
        start_from_detector(build_detector("detr_mini", 3, (64, 64)), detr[0].parent, ["a", "b", "c"])


def test_the_published_recipe_is_that_of_the_paper():
    config = TASK.resolve({**read_file(RECIPE), "output": "x"})
    assert (config.epochs, config.lr, config.backbone_lr, config.lr_drop_epoch) == (150, 1e-4, 1e-5, 100)
    assert (config.batch_size * config.devices, config.clip_grad, config.lr_schedule) == (16, 0.1, "step")


def test_the_published_recipe_runs(detr, tmp_path, capsys):
    """One epoch at a small size, with a detector of the same kind and data of the same layout."""
    folder, _ = detr
    data = hico_lists(tmp_path / "data", train=[listed("a.jpg"), listed("b.jpg", rows=[(0, 9, 1)])])
    changed = ["--data-dir", str(data), "--model", str(folder), "--weights", str(folder), "--devices", "1"]
    changed += ["--epochs", "1", "--lr-drop-epoch", "0", "--img-size", "64x96", "--workers", "0"]
    output = tmp_path / "run"
    assert main(["train", "--config", str(RECIPE), *changed, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "trainval_hico.json: left out 1 pairs that point to no box" in said
    assert "validation mAP" in said
