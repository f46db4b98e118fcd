"""``dropkey evaluate``."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError

if TYPE_CHECKING:
    from dropkey.runs.prepared import Prepared
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.evaluation import EvaluationOptions
    from dropkey.tasks.task import Task

__all__ = ["run"]

_DESCRIPTION = "Measure what a run has trained, or a timm model with weights, on the validation data."


def run(arguments: Sequence[str]) -> int:
    """Evaluate a run or a model, print a table and write it as JSON."""
    from dropkey.runs.failures import mendable_failures
    from dropkey.runs.options import refuse_idle
    from dropkey.runs.run_folder import RunFolder, check_writable, write_atomically
    from dropkey.tasks.registry import DEFAULT_TASK, named_task, task_of

    folder = _run_folder(arguments)
    task = named_task(DEFAULT_TASK) if folder is None else task_of(RunFolder(folder).read_config())
    parser = _parser(task)
    given = parser.read(arguments)
    name = given.values["name"]
    is_run = Path(name).is_dir()
    options = task.evaluation_class(evaluated="a run" if is_run else "a model", **given.of(task.evaluation_class))
    refuse_idle(options, [option for option in given.of(task.evaluation_class) if option in given.asked])
    output = options.output or (str(Path(name) / "evaluation.json") if is_run else "")
    _check_names(output, options.save_predictions)
    for file, begins in ((output, b"{"), (options.save_predictions, b"")):
        if file:
            check_writable(Path(file), begins)
    with mendable_failures():
        trained = _load(task, name, options)
        trained.data.eval_batch_size = options.batch_size
        result = task.evaluate(trained, options)
        if is_run:
            result["evaluated"] = _evaluated(RunFolder(Path(name)), options, trained)
    print(task.table(result))
    if output:
        kept = _earlier(Path(output), result)
        write_atomically(Path(output), (json.dumps({**kept, **result}, indent=2) + "\n").encode())
        if kept:
            print(f"kept from an earlier evaluation of the same weights: {', '.join(kept)}")
        print(f"written to {output}")
        page = task.page(trained, result)
        if page is not None:
            write_atomically(Path(output).with_suffix(".html"), page.encode())
            print(f"page: {Path(output).with_suffix('.html')}")
    if options.save_predictions:
        task.save_predictions(trained, Path(options.save_predictions))
        print(f"predictions written to {options.save_predictions}")
    return DONE


def _check_names(output: str, predictions: str) -> None:
    """Raise an ArgumentError for results that would be written over each other."""
    if Path(output).suffix.lower() == ".html":
        raise ArgumentError(f"--output {output} is where a page of examples would go: name a JSON file, such as x.json")
    if output and predictions and Path(output).absolute() == Path(predictions).absolute():
        raise ArgumentError(f"--output and --save-predictions are both {output}: one would be written over the other")


def _evaluated(folder: "RunFolder", options: "EvaluationOptions", trained: "Prepared") -> dict[str, Any]:
    """Return what tells one evaluation of a run from another: the weights and the data."""
    path = {"last": folder.last_checkpoint, "best": folder.best_checkpoint}[options.checkpoint]
    weights = f"{zlib.crc32(path.read_bytes()):08x}"
    return {"checkpoint": options.checkpoint, "weights_crc32": weights, "data_fingerprint": trained.data.fingerprint()}


def _earlier(output: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier evaluation of the same weights on the same data has measured, and this one has not."""
    try:
        earlier = json.loads(output.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(earlier, dict) or "evaluated" not in result or earlier.get("evaluated") != result["evaluated"]:
        return {}
    return {name: value for name, value in earlier.items() if name not in result}


def _parser(task: "Task[Any, Any]") -> Parser:
    parser = Parser("dropkey evaluate", _DESCRIPTION)
    parser.add_argument("name", type=str, help="folder of a run, or a timm model name with --weights or --pretrained")
    parser.add_options(task.evaluation_class)
    return parser


def _run_folder(arguments: Sequence[str]) -> Path | None:
    """Return the folder of a run among the words of the command line, which says what the task is."""
    return next((Path(word) for word in arguments if (Path(word) / "config.yaml").is_file()), None)


def _load(task: "Task[Any, Any]", name: str, options: "EvaluationOptions") -> "Prepared":
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.loading import load_run

    if Path(name).is_dir():
        return load_run(RunFolder(Path(name)), options.checkpoint, options.data_dir or None)
    if len(Path(name).parts) > 1 and ":" not in name:
        raise ArgumentError(f"no folder {name}: give the folder of a run, or the name of a timm model")
    return task.load_named(name, options)
