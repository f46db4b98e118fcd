"""What an audit has found, and its table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dropkey.diagnostics.audit.bound import bounds
from dropkey.text_table import text_table

__all__ = ["Audit", "Finding"]


@dataclass(frozen=True)
class Finding:
    """What was found at one place that drops, or says that it does.

    Args:
        module: dotted path in the model.
        what: "dropout", "attention dropout", "drop path", "DropKey" and so on.
        attribute: that states the rate, "" if none does.
        declared: the rate it states, in (0, 1], or None.
        rate: share that was dropped in training, or None where it was not seen.
        evaluation_rate: share that was dropped in evaluation.
        draws: independent draws behind ``rate``, 0 if they cannot be counted.
        problems: what is wrong, a clause each; none where it does what it says.
    """

    module: str
    what: str
    attribute: str = ""
    declared: float | None = None
    rate: float | None = None
    evaluation_rate: float | None = 0.0
    draws: int = 0
    problems: tuple[str, ...] = ()

    @property
    def bound(self) -> float | None:
        """How far ``rate`` may lie from the declared one by chance, once in 1e9 audits; None where it is not known."""
        expected = self.rate if self.declared is None else self.declared
        if not self.draws or expected is None:
            return None
        return max(abs(end - expected) for end in bounds(expected, self.draws))


@dataclass(frozen=True)
class Audit:
    """What drops in a model: ``print`` it for a table.

    Args:
        title: what was audited.
        findings: one for each place, in the order of the model's modules.
        notes: what was seen and not judged.
    """

    title: str
    findings: Sequence[Finding]
    notes: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that drops does what it says."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each with the module's name first."""
        return [f"{f.module}: {problem}" for f in self.findings for problem in f.problems]

    def __str__(self) -> str:
        count = len(self.problems)
        verdict = "no problem" if not count else f"{count} problem{'s'[: count > 1]}"
        lines = [f"{self.title}: {len(self.findings)} place{'s'[: len(self.findings) != 1]} that drop, {verdict}"]
        groups = _alike(self.findings)
        if groups:
            header = ["module", "what", "declared", "in training", "in evaluation", "verdict"]
            lines.append(text_table([header, *map(_cells, groups)]))
        lines += [f"PROBLEM  {_name(group)}: {problem}" for group in groups for problem in group[0].problems]
        return "\n".join([*lines, *self.notes])


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put together what differs by numbers in its name and by its rate alone."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        pattern = re.sub(r"\d+", "*", finding.module)
        key = (pattern, finding.what, finding.attribute, *(re.sub(r"[\d.]+", "*", p) for p in finding.problems))
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _cells(group: Sequence[Finding]) -> list[str]:
    first = group[0]
    declared = [f.declared for f in group if f.declared is not None]
    rates = [f.rate for f in group if f.rate is not None]
    bounds_ = [f.bound for f in group if f.bound is not None]
    measured = _span(rates, 4) if rates else "not seen" if first.problems else "acts, rate not seen"
    return [
        _name(group),
        first.what,
        f"{first.attribute} {_span(declared, 3)}" if declared else "-",
        measured + (f" (± {max(bounds_):.2g})" if bounds_ and rates else ""),
        _in_evaluation(first.evaluation_rate),
        "PROBLEM" if first.problems else "as declared" if declared else "silent in evaluation",
    ]


def _in_evaluation(rate: float | None) -> str:
    if rate is None:
        return "acts"
    return f"drops {rate:.4f}" if rate else "silent"


def _name(group: Sequence[Finding]) -> str:
    first = group[0].module
    if len(group) == 1:
        return first
    numbers = [re.findall(r"\d+", finding.module) for finding in group]
    spans = [
        low if low == high else f"{{{low}-{high}}}"
        for low, high in ((min(column, key=int), max(column, key=int)) for column in zip(*numbers, strict=True))
    ]
    pieces = re.split(r"\d+", first)
    joined = "".join(piece + span for piece, span in zip(pieces, [*spans, ""], strict=True))
    return f"{joined} ({len(group)})"


def _span(values: Sequence[float], digits: int) -> str:
    low, high = (f"{value:.{digits}g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
