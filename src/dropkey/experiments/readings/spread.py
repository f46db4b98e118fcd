"""Validation images from all over their order."""

import torch

from dropkey.runs.prepared import Prepared

__all__ = ["spread_images"]


def spread_images(trained: Prepared, count: int) -> torch.Tensor:
    """Return validation images from all over their order, which may be sorted by class."""
    total = trained.data.sizes["val"]
    places = range(0, total, -(-total // count))
    dataset = trained.data.clean_dataset("val", places)
    return torch.stack([dataset[index][0] for index in range(len(places))])
