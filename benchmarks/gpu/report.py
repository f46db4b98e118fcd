"""The report as text: the machine, what failed, then tables."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["as_text", "brief"]

Entry = Mapping[str, Any]
STATES = ("pass", "fail", "measured", "not run")


def as_text(report: Mapping[str, Any]) -> str:
    """Return the whole report."""
    sections = report["sections"]
    parts = [head(report), summary(sections), failures(sections), *tables(sections), not_run(sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def brief(report: Mapping[str, Any], most: int = 9000) -> str:
    """Return what matters most, for the screen."""
    sections = report["sections"]
    text = "\n\n".join(part for part in (head(report), summary(sections), failures(sections)) if part)
    text = text if len(text) <= most else f"{text[:most]}\n... more in report.txt"
    return "\n\n".join(part for part in (text, aims(sections)) if part)


def head(report: Mapping[str, Any]) -> str:
    """Return machine, versions and command."""
    title = "dropkey on a GPU" + (": a dry run at tiny sizes, no measurement" if report["dry_run"] else "")
    machine = report["machine"]
    first = [name for name in ("card", "driver", "torch", "triton", "python", "date", "command") if name in machine]
    names = first + [name for name in machine if name not in first]
    lines = [f"{name:<16} {machine[name]}" for name in names]
    return "\n".join([title, "", *lines, f"{'took':<16} {report.get('seconds')} s of {report['budget_s']:.0f} s"])


def summary(sections: Mapping[str, Entry]) -> str:
    """Return how many cases of each section are in which state."""
    rows = [["section", "state", "seconds", *STATES, "why"]]
    for name, entry in sections.items():
        counts = Counter(case["state"] for case in entry["cases"])
        numbers = [str(counts[state]) for state in STATES]
        rows.append([name, entry["state"], str(entry.get("seconds", "")), *numbers, entry.get("reason", "")])
    return "Summary\n" + aligned(rows)


def failures(sections: Mapping[str, Entry]) -> str:
    """Return every failure, with what was said."""
    lines = []
    for name, entry in sections.items():
        if entry["state"] in ("crashed", "stopped"):
            lines.append(f"{name}: {entry['state']}, {entry.get('reason')}")
        for case in entry["cases"]:
            if case["state"] == "fail":
                lines.append(f"{name}: {case['label']}\n    {case.get('error')}")
                lines += [f"      | {line}" for line in case.get("tail") or []][-6:]
    return "Failures\n" + ("\n".join(lines) if lines else "none of what was run")


def not_run(sections: Mapping[str, Entry]) -> str:
    """Return what was not run, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, entry in sections.items():
        for case in entry["cases"]:
            if case["state"] == "not run":
                reasons.setdefault(f"{name}: {case.get('reason')}", []).append(case["label"])
    lines = []
    for reason, labels in reasons.items():
        more = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
        lines.append(f"{reason}\n    {'; '.join(labels[:6])}{more}")
    return "Not run\n" + "\n".join(lines) if lines else ""


def tables(sections: Mapping[str, Entry]) -> list[str]:
    """Return the tables of the sections that measure."""
    found = [closest(sections), self_tests(sections), aims(sections)]
    for case in measured(sections, "time"):
        found.append(time_table(case) if "rows" in case else f"{case['label']}: {case.get('tflops')} TFLOP/s")
    found += [tune_table(case) for case in measured(sections, "tune") if "rows" in case]
    phases = ("import_s", "first_s", "second_s", "tested_again_s")
    first = [[c["label"], *(str(c.get(phase)) for phase in phases)] for c in measured(sections, "first_call")]
    if first:
        found.append("First call, seconds\n" + aligned([["backend and cache", *phases], *first]))
    columns = ["arm", "median_ms", "p10_ms", "p90_ms", "ratio", "peak_mib", "host_ms", "first_step_s"]
    for case in measured(sections, "step"):
        found.append(f"Training step, {case['label']}\n{by_column(case['rows'], columns)}{errors_of(case)}")
    return found


