"""The kernel as torch operators: forward, backward and keep mask, with what autograd and torch.compile need."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.cpu.door import DrawNumbers, pack
from dropkey.ops.cpu.library import kernel
from dropkey.ops.layout_of_output import output_strides
from dropkey.ops.saved_tensors import LAYOUT_TAGS, as_bits, check_transforms, final, from_bits, of_type
from dropkey.ops.transforms import saving_hooks

__all__ = [
    "DRAW",
    "NO_SECOND",
    "attention_operator",
    "backward_into",
    "grads_fake",
    "mask_operator",
    "rows",
    "token_major",
]

# Plain numbers travel in one list, since torch's autograd wrapper takes time for every argument of the schema.
DRAW = "Tensor drop_ratio, Tensor seed, Tensor seed_threshold, int[] numbers"

NO_SECOND = "backend 'cpu' has no second derivative; use backend='reference'"

_SCHEMAS = (
    "cpu_attention(Tensor query, Tensor key, Tensor value, Tensor? bias, float scale, bool is_causal, "
    f"{DRAW}) -> (Tensor, Tensor)",
    "cpu_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor out, "
    f"Tensor sums, bool grad_bias, float scale, bool is_causal, {DRAW}) -> (Tensor, Tensor, Tensor, Tensor)",
    f"cpu_keep_mask(SymInt batch, SymInt num_heads, SymInt num_queries, SymInt num_keys, {DRAW}) -> Tensor",
)

_library: Any = torch.library.Library("dropkey", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in _SCHEMAS:
    _library.define(_schema, tags=LAYOUT_TAGS)

attention_operator = torch.ops.dropkey.cpu_attention.default
_backward_operator = torch.ops.dropkey.cpu_attention_backward.default
mask_operator = torch.ops.dropkey.cpu_keep_mask.default


def token_major(like: Tensor, batch: int, heads: int, tokens: int, dim: int) -> Tensor:
    """An empty (B, H, N, D) whose memory is (B, N, H, D): joining the heads afterwards moves nothing."""
    return like.new_empty((batch, tokens, heads, dim)).transpose(1, 2)


def grads_fake(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return token_major(query, *query.shape), token_major(key, *key.shape), token_major(value, *value.shape)


def rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _kernel_bias(bias: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """The bias as the kernel reads it: bool or float32, expanded without a copy."""
    if bias is None:
        return None
    if bias.dtype not in (torch.bool, torch.float32):
        bias = bias.float()
    try:
        return bias.expand(*query.shape[:3], key.shape[2])
    except RuntimeError:
        shapes = f"a bias of shape {tuple(bias.shape)} to {(*query.shape[:3], key.shape[2])}"
        raise BackendError(f"the native kernel cannot broadcast {shapes}: call dropkey.attention") from None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, is_causal: bool, *draw: Any
) -> tuple[Tensor, Tensor]:
    out, sums = _forward_fake(query, key, value, bias, scale, is_causal, *draw)
    query, key, value = rows(query), rows(key), rows(value)
    bias = _kernel_bias(bias, query, key)
    numbers, dense = DrawNumbers(*draw), rows(out)
    kernel().forward(
        pack(query, key, value, numbers, scale=scale, is_causal=is_causal, bias=bias, outputs=(dense,), sums=sums)
    )
    return out if dense is out else out.copy_(dense), sums


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, is_causal: bool, *draw: Any
) -> tuple[Tensor, Tensor]:
    if not query.dim() == key.dim() == value.dim() == 4:
        shapes = f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        raise BackendError(f"the native kernel takes (batch, heads, tokens, head_dim), got {shapes}")
    batch, heads, queries, _ = query.shape
    sizes = batch, heads, queries, value.shape[3]
    out = query.new_empty_strided(sizes, output_strides(sizes, query.shape, query.stride()))
    return out, query.new_empty((2, batch, heads, queries), dtype=torch.float32)


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    sums: Tensor,
    grad_bias: bool,
    scale: float,
    is_causal: bool,
    *draw: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = grads_fake(query, key, value)
    for_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and grad_bias else None
    backward_into(grads, for_bias, grad_out, query, key, value, bias, out, sums, scale, is_causal, *draw)
    return (*grads, sums.new_empty(0) if bias is None or for_bias is None else for_bias.to(bias.dtype))


def backward_into(
    grads: tuple[Tensor, Tensor, Tensor],
    grad_bias: Tensor | None,
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    sums: Tensor,
    scale: float,
    is_causal: bool,
    *draw: Any,
) -> None:
    """Write the gradients of query, key and value, and add that of the bias, wherever the caller wants to have them."""
    grad_out, query, key, value, out = rows(grad_out), rows(query), rows(key), rows(value), rows(out)
    kernel_bias = _kernel_bias(bias, query, key)  # the packed call holds addresses alone: all must live until it ran
    call = pack(
        query,
        key,
        value,
        DrawNumbers(*draw),
        scale=scale,
        is_causal=is_causal,
        bias=kernel_bias,
        grad_bias=None if grad_bias is None else grad_bias.expand(*query.shape[:3], key.shape[2]),
        outputs=(out, grad_out, *grads),
        sums=sums,
    )
    kernel().backward(call)


def _backward_fake(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted = rest[2]
    grad_bias = torch.empty_like(bias) if bias is not None and wanted else query.new_empty(0, dtype=torch.float32)
    return (*grads_fake(query, key, value), grad_bias)


def _mask(batch: int, num_heads: int, num_queries: int, num_keys: int, *draw: Any) -> Tensor:
    unread = torch.empty((), dtype=torch.float32, device="cpu")  # whatever the default device
    like = unread.expand(batch, num_heads, num_queries, 1)
    keys = unread.expand(batch, num_heads, num_keys, 1)
    mask = _mask_fake(batch, num_heads, num_queries, num_keys, *draw)
    if mask.numel():
        kernel().mask(pack(like, keys, keys, DrawNumbers(*draw)), mask.data_ptr())
    return mask


def _mask_fake(batch: int, num_heads: int, num_queries: int, num_keys: int, *draw: Any) -> Tensor:
    return torch.empty((batch, num_heads, num_queries, num_keys), dtype=torch.bool, device="cpu")


class _Attention(torch.autograd.Function):
    """The autograd formula. Written out, because torch's ``register_autograd`` takes twice the time per call."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        scale: float,
        is_causal: bool,
        drop_ratio: Tensor,
        seed: Tensor,
        seed_threshold: Tensor,
        numbers: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            out, sums = attention_operator(
                query, key, value, bias, scale, is_causal, drop_ratio, seed, seed_threshold, numbers
            )
        ctx.dtype = None if saving_hooks() is None else query.dtype
        exact = (sums, drop_ratio) if ctx.dtype is None else (as_bits(sums), as_bits(drop_ratio))
        ctx.save_for_backward(query, key, value, bias, out, *exact, seed, seed_threshold)
        ctx.numbers = scale, is_causal, numbers
        ctx.mark_non_differentiable(sums)
        ctx.set_materialize_grads(False)
        return out, sums

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 10
        query, key, value, bias, out, sums, ratio, *tensors = ctx.saved_tensors
        scale, is_causal, numbers = ctx.numbers
        if ctx.dtype is not None:  # hooks may have handed tensors on in another type
            query, key, value, out, grad_out = of_type(ctx.dtype, query, key, value, out, grad_out)
            sums, ratio = from_bits(sums), from_bits(ratio)
        wanted = bias is not None and ctx.needs_input_grad[3]
        *grads, grad_bias = _backward_operator(
            grad_out, query, key, value, bias, out, sums, wanted, scale, is_causal, ratio, *tensors, numbers
        )
        given: tuple[Tensor | None, ...] = (*grads, grad_bias if wanted else None)
        return (*final(given, grad_out, query, key, value, message=NO_SECOND), *(None,) * 6)


def _attach(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *others: Any) -> tuple[Tensor, Tensor]:
    check_transforms("cpu")
    wants = query.requires_grad or key.requires_grad or value.requires_grad or (bias is not None and bias.requires_grad)
    outputs: tuple[Tensor, Tensor]
    if wants and torch.is_grad_enabled():
        outputs = _Attention.apply(query, key, value, bias, *others)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            outputs = attention_operator(query, key, value, bias, *others)
    return outputs


_library.impl("cpu_attention", _forward, "CPU")
_library.impl("cpu_attention", _attach, "Autograd")
_library.impl("cpu_attention_backward", _backward, "CPU")
_library.impl("cpu_keep_mask", _mask, "CPU")
torch.library.register_fake("dropkey::cpu_attention", _forward_fake, lib=_library)
torch.library.register_fake("dropkey::cpu_attention_backward", _backward_fake, lib=_library)
torch.library.register_fake("dropkey::cpu_keep_mask", _mask_fake, lib=_library)
