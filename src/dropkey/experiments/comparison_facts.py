"""What a reader must know to judge the numbers of a comparison, and to repeat them."""

import datetime
from collections.abc import Sequence

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_words import listed
from dropkey.runs.measure import Measure

__all__ = ["counted", "facts"]


def facts(results: Sequence[Result], headline: Measure, command: str) -> list[tuple[str, str]]:
    """Return names and values; what earlier versions did not note of their runs is left out."""
    summaries = [result.summary for result in results]
    machines = [summary["machine"] for summary in summaries if "machine" in summary]
    known: list[tuple[str, str]] = [("Command", command)] if command else []
    known.append(("Images", _images(results[0], headline)))
    known.append(("Parameters", listed([f"{n:,}" for n in dict.fromkeys(s["num_parameters"] for s in summaries)])))
    devices = list(dict.fromkeys(f"{m['device']}, {counted(m['threads'], 'thread')}" for m in machines))
    if devices:
        warning = "" if len(devices) == 1 else ": the seconds of different devices cannot be compared"
        known.append(("Device", "; ".join(devices) + warning))
        versions = [", ".join(f"{name} {m[name]}" for name in ("dropkey", "torch", "timm", "python")) for m in machines]
        known.append(("Versions", "; ".join(dict.fromkeys(versions))))
    return [*known, ("Date of this page", datetime.date.today().isoformat())]


def _images(result: Result, headline: Measure) -> str:
    train, val = (result.summary.get(name) for name in ("num_train", "num_val"))
    if not train or not val:
        return f"{result.config.data}"
    counts = f"{result.config.data}: {train:,} for training, {val:,} for validation"
    return counts + (
        f"; one validation image is worth {1 / val:.2g} {headline.words}" if headline.counts_images else ""
    )


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
