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


def test_classes_are_taken_by_their_names(detr):
    """In any order, with underscores or without; those that are not there start anew."""
    folder, published = detr
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
