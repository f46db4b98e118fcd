"""Training is about as fast as a loop in plain PyTorch over the same images, with processes that read them."""

import json
import statistics
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from dropkey.cli import main

pytestmark = pytest.mark.slow

ROUNDS, EPOCHS, BATCH, IMAGES, WORKERS = 3, 3, 64, 1024, 1
CASES = {  # model, side of its input
    "vit_tiny": ("vit_tiny_patch16_224", 96),
    "vit_mini": ("vit_mini_patch4_32", 32),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training folder of noise in two classes, and as few validation images as there can be."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", IMAGES // 2), ("val", 2)):
        for name in ("cat", "dog"):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((128, 128)).save(place / f"{number}.jpg")
    return root


def ours(folder, model, size, output):
    command = ["train", "--data", "folder", "--data-dir", str(folder), "--model", model, "--img-size", str(size)]
    command += ["--regularizer", "none", "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--clip-grad", "0"]
    command += ["--workers", str(WORKERS), "--threads", str(torch.get_num_threads()), "--output", str(output)]
    assert main(command) == 0
    return json.loads((output / "summary.json").read_text())["images_per_second"]


def moves(size):
    if size > 64:
        return [transforms.RandomResizedCrop(size, (0.3, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)]
    fitted = [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    return [*fitted, transforms.RandomCrop(size, padding=size // 8)]


def bare(folder, model, size):
    """Images a second of a loop that has nothing but the steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = [*moves(size), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
    images = datasets.ImageFolder(folder / "train", transforms.Compose(steps))
    loader = DataLoader(
        images,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    network = timm.create_model(model, num_classes=2, img_size=size).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    count, start = 0, time.perf_counter()
    for _ in range(EPOCHS):
        for batch, labels in loader:
            logits = network(batch.to(device, non_blocking=True))
            loss = F.cross_entropy(logits, labels.to(device, non_blocking=True), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(labels)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


@pytest.mark.parametrize("case", CASES)
def test_images_per_second(case, folder, tmp_path):
    model, size = CASES[case]
    rounds = []
    for number in range(ROUNDS):  # one after the other, so that a busy machine slows down both
        plain = bare(folder, model, size)
        rounds.append((ours(folder, model, size, tmp_path / str(number)), plain))
    mine, plain = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    print(f"\n{model}: {mine:.0f} images/s, bare loop {plain:.0f}; ratio {ratio:.3f}")
    assert ratio >= 0.9, rounds
