"""Training a detector is about as fast as a loop in plain PyTorch over the same files, with as many readers."""

import json
import statistics
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from dropkey.cli import main
from dropkey.tasks.detection.network import build_detector

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

ROUNDS, EPOCHS, BATCH, IMAGES, WORKERS, SIDE = 3, 3, 16, 160, 1, 128
BOX = [60, 50, 120, 90]  # left, top, width, height in images of 240 rows and 320 columns


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training photographs of noise with one box each, and as few for validation as there can be."""
    root, rng = tmp_path_factory.mktemp("boxed"), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split, count in (("train", IMAGES), ("val", 2)):
        (root / split).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((320, 240)).save(root / split / f"{number}.jpg")
        content = {
            "images": [{"id": n, "file_name": f"{n}.jpg", "width": 320, "height": 240} for n in range(count)],
            "annotations": [{"id": n + 1, "image_id": n, "category_id": 1, "bbox": BOX} for n in range(count)],
            "categories": [{"id": 1, "name": "box"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def ours(folder, output):
    command = ["train", "--task", "detection", "--data", "coco", "--data-dir", str(folder), "--img-size", str(SIDE)]
    command += ["--regularizer", "none", "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--clip-grad", "0"]
    command += ["--flip", "0", "--photometric", "0", "--workers", str(WORKERS), "--lr", "1e-4"]
    assert main([*command, "--threads", str(torch.get_num_threads()), "--output", str(output)]) == 0
    return json.loads((output / "summary.json").read_text())["images_per_second"]


class Plain(Dataset):
    """The files as a tutorial would read them."""

    def __init__(self, folder):
        self.folder = folder
        left, top, width, height = BOX
        middle = [(left + width / 2) / 320, (top + height / 2) / 240, width / 320, height / 240]
        self.labels = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([middle])}

    def __len__(self):
        return IMAGES

    def __getitem__(self, number):
        with Image.open(self.folder / "train" / f"{number}.jpg") as image:
            pixels = functional.pil_to_tensor(image.convert("RGB"))
        return functional.resize(pixels, [SIDE, SIDE], antialias=True).float() / 255, self.labels


def collate(examples):
    images, labels = zip(*examples, strict=True)
    return torch.stack(images), list(labels)


def bare(folder):
    """Images a second of a loop that has nothing but the steps."""
    loader = DataLoader(
        Plain(folder), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, collate_fn=collate
    )
    network = build_detector("d_fine_mini", 1, (SIDE, SIDE)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    start = time.perf_counter()
    for _ in range(EPOCHS):
        for images, labels in loader:
            optimizer.zero_grad()
            network(pixel_values=images, labels=labels).loss.backward()
            optimizer.step()
    return EPOCHS * IMAGES / (time.perf_counter() - start)


def test_at_least_nine_tenths_of_a_plain_loop(folder, tmp_path):
    rounds = [(ours(folder, tmp_path / str(number)), bare(folder)) for number in range(ROUNDS)]
    ratios = [mine / plain for mine, plain in rounds]
    print("images/s, ours and a plain loop:", [tuple(round(value, 1) for value in pair) for pair in rounds])
    assert statistics.median(ratios) >= 0.9, ratios
