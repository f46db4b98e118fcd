"""The handle of a regularizer on a model: to look at it, change, verify and undo it."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from torch import nn

from dropkey.adapters import own_dropout, table
from dropkey.adapters.class_swap import check_ours, patched_since, replaced
from dropkey.adapters.discover import attention_modules, left_alone, unknown_attention
from dropkey.adapters.filling import empty
from dropkey.adapters.grid_of_pass import follow_grids
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.settings import Settings
from dropkey.adapters.site import Site, site_of
from dropkey.adapters.slot import HandleId, Slot
from dropkey.adapters.verify import Verification, verify
from dropkey.errors import ArgumentError, SiteError, did_you_mean
from dropkey.patterns import Pattern
from dropkey.regularizers import Regularizer
from dropkey.schedules import check_drop_ratio

__all__ = ["Handle", "SiteInfo", "filled_slots"]


_ASSIGNED = ("model", "drop_ratios", "_id")
_INSTEAD = {
    "enabled": "call enable() or disable()",
    "regularizer": "remove() the handle and apply another",
    "sites": "remove() the handle and apply again, with where=",
}


class SiteInfo(NamedTuple):
    """What a handle knows of one of its sites."""

    name: str
    kind: str
    block_index: int
    drop_ratio: float
    pattern: Pattern | None
    backend: str


class Handle:
    """One regularizer on one model: ``print`` it for a table of its sites.

    Get one from ``dropkey.apply`` or ``dropkey.handle``. All state lies in the model's sites, so any number of handles
    of the same model agree. As a context manager it removes itself at the end.
    """

    def __init__(self, model: nn.Module, handle_id: HandleId) -> None:
        self.model = model
        self._id = handle_id

    @property
    def regularizer(self) -> Regularizer:
        """What was applied."""
        return self._sites()[0][2].regularizer

    @property
    def sites(self) -> list[SiteInfo]:
        """The sites, in the order of the model's blocks: as they run if an example was given."""
        names = unwrapped_names(self.model)
        return [
            SiteInfo(
                names[module],
                site.entry.kind,
                site.block_index,
                slot.drop_ratio,
                getattr(slot.regularizer, "pattern", None),
                slot.backend,
            )
            for module, site, slot in self._sites()
        ]

    @property
    def unknown(self) -> list[str]:
        """Modules that look like attention but have no adapter: nothing is done there.

        For Re-attention and locality self-attention also the known ones that are no plain self-attention.
        """
        unfit = self._sites()[0][2].unfit(attention_modules(self.model))
        return [*unknown_attention(self.model), *unfit]

    @property
    def left_alone(self) -> list[str]:
        """Modules that are called attention but have no keys to drop, each with the reason."""
        return left_alone(self.model)

    @property
    def drop_ratios(self) -> tuple[float, ...]:
        """The drop ratio of every site; assign a list of the same length to change them, also during training."""
        return tuple(slot.drop_ratio for _, _, slot in self._sites())

    @drop_ratios.setter
    def drop_ratios(self, ratios: Iterable[float]) -> None:
        slots = [slot for _, _, slot in self._sites()]
        if not slots[0].drops:
            raise ArgumentError(f"{self.regularizer} drops nothing: it has no drop ratios")
        if isinstance(ratios, str | bytes) or not isinstance(ratios, Iterable):
            raise ArgumentError(
                f"drop_ratios takes one ratio a site, got {ratios!r}: for the same everywhere "
                f"assign [{ratios!r}] * {len(slots)}"
            )
        checked = [check_drop_ratio(ratio) for ratio in ratios]
        if len(checked) != len(slots):
            raise ArgumentError(f"drop_ratios has {len(checked)} entries, but the model has {len(slots)} sites")
        for slot, ratio in zip(slots, checked, strict=True):
            slot.drop_ratio = ratio

    @property
    def enabled(self) -> bool:
        """Whether the regularizer acts in training, at every site."""
        return all(slot.enabled and replaced(module, site) is None for module, site, slot in self._sites())

    def enable(self) -> None:
        """Let the regularizer act again in training."""
        self._set_enabled(True)

    def disable(self) -> None:
        """Train and evaluate the untouched model until ``enable``; ratios are kept."""
        self._set_enabled(False)

    def state_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, to keep beside the model's weights: give it to ``apply`` to restore them.

        It holds the regularizer, whether it is enabled, and the drop ratio of every site by its path in this model, as
        strings, numbers, lists and dicts; a schedule that is a function is saved as the ratios that it gave. Wrappers
        (compile, DDP, FSDP, averaging) are left out of the paths.
        """
        return Settings.of(self._named_sites()).plain()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set everything as it was when ``state_dict`` was called, also during training.

        Raises:
            ArgumentError: the settings of another regularizer or of other sites; nothing is changed then.
        """
        settings = Settings.from_plain(state)
        sites = self._named_sites()
        settings.check_fits(sites)
        for name, _, slot in sites:
            slot.regularizer = settings.regularizer
            slot.drop_ratio = settings.drop_ratios[name]
        self._set_enabled(settings.enabled)

    def remove(self) -> None:
        """Take the regularizer out; modules without any other get their class and own dropout back.

        Parameters that it had added are gone afterwards, also from the state_dict.

        Raises:
            SiteError: something else has changed a module's class since, or the handle was removed before.
        """
        sites = self._sites()
        for module, site, _ in sites:
            check_ours(module, site)
        for module, _, slot in sites:
            empty(module, slot)
        follow_grids(self.model)

    def verify(self, *inputs: Any, **kwargs: Any) -> Verification:
        """Run the model on your input and prove that every site drops what it should, in training only.

        In training mode every site's output must equal the reference computed with the exported keep mask, and its
        dropped share must be the drop ratio within the bound of its pattern; in evaluation mode the model's output must
        be, bit for bit, what it is without the regularizer. Of Re-attention and locality self-attention it proves that
        every site does as the formula says, in both modes. Random state, modes and buffers are as before afterwards.

        Args:
            inputs: what the model's forward takes: usually one batch of images.
            kwargs: likewise.

        Returns:
            A Verification: ``print`` it for a table.

        Raises:
            SiteError: names the first site that does not do what it should.
        """
        sites = self._sites()
        for module, site, _ in sites:
            if (reason := replaced(module, site)) is not None:
                raise SiteError(f"{site.label} no longer asks its site: {reason} since dropkey.apply")
        return verify(self.model, sites, *inputs, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _ASSIGNED:
            remedy = _INSTEAD.get(name) or did_you_mean(name, ("drop_ratios",)).removeprefix("; ") or "see help(handle)"
            raise ArgumentError(f"a handle has nothing called {name!r} to assign: {remedy}")
        object.__setattr__(self, name, value)

    def __enter__(self) -> "Handle":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._rows():  # else it was removed inside, and an error on its way out is not to be hidden
            self.remove()

    def __str__(self) -> str:
        patched = [
            f"{site.label}: {reason}" for module, site, _ in self._sites() if (reason := patched_since(module, site))
        ]
        return table.of_sites(self.model, self._sites(), self.unknown, self.left_alone, patched, self.enabled)

    def __repr__(self) -> str:
        rows = self._rows()
        what = f"of {rows[0][2].regularizer} on" if rows else "removed from"
        return f"<Handle {what} {type(self.model).__name__}, {len(rows)} sites>"

    def _sites(self) -> list[tuple[nn.Module, Site, Slot]]:
        """Return (module, site, slot) of every site of this handle."""
        sites = self._rows()
        if not sites:
            raise SiteError("this handle was removed from the model: apply again for a new one")
        return sites

    def _rows(self) -> list[tuple[nn.Module, Site, Slot]]:
        """As ``_sites``, none after the handle was removed."""
        rows = [row for row in filled_slots(self.model) if row[2].handle_id is self._id]
        return sorted(rows, key=lambda row: row[1].block_index)

    def _named_sites(self) -> list[tuple[str, Site, Slot]]:
        names = unwrapped_names(self.model)
        return [(names[module], site, slot) for module, site, slot in self._sites()]

    def _set_enabled(self, enabled: bool) -> None:
        for module, site, slot in self._sites():
            slot.enabled = enabled
            own_dropout.settle(module, site)


def filled_slots(model: nn.Module) -> list[tuple[nn.Module, Site, Slot]]:
    """Return (module, site, slot) of everything that was applied to a model, in the order of its modules."""
    rows = []
    for module in model.modules():
        site = site_of(module)
        if site is not None:
            rows += [(module, site, slot) for slot in site.slots]
    return rows
