"""What a user can mend: every error this package raises on purpose."""

import difflib
from collections.abc import Iterable

__all__ = [
    "ArgumentError",
    "BackendError",
    "DataError",
    "DivergedError",
    "DropKeyError",
    "RunError",
    "SiteError",
    "did_you_mean",
    "first_line",
]


class DropKeyError(Exception):
    """Base of all errors raised on purpose; its message is one line that names the thing and the remedy."""


class ArgumentError(DropKeyError, ValueError):
    """An argument is outside of what the function accepts."""


class BackendError(DropKeyError, RuntimeError):
    """A backend that was asked for by name cannot run this call here."""


class SiteError(DropKeyError, RuntimeError):
    """An attention module, or a model as a whole, cannot do what was asked of it."""


class DataError(DropKeyError, ValueError):
    """A data folder or an image file is missing, empty or broken."""


class RunError(DropKeyError, RuntimeError):
    """A run folder, a checkpoint or a training in progress cannot do what was asked of it."""


class DivergedError(RunError):
    """A loss is not finite: this way of training fails, others may not."""


_CLOSE = 0.5  # of the letters
_WORSE = 0.25  # than the closest, from where on a name is no help


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known words close to ``word``, or an empty string.

    A long name counts as close if its beginning is: of ``vit_tiny_patch16_224`` people remember ``vit_tiny``.
    """
    matcher = difflib.SequenceMatcher(b=word)  # what it knows of b it keeps
    near = [(_likeness(matcher, name, len(word)), -len(name), name) for name in known]
    near.sort(reverse=True)
    best = [name for score, _, name in near[:3] if score >= max(_CLOSE, near[0][0] - _WORSE)]
    return f"; did you mean {' or '.join(map(repr, best))}?" if best else ""


def _likeness(matcher: difflib.SequenceMatcher[str], name: str, length: int) -> float:
    scores = []
    for text in {name, name[:length]}:
        matcher.set_seq1(text)
        scores.append(matcher.ratio() if matcher.real_quick_ratio() >= _CLOSE <= matcher.quick_ratio() else 0.0)
    return max(scores)


def first_line(error: BaseException) -> str:
    """Return what an error says in its first line that is not empty, or its name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
