"""Write the docs' table of models: ``python -m dropkey.catalogue docs/reference/models.md``.

Public models are built without memory for their weights (on the meta device) and counted; nothing is downloaded.
"""

import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import torch

from dropkey.adapters.discover import attention_modules, left_alone
from dropkey.adapters.eager import computes_softmax
from dropkey.catalogue.family import Family
from dropkey.catalogue.timm import TIMM_FAMILIES, TIMM_WITHOUT_KEYS
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES, TRANSFORMERS_WITHOUT_KEYS

__all__ = ["page", "row"]

_HEADER = ["family", "library", "model", "sites", "reached through", "backend", "left alone"]
_FAMILIES = TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES + TIMM_WITHOUT_KEYS + TRANSFORMERS_WITHOUT_KEYS


def row(family: Family) -> list[str]:
    """Return the cells of one family, from its public model."""
    with torch.device("meta"):
        model = family.full()
    found = attention_modules(model)
    kinds = Counter(f.kind for f in found)
    sites = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none: refused"
    ways = {"softmax" if computes_softmax(f.module, f.entry) else "SDPA" for f in found}
    backends = {"SDPA": "any", "softmax": "its own softmax"}
    reasons = Counter(entry.partition(": ")[2] for entry in left_alone(model))
    return [
        family.name,
        family.library,
        f"`{family.public}`",
        sites,
        " and ".join(sorted(ways)) or "-",
        " and ".join(backends[way] for way in sorted(ways)) or "-",
        "; ".join(f"{count} x {reason}" for reason, count in reasons.items()) or "-",
    ]


def page() -> str:
    """Return the page as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "transformers"))
    rows = [_HEADER, ["---"] * len(_HEADER), *map(row, _FAMILIES)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{_INTRODUCTION}\nCounted with {versions}.\n\n{table}\n"


_INTRODUCTION = """# Models that dropkey knows

This page is written by `python -m dropkey.catalogue docs/reference/models.md`.

`dropkey.apply` gives every attention module of these models a subclass of its own class. In training the subclass sends
the module's own call of `scaled_dot_product_attention` (SDPA) or of `softmax` to dropkey; everywhere else it calls the
module's own forward. A module that computes its softmax in Python keeps doing so: no fused backend can run there.
(`nn.MultiheadAttention` calls SDPA with `need_weights=False`, and softmax with `need_weights=True`, its default.)
"Left alone" is what is called attention and has no keys that could be dropped; `print(handle)` names each of these.
Any other class can be added with `dropkey.register`; a model without sites is refused.

`dropkey verify NAME` builds any of them untrained, by its name in this table (or with its library:
`torchvision:swin_t`), and proves that DropKey acts on each site. Of transformers it also takes a model type (`detr`), a
folder with a `config.json`, or a model on the hub; of a model that takes text too it builds the vision model.

Words for sites: *self*; *window* (inside windows, whose masks are drawn apart); *cross*; *class* (the class token alone
asks); *pool* (an attention pool); *outlook* (VOLO: the keys are the places of a window); and in models with a decoder
*encoder self*, *decoder self*, *decoder cross*; for example
`dropkey.apply(model, regularizer, where=lambda site: site.kind == "decoder cross")`.
"""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dropkey.catalogue FILE")
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")