def measured(sections: Mapping[str, Entry], name: str) -> Iterable[Entry]:
    return (case for case in sections.get(name, {"cases": []})["cases"] if case["state"] == "measured")


def closest(sections: Mapping[str, Entry]) -> str:
    """Return the passed cases that came closest to what is allowed."""
    cases = [case for case in sections.get("correctness", {"cases": []})["cases"] if case["state"] == "pass"]
    worst = sorted((case for case in cases if "worst" in case), key=lambda case: -case["worst"])[:5]
    rows = [["error over allowed", "case"], *([str(case["worst"]), case["label"]] for case in worst)]
    return "Closest to the bound, of those that passed\n" + aligned(rows) if worst else ""


def self_tests(sections: Mapping[str, Entry]) -> str:
    """Return what the package's own tests of its kernels said, and the warnings that were heard."""
    said = Counter()
    heard = Counter()
    for entry in sections.values():
        for case in entry["cases"]:
            said.update(set(map(str, (case.get("self_test") or {}).values())))
            heard.update(case.get("warnings") or [])
    lines = [f"{count} cases: {text[:200]}" for text, count in said.most_common(20)]
    lines += [f"warning in {count} cases: {text[:300]}" for text, count in heard.most_common(20)]
    return "The package's own tests of its kernels, and warnings\n" + "\n".join(lines) if lines else ""


def aims(sections: Mapping[str, Entry]) -> str:
    """Return by size what the draw costs, against the kernel without it and against torch's cuDNN attention."""
    names = [(own, base) for own in ("inline", "stored", "ahead") for base in ("dropkey off", "sdpa cudnn")]
    rows = [["size and direction", *(f"{own}/{base.split()[1]}" for own, base in names)]]
    for case in measured(sections, "time"):
        for direction in dict.fromkeys(row.get("direction") for row in case.get("rows", [])):
            by_name = {row["contender"]: row for row in case["rows"] if row.get("direction") == direction}
            ratios = [(by_name.get(f"dropkey {own}") or {}).get(f"over {base}") for own, base in names]
            if any(ratio is not None for ratio in ratios):
                cells = ["" if ratio is None else f"{ratio:.3f}" for ratio in ratios]
                rows.append([f"{case['label']}, {direction}", *cells])
    title = "What the draw costs (aims, forward + backward: 1.10 of off, 1.25 of cudnn)"
    return f"{title}\n{aligned(rows)}" if len(rows) > 1 else ""


def time_table(case: Entry) -> str:
    """Return the times of one size, a block a direction."""
    columns = ["contender", "median_ms", "p10_ms", "p90_ms", "tflops", "of_product", "peak_mib", "host_ms"]
    columns += ["over dropkey off", "over sdpa flash", "over sdpa cudnn"]
    if case["label"].startswith("beside"):
        return f"Bits of {case['bits_mib']} MiB {case['label']}\n{by_column(case['rows'], columns[:4])}"
    blocks = []
    for direction in dict.fromkeys(row["direction"] for row in case["rows"]):
        rows = [row for row in case["rows"] if row["direction"] == direction]
        blocks.append(f"{case['label']}, bfloat16, {direction}\n{by_column(rows, columns)}")
    return "\n\n".join(blocks) + errors_of(case)


def tune_table(case: Entry) -> str:
    """Return the tiles of one kernel and size, the fastest first."""
    title = f"Tiles of {case['label']}: default {case['default']}, {case['default_over_winner']} of the fastest"
    return f"{title}\n{by_column(case['rows'], ['tile', 'median_ms', 'p10_ms', 'p90_ms'])}{errors_of(case)}"


def errors_of(case: Entry) -> str:
    return "".join(f"\n  {name}: {text}" for name, text in (case.get("errors") or {}).items())


def by_column(rows: Sequence[Entry], columns: Sequence[str]) -> str:
    cells = [["" if row.get(name) is None else str(row[name]) for name in columns] for row in rows]
    return aligned([list(columns), *cells])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
