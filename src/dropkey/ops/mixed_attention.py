"""Attention with its maps mixed over the heads, in one call that stores no map: Re-attention, where a backend has it.

    out = (factor * maps) @ value                     maps = HeadMixing(attn)
    out = plain + (gate * (maps - attn)) @ value      for GatedHeadMixing; plain = attn @ value is given

A batch norm takes two numbers per head, and both follow from products of whole maps that a kernel adds up on its way.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dropkey.ops import dispatch
from dropkey.ops.as_written import has_plain_parameters, modes_look_on, nobody_looks_on_any
from dropkey.ops.call import AttentionCall
from dropkey.ops.mixing import Mixing
from dropkey.ops.reattention import GatedHeadMixing, HeadMixing
from dropkey.ops.statistics import count_batch

__all__ = ["attend_mixed", "refuses"]


def refuses(call: AttentionCall, mixer: nn.Module, backend: str = "auto") -> str | None:
    """Return why a call cannot be fused with this mixing on a backend, or None."""
    if _is_exporting():
        return "the graph is exported, for programs that do not know our operators"
    return dispatch.refuses_mixing(call, backend) or _refuses_mixer(mixer, call)


def _refuses_mixer(mixer: nn.Module, call: AttentionCall) -> str | None:
    if type(mixer) not in (HeadMixing, GatedHeadMixing):
        return f"it is mixed by a {type(mixer).__name__}"
    norm: Any = mixer.norm
    theta: Any = mixer.theta
    if type(theta) is not nn.Conv2d:
        return f"its theta is a {type(theta).__name__}"
    if type(norm) is not nn.BatchNorm2d or norm.momentum is None or not norm.affine:
        return f"its norm is {norm}"
    parts: tuple[nn.Module, ...] = (mixer, theta, norm)
    if not nobody_looks_on_any(*parts) or modes_look_on():
        return "somebody listens to the mixing, or has replaced its forward"
    if not all(has_plain_parameters(part, call.query.device) for part in parts):
        return f"its parameters are not torch's own on {call.query.device.type}"
    if any(p.dtype != torch.float32 for p in mixer.parameters()):
        return "its parameters are not float32"
    batch, heads, num_queries, num_keys = call.mask_shape
    if norm.num_features != heads or theta.weight.shape != (heads, heads, 1, 1) or theta.bias is None:
        return f"it mixes {norm.num_features} heads, not {heads}, or not by one matrix with a bias"
    return "a batch of one weight has no variance" if batch * num_queries * num_keys == 1 else None


def _is_exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # not before torch 2.7
    return bool(torch.jit.is_tracing() or exporting())  # type: ignore[attr-defined, no-untyped-call]


def attend_mixed(
    call: AttentionCall,
    mixer: HeadMixing,
    *,
    plain: Tensor | None = None,
    factor: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Run a call that ``refuses`` lets pass, and count its batch in the norm's running statistics.

    Args:
        call: see AttentionCall.
        mixer: HeadMixing or GatedHeadMixing with a batch norm.
        plain: (B, H, Nq, Dv), the call's output without mixing, for GatedHeadMixing. Query, key and value get the
            gradient of both terms from this call, so it needs no graph.
        factor: of the mixed maps.
        backend: the one that ``refuses`` was asked about.

    Returns:
        (B, H, Nq, Dv) in the query's dtype. There is no second derivative.
    """
    norm, theta = mixer.norm, mixer.theta.weight.flatten(1)
    assert isinstance(norm, nn.BatchNorm2d)
    assert mixer.theta.bias is not None
    # What the norm does to the mixed maps is one factor and one offset per head.
    mean = theta.sum(1) / call.mask_shape[3] + mixer.theta.bias  # the weights of a query sum to 1
    gain, offset, var = factor * norm.weight, factor * norm.bias, None
    if norm.training or norm.running_mean is None or norm.running_var is None:
        offset = offset + 0 * mixer.theta.bias  # has no effect, and a gradient of 0: DDP waits for every parameter's
    else:
        offset = offset + gain * (mean - norm.running_mean) * (norm.running_var + norm.eps).rsqrt()
        var = norm.running_var.double()
    identity = None
    if isinstance(mixer, GatedHeadMixing):
        gain, offset, identity = mixer.gate * gain, mixer.gate * offset, 1 - mixer.gate
    mixing = Mixing(theta, gain, offset, norm.eps, identity, plain, var)
    out, batch_var = dispatch.attend_mixed(call, mixing, backend)
    if norm.training:
        batch, _, num_queries, num_keys = call.mask_shape
        count_batch(norm, mean.detach(), batch_var, batch * num_queries * num_keys)
    return out
