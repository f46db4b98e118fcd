"""``dropkey bench attention`` and ``dropkey bench model``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern
from dropkey.schedules import check_drop_ratio

__all__ = ["run"]

_KINDS = {
    "attention": "time and memory of attention alone, over a list of shapes",
    "model": "time of a whole training step of a timm model",
}


def run(arguments: Sequence[str]) -> int:
    """Measure, print a table, and write JSON (and a plot) if asked to."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {kind.ljust(9)}  {what}" for kind, what in _KINDS.items()]
        print(
            "\n".join(
                ["usage: dropkey bench KIND [options]", "", *lines, "", "dropkey bench KIND --help lists options."]
            )
        )
        return DONE
    kind, rest = arguments[0], arguments[1:]
    if kind not in _KINDS:
        raise ArgumentError(f"bench has no {kind!r}{did_you_mean(kind, _KINDS)}; known: {', '.join(_KINDS)}")
    options = _parser(kind).read(rest)
    rows = _attention(options) if kind == "attention" else _model(options)
    _report(rows, options, " ".join(["dropkey bench", *arguments]))
    return DONE


def _parser(kind: str) -> Parser:
    parser = Parser(f"dropkey bench {kind}", f"Measure {_KINDS[kind]}, side by side on this machine.")
    parser.add_argument("--drop-ratio", type=float, default=0.3, help="share of keys or weights dropped")
    parser.add_argument("--threads", type=int, default=None, help="threads on the CPU; torch's own number by default")
    parser.add_argument("--output", type=str, default=None, help="JSON file to write; a plot goes beside it")
    if kind == "model":
        parser.add_argument("--model", type=str, default="vit_small_patch16_224", help="timm name")
        parser.add_argument("--batch-size", type=int, default=16, help="images a step")
        parser.add_argument("--rounds", type=int, default=7, help="timed rounds; the median is reported")
        return parser
    parser.add_argument(
        "--shape", type=str, default=None, help="B,H,N,D with commas between; four usual ones by default"
    )
    parser.add_argument("--dtype", type=str, default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--pattern", type=str, default="element", help=f"one of {', '.join(_without_grid())}")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds; the median is reported")
    parser.add_argument("--compiled", action="store_true", help="also the paper's two lines under torch.compile")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    return parser


def _attention(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    _check(options)
    if options["dtype"] not in ("float32", "bfloat16", "float16"):
        raise ArgumentError(f"--dtype must be float32, bfloat16 or float16, got {options['dtype']!r}")
    patterns = _without_grid()
    if options["pattern"] not in patterns:
        hint = "" if options["pattern"] in PATTERNS else did_you_mean(options["pattern"], patterns)
        raise ArgumentError(f"--pattern must be one of {', '.join(patterns)}, got {options['pattern']!r}{hint}")
    shapes = _shape(options["shape"])
    from dropkey.bench.attention import SHAPES, bench_attention

    return bench_attention(
        SHAPES if shapes is None else shapes,
        dtype=options["dtype"],
        drop_ratio=options["drop_ratio"],
        pattern=options["pattern"],
        rounds=options["rounds"],
        compiled=options["compiled"],
        memory=not options["no_memory"],
    )


def _without_grid() -> dict[str, type[Pattern]]:
    """The patterns that tokens of any kind can lose."""
    return {name: pattern for name, pattern in PATTERNS.items() if not pattern.needs_grid}


def _model(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    _check(options)
    if options["batch_size"] < 1:
        raise ArgumentError(f"--batch-size must be 1 or more, got {options['batch_size']}")
    from dropkey.bench.model import bench_model

    return bench_model(
        options["model"], batch_size=options["batch_size"], drop_ratio=options["drop_ratio"], rounds=options["rounds"]
    )


def _check(options: Mapping[str, Any]) -> None:
    if not check_drop_ratio(options["drop_ratio"]):
        raise ArgumentError("--drop-ratio must be above 0: with 0 there is nothing to compare")
    for name in ("rounds", "threads"):
        if options[name] is not None and options[name] < 1:
            raise ArgumentError(f"--{name} must be 1 or more, got {options[name]}")
    if options["threads"] is not None:
        import torch

        torch.set_num_threads(options["threads"])


def _shape(text: str | None) -> list[tuple[int, int, int, int]] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ArgumentError(f"--shape takes four numbers B,H,N,D with commas between, got {text!r}")
    batch, heads, tokens, dim = map(int, parts)
    return [(batch, heads, tokens, dim)]


def _report(rows: list[dict[str, Any]], options: Mapping[str, Any], command: str) -> None:
    from dropkey.bench import report

    print(report.table(rows))
    if options["output"] is None:
        return
    file = Path(options["output"])
    try:
        report.write(rows, command, file)
        if any("direction" in row for row in rows):
            report.draw(rows, file.with_suffix(".png"))
    except OSError as error:
        raise ArgumentError(f"cannot write --output {file}: {error.strerror}") from None
    print(f"written to {file}")
