"""``--where``: the parts of a detector on whose attention a regularizer acts."""

from collections.abc import Collection

from torch import nn

from dropkey.adapters.apply import apply
from dropkey.adapters.discover import Found, attention_modules, left_alone
from dropkey.adapters.handle import Handle
from dropkey.errors import ArgumentError
from dropkey.regularizers import Regularizer
from dropkey.runs.regularizer_options import PARTS

__all__ = ["apply_to_parts", "part_of_site"]


def part_of_site(found: Found) -> str:
    """Return the part that an attention module belongs to; a plain ViT is an encoder."""
    if found.kind.endswith("cross"):
        return "cross"
    return "decoder" if found.kind.startswith("decoder") else "encoder"


def apply_to_parts(network: nn.Module, regularizer: Regularizer, parts: Collection[str]) -> Handle:
    """Apply a regularizer to the parts that were asked for.

    Raises:
        ArgumentError: a part without attention to act on, unless all parts are asked for, which means what there is.
    """
    if set(parts) < set(PARTS):
        there = {part_of_site(found) for found in attention_modules(network)}
        for part in parts:
            if part not in there:
                others = left_alone(network)
                hint = f" ({others[0]})" if others else ""
                raise ArgumentError(f"--where {part}: this {type(network).__name__} has none with keys to drop{hint}")
    return apply(network, regularizer, where=lambda found: part_of_site(found) in parts)
