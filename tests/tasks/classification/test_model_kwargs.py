"""``--model-kwargs`` in our form, with commas, and in timm's, a word each."""

import pytest

from dropkey.errors import ArgumentError
from dropkey.tasks.classification.model_kwargs import parse_model_kwargs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("depth=24,embed_dim=96", {"depth": 24, "embed_dim": 96}),
        ("depth = 24 , qk_norm=true", {"depth": 24, "qk_norm": True}),
        (
            "class_token=False,global_pool=avg,mlp_ratio=2.0",
            {"class_token": False, "global_pool": "avg", "mlp_ratio": 2.0},
        ),
        ("window_size=(7, 7),depth=2", {"window_size": (7, 7), "depth": 2}),
    ],
)
def test_values(text, expected):
    assert parse_model_kwargs(text) == expected


@pytest.mark.parametrize("text", ["depth", "=3", "depth=", "de-pth=3", "checkpoint_path=x", "num_classes=3"])
def test_what_is_refused(text):
    with pytest.raises(ArgumentError, match="--model-kwargs"):
        parse_model_kwargs(text)
