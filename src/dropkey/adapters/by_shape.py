"""Unknown classes that have the shape of attention: which of them are attention is proved on an example.

A class counts if, for one of the layouts that a class can have, every module of it drops what it should (see
``verify.py``), and what is dropped are tokens: with one key forbidden, no other token's output depends on that token
any more. A softmax over channels passes the first proof and fails the second.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.block_order import as_arguments
from dropkey.adapters.class_swap import check_swappable
from dropkey.adapters.discover import Found, unknown_modules
from dropkey.adapters.entry import Entry
from dropkey.adapters.filling import empty, fill
from dropkey.adapters.listeners import Recorder, listening
from dropkey.adapters.names import shown
from dropkey.adapters.new_site import new_site
from dropkey.adapters.restoring import restored
from dropkey.adapters.site import Site
from dropkey.adapters.site_call import SiteCall
from dropkey.adapters.slot import HandleId, Slot
from dropkey.adapters.slots.dropkey import DropKeySlot
from dropkey.adapters.verify import verify
from dropkey.errors import DropKeyError, SiteError, first_line
from dropkey.regularizers import DropKey

__all__ = ["proved_by_shape"]

_ENTRIES = tuple(Entry(routes_softmax=True, layout=layout) for layout in ("bh", "g"))


def proved_by_shape(model: nn.Module, example: Any) -> list[Found]:
    """Return the unknown modules that are proved to be attention on an example; warn of those that are not.

    Args:
        model: any module; it is as before afterwards.
        example: inputs of the model, see ``dropkey.apply``.
    """
    classes: dict[type[nn.Module], list[tuple[str, nn.Module]]] = {}
    for name, module in unknown_modules(model):
        classes.setdefault(type(module), []).append((name, module))
    proved: list[Found] = []
    for cls, modules in classes.items():
        reasons = []
        for entry in _ENTRIES:
            found = [Found(name, module, entry, 0, None, 0) for name, module in modules]
            reason = _refuted(model, found, example)
            if reason is None:
                proved += found
                break
            reasons.append(reason)
        else:
            names = ", ".join(shown(name) for name, _ in modules[:3])
            warnings.warn(f"by_shape leaves out {names} ({cls.__name__}), not proved: {reasons[0]}", stacklevel=4)
    return proved


def _refuted(model: nn.Module, found: Sequence[Found], example: Any) -> str | None:
    """Return why modules are not attention of this layout, or None if they are."""
    filled: list[tuple[nn.Module, Site, Slot]] = []
    slot: Slot
    regularizer, handle_id = DropKey(0.5, schedule="constant"), HandleId()
    args, kwargs = as_arguments(example)
    try:
        for f in found:
            check_swappable(f.name, f.module)
            site, slot = new_site(f), DropKeySlot(regularizer, handle_id, 0.5, "auto")
            filled.append((f.module, site, slot))
            fill(f, slot, site)
        verify(model, filled, *args, **kwargs)
        for module, site, slot in filled:
            slot.enabled = False
            _check_keys_are_tokens(model, module, site, args, kwargs)
    except (DropKeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
        return first_line(error)
    finally:
        for module, _, slot in filled:
            empty(module, slot)
    return None


def _check_keys_are_tokens(
    model: nn.Module, module: nn.Module, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise a SiteError unless a token whose key is forbidden has lost its influence on the others."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    hook = module.register_forward_hook(
        lambda _, given, named, out: calls.append((given, named, out)), with_kwargs=True
    )
    recorder = Recorder(always=True)
    with restored(model), torch.no_grad():
        model.eval()
        try:
            with listening([(module, recorder)]):
                model(*args, **kwargs)
        finally:
            hook.remove()
        given, named, out = calls[0]
        num_keys = recorder.records[0].call.mask_shape[3]
        inputs = [t for t in (*given, *named.values()) if isinstance(t, Tensor) and t.dim() == 3]
        sources = {id(t): t for t in inputs if t.shape[1] == num_keys}
        if not any(_is_source(module, site, source, num_keys // 2, given, named, out) for source in sources.values()):
            raise SiteError(f"{site.name} does not attend over the tokens of an input (batch, tokens, channels)")


def _is_source(
    module: nn.Module,
    site: Site,
    source: Tensor,
    token: int,
    given: tuple[Any, ...],
    named: dict[str, Any],
    out: Any,
) -> bool:
    """Say whether the module's keys are the tokens of an input: a change of one is seen unless its key is forbidden."""
    changed = source.clone()
    changed[:, token] += 1 + changed[:, token].abs()
    new_given = tuple(changed if value is source else value for value in given)
    new_named = {name: changed if value is source else value for name, value in named.items()}

    def influence() -> float:
        before, after = (_first(module(*a, **k)) for a, k in ((given, named), (new_given, new_named)))
        others = [row for row in range(before.shape[1]) if row != token or before.shape[1] != source.shape[1]]
        return ((after - before)[:, others].abs().max() / before.abs().max()).item()

    free = influence()
    blind = _Blind(token)
    site.slots = site.slots.joined_by(blind)
    try:
        return influence() < 1e-4 * max(free, 1e-3) and free > 1e-3
    finally:
        site.slots = site.slots.without(blind)


def _first(out: Any) -> Tensor:
    """Return the first tensor (batch, tokens, channels) of what a module returns."""
    leaves = torch.utils._pytree.tree_leaves(out)
    return next(leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() == 3)


class _Blind(Slot):
    """Forbids one key to all queries."""

    stage = "logits"

    def __init__(self, token: int) -> None:
        super().__init__(None, HandleId())
        self.token = token

    def before(self, at: SiteCall) -> SiteCall:
        """Return the call without the key."""
        bias, num_keys = at.call.attn_bias, at.call.mask_shape[3]
        seen = torch.arange(num_keys, device=at.call.query.device).view(1, 1, 1, -1) != self.token
        if bias is not None:
            seen = bias & seen if bias.dtype == torch.bool else bias.masked_fill(~seen, -torch.inf)
        return at._replace(call=at.call._replace(attn_bias=seen))
