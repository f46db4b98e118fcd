"""Files and folders that are no part of a set of images, each counted by the reason why."""

from collections import Counter
from pathlib import Path

from dropkey.data.picture import readable_name

__all__ = ["LeftOut"]

_SHOWN = 5


class LeftOut:
    """What was left out of a folder of images, and why."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, Path] = {}

    def add(self, reason: str, path: Path) -> None:
        """Count a file or folder.

        Args:
            reason: a plural, such as "hidden files".
            path: of it; the first of each reason is named.
        """
        self._counts[reason] += 1
        self._examples.setdefault(reason, path)

    def __len__(self) -> int:
        return self._counts.total()

    def __add__(self, other: "LeftOut") -> "LeftOut":
        both = LeftOut()
        both._counts = self._counts + other._counts
        both._examples = {**other._examples, **self._examples}
        return both

    def __str__(self) -> str:
        """One line: the most common reasons, each with its count and an example."""
        reasons = self._counts.most_common()
        said = [f"{reason}: {count:,} ({readable_name(self._examples[reason])})" for reason, count in reasons[:_SHOWN]]
        rest = sum(count for _, count in reasons[_SHOWN:])
        return "; ".join([*said, *([f"others: {rest:,}"] if rest else [])]) or "nothing"
