"""Plain self-attention: one softmax a head, over the tokens themselves."""

from collections.abc import Sequence

from dropkey.adapters.discover import Found
from dropkey.errors import SiteError

__all__ = ["not_plain", "plain_ones"]


def plain_ones(found: Sequence[Found], what: str) -> list[Found]:
    """Return the modules with plain self-attention.

    Args:
        found: attention modules.
        what: needs them, as the message calls it.

    Raises:
        SiteError: there are none.
    """
    plain = [f for f in found if _is_plain(f)]
    if not plain:
        kinds = ", ".join(sorted({f.kind for f in found}))
        raise SiteError(f"{what} needs plain self-attention, this model has none; kinds: {kinds}")
    return plain


def not_plain(found: Sequence[Found]) -> list[str]:
    """Return "name (Class)" of the modules without it."""
    return [f"{f.name} ({type(f.module).__name__}: {f.kind})" for f in found if not _is_plain(f)]


def _is_plain(f: Found) -> bool:
    return f.entry.kind == "self" and f.entry.maps_per_head == 1
