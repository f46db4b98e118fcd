"""How many heads an attention module has, by what it says of itself."""

from torch import nn

__all__ = ["HEAD_COUNTS", "num_heads_of"]

HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "nhead", "heads")


def num_heads_of(module: nn.Module) -> int | None:
    """Return the number of heads, or None if no attribute of HEAD_COUNTS says it."""
    counts = (getattr(module, name, None) for name in HEAD_COUNTS)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
