"""A slot: one regularizer at one site."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.adapters.order_watch import OrderWatch
from dropkey.adapters.record import Record
from dropkey.adapters.site_call import SiteCall
from dropkey.errors import SiteError
from dropkey.regularizers import Regularizer

__all__ = ["STAGES", "HandleId", "Slot"]

# Where in an attention call a slot works, in the order in which they do: before the softmax, on its weights, and on
# whole maps of all heads. Any number of slots work before the softmax, one on the weights and one on the maps.
STAGES = ("logits", "weights", "maps")


class HandleId:
    """What the slots of one handle have in common: the same object, which is no longer the same in a copy."""

    def __init__(self, watches_order: bool = False) -> None:
        self.order = OrderWatch(watches_order)


class Slot:
    """One regularizer at one site: whether it acts there, and what it does at its stage of every attention call.

    A slot of the stage "logits" writes ``before``. One of the stage "weights" writes ``attend`` and ``drop_weights``,
    see ``slots/dropout.py``; one of the stage "maps" writes ``attend`` and ``mix``, see ``slots/reattention.py``.
    Everything that it holds is copied and pickled with the module.
    """

    stage: ClassVar[str]
    drops: ClassVar[bool] = False  # drops keys or weights at a drop ratio; the module's own dropout gives way to it
    samples: ClassVar[bool] = False  # whether Monte Carlo lets it act in evaluation
    does: ClassVar[str] = "changed"  # what happens to keys, weights or maps, as in "nothing is changed there"
    columns: ClassVar[tuple[str, ...]] = ()  # of the handle's table

    def __init__(self, regularizer: Any, handle_id: HandleId, drop_ratio: float = 0.0, backend: str = "auto") -> None:
        self.regularizer: Regularizer = regularizer
        self.handle_id = handle_id
        self.drop_ratio = drop_ratio
        self.backend = backend
        self.enabled = True

    @property
    def drops_tokens(self) -> bool:
        """Whether all heads and queries of an image lose the same keys, and nothing else happens."""
        return False

    @property
    def needs_grid(self) -> bool:
        """Whether it must know how the patches lie."""
        return False

    def acts(self, training: bool) -> bool:
        """Say whether this slot changes a forward pass of a module in this mode."""
        return self.enabled

    def before(self, at: SiteCall) -> SiteCall:
        """Return a call as it is to be made: with a draw of keys to drop, or with another bias."""
        return at

    # What ``apply`` asks of the class, before anything is changed.

    @classmethod
    def check_backend(cls, backend: str) -> None:
        """Raise an ArgumentError for a backend, known as it is, that cannot run this regularizer."""

    @classmethod
    def chosen(cls, found: Sequence[Found], regularizer: Any) -> Sequence[Found]:
        """Return the attention modules that this regularizer is for, of those that the user chose."""
        return found

    @classmethod
    def check_applicable(cls, f: Found) -> None:
        """Raise a SiteError for an attention module that cannot take this regularizer."""

    # What the handle asks of each slot.

    def unfit(self, found: Sequence[Found]) -> list[str]:
        """Return "name (Class: why)" of known attention modules that this regularizer is not for."""
        return []

    def put_in(self, f: Found) -> None:
        """Give a module that has become a site what else this regularizer needs there."""

    def take_out(self, module: nn.Module) -> None:
        """Take away again what ``put_in`` has given."""

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return what stands in this slot's columns of the handle's table.

        Args:
            module: that carries the site.
            entry: what is special about its class.
            num_keys: that each query has, if known.
        """
        return []

    # What the proof asks, see ``verify.py``.

    acts_in_evaluation: ClassVar[bool] = False  # otherwise the model must be untouched there, bit for bit

    def noted(self, module: nn.Module) -> Any:
        """Return what ``check`` must know of the module as it was before the forward pass."""

    def check(self, name: str, records: Sequence[Record], noted: Any) -> Any:
        """Check all attention calls of one forward pass against what they should have been.

        Args:
            name: of the site.
            records: what the calls were given and what they returned.
            noted: what ``noted`` returned before the pass.

        Returns:
            What was seen, for the table: a NamedTuple with ``header`` and ``cells()``.

        Raises:
            SiteError: a call in which the slot did not do what it should.
        """
        raise SiteError(f"{name}: nothing proves yet what {type(self.regularizer).__name__} does")

    @property
    def state(self) -> str:
        """What ``print(model)`` adds while this slot is switched off."""
        return "" if self.enabled else ", disabled"
