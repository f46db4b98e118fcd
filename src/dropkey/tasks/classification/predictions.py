"""Predictions for the validation images as CSV: a row for each image, a probability for each class."""

import csv
import io
from pathlib import Path

import torch

from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import write_atomically
from dropkey.tasks.classification.module import Classification

__all__ = ["write_predictions"]


@torch.no_grad()
def write_predictions(trained: Prepared, path: Path) -> None:
    """Write ``index,label,predicted`` and the probability of each class, in the order of the validation images."""
    assert isinstance(trained.module, Classification)
    network, classes = trained.network.eval(), trained.module.classes
    device = next(network.parameters()).device
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", *(f"p({name})" for name in classes)])
    index = 0
    for images, labels in trained.data.val_dataloader()[0]:
        probabilities = network(images.to(device)).float().softmax(-1).cpu()
        for row, label in zip(probabilities, labels.tolist(), strict=True):
            values = [f"{value:.6f}" for value in row.tolist()]
            writer.writerow([index, classes[label], classes[int(row.argmax())], *values])
            index += 1
    write_atomically(path, text.getvalue().encode())
