"""Rows that several experiments share."""

from typing import Any

from dropkey.experiments.experiment import Row

__all__ = ["NONE", "dropkey", "dropout"]

NONE = Row("none", {"regularizer": "none"})


def dropkey(ratio: float, label: str = "", **options: Any) -> Row:
    """Return a row trained with DropKey."""
    return Row(label or f"DropKey {ratio:g}", {"regularizer": "dropkey", "drop_ratio": ratio, **options})


def dropout(ratio: float, label: str = "", *, renormalized: bool = False, **options: Any) -> Row:
    """Return a row trained with dropout of attention weights: torch's form, or renormalized."""
    name = "dropout_renormalized" if renormalized else "dropout"
    words = f"dropout {ratio:g}{', renormalized' if renormalized else ''}"
    return Row(label or words, {"regularizer": name, "drop_ratio": ratio, **options})
