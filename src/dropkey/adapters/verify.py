"""The proof that a regularizer acts: every site as its slot says, on the user's own input."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.adapters.grid_of_pass import check_grid, grids_of_pass
from dropkey.adapters.listeners import recording
from dropkey.adapters.names import shown
from dropkey.adapters.restoring import restored, restored_random_state
from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.errors import SiteError
from dropkey.text_table import text_table

__all__ = ["Verification", "verify"]

Rows = Sequence[tuple[nn.Module, Site, Slot]]


class Verification(NamedTuple):
    """What ``Handle.verify`` has proved: ``print`` it for a table."""

    checks: list[Any]  # one a site, with what its slot has seen: a DropCheck or a MixCheck
    remark: str | None = None  # what else was seen that the user may not have meant

    def __str__(self) -> str:
        rows = [["site", *self.checks[0].header], *([shown(c.name), *c.cells()] for c in self.checks)]
        lines = [text_table(rows), self.checks[0].conclusion, *([self.remark] if self.remark else [])]
        return "\n".join(lines)


def verify(model: nn.Module, rows: Rows, *inputs: Any, **kwargs: Any) -> Verification:
    """See ``Handle.verify``."""
    for _, _, slot in rows:
        if not slot.enabled:
            raise SiteError(f"{slot.regularizer} is disabled, so there is nothing to verify: enable() it first")
    with restored(model), torch.no_grad():
        if rows[0][2].acts_in_evaluation:
            _check_pass(model, rows, False, *inputs, **kwargs)
        else:
            _check_untouched(model, rows, *inputs, **kwargs)
        order = rows[0][2].handle_id.order
        order.begin()
        verification = _check_pass(model, rows, True, *inputs, **kwargs)
        return verification._replace(remark=order.remark)


def _check_pass(model: nn.Module, rows: Rows, training: bool, *inputs: Any, **kwargs: Any) -> Verification:
    """Run the model in one mode and let every slot check the attention calls of its site."""
    model.train(training)
    noted = [slot.noted(module) for module, _, slot in rows]
    with recording([module for module, _, _ in rows]) as records, grids_of_pass(model) as grids:
        model(*inputs, **kwargs)
    for (module, site, slot), heard in zip(rows, records, strict=True):
        if not heard and slot.acts(training):
            mode = "training" if training else "evaluation"
            raise SiteError(
                f"{site.name} was not reached in {mode} mode: the model did not call it, or bypassed it, "
                "or a forward that was set on it since dropkey.apply does not call its own"
            )
        check_grid(site, heard, grids.get(module))
    with _full_precision(model):
        each = zip(rows, records, noted, strict=True)
        return Verification([slot.check(site.name, heard, before) for (_, site, slot), heard, before in each])


def _check_untouched(model: nn.Module, rows: Rows, *inputs: Any, **kwargs: Any) -> None:
    """Raise if the model gives another output in evaluation mode than without the regularizer."""
    model.eval()
    with recording([module for module, _, _ in rows]) as records, restored_random_state(model):
        with_slots = _flat(model(*inputs, **kwargs))
    for (_, site, _), heard in zip(rows, records, strict=True):
        if any(record.drops for record in heard):
            raise SiteError(f"{site.name} acts in evaluation mode too")
    for _, _, slot in rows:
        slot.enabled = False
    try:
        with restored_random_state(model):  # some models draw in evaluation too: masked autoencoders
            without = _flat(model(*inputs, **kwargs))
    finally:
        for _, _, slot in rows:
            slot.enabled = True
    same = len(with_slots) == len(without) and all(map(_equal, with_slots, without))
    if not same:
        raise SiteError(
            f"in evaluation mode this {type(model).__name__} gives another output than without the regularizer"
        )


def _full_precision(model: nn.Module) -> contextlib.ExitStack:
    """Keep autocast away from the reference."""
    kinds = {p.device.type for p in model.parameters()} | {"cpu"}
    stack = contextlib.ExitStack()
    for kind in kinds - {"meta"}:
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def _flat(output: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
