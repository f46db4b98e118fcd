"""Whether blocks run in the order in which the schedule has taken them, seen in the first pass in which they act."""

import warnings

__all__ = ["OrderWatch"]


class OrderWatch:
    """Watches the sites of one handle for one pass, where their blocks were taken as they are registered.

    Args:
        watches: whether the order matters and has not been seen yet.
    """

    def __init__(self, watches: bool = False) -> None:
        self.matters = watches
        self.remark: str | None = None  # what was seen, in words, if the two orders differ
        self.begin()

    def begin(self) -> None:
        """Watch the pass that comes next."""
        self.watches = self.matters
        self._seen: set[str] = set()
        self._last = (-1, "")

    def ran(self, name: str, block_index: int) -> None:
        """Note that a site acts, and warn if it is one of a block that should have run before."""
        if not self.watches:
            return
        if name in self._seen:  # the next pass has begun, or blocks share a module: all is seen
            self.watches = False
            return
        self._seen.add(name)
        if block_index >= self._last[0]:
            self._last = (block_index, name)
            return
        self.watches = False
        self.remark = (
            f"{self._last[1]} runs before {name}, but the schedule took the blocks as they are registered: give "
            "dropkey.apply an example=, inputs of the model, to take them as they run"
        )
        warnings.warn(self.remark, stacklevel=2)
