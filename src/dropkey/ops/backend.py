"""What a backend is: something that runs attention calls, or says why it does not."""

from abc import ABC, abstractmethod

from torch import Tensor

from dropkey.ops.call import AttentionCall

__all__ = ["Backend"]


class Backend(ABC):
    """What dispatch asks of a backend."""

    name: str
    refuses_strangers = False  # whether ``refuses`` names tensors that are not torch's own by itself

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""

    @abstractmethod
    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None. Nothing is run to find out."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""

    def distrusts(self, call: AttentionCall) -> str | None:
        """Return why what this backend would return for the call may be wrong, or None; a test may be run for it."""
        return None

    def remark(self) -> str | None:
        """Return what is known of it on this machine besides, or None."""
        return None
