"""Where runs run, as options that every command with several runs has."""

import dataclasses
from typing import TYPE_CHECKING

from dropkey.runs.numbers import PositiveInt
from dropkey.runs.options import Options, option

if TYPE_CHECKING:
    from dropkey.experiments.launcher import Launcher

__all__ = ["LaunchOptions", "launcher_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions(Options):
    """Where and how many at a time."""

    jobs: int = option(1, "runs in parallel", group="several runs", kind=PositiveInt)


def launcher_of(options: LaunchOptions) -> "Launcher":
    """Return what runs jobs where the options say."""
    if options.jobs == 1:
        from dropkey.experiments.launcher import Serial

        return Serial()
    from dropkey.experiments.processes import Processes

    return Processes(options.jobs)
