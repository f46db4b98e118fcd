"""``dropkey bench attention`` and ``dropkey bench model``."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern
from dropkey.runs.numbers import NonNegativeInt, OpenUnitInterval, PositiveInt
from dropkey.runs.options import Options, option

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
    options_class = {"attention": AttentionBench, "model": ModelBench}[kind]
    parser = Parser(f"dropkey bench {kind}", f"Measure {_KINDS[kind]}, side by side on this machine.")
    parser.add_options(options_class)
    options = options_class(**parser.read(rest).of(options_class))
    if options.output:
        _check_output(Path(options.output), draws=kind == "attention")
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    try:
        for part in _parts(options):
            rows += _measured(part, "--shape" if kind == "attention" else "--batch-size")
    finally:
        if rows:  # also what was measured before an interruption or an error
            _report(rows, options.output, " ".join(["dropkey bench", *arguments]))
    return DONE


def _without_grid() -> dict[str, type[Pattern]]:
    """The patterns that tokens of any kind can lose."""
    return {name: pattern for name, pattern in PATTERNS.items() if not pattern.needs_grid}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """Options of every kind of measurement."""

    drop_ratio: float = option(0.3, "share of keys or weights dropped", kind=OpenUnitInterval)
    threads: int = option(0, "threads on the CPU", kind=NonNegativeInt, shown="torch's own number")
    rounds: int = option(7, "timed rounds; the median is reported", kind=PositiveInt)
    output: str = option("", "JSON file to write", takes="FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelBench(BenchOptions):
    """Options of ``dropkey bench model``."""

    model: str = option("vit_small_patch16_224", "timm name", group="model", takes="NAME")
    batch_size: int = option(16, "images per step", kind=PositiveInt)
    precision: Literal["32-true", "bf16-mixed"] = option("32-true", "of a step; bf16-mixed is autocast to bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionBench(BenchOptions):
    """Options of ``dropkey bench attention``."""

    rounds: int = option(15, "timed rounds; the median is reported", kind=PositiveInt)
    output: str = option("", "JSON file to write; a plot goes beside it", takes="FILE")
    shape: str = option("", "shape of query, key and value", takes="B,H,N,D", shown="four usual ones")
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "type of the inputs")
    pattern: str = option("element", f"one of {', '.join(_without_grid())}", takes="NAME")
    compiled: bool = option(False, "also the paper's two lines under torch.compile")
    no_memory: bool = option(False, "leave out peak memory")

    def __post_init__(self) -> None:
        super().__post_init__()
        patterns = _without_grid()
        if self.pattern not in patterns:
            hint = "" if self.pattern in PATTERNS else did_you_mean(self.pattern, patterns)
            raise ArgumentError(f"--pattern must be one of {', '.join(patterns)}, got {self.pattern!r}{hint}")
        _shapes(self.shape)


def _parts(options: "AttentionBench | ModelBench") -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Yield what is to be measured, one after another."""
    if isinstance(options, ModelBench):
        yield partial(_model, options)
        return
    from dropkey.bench.attention import SHAPES

    for shape in _shapes(options.shape) or SHAPES:
        yield partial(_attention, options, shape)


def _measured(part: Callable[[], list[dict[str, Any]]], size: str) -> list[dict[str, Any]]:
    try:
        return part()
    except (RuntimeError, MemoryError) as error:
        from dropkey.runs.failures import is_out_of_memory

        if is_out_of_memory(error):
            raise ArgumentError(f"out of memory: a smaller {size}") from error
        raise


def _attention(options: AttentionBench, shape: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    from dropkey.bench.attention import bench_attention

    return bench_attention(
        [shape],
        dtype=options.dtype,
        drop_ratio=options.drop_ratio,
        pattern=options.pattern,
        rounds=options.rounds,
        compiled=options.compiled,
        memory=not options.no_memory,
    )


def _model(options: ModelBench) -> list[dict[str, Any]]:
    from dropkey.bench.model import bench_model

    return bench_model(
        options.model,
        batch_size=options.batch_size,
        precision=options.precision,
        drop_ratio=options.drop_ratio,
        rounds=options.rounds,
    )


def _shapes(text: str) -> list[tuple[int, int, int, int]]:
    if not text:
        return []
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(f"--shape takes four numbers B,H,N,D separated by commas, got {text!r}")
    batch, heads, tokens, dim = map(int, parts)
    return [(batch, heads, tokens, dim)]


def _check_output(file: Path, draws: bool) -> None:
    """Raise an error, before anything is measured, if the results could not be kept."""
    from dropkey.runs.run_folder import check_writable

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cannot write --output {file}: {error.strerror}") from None
    check_writable(file, b"{")
    if draws and file.suffix.lower() == ".png":
        raise ArgumentError(f"--output {file} is where the plot goes: name the JSON file, {file.with_suffix('.json')}")
    if draws:
        check_writable(file.with_suffix(".png"), b"\x89png")


def _report(rows: list[dict[str, Any]], output: str, command: str) -> None:
    from dropkey.bench import report

    print(f"{report.table(rows)}\n\n{report.where()}")
    if not output:
        return
    file = Path(output)
    try:
        report.write(rows, command, file)
        if any("direction" in row for row in rows):
            report.draw(rows, file.with_suffix(".png"))
    except OSError as error:
        raise ArgumentError(f"cannot write --output {file}: {error.strerror}") from None
    print(f"written to {file}")
