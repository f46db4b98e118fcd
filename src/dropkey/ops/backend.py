"""What a backend is: something that runs attention calls, or says why it does not.

Beside ``attend`` there are four abilities that a backend may have. Each is a pair: a method that says why not, by
default "it does not", and a method that does it, which is called only after the first has returned None.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.mixing import Mixing
from dropkey.ops.projection import Projection
from dropkey.patterns import Geometry

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

    # A keep mask.

    def refuses_mask(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> str | None:
        """Return why this backend cannot draw a mask of this shape (B, H, Nq, Nk), or None."""
        return "it draws no keep mask"

    def draw_keep(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> Tensor:
        """Return the keep mask of a draw, bool, broadcastable to ``mask_shape`` (B, H, Nq, Nk)."""
        raise self._unable()

    # The tokens that the token pattern keeps.

    def refuses_tokens(self, draw: Draw) -> str | None:
        """Return why this backend cannot list the tokens that a draw keeps, or None; a test may be run for it."""
        return "it lists no kept tokens"

    def kept_tokens(self, draw: Draw, geometry: Geometry) -> Tensor:
        """Return them as int64 (B, number of kept), rows of (B * N) tokens, image by image."""
        raise self._unable()

    # Re-attention.

    def refuses_mixing(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot mix the maps of this call, or None."""
        return "it mixes no maps"

    def attend_mixed(self, call: AttentionCall, mixing: Mixing) -> tuple[Tensor, Tensor]:
        """Return (B, H, Nq, Dv) in the query's dtype, and the variance that each head was divided by, float64 (H,)."""
        raise self._unable()

    # Self-attention over kept tokens, with its linear layers.

    def refuses_projection(self, projection: Projection) -> str | None:
        """Return why this backend cannot run an attention with these linear layers, or None."""
        return "it runs no linear layers"

    def attend_projected(self, projection: Projection, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from every token to those of ``rows``, int64 (B, K), as rows of ``x.view(B * N, C)``.

        Returns:
            (B, N, C'), and what the attention gave, (B, N, H * D), to look at: no gradient flows through it.
        """
        raise self._unable()

    def _unable(self) -> BackendError:
        return BackendError(f"backend {self.name!r} has no such ability: ask what it refuses first")
