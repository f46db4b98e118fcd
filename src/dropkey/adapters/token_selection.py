"""The token pattern without the dropped tokens: their keys and values are never computed.

All heads and queries of an image lose the same keys, so the kept tokens form a rectangular tensor: key and value
projections and the attention run on them alone, and training gets faster than without any regularizer. This needs the
whole forward of the attention class, so it is written for one class, timm's Attention, and runs only where nothing that
it skips could be anything else (see ``as_written.py``). Others are masked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dropkey.adapters.forward_pass import ForwardPass
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site
from dropkey.ops.as_written import is_as_written, is_plain_linear, modes_look_on, nobody_looks_on
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import attend_kept, attend_projected, kept_tokens, refuses_projection
from dropkey.ops.projection import Projection
from dropkey.patterns import Geometry

__all__ = ["forward_selected"]

_CLASS = "timm.layers.attention", "Attention"
# Layers that treat every token by itself, so that they may be given some of the keys.
_BY_TOKEN = {
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.normalization", "LayerNorm"),
    ("torch.nn.modules.normalization", "RMSNorm"),
    ("timm.layers.norm", "LayerNorm"),
    ("timm.layers.norm", "LayerNormFp32"),
    ("timm.layers.norm", "RmsNorm"),
}
_DROPOUTS = {("torch.nn.modules.dropout", "Dropout"), ("torch.nn.modules.linear", "Identity")}


def forward_selected(
    module: Any, site: Site, forward_pass: ForwardPass, masked: Callable[[], Any], x: Tensor, *args: Any, **kwargs: Any
) -> Tensor | None:
    """Run the forward of timm's Attention on the kept keys, or return None if this call must be masked instead.

    Args:
        module: a timm.layers.attention.Attention.
        site: the site it carries.
        forward_pass: this pass.
        masked: runs the same call with its keys masked; for listeners, to compare.
        x: (B, N, C).
        args: more of its forward; anything but None and False means a mask.
        kwargs: likewise.

    Returns:
        (B, N, C'), as the module's own forward would.
    """
    if any(extra is not None and extra is not False for extra in (*args, *kwargs.values())):
        return None
    slot = _selecting(site, forward_pass)
    if slot is None or not _skips_nothing(module, site, x):
        return None
    expected = _masked(site, masked, x) if site.listeners else None
    # Which tokens keep their keys, and the module with the others' left out.
    forward_pass.num_calls += 1
    selection = _select(slot, site, forward_pass, x, module.num_heads)
    site.calls_per_pass = 1
    run = _run_whole if _is_whole(module, site, x) else _run_parts
    projected, heads = run(module, site, x, selection.rows)
    result: Tensor = module.proj_drop(projected)
    if site.listeners:
        record = _equivalent(module, x, selection.draw, heads)
        site.tell(record._replace(module_out=result, module_masked=expected))
    return result


class _Selection(NamedTuple):
    """Which tokens keep their keys."""

    rows: Tensor  # int64 (B, n), as rows of x.view(B * N, C)
    draw: Draw


def _selecting(site: Site, forward_pass: ForwardPass) -> Any:
    """Return the slot whose dropped tokens need no keys at all, or None.

    They must be masked instead under any other pattern, beside another regularizer, for whole maps, and in a compiled
    graph, whose shapes must not follow the drop ratio.
    """
    if torch.compiler.is_compiling() or site.wants_maps or site.slots.backend == "reference":
        return None
    slots = site.slots.acting(forward_pass.training)
    return slots[0] if len(slots) == 1 and slots[0].drops_tokens else None


def _select(slot: Any, site: Site, forward_pass: ForwardPass, x: Tensor, num_heads: int) -> _Selection:
    batch, num_tokens = x.shape[:2]
    geometry = Geometry(batch, num_heads, num_tokens, num_tokens, site.grid_size, site.num_prefix_tokens)
    draw = slot.draw(forward_pass, geometry, x.device)
    counted = draw._replace(drop_ratio=slot.ratio_tensor.clone())  # on the CPU: shapes follow it
    return _Selection(kept_tokens(counted, geometry), draw)


def _masked(site: Site, masked: Callable[[], Any], x: Tensor) -> Any:
    """What the module returns if its keys are masked, drawn from the same random state; nobody hears of it."""
    listeners, site.listeners = site.listeners, ()
    try:
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            return masked()
    finally:
        site.listeners = listeners


def _equivalent(module: Any, x: Tensor, draw: Draw, heads: Tensor) -> Record:
    """What a selected attention stands for: a call over all keys, some of them masked."""
    query_weights, kv_weights = _split_weights(module)
    query = module.q_norm(_project(x, *query_weights, module.head_dim))
    key, value = _keys_and_values(module, x, *kv_weights)
    return Record(AttentionCall(query, key, value, None, False, query.shape[-1] ** -0.5, draw), heads)


def _run_whole(module: Any, site: Site, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both linear layers and the attention between them as one call of a backend."""
    y, out = attend_projected(_projection(module, x), rows, site.slots.backend)
    return y, out.view(*x.shape[:2], module.num_heads, -1).transpose(1, 2)


def _run_parts(module: Any, site: Site, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Project all queries but the kept keys and values alone, attend, and do the rest as the module does."""
    query_weights, kv_weights = _split_weights(module)
    query = module.q_norm(_project(x, *query_weights, module.head_dim))
    seen = x.reshape(-1, x.shape[-1]).index_select(0, rows.flatten()).view(x.shape[0], -1, x.shape[-1])
    key, value = _keys_and_values(module, seen, *kv_weights)
    call = AttentionCall(query, key, value, None, False, query.shape[-1] ** -0.5, None)
    heads = attend_kept(call, site.slots.backend)
    out = module.norm(heads.transpose(1, 2).flatten(2))
    if module.gate is not None:
        out = out * module.gate(x).sigmoid()
    return module.proj(out), heads


def _skips_nothing(module: Any, site: Site, x: Tensor) -> bool:
    """Whether all that is skipped or run on some of the keys is what this file is written for."""
    if torch.compiler.is_compiling() or not is_as_written(site.original_class, *_CLASS):
        return False
    if type(x) is not Tensor or x.dim() != 3 or x.is_meta or 0 in x.shape:
        return False
    return (
        is_plain_linear(module.qkv, x, 3 * module.attn_dim)
        and nobody_looks_on(module.k_norm, _BY_TOKEN)
        and nobody_looks_on(module.q_norm, _BY_TOKEN)
        and nobody_looks_on(module.attn_drop, _DROPOUTS)
    )


def _split_weights(module: Any) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Return (weight, bias) of the query's rows of the qkv layer, and of key and value's."""
    sizes = [module.attn_dim, 2 * module.attn_dim]
    biases = (None, None) if module.qkv.bias is None else module.qkv.bias.split(sizes)
    query, kv = zip(module.qkv.weight.split(sizes), biases, strict=True)
    return query, kv


def _is_whole(module: Any, site: Site, x: Tensor) -> bool:
    """Whether linear layers and attention are one call: on a backend that has it, with nothing between them."""
    if modes_look_on() or torch.is_autocast_enabled(x.device.type) or module.gate is not None:
        return False
    if not is_plain_linear(module.proj, x) or module.proj.in_features != module.attn_dim:
        return False
    between = (module.q_norm, module.k_norm, module.norm)
    if not all(nobody_looks_on(layer, {("torch.nn.modules.linear", "Identity")}) for layer in between):
        return False
    return refuses_projection(_projection(module, x), site.slots.backend) is None


def _projection(module: Any, x: Tensor) -> Projection:
    qkv, proj = module.qkv, module.proj
    scale = module.head_dim**-0.5
    return Projection(x, qkv.weight, qkv.bias, proj.weight, proj.bias, module.num_heads, scale)


def _keys_and_values(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    key, value = _project(x, weight, bias, module.head_dim).chunk(2, dim=1)
    return module.k_norm(key), value


def _project(x: Tensor, weight: Tensor, bias: Tensor | None, head_dim: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, head_dim)."""
    rows: Tensor = F.linear(x, weight, bias)
    return rows.view(*rows.shape[:-1], -1, head_dim).transpose(1, 2)
