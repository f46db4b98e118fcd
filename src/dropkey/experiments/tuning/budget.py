"""How long a search may go on."""

import dataclasses
import math
import time

__all__ = ["Budget"]


@dataclasses.dataclass
class Budget:
    """A number of trials, a time, or both, whichever ends first.

    Args:
        trials: most trials; 0 for no limit.
        hours: most hours, with those that earlier commands have spent on the same search; 0 for no limit.
        spent: seconds that earlier commands have spent.
        reserve: seconds to leave for what comes after the search.
    """

    trials: int = 0
    hours: float = 0.0
    spent: float = 0.0
    reserve: float = 0.0
    started: float = dataclasses.field(default_factory=time.time)

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        return self.spent + time.time() - self.started

    @property
    def until(self) -> float:
        """When the search must end, in seconds since 1970."""
        if not self.hours:
            return math.inf
        return self.started - self.spent + 3600 * self.hours - self.reserve

    def allows(self, trials: int) -> bool:
        """Whether another trial may begin after so many."""
        return (not self.trials or trials < self.trials) and time.time() < self.until
