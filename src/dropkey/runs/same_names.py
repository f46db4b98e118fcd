"""Whether a checkpoint was trained on the same classes (or verbs) as the data have now."""

from collections.abc import Sequence
from pathlib import Path

from dropkey.errors import RunError

__all__ = ["check_same_names"]


def check_same_names(path: Path, kind: str, before: Sequence[str] | None, now: Sequence[str]) -> None:
    """Raise a RunError if the names in a checkpoint are not those of the data, in the same order.

    Args:
        path: of the checkpoint.
        kind: what is named, in the plural.
        before: names in the checkpoint; None if it has none.
        now: names in the data.
    """
    if before is None or list(before) == list(now):
        return
    odd = [repr(name) for name in sorted(set(before) ^ set(now))[:3]] or ["their order"]
    raise RunError(
        f"{path} was trained on {len(before)} {kind} and the data has {len(now)}: they differ in {', '.join(odd)}; "
        "restore the data, or start a new run"
    )
