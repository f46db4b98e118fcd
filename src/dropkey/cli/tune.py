"""``dropkey tune``."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Given, Parser
from dropkey.cli.task_option import add_task_options, task_from
from dropkey.errors import ArgumentError
from dropkey.experiments.launch_options import LaunchOptions, launcher_of
from dropkey.patterns import PATTERNS
from dropkey.runs.numbers import NonNegative, NonNegativeInt
from dropkey.runs.options import flag, idle_because, option, options_of, refuse_idle

if TYPE_CHECKING:
    from dropkey.experiments.launcher import Launcher
    from dropkey.experiments.tuning.search import Search
    from dropkey.experiments.tuning.trials import Trial
    from dropkey.tasks.task import Task

__all__ = ["TuneOptions", "run"]

_DESCRIPTION = (
    "Search the drop ratio, schedule and pattern, and the learning rate, drop path and augmentation beside them, under "
    "a budget; then compare the best with none on seeds that the search did not use. An option of dropkey train that "
    "is given is not searched. Run again, it goes on."
)
_OF_ONE_RUN = ("seed", "output", "devices", "strategy")
_SHARE = 0.2  # of the training images that the search validates on
_WHERE = ("workers", "threads", "data_dir", "save_seconds")  # change nothing that a search finds


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneOptions(LaunchOptions):
    """Options of ``dropkey tune`` beside those of ``dropkey train``."""

    trials: int = option(
        0,
        "runs to try, with those of earlier commands; 0 for as many as --hours allow",
        group="search",
        kind=NonNegativeInt,
        takes="N",
        shown="no limit",
    )
    hours: float = option(
        0.0, "hours for search and check together", group="search", kind=NonNegative, shown="no limit"
    )
    check_seeds: int = option(
        5,
        "runs of the best and of none at the end, with seeds that the search did not use; 0 to search alone",
        group="search",
        kind=NonNegativeInt,
    )
    storage: str = option(
        "",
        "where the search is kept: a file (NAME.log is a journal that network file systems can lock, any other "
        "SQLite), or the URL of a database that several machines search in",
        group="search",
        takes="PLACE",
        shown="search.db in the folder; with --cluster search.log",
    )
    output: str = option("", "folder of the search", group="search", takes="DIR", shown="runs/tune-DATA")


def run(arguments: Sequence[str]) -> int:
    """Search, check, and say what to use."""
    task = task_from(arguments)
    given = _parser(task, arguments).read(arguments)
    options = TuneOptions(**given.of(TuneOptions))
    refuse_idle(options, [name for name in given.of(TuneOptions) if name in given.asked])
    if not options.trials and not options.hours:
        raise ArgumentError("how long to search: --trials 20, --hours 1, or both, whichever ends first")
    shared = _shared(task, given)

    from dropkey.experiments.tuning.importance import importance_of, in_sentences
    from dropkey.runs.interruption import Interrupted
    from dropkey.runs.run_lock import locked

    launcher = launcher_of(options)
    search = _search(task, shared, options)
    _say(f"searching {', '.join(flag(d.option) for d in search.space)}; {launcher}; folder {search.root}")
    _say(_validation(search))
    try:
        with locked(search.root):
            trials = search.run(launcher, _say)
            _say("\n".join(in_sentences(importance_of(search))) or "too few trials have ended to say what mattered")
            if options.check_seeds:
                _check(search, trials, options.check_seeds, launcher)
    except Interrupted:
        print("dropkey: interrupted; the same command goes on where this stopped", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _parser(task: "Task[Any, Any]", arguments: Sequence[str]) -> Parser:
    parser = Parser("dropkey tune", _DESCRIPTION)
    parser.add_options(TuneOptions)
    add_task_options(parser, task, arguments, without=_OF_ONE_RUN)
    return parser


def _shared(task: "Task[Any, Any]", given: Given) -> dict[str, Any]:
    """Return the options of all trials: what is given, and images that are held out of the training images."""
    shared = {name: value for name, value in given.of(task.config_class).items() if name not in _OF_ONE_RUN}
    if shared.get("regularizer") == "none":
        raise ArgumentError("--regularizer none leaves nothing to compare with none: leave it out")
    for name in shared:
        _refuse_idle(task, shared, name, name in given.asked)
    if "val_share" in _names(task) and "val_share" not in shared:
        shared["val_share"] = _SHARE
    return shared


def _refuse_idle(task: "Task[Any, Any]", shared: dict[str, Any], name: str, asked: bool) -> None:
    """Raise an ArgumentError for an option that would act in no trial."""
    patterns = [shared["pattern"]] if "pattern" in shared else list(PATTERNS)
    configs = [task.resolve({**shared, "pattern": pattern, "output": "-"}) for pattern in patterns]
    reasons = [idle_because(config, name) for config in configs]
    if asked and all(reasons):
        raise ArgumentError(f"{flag(name)} acts only with {reasons[0]}, which no trial has: leave it out")


def _names(task: "Task[Any, Any]") -> list[str]:
    return [field.name for field in options_of(task.config_class)]


def _search(task: "Task[Any, Any]", shared: dict[str, Any], options: TuneOptions) -> "Search":
    from dropkey.experiments.tuning.budget import Budget
    from dropkey.experiments.tuning.search import Search
    from dropkey.experiments.tuning.search_file import SearchFile
    from dropkey.experiments.tuning.space import space_of
    from dropkey.experiments.tuning.trials import Storage, Trials

    base = task.resolve({**shared, "output": "-"})
    root = Path(options.output or f"runs/tune-{base.data}")
    file = SearchFile(root, {"task": task.name, **{k: v for k, v in shared.items() if k not in _WHERE}})
    place = options.storage or str(root / ("search.log" if options.cluster else "search.db"))
    place = place if "://" in place else str(Path(place).absolute())
    trials = Trials(Storage(place, file.name, task.measures[0], base.epochs))
    budget = Budget(options.trials, options.hours, file.seconds)
    runs_after = 2 * options.check_seeds
    return Search(root, task, shared, space_of(base, shared), trials, budget, file, runs_after)


def _validation(search: "Search") -> str:
    share = search.given.get("val_share", 0.0)
    if share:
        return f"each trial validates on {share:.0%} of the training images; the check, on the validation images"
    return (
        "each trial validates on the same validation data as the check, so the check flatters what was found: it knows "
        "the spread of seeds, not that of the choice"
    )


def _check(search: "Search", trials: "Sequence[Trial]", seeds: int, launcher: "Launcher") -> None:
    """Compare the best with none, and print what to use."""
    from dropkey.experiments.comparison_table import as_text, difference_text
    from dropkey.experiments.tuning.check import Check, command
    from dropkey.experiments.tuning.found import write_found

    check = Check(search, trials, seeds)
    _say(f"\nthe best with and without a regularizer, on {seeds} seeds that the search did not use")
    for arm in check.arms:
        _say(f"{arm.label}: {command(check.options(arm))}")
    checked = check.run(launcher, _say)
    page = write_found(search, trials, check, checked, _validation(search))
    measures = search.task.measures
    _say(f"\n{as_text(checked.rows, measures)}\n")
    _say(f"{measures[0].words} {difference_text(measures[0], checked.rows[1].difference)}: {checked.finding.words}")
    _say(f"{command(check.options(checked.arm))}\noptions: {search.root / 'found.yaml'}; page: {page}")


def _say(line: str) -> None:
    print(line, flush=True)
