"""Tasks by name: the one place that knows them all."""

import importlib
from collections.abc import Mapping
from typing import Any

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.tasks.task import Task

__all__ = ["DEFAULT_TASK", "TASKS", "named_task", "task_of"]

DEFAULT_TASK = "classification"

# A task's module, which has the task's object as TASK; imported when the task is asked for.
TASKS = {
    DEFAULT_TASK: "dropkey.tasks.classification.task",
    "detection": "dropkey.tasks.detection.task",
    "mesh": "dropkey.tasks.mesh.task",
    "interaction": "dropkey.tasks.interaction.task",
}


def named_task(name: str) -> Task[Any, Any]:
    """Return the task called ``name``, or raise an ArgumentError that lists the known ones."""
    if not isinstance(name, str) or name not in TASKS:
        raise ArgumentError(f"no task {name!r}{did_you_mean(str(name), TASKS)}; known: {', '.join(TASKS)}")
    task = importlib.import_module(TASKS[name]).TASK
    assert isinstance(task, Task)
    return task


def task_of(options: Mapping[str, Any]) -> Task[Any, Any]:
    """Return the task that options name; runs from before there were tasks are classification."""
    return named_task(options.get("task") or DEFAULT_TASK)
