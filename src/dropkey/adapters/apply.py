"""Applying a regularizer to a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from dropkey.adapters.class_swap import check_swappable
from dropkey.adapters.discover import Found
from dropkey.adapters.filling import empty, fill
from dropkey.adapters.grid_of_pass import follow_grids
from dropkey.adapters.handle import Handle
from dropkey.adapters.new_site import site_to_fill
from dropkey.adapters.plan import planned, restored
from dropkey.adapters.site import site_of
from dropkey.adapters.slot import HandleId, Slot
from dropkey.adapters.slots import SLOTS
from dropkey.arguments import check_count, check_grid_size, check_model, check_where, short
from dropkey.errors import ArgumentError, SiteError
from dropkey.ops.dispatch import check_backend
from dropkey.regularizers import Regularizer

__all__ = ["apply"]


def apply(
    model: nn.Module,
    regularizer: Regularizer | Mapping[str, Any],
    *,
    backend: str = "auto",
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    where: Callable[[Found], bool] | None = None,
    example: Any = None,
    by_shape: bool = False,
) -> Handle:
    """Put a regularizer into every attention module of a model that an adapter knows.

    The model's state_dict keeps its keys; evaluation and drop ratio 0 are the untouched computation, bit for bit. A
    model's own attention dropout is zero while the regularizer is enabled. Apply first, then wrap (DDP, FSDP, compile).
    ReAttention and LocalityAttention differ: they add parameters, so apply them before the optimizer is made, act in
    evaluation too, and leave the model's own dropout on. With ReAttention the model's outputs are the same until it is
    trained, with LocalityAttention where ``mask_diagonal=False``.

    Args:
        model: any module: a timm model, or one with classes given to ``dropkey.register``.
        regularizer: ``DropKey``, ``AttentionDropout``, ``ReAttention`` or ``LocalityAttention``; or what a handle's
            ``state_dict`` returned, to restore it on the sites that it names.
        backend: "auto" or a key of ``dropkey.backends()``.
        grid_size: (rows, cols) of the patch grid for the patterns "block" and "cross", whatever the input; where it is
            left out it is that of each pass in timm's and transformers' models.
        num_prefix_tokens: class, register and distillation tokens before the patches; likewise.
        where: says of each attention module found (its ``name``, ``kind``, ``block_index``, ``module``) whether to act
            there; the schedule then runs over the blocks that are left. Everywhere by default; not with a state_dict.
        example: inputs on which the model runs once, in evaluation mode, so that blocks are counted in the order in
            which they run: one positional argument, several in a tuple, or keywords in a mapping. Without it they are
            counted as they are registered; the first training pass and ``verify`` say so where the two differ.
        by_shape: act on unknown classes too that have the shape of attention, where a run on ``example``, which it
            needs, proves them to be attention over tokens; of others it warns, with the reason.

    Returns:
        A Handle.

    Raises:
        ArgumentError: not a regularizer, an unknown backend, or a list of ratios that does not fit the model.
        SiteError: a model without known attention, none where asked for, or with this regularizer on it already; or an
            example that does not run every block.

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
    check_model(model)
    check_backend(backend)
    check_where(where)
    grid_size = check_grid_size(grid_size)
    if num_prefix_tokens is not None:
        num_prefix_tokens = check_count("num_prefix_tokens", num_prefix_tokens)
    if by_shape and (example is None or isinstance(regularizer, Mapping)):
        raise ArgumentError("by_shape=True needs example=, inputs of the model, and a regularizer to be proved on them")
    if isinstance(regularizer, Mapping):
        plan = restored(model, regularizer, where, example)
    elif type(regularizer) in SLOTS:
        plan = planned(model, regularizer, where, example, by_shape)
    else:
        known = " or ".join(f"{cls.__name__}(...)" for cls in SLOTS)
        raise ArgumentError(f"apply takes {known}, got {short(regularizer)}")
    slot_class = SLOTS[type(plan.regularizer)]
    slot_class.check_backend(backend)
    _check_applicable(plan.found, slot_class)
    handle_id = HandleId(plan.watches_order)
    filled: list[tuple[nn.Module, Slot]] = []
    try:
        for f, drop_ratio in zip(plan.found, plan.drop_ratios, strict=True):
            slot = slot_class(plan.regularizer, handle_id, drop_ratio, backend)
            slot.enabled = plan.enabled
            filled.append((f.module, slot))
            site = site_to_fill(f, grid_size, num_prefix_tokens)
            if example is not None:
                site.block_index, site.is_ordered = f.block_index, True
            fill(f, slot, site)
        follow_grids(model)
    except BaseException:
        for module, slot in filled:
            empty(module, slot)
        follow_grids(model)
        raise
    return Handle(model, handle_id)


def _check_applicable(found: Sequence[Found], slot_class: type[Slot]) -> None:
    for f in found:
        site = site_of(f.module)
        if site is None:
            check_swappable(f.name, f.module)
        elif (rival := site.slots.rival(slot_class)) is not None:
            raise SiteError(
                f"{rival.regularizer} is on this model already: remove it first, dropkey.handle(model).remove()"
            )
        slot_class.check_applicable(f)
