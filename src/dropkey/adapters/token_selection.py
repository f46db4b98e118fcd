"""The token pattern without the dropped tokens: their keys and values are never computed.

All heads and queries of an image lose the same keys, so the kept tokens form a rectangular tensor: key and value
projections and the attention run on them alone, and training gets faster than without any regulariser. This needs the
whole forward of the attention class, so it is written for one class, timm's Attention; others are masked.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.site import Site
from dropkey.ops.cpu.projected import attend_projected, can_project
from dropkey.ops.dispatch import BACKENDS

__all__ = ["forward_selected"]


def forward_selected(module: Any, site: Site, forward: Pass, x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """Run the forward of timm's Attention on the kept keys, or return None if this call must be masked instead.

    Args:
        module: a timm.layers.attention.Attention.
        site: the site it carries.
        forward: this pass.
        x: (B, N, C).
        args: more of its forward; anything but None and False means a mask.
        kwargs: likewise.

    Returns:
        (B, N, C'), as the module's own forward would.
    """
    if not _is_plain(module, site) or any(
        extra is not None and extra is not False for extra in (*args, *kwargs.values())
    ):
        return None
    rows = site.select_tokens(forward, x, module.num_heads)
    if rows is None:
        return None
    run = _run_whole if _is_whole(module, site, x) else _run_parts
    result: Tensor = module.proj_drop(run(module, site, forward, x, rows))
    return result


def _run_whole(module: Any, site: Site, forward: Pass, x: Tensor, rows: Tensor) -> Tensor:
    """Both linear layers and the attention between them as one call of the native kernel."""
    forward.num_calls += 1
    qkv, proj = module.qkv, module.proj
    scale = module.head_dim**-0.5
    y, out = attend_projected(x, qkv.weight, qkv.bias, proj.weight, proj.bias, rows, module.num_heads, scale)
    if site.records is not None:
        query_weights, kv_weights = _split_weights(module)
        query = _project(x, *query_weights, module.head_dim)
        heads = out.view(*x.shape[:2], module.num_heads, -1).transpose(1, 2)
        site.record(forward, query, *_keys_and_values(module, x, *kv_weights), heads)
    return y


def _run_parts(module: Any, site: Site, forward: Pass, x: Tensor, rows: Tensor) -> Tensor:
    query_weights, kv_weights = _split_weights(module)
    query = module.q_norm(_project(x, *query_weights, module.head_dim))
    seen = x.reshape(-1, x.shape[-1]).index_select(0, rows.flatten()).view(x.shape[0], -1, x.shape[-1])
    out = site.attend_selected(forward, query, *_keys_and_values(module, seen, *kv_weights))
    if site.records is not None:
        site.record(forward, query, *_keys_and_values(module, x, *kv_weights), out)
    out = module.norm(out.transpose(1, 2).flatten(2))
    if module.gate is not None:
        out = out * module.gate(x).sigmoid()
    result: Tensor = module.proj(out)
    return result


def _is_plain(module: Any, site: Site) -> bool:
    """Whether this is timm's own class, with a linear layer for query, key and value that nobody listens to."""
    return site.original_class.__module__ == "timm.layers.attention" and _is_linear(module.qkv)


def _is_linear(layer: nn.Module) -> bool:
    """Whether a layer is a linear one that may be computed without calling it: nobody listens."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return type(layer) is nn.Linear and not any(getattr(layer, name) for name in hooks)


def _split_weights(module: Any) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Return (weight, bias) of the query's rows of the qkv layer, and of key and value's."""
    sizes = [module.attn_dim, 2 * module.attn_dim]
    biases = (None, None) if module.qkv.bias is None else module.qkv.bias.split(sizes)
    query, kv = zip(module.qkv.weight.split(sizes), biases, strict=True)
    return query, kv


def _is_whole(module: Any, site: Site, x: Tensor) -> bool:
    """Whether linear layers and attention are one call: on the native kernel, with nothing between them."""
    assert site.drop is not None
    if site.drop.backend not in ("auto", "cpu") or BACKENDS["cpu"].unavailable() is not None:
        return False
    if not can_project(x, module.qkv.weight, module.proj.weight, module.num_heads) or torch.is_autocast_enabled("cpu"):
        return False
    between = (module.q_norm, module.k_norm, module.norm)
    return module.gate is None and _is_linear(module.proj) and all(type(layer) is nn.Identity for layer in between)


def _keys_and_values(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    key, value = _project(x, weight, bias, module.head_dim).chunk(2, dim=1)
    return module.k_norm(key), value


def _project(x: Tensor, weight: Tensor, bias: Tensor | None, head_dim: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, head_dim)."""
    rows: Tensor = F.linear(x, weight, bias)
    return rows.view(*rows.shape[:-1], -1, head_dim).transpose(1, 2)
