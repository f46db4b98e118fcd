"""The way of one query, as docs/explanation/one-query.md tells it: which files have it in hand."""

import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.adapters.routing import Routing
from dropkey.ops.cpu import library

PACKAGE = Path(dropkey.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "one-query.md"
MOST = 5


def holders(run, is_query):
    """Return the files of the package, in order, in which a local variable of a running function is the query.

    A variable counts that is the query, a view of it, or a plain tuple or list of arguments with it inside; an
    AttentionCall does not, as long as nobody takes the query out.
    """
    files = []

    def walk(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if PACKAGE not in path.parents:
            return
        variables = list(frame.f_locals.values())
        for several in [v for v in variables if type(v) in (tuple, list)]:
            variables += several
        name = path.relative_to(PACKAGE).as_posix()
        if name not in files and any(isinstance(v, torch.Tensor) and is_query(v) for v in variables):
            files.append(name)

    sys.setprofile(walk)
    try:
        run()
    finally:
        sys.setprofile(None)
    return files


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
    files = holders(lambda: attention(x), lambda v: bool(seen) and v.dim() == 4 and v.data_ptr() == seen[0].data_ptr())
    assert files[0] == "adapters/routing.py"
    told = re.findall(r"^\| `(\S+\.py)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert files == told
    assert len(files) <= MOST
