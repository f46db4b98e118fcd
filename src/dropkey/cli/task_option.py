"""``--task``: known before the other options are, since it decides which there are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropkey.cli.options import Parser, read_file, text_of
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.registry import DEFAULT_TASK, TASKS, named_task, task_of
from dropkey.tasks.task import Task

__all__ = ["add_task_options", "task_from"]


def task_from(arguments: Sequence[str]) -> Task[Any, Any]:
    """Return the task that the command line names, or its config file, or the run that it continues."""
    name, file, output = (text_of(option, arguments) for option in ("task", "config", "output"))
    if name is None and file:
        name = read_file(Path(file)).get("task")
    if name is None and output and "--resume" in arguments and RunFolder(Path(output)).holds_a_run:
        return task_of(RunFolder(Path(output)).read_config())
    return named_task(DEFAULT_TASK if name is None else name)


def add_task_options(
    parser: Parser, task: Task[Any, Any], arguments: Sequence[str], without: Sequence[str] = ()
) -> None:
    """Add the options of a task; the help shows the values of the recipe for the data, model and weights given."""
    parser.add_argument(
        "--task", type=str, metavar="NAME", help=f"what is trained: {', '.join(TASKS)} (default: {DEFAULT_TASK})"
    )
    parser.add_options(task.config_class, _shown(task, arguments), without=("task", *without))


def _shown(task: Task[Any, Any], arguments: Sequence[str]) -> Mapping[str, Any]:
    if not {"-h", "--help"} & set(arguments):
        return {}
    said = {name: text_of(name, arguments) for name in ("data", "model", "weights")}
    return task.recipe({name: value for name, value in said.items() if value})
