"""What modules state against what they did."""

import math
from collections.abc import Iterator

from torch import nn

from dropkey.diagnostics.audit.bound import is_plausible
from dropkey.diagnostics.audit.declared import Declared, declared_rates, has_droppers, is_dropper, keeps_scale
from dropkey.diagnostics.audit.evidence import Evidence, is_judged
from dropkey.diagnostics.audit.result import Finding
from dropkey.diagnostics.audit.tally import Tally

__all__ = ["judge"]


class _Unclaimed:
    """The drops of each module that no attribute has accounted for."""

    def __init__(self, evidence: Evidence) -> None:
        self._left = {module: list(evidence.in_training(module)) for module in evidence.modules()}
        self._claimed: dict[nn.Module, list[Tally]] = {}

    def of(self, module: nn.Module) -> list[Tally]:
        """Return what is left of a module."""
        return self._left.get(module, [])

    def claim(self, module: nn.Module, rate: float) -> Tally | None:
        """Take away the drop of a module that may be of this rate, if there is one."""
        tally = next((tally for tally in self.of(module) if tally.fits(rate)), None)
        if tally is not None:
            self.take(module, tally)
        return tally

    def take(self, module: nn.Module, tally: Tally) -> None:
        """Take away a drop of a module."""
        self._left[module].remove(tally)
        self._claimed.setdefault(module, []).append(tally)

    def was_claimed(self, module: nn.Module, rate: float) -> bool:
        """Say whether a drop of this rate has been taken: two attributes may state one rate."""
        return any(tally.fits(rate) for tally in self._claimed.get(module, []))


def judge(evidence: Evidence) -> tuple[list[Finding], list[str]]:
    """Return a finding for each place, and notes on what could not be judged."""
    unclaimed = _Unclaimed(evidence)
    findings: dict[nn.Module, list[Finding]] = {module: [] for module in evidence.modules()}
    idle: list[str] = []
    # First what a module applies itself, then what it states and others may apply.
    stated = [(module, stated) for module in findings for stated in declared_rates(module)]
    open_: list[tuple[nn.Module, Declared]] = []
    for module, declared in stated:
        tally = unclaimed.claim(module, declared.rate)
        if tally is None:
            open_.append((module, declared))
        else:
            findings[module].append(_applied(evidence, module, module, declared, tally))
    for module, declared in open_:
        found = _elsewhere(evidence, unclaimed, module, declared, idle)
        findings[module] += [] if found is None else [found]
    for module, found_here in findings.items():
        found_here += _undeclared(evidence, unclaimed, module)
    return [finding for found_here in findings.values() for finding in found_here], _notes(evidence, idle)


def _elsewhere(
    evidence: Evidence, unclaimed: _Unclaimed, module: nn.Module, declared: Declared, idle: list[str]
) -> Finding | None:
    """Judge a rate that its own module did not apply."""
    if unclaimed.was_claimed(module, declared.rate):
        return None
    if not evidence.ran(module):
        user = evidence.user_of(module)
        if user is None:
            idle.append(evidence.name(module))
            return None
        tally = unclaimed.claim(user, declared.rate)
        if tally is not None:
            return _applied(evidence, module, user, declared, tally)
        if unclaimed.was_claimed(user, declared.rate):
            return None
        if evidence.is_left_out(module, user):
            idle.append(evidence.name(module))
            return None
        return _never(evidence, module, declared)
    if any(_suits(declared.attribute, tally) and tally.fits(declared.rate) for tally in evidence.below(module)):
        return None
    others = [tally for tally in unclaimed.of(module) if is_judged(module, tally)]
    if others:
        unclaimed.take(module, others[0])
        return _applied(evidence, module, module, declared, others[0])
    return _never(evidence, module, declared)


def _suits(attribute: str, tally: Tally) -> bool:
    """Say whether a drop inside of a module may be what an attribute of this name was handed down to."""
    name = attribute.lower()
    if "att" in name:
        return tally.kind in ("weights", "keys", "opaque")
    if "path" in name or "depth" in name:
        return "drop path" in tally.what
    return True


def _applied(evidence: Evidence, module: nn.Module, user: nn.Module, declared: Declared, tally: Tally) -> Finding:
    """Judge a drop by the rate that is stated for it."""
    best = evidence.measured(user, tally)
    acting = [other for other in evidence.in_evaluation(user) if tally.is_same_place(other)]
    wrong = list(_mask_problems(evidence, user, tally)) or list(_rate_problems(declared, tally, best))
    wrong = wrong or list(_scale_problems(user, best, declared.rate))
    problems = [*wrong, *_evaluation_problems(evidence, user, acting)]
    return Finding(
        evidence.name(module),
        tally.what,
        declared.attribute,
        declared.rate,
        best.share,
        _rate_of(acting),
        best.draws,
        tuple(problems),
    )


