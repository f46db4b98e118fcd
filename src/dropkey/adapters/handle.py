"""Applying a regularizer to a model, and the handle to change, verify and undo it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from torch import nn

from dropkey.adapters import own_dropout, table
from dropkey.adapters.class_swap import check_ours, check_swappable, patched_since, replaced, swap_in, swap_out
from dropkey.adapters.discover import Found, attention_modules, left_alone, unknown_attention
from dropkey.adapters.grid_of_pass import follow_grids
from dropkey.adapters.names import prefix_of, unwrapped_names
from dropkey.adapters.new_site import site_to_fill
from dropkey.adapters.plan import Plan, planned, restored
from dropkey.adapters.settings import Settings
from dropkey.adapters.site import Site, site_of
from dropkey.adapters.slot import HandleId, Slot
from dropkey.adapters.slots.dropkey import DropKeySlot
from dropkey.adapters.slots.dropout import DropoutSlot
from dropkey.adapters.slots.reattention import MixSlot
from dropkey.adapters.verify import Verification, verify
from dropkey.adapters.verify_mixing import MixingVerification, verify_mixing
from dropkey.errors import ArgumentError, SiteError, did_you_mean
from dropkey.ops.dispatch import check_backend
from dropkey.ops.ordinary import is_plain
from dropkey.patterns import Pattern
from dropkey.regularizers import AttentionDropout, DropKey, ReAttention, Regularizer
from dropkey.schedules import check_drop_ratio

__all__ = ["Handle", "SiteInfo", "apply", "handle", "handles"]

_SLOTS: dict[type[Regularizer], type[Slot]] = {
    DropKey: DropKeySlot,
    AttentionDropout: DropoutSlot,
    ReAttention: MixSlot,
}
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
        """The sites, in the order of the model's blocks."""
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

        For Re-attention also the known ones that are no plain self-attention.
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

        Re-attention's parameters are gone afterwards, also from the state_dict.

        Raises:
            SiteError: something else has changed a module's class since, or the handle was removed before.
        """
        sites = self._sites()
        for module, site, _ in sites:
            check_ours(module, site)
        for module, _, slot in sites:
            _empty(module, slot.place)
        follow_grids(self.model)

    def verify(self, *inputs: Any, **kwargs: Any) -> Verification | MixingVerification:
        """Run the model on your input and prove that every site drops what it should, in training only.

        In training mode every site's output must equal the reference computed with the exported keep mask, and its
        dropped share must be the drop ratio within the bound of its pattern; in evaluation mode the model's output must
        be, bit for bit, what it is without the regularizer. Of Re-attention it proves that every site mixes as the
        formula says, in both modes. Random state, modes and buffers are as before afterwards.

        Args:
            inputs: what the model's forward takes: usually one batch of images.
            kwargs: likewise.

        Returns:
            A Verification, or a MixingVerification of Re-attention: ``print`` it for a table.

        Raises:
            SiteError: names the first site that does not do what it should.
        """
        sites = self._sites()
        for module, site, _ in sites:
            if (reason := replaced(module, site)) is not None:
                raise SiteError(f"{site.label} no longer asks its site: {reason} since dropkey.apply")
        prove = verify if sites[0][2].drops else verify_mixing
        return prove(self.model, sites, *inputs, **kwargs)

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
        self.remove()

    def __str__(self) -> str:
        patched = [
            f"{site.label}: {reason}" for module, site, _ in self._sites() if (reason := patched_since(module, site))
        ]
        return table.of_sites(self.model, self._sites(), self.unknown, self.left_alone, patched, self.enabled)

    def __repr__(self) -> str:
        return f"<Handle of {self.regularizer} on {type(self.model).__name__}, {len(self._sites())} sites>"

    def _sites(self) -> list[tuple[nn.Module, Site, Slot]]:
        """Return (module, site, slot) of every site of this handle."""
        sites = [row for row in _filled_slots(self.model) if row[2].handle_id is self._id]
        if not sites:
            raise SiteError("this handle was removed from the model: apply again for a new one")
        return sites

    def _named_sites(self) -> list[tuple[str, Site, Slot]]:
        names = unwrapped_names(self.model)
        return [(names[module], site, slot) for module, site, slot in self._sites()]

    def _set_enabled(self, enabled: bool) -> None:
        for module, site, slot in self._sites():
            slot.enabled = enabled
            own_dropout.settle(module, site)


def apply(
    model: nn.Module,
    regularizer: Regularizer | Mapping[str, Any],
    *,
    backend: str = "auto",
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    where: Callable[[Found], bool] | None = None,
) -> Handle:
    """Put a regularizer into every attention module of a model that an adapter knows.

    The model's state_dict keeps its keys; evaluation and drop ratio 0 are the untouched computation, bit for bit. A
    model's own attention dropout is zero while the regularizer is enabled. Apply first, then wrap (DDP, FSDP, compile).
    ReAttention is another matter: it adds parameters, so apply it before the optimizer is made, acts in evaluation too,
    and leaves the model's own dropout on; the model's outputs are the same until it is trained.

    Args:
        model: any module: a timm model, or one with classes given to ``dropkey.register``.
        regularizer: ``DropKey``, ``AttentionDropout`` or ``ReAttention``; or what a handle's ``state_dict`` returned,
            to restore it on the sites that it names.
        backend: "auto" or a key of ``dropkey.backends()``.
        grid_size: (rows, cols) of the patch grid for the patterns "block" and "cross", whatever the input; where it is
            left out it is that of each pass in timm's and transformers' models.
        num_prefix_tokens: class, register and distillation tokens before the patches; likewise.
        where: says of each attention module found (its ``name``, ``kind``, ``block_index``, ``module``) whether to act
            there; the schedule then runs over the blocks that are left. Everywhere by default; not with a state_dict.

    Returns:
        A Handle.

    Raises:
        ArgumentError: not a regularizer, an unknown backend, or a list of ratios that does not fit the model.
        SiteError: a model without known attention, none where asked for, or with this regularizer on it already.

    Example:
        >>> import torch, dropkey
        >>> @dropkey.register
        ... class MyAttention(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.nn.functional.scaled_dot_product_attention(x, x, x)
        >>> model = torch.nn.Sequential(MyAttention(), MyAttention())
        >>> dropkey.apply(model, dropkey.DropKey(0.3)).drop_ratios
        (0.3, 0.0)
    """
    check_backend(backend)
    if isinstance(regularizer, Mapping):
        plan = restored(model, regularizer, where)
    elif type(regularizer) in _SLOTS:
        plan = planned(model, regularizer, where)
    else:
        known = "DropKey(...) or AttentionDropout(...) or ReAttention(...)"
        raise ArgumentError(f"apply takes {known}, got {regularizer!r}")
    slot_class = _SLOTS[type(plan.regularizer)]
    slot_class.check_backend(backend)
    _check_applicable(plan.found, slot_class)
    handle_id = HandleId()
    filled: list[Found] = []
    try:
        for f, drop_ratio in zip(plan.found, plan.drop_ratios, strict=True):
            slot = _slot(plan, handle_id, drop_ratio, backend, f.module)
            filled.append(f)
            _fill(f, slot, site_to_fill(f, grid_size, num_prefix_tokens))
        follow_grids(model)
    except BaseException:
        for f in filled:
            _empty(f.module, slot_class.place)
        follow_grids(model)
        raise
    return Handle(model, handle_id)


def handle(model: nn.Module, regularizer: type[Regularizer] | Regularizer | None = None) -> Handle:
    """Return the handle of a model that a regularizer was applied to, also after deepcopy or unpickling.

    Args:
        model: the model, or one that contains it.
        regularizer: where there are several, the class of the one meant (``dropkey.DropKey``), or what was applied.

    Raises:
        SiteError: none was applied, or several were, or several copies are in this model: it lists them.
    """
    found = handles(model)
    fitting = [one for one in found if _is_meant(one.regularizer, regularizer)]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{_prefix(one) or 'all of it'}: {one.regularizer}" for one in found)
    if not found:
        raise SiteError(f"no regularizer was applied to this {type(model).__name__}: see dropkey.apply")
    if not fitting:
        raise SiteError(f"{regularizer} was not applied to this {type(model).__name__}; applied are {listed}")
    raise SiteError(
        f"several handles are on this {type(model).__name__} ({listed}): name one, as in dropkey.handle(model, "
        "dropkey.DropKey), ask the part of the model, or take dropkey.handles(model)"
    )


def handles(model: nn.Module) -> list[Handle]:
    """Return all handles of a model, in the order of their first site: one for each regularizer and each copy."""
    ids = dict.fromkeys(slot.handle_id for _, _, slot in _filled_slots(model))
    return [Handle(model, handle_id) for handle_id in ids]


def _is_meant(applied: Regularizer, asked: type[Regularizer] | Regularizer | None) -> bool:
    if asked is None:
        return True
    return isinstance(applied, asked) if isinstance(asked, type) else applied == asked


def _prefix(one: Handle) -> str:
    return prefix_of({name: site.name for name, site, _ in one._named_sites()})


def _filled_slots(model: nn.Module) -> list[tuple[nn.Module, Site, Slot]]:
    rows = []
    for module in model.modules():
        site = site_of(module)
        if site is not None:
            rows += [(module, site, slot) for slot in site.slots()]
    return rows


def _fill(f: Found, slot: Slot, site: Site) -> None:
    """Put a slot into the site of a module, which becomes one."""
    setattr(site, slot.place, slot)
    swap_in(f.module, site)
    slot.put_in(f)
    own_dropout.settle(f.module, site)


def _empty(module: nn.Module, place: str) -> None:
    """Take a slot out of a module's site again, as far as it has been put in."""
    site = site_of(module)
    slot: Slot | None = None if site is None else getattr(site, place)
    if site is None or slot is None:
        return
    setattr(site, place, None)
    own_dropout.settle(module, site)
    slot.take_out(module)
    if not site.slots() and not site.listeners:
        swap_out(module, site)


def _slot(plan: Plan, handle_id: HandleId, drop_ratio: float, backend: str, module: nn.Module) -> Slot:
    slot = _SLOTS[type(plan.regularizer)](plan.regularizer, handle_id, drop_ratio, backend)
    slot.enabled = plan.enabled
    parameter = next(module.parameters(), None)
    if parameter is not None and is_plain(parameter):  # a graph that is compiled at first finds the ratio on its GPU
        slot.on_devices.on(parameter.device, slot.ratio_tensor)
    return slot


def _check_applicable(found: Sequence[Found], slot_class: type[Slot]) -> None:
    for f in found:
        site = site_of(f.module)
        if site is None:
            check_swappable(f.name, f.module)
        elif (applied := getattr(site, slot_class.place)) is not None:
            raise SiteError(
                f"{applied.regularizer} is on this model already: remove it first, dropkey.handle(model).remove()"
            )
        slot_class.check_applicable(f)
