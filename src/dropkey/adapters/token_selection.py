"""The token pattern without the dropped tokens: their keys and values are never computed.

All heads and queries of an image lose the same keys, so the kept tokens form a rectangular tensor: key and value
projections and the attention run on them alone, and training gets faster than without any regularizer. This needs the
whole forward of the attention class, so it is written for one class, timm's Attention, and runs only where nothing that
it skips could be anything else (see ``as_written.py``). Others are masked.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.site import Selection, Site
from dropkey.ops.as_written import is_as_written, is_plain_linear, modes_look_on, nobody_looks_on
from dropkey.ops.dispatch import attend_projected, refuses_projection
from dropkey.ops.projection import Projection

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
    module: Any, site: Site, forward: Pass, masked: Callable[[], Any], x: Tensor, *args: Any, **kwargs: Any
) -> Tensor | None:
    """Run the forward of timm's Attention on the kept keys, or return None if this call must be masked instead.

    Args:
        module: a timm.layers.attention.Attention.
        site: the site it carries.
        forward: this pass.
        masked: runs the same call with its keys masked; for whoever records, to compare.
        x: (B, N, C).
        args: more of its forward; anything but None and False means a mask.
        kwargs: likewise.

    Returns:
        (B, N, C'), as the module's own forward would.
    """
    if any(extra is not None and extra is not False for extra in (*args, *kwargs.values())):
        return None
    if not site.selects_tokens(forward) or not _skips_nothing(module, site, x):
        return None
    expected = None if site.records is None else _masked(site, masked, x)
    selection = site.select_tokens(forward, x, module.num_heads)
    site.calls_per_pass = 1
    run = _run_whole if _is_whole(module, site, x) else _run_parts
    result: Tensor = module.proj_drop(run(module, site, x, selection))
    if site.records is not None:
        site.records[-1] = site.records[-1]._replace(module_out=result, module_masked=expected)
    return result


def _masked(site: Site, masked: Callable[[], Any], x: Tensor) -> Any:
    """What the module returns if its keys are masked, drawn from the same random state."""
    records, site.records = site.records, None
    try:
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            return masked()
    finally:
        site.records = records


def _run_whole(module: Any, site: Site, x: Tensor, selection: Selection) -> Tensor:
    """Both linear layers and the attention between them as one call of a backend."""
    assert site.drop is not None
    y, out = attend_projected(_projection(module, x), selection.rows, site.drop.backend)
    if site.records is not None:
        query_weights, kv_weights = _split_weights(module)
        query = _project(x, *query_weights, module.head_dim)
        heads = out.view(*x.shape[:2], module.num_heads, -1).transpose(1, 2)
        site.record(selection, query, *_keys_and_values(module, x, *kv_weights), heads)
    return y


def _run_parts(module: Any, site: Site, x: Tensor, selection: Selection) -> Tensor:
    query_weights, kv_weights = _split_weights(module)
    query = module.q_norm(_project(x, *query_weights, module.head_dim))
    seen = x.reshape(-1, x.shape[-1]).index_select(0, selection.rows.flatten()).view(x.shape[0], -1, x.shape[-1])
    out = site.attend_selected(query, *_keys_and_values(module, seen, *kv_weights))
    if site.records is not None:
        site.record(selection, query, *_keys_and_values(module, x, *kv_weights), out)
    out = module.norm(out.transpose(1, 2).flatten(2))
    if module.gate is not None:
        out = out * module.gate(x).sigmoid()
    result: Tensor = module.proj(out)
    return result


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
    assert site.drop is not None
    if modes_look_on() or torch.is_autocast_enabled(x.device.type) or module.gate is not None:
        return False
    if not is_plain_linear(module.proj, x) or module.proj.in_features != module.attn_dim:
        return False
    between = (module.q_norm, module.k_norm, module.norm)
    if not all(nobody_looks_on(layer, {("torch.nn.modules.linear", "Identity")}) for layer in between):
        return False
    return refuses_projection(_projection(module, x), site.drop.backend) is None


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
