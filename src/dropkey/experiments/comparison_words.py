"""What a comparison shows, in sentences."""

import math
from collections.abc import Sequence

from dropkey.experiments.comparison_table import ArmRow, difference_text, p_text
from dropkey.experiments.statistics import ALPHA, POWER
from dropkey.runs.measure import Measure

__all__ = ["how_tested", "listed", "verdict"]


def verdict(rows: Sequence[ArmRow], headline: Measure) -> str:
    """Return which arms differ measurably from the first, and which way, a line each."""
    first, others = rows[0].label, rows[1:]
    if not others:
        return "There is one arm, and nothing to compare it with."
    tested = [row for row in others if not math.isnan(row.p_holm)]
    told = [row for row in tested if row.p_holm < ALPHA]
    rest = [row.label for row in tested if row not in told]
    sentences = [_told(row, first, headline) for row in told]
    if len(rest) == len(others):
        sentences.append(f"No arm differs measurably from {first}.")
    elif rest:
        sentences.append(f"{listed(rest)} {'do' if len(rest) > 1 else 'does'} not differ measurably from {first}.")
    return "\n".join([*sentences, *_untested([row for row in others if row not in tested], first, headline)])


def how_tested(rows: Sequence[ArmRow]) -> list[str]:
    """Return how the differences were judged, a paragraph each."""
    first, others = rows[0].label, rows[1:]
    if all(math.isnan(row.p_holm) for row in others):
        return []
    paired = (
        f"Differences are paired: each run minus the run of {first} with the same seed. The brackets are Student's 95% "
        "intervals over the seeds. They cover the chance in training, not the choice of images: with other validation "
        "images, all arms would move."
    )
    corrected = (
        f"{len(others)} arms are compared with {first}, and the more comparisons there are, the likelier a false "
        "alarm: so the p-values of the paired t-tests are corrected by Holm's method, which keeps the chance of any "
        f"false alarm among all of them below {ALPHA:.0%}. An arm is said to differ where its corrected p is below "
        f"{ALPHA:g}. The intervals are not corrected: one can leave out 0 while its corrected p is higher than that."
        if len(others) > 1
        else f"p is that of the paired t-test. With one comparison there is nothing to correct for; the arm is said to "
        f"differ where p is below {ALPHA:g}."
    )
    needed = (
        f"Seeds needed: with how many seeds the paired t-test would tell a true difference of the size and spread "
        f"observed here from 0, in {POWER:.0%} of such comparisons (two-sided, level {ALPHA:g}, one arm alone). After "
        "a few seeds this is a rough guess, since the observed difference is one."
    )
    return [paired, corrected, needed]


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _told(row: ArmRow, first: str, headline: Measure) -> str:
    assert row.difference is not None
    good = headline.is_better(row.difference.mean, 0.0)
    numbers = difference_text(headline, row.difference)
    p_value = p_text(row.p_holm)
    equals = p_value if p_value.startswith("<") else f"= {p_value}"
    return f"{row.label} is {'better' if good else 'worse'} than {first}: {headline.words} {numbers}, p {equals}."


def _untested(rows: Sequence[ArmRow], first: str, headline: Measure) -> list[str]:
    """Return why there is no test of some arms."""
    strangers = [row.label for row in rows if row.difference is None]
    single = [row.label for row in rows if row.difference is not None and row.difference.pairs < 2]
    sentences = []
    if strangers:
        sentences.append(f"{listed(strangers)} shared no seed with {first} and cannot be compared with it.")
    if single:
        sentences.append(
            f"{listed(single)} shared one seed with {first}: nothing can be told apart from chance with fewer than two."
        )
    for row in rows:
        if row.label not in strangers + single:
            numbers = difference_text(headline, row.difference)
            sentences.append(
                f"{row.label} differs from {first} by {numbers} with every seed: without a spread there is no test."
            )
    return sentences
