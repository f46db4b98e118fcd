"""Calibration and occlusion against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from dropkey.tasks.classification.measuring import evaluate, occluded


class Fixed(nn.Module):
    """Gives the logits that the images are made of."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images[:, :, 0, 0]


def test_measures_against_numpy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    error = sum(
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    batches = [
        (torch.tensor(logits[part]).float()[:, :, None, None], torch.tensor(labels[part]))
        for part in (slice(0, 64), slice(64, 200))
    ]
    measures = evaluate(Fixed(), batches, 3)
    assert measures.accuracy == pytest.approx(right.mean())
    assert measures.loss == pytest.approx(-np.log(probabilities[np.arange(200), labels]).mean(), rel=1e-5)
    assert measures.calibration_error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_occlusion_hides_whole_patches_of_the_right_number(share):
    images = torch.ones(6, 3, 8, 8)
    hidden = occluded(images, share, 2, torch.Generator().manual_seed(0)) == 0
    patches = hidden.view(6, 3, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).flatten(3)
    assert torch.equal(patches.all(-1), patches.any(-1))
    assert (patches.all(-1).sum((1, 2)) == round(share * 16)).all()
    if 0 < share < 1:
        assert len({tuple(image.flatten().tolist()) for image in patches.all(-1)}) > 1
