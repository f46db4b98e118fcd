"""Where runs run: one after another, in processes of this machine, or on a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable

from dropkey.experiments.job import Job, Outcome, outcome_of

__all__ = ["Launcher", "Serial"]


class Launcher(ABC):
    """Base of the ways to run jobs."""

    room: int = 1  # runs at a time
    threads: int = 0  # CPU threads of a run that does not say how many; 0 leaves it to the run

    @abstractmethod
    def __str__(self) -> str:
        """Say where, and how many at a time."""

    @abstractmethod
    def run(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome]]:
        """Run jobs, and yield each with its outcome once it has ended.

        A job is taken from the iterable when there is room for it and not before, so which job comes next may depend
        on the outcomes so far. Closing the generator ends what still runs, after saving.

        Raises:
            Interrupted: a run was asked to stop, and has saved its state.
            DropKeyError: a run cannot be trained; the message names it.
        """


class Serial(Launcher):
    """Runs one job after another in this process."""

    def __str__(self) -> str:
        return "one at a time"

    def run(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome]]:
        for job in jobs:
            yield job, outcome_of(job)
