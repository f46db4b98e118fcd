"""The way of one query, as docs/explanation/one-query.md tells it: which files have it in hand."""

import re
from pathlib import Path

import pytest
import torch
from conftest import tiny_vit
from in_hand import holders

import dropkey
from dropkey.adapters.routing import Routing
from dropkey.ops.cpu import library

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "one-query.md"
MOST = 5


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
def test_files_that_have_the_query_in_hand(monkeypatch):
    """Of one attention module in training, forward, on the native kernel."""
    model = tiny_vit().train()
    dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant"))
    attention, x, seen = model.blocks[0].attn, torch.randn(2, 65, 48), []
    right = Routing._attend

    def noted(self, query, *arguments, **options):
        seen.append(query)
        return right(self, query, *arguments, **options)

    monkeypatch.setattr(Routing, "_attend", noted)
    attention(x)  # what is done once is done
    seen.clear()

    def is_query(value):
        if not seen or not isinstance(value, torch.Tensor) or value.dim() != 4:
            return False
        return value.data_ptr() == seen[0].data_ptr()

    files = holders(lambda: attention(x), is_query)
    assert files[0] == "adapters/routing.py"
    told = re.findall(r"^\| `(\S+\.py)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert files == told
    assert len(files) <= MOST
