"""What a capture has seen: the maps of every attention module, or what they were reduced to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from dropkey.errors import SiteError, did_you_mean
from dropkey.text_table import text_table

__all__ = ["Captured"]


class Captured(Mapping[str, Any]):
    """Maps by the name of their attention module, filled while the model runs: ``print`` it for a table.

    The value of a name is a tensor (B, H, Nq, Nk), or what ``reduce`` made of it; a list of these where the module
    attended several times. Names are those of ``model.named_modules()``, without the steps of wrappers.

    Attributes:
        left_alone: modules that are called attention but have no keys, each with the reason.
        notes: what else a reader of the maps must know, one line each.
    """

    def __init__(self, names: Sequence[str], left_alone: Sequence[str]) -> None:
        self.left_alone = list(left_alone)
        self.notes: list[str] = []
        self._calls: dict[str, list[Any]] = {name: [] for name in names}

    def __getitem__(self, name: str) -> Any:
        if name not in self._calls:
            raise KeyError(f"no captured attention module {name!r}{did_you_mean(name, self._calls)}")
        calls = self._calls[name]
        if not calls:
            raise SiteError(f"{name} has not attended: run the model inside of the capture")
        return calls[0] if len(calls) == 1 else list(calls)

    def __iter__(self) -> Iterator[str]:
        return (name for name, calls in self._calls.items() if calls)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __str__(self) -> str:
        rows = [[name, ", ".join(map(_described, calls)) or "has not attended"] for name, calls in self._calls.items()]
        return "\n".join([text_table([["site", "captured"], *rows]), *self.left_alone, *self.notes])

    def __repr__(self) -> str:
        return f"<Captured attention of {len(self)} sites>"

    def add(self, name: str, seen: Any) -> None:
        """Take what was captured of a call."""
        self._calls[name].append(seen)

    def note(self, line: str) -> None:
        """Take a remark, once."""
        if line not in self.notes:
            self.notes.append(line)


def _described(seen: Any) -> str:
    if isinstance(seen, Tensor):
        return str(tuple(seen.shape))
    return ", ".join(f"{name} {_described(part)}" for name, part in seen.items())
