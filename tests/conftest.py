"""Small models that many tests use."""

import dataclasses
import os

import pytest
import torch
from few_images import FewImages
from hypothesis import settings

from dropkey.ops.cpu import door, library
from dropkey.ops.triton import backend as triton_backend
from dropkey.patterns import PATTERNS

# The same examples each time, so that a green run stays green; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread a worker: more would fight for the same cores
    torch.set_num_threads(1)

timm = pytest.importorskip("timm")
library.unavailable()  # the kernel is built now, so that no process says so in a test


# What kernels draw; backends that take a mask take every pattern's.
DRAWN = {"cpu": door.PATTERNS, "triton": [pattern.name for pattern in triton_backend.PATTERNS]}


def tiny_vit(name="vit_tiny_patch16_224", depth=3, **arguments):
    """A ViT of a given family for 32x32 images: 8 x 8 patches, width 48, 3 heads."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 4, "embed_dim": 48, "num_heads": 3, "depth": depth, "num_classes": 5}
    return timm.create_model(name, **{**shape, **arguments})


@pytest.fixture(autouse=True)
def _drawn_by_this_backend(request):
    """Skip a test of a backend and a pattern that it does not draw, and need not."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    backend, pattern = parameters.get("backend"), parameters.get("pattern")
    if backend in DRAWN and isinstance(pattern, str) and pattern in PATTERNS and pattern not in DRAWN[backend]:
        pytest.skip(f"{backend} does not draw {pattern}")


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def vit():
    return tiny_vit()


@pytest.fixture(scope="module")
def few_digits():
    """Let ``--data digits`` mean 120 training and 40 validation images, so that a run takes a second."""
    sources = pytest.importorskip("dropkey.data.sources")
    whole = sources.load_source("digits")
    few = dataclasses.replace(whole, train=FewImages(whole.train, 120), val=FewImages(whole.val, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sources.SOURCES, "digits", lambda data_dir: few)
        yield few
