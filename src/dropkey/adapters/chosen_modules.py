"""Which attention modules of a model are meant, or what there is instead."""

from collections.abc import Callable, Sequence

from torch import nn

from dropkey.adapters.discover import Found, left_alone, unknown_attention
from dropkey.errors import SiteError

__all__ = ["chosen_modules"]


def chosen_modules(
    model: nn.Module, found: Sequence[Found], where: Callable[[Found], bool] | None, way_out: str = ""
) -> list[Found]:
    """Return the modules to act on, or raise a SiteError that says what there is if there are none.

    Args:
        model: in which they were found.
        found: all of them.
        where: says which are meant; all by default.
        way_out: what else the caller can do than register a class.
    """
    if not found:
        others = [*unknown_attention(model), *left_alone(model)]
        seen = f"; it has {', '.join(others[:3])}" if others else ""
        raise SiteError(
            f"found no supported attention module in this {type(model).__name__}{seen}: register its class with "
            f"dropkey.register if it calls scaled_dot_product_attention or softmax{way_out}"
        )
    chosen = [f for f in found if where is None or where(f)]
    if not chosen:
        kinds = ", ".join(sorted({f.kind for f in found}))
        raise SiteError(
            f"where chooses none of the {len(found)} attention modules of this {type(model).__name__}; kinds: {kinds}"
        )
    return chosen