def _never(evidence: Evidence, module: nn.Module, declared: Declared) -> Finding:
    """Describe a rate that nothing applied."""
    if not evidence.ran(module):
        problem = "never runs, and the module around it drops nothing at this rate"
    elif not is_dropper(module):
        problem = f"states {declared.attribute} = {declared.rate:g} and never applies it"
    elif not evidence.trained(module):
        problem = "drops nothing in training: it is in evaluation mode while the model is in training mode"
    else:
        problem = "drops nothing in training"
    what = type(module).__name__ if is_dropper(module) else "-"
    return Finding(evidence.name(module), what, declared.attribute, declared.rate, 0.0, problems=(problem,))


def _undeclared(evidence: Evidence, unclaimed: _Unclaimed, module: nn.Module) -> Iterator[Finding]:
    """Judge what drops without a rate that is stated, and what drops in evaluation alone."""
    left = [tally for tally in unclaimed.of(module) if is_judged(module, tally)]
    acting = evidence.in_evaluation(module)
    if has_droppers(module):  # its regularizer has a finding of its own
        left, acting = ([t for t in some if t.kind not in ("weights", "keys")] for some in (left, acting))
    for tally in left:
        here = [other for other in acting if tally.is_same_place(other)]
        wrong = [*_mask_problems(evidence, module, tally), *_scale_problems(module, tally, tally.rate or tally.share)]
        problems = (*wrong, *_evaluation_problems(evidence, module, here))
        yield Finding(evidence.name(module), tally.what, "", None, tally.share, _rate_of(here), tally.draws, problems)
    for other in acting:
        if not any(tally.is_same_place(other) for tally in evidence.in_training(module)):
            problems = tuple(_evaluation_problems(evidence, module, [other]))
            yield Finding(evidence.name(module), other.what, "", None, 0.0, _rate_of([other]), 0, problems)


def _rate_problems(declared: Declared, tally: Tally, best: Tally) -> Iterator[str]:
    if tally.rate is not None and not tally.fits(declared.rate):
        yield f"drops at a rate of {tally.rate:.4g}, but {declared.attribute} says {declared.rate:g}"
    elif best.share is not None and not (best.fits(declared.rate) and _is_chance(best, declared.rate)):
        yield f"drops a share of {best.share:.4f}, but {declared.attribute} says {declared.rate:g}"


def _is_chance(tally: Tally, rate: float) -> bool:
    return not tally.draws or tally.share is None or is_plausible(tally.share, rate, tally.draws)


def _mask_problems(evidence: Evidence, module: nn.Module, tally: Tally) -> Iterator[str]:
    yield from dict.fromkeys(drop.remark for drop in tally.drops if drop.remark)
    if evidence.repeats(module, tally):
        yield "draws the same mask in every pass"


def _scale_problems(module: nn.Module, tally: Tally, rate: float | None) -> Iterator[str]:
    scale = None if keeps_scale(module) else _wrong_scale(tally)
    if scale is not None and rate is not None:
        wanted = f"1 / (1 - {rate:.3g})"
        yield f"multiplies what it keeps by {scale:.4g}, not by {wanted}, so that evaluation sees another mean"


def _wrong_scale(tally: Tally) -> float | None:
    """Return the factor of kept values if it does not make up for what was dropped."""
    if tally.kind not in ("values", "weights") or not tally.draws:
        return None
    scaled = [drop for drop in tally.drops if drop.scales]
    for drop in scaled:
        if not any(_makes_up(tally, scale, drop.tolerance) for scale in drop.scales):
            return drop.scales[-1]
    return None


def _makes_up(tally: Tally, scale: float, tolerance: float) -> bool:
    if tally.rate is not None:
        return tally.rate == 1 or math.isclose(scale, 1 / (1 - tally.rate), rel_tol=tolerance)
    return scale >= 1 and is_plausible(tally.share or 0.0, 1 - 1 / scale, tally.draws)


def _evaluation_problems(evidence: Evidence, module: nn.Module, acting: list[Tally]) -> list[str]:
    if not acting:
        return []
    if evidence.evaluated(module):
        cause = ""
    elif evidence.is_registered(module):
        cause = ": it is in training mode while the model is in evaluation mode"
    else:
        cause = ": it is registered in no module, so eval() does not reach it"
    return [f"acts in evaluation{cause}"]


def _rate_of(acting: list[Tally]) -> float | None:
    """Return what was dropped in evaluation: 0 if nothing was, None if it was not seen."""
    if not acting:
        return 0.0
    return acting[0].share if acting[0].share is not None else acting[0].rate


def _notes(evidence: Evidence, idle: list[str]) -> list[str]:
    notes = []
    if idle:
        notes.append(f"Not run here, not judged: {_some(idle)}")
    other = [
        evidence.name(module)
        for module in evidence.modules()
        if any(not is_judged(module, tally) for tally in evidence.in_training(module)) and not declared_rates(module)
    ]
    if other:
        notes.append(f"Draws random numbers for something else, not judged: {_some(other)}")
    return notes


def _some(names: list[str]) -> str:
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
