"""The kernel's Re-attention as torch operators: forward and backward, with what autograd and torch.compile need.

    mixed[h] = sum over g of theta[h, g] / sqrt(var[h] + eps) * centered[g] @ value[h]
    out[h]   = identity * plain[h] + gain[h] * mixed[h] + offset[h] * (sum of value[h] over the keys)

where centered maps are the attention weights less 1 / keys. Without ``var`` it is that of the batch, as in training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.cpu.door import MIXING_LAYOUT, DrawNumbers, check_whole, pack, place_of_rows
from dropkey.ops.cpu.library import kernel
from dropkey.ops.cpu.operators import DRAW, grads_fake, rows, token_major
from dropkey.ops.saved_tensors import LAYOUT_TAGS, as_bits, check_transforms, final, from_bits, of_type

__all__ = ["mixed_operator", "pack_mixing"]

_NO_SECOND = "Re-attention on backend 'cpu' has no second derivative; run it in float64"

# identity, plain: both or none. Returns out, mixed, sums (see pack), gram and var.
_SCHEMAS = (
    "cpu_mixed_attention(Tensor query, Tensor key, Tensor value, Tensor? plain, Tensor theta, Tensor gain, "
    f"Tensor offset, Tensor? identity, Tensor? var, float eps, float scale, {DRAW}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
    "cpu_mixed_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? plain, "
    "Tensor theta, Tensor gain, Tensor offset, Tensor? identity, Tensor mixed, Tensor sums, Tensor gram, Tensor var, "
    f"bool training, float eps, float scale, {DRAW}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)

_library: Any = torch.library.Library("dropkey", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in _SCHEMAS:
    _library.define(_schema, tags=LAYOUT_TAGS)

mixed_operator = torch.ops.dropkey.cpu_mixed_attention.default
_backward_operator = torch.ops.dropkey.cpu_mixed_attention_backward.default


def pack_mixing(
    training: bool,
    eps: float,
    factors: Sequence[Tensor | None],
    statistics: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    plain: Tensor | None,
    mixed: Tensor,
) -> bytes:
    """Lay the mixing out as the kernel reads it.

    Args:
        training: whether the statistics are those of the batch.
        eps: of the norm.
        factors: theta, gain, offset, identity; float32, contiguous.
        statistics: gram and var; float64, contiguous.
        grads: of the factors, likewise; all None in the forward pass.
        plain: the plain attention's output.
        mixed: see above.

    Raises:
        BackendError: names what does not fit.
    """
    _check_mixing(factors, statistics, grads, plain, mixed)
    addresses = [0 if t is None else t.data_ptr() for t in (*factors, *statistics, *grads)]
    places = [
        (0,) * 4 if tensor is None else place_of_rows(name, tensor, mixed.dtype, mixed.shape)
        for name, tensor in (("plain", plain), ("mixed", mixed))
    ]
    return MIXING_LAYOUT.pack(training, eps, *addresses, *places[0], *places[1])


def _check_mixing(
    factors: Sequence[Tensor | None],
    statistics: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    plain: Tensor | None,
    mixed: Tensor,
) -> None:
    heads = mixed.shape[1]
    shapes = ((heads, heads), (heads,), (heads,), (1,))
    for name, factor, grad, shape in zip(("theta", "gain", "offset", "identity"), factors, grads, shapes, strict=True):
        check_whole(name, factor, torch.float32, shape)
        check_whole(f"grad of {name}", grad, torch.float32, shape)
    for name, sums, shape in zip(("gram", "var"), statistics, shapes, strict=False):
        check_whole(name, sums, torch.float64, shape)
    if (plain is None) != (factors[3] is None):
        raise BackendError("the native kernel takes identity and plain together, or neither")


def _check_heads(query: Tensor, key: Tensor) -> None:
    if key.shape[1] != query.shape[1]:
        raise BackendError(f"the native kernel mixes maps of {query.shape[1]} heads, and cannot share {key.shape[1]}")


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plain: Tensor | None,
    theta: Tensor,
    gain: Tensor,
    offset: Tensor,
    identity: Tensor | None,
    var: Tensor | None,
    eps: float,
    scale: float,
    *draw: Any,
) -> tuple[Tensor, ...]:
    _check_heads(query, key)
    # The packed call holds addresses alone: all must live until it ran.
    query, key, value, plain = rows(query), rows(key), rows(value), None if plain is None else rows(plain)
    factors = _factors(theta, gain, offset, identity)
    out, mixed, sums, gram, own = _outputs(query, value)
    statistics = gram, own if var is None else own.copy_(var)
    problem = pack(query, key, value, DrawNumbers(*draw), scale=scale, outputs=(out,), sums=sums)
    mixing = pack_mixing(var is None, eps, factors, statistics, (None,) * 4, plain, mixed)
    kernel().mixed_forward(problem, mixing)
    return out, mixed, sums, gram, own


def _forward_fake(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _outputs(query, value)


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    batch, heads, queries, _ = query.shape
    out, mixed = (token_major(query, batch, heads, queries, value.shape[3]) for _ in range(2))
    sums = query.new_empty((2, batch, heads, queries), dtype=torch.float32)
    gram = query.new_zeros((heads, heads), dtype=torch.float64)
    return out, mixed, sums, gram, query.new_empty((heads,), dtype=torch.float64)


def _factors(*factors: Tensor | None) -> list[Tensor | None]:
    return [None if f is None else f.contiguous() for f in factors]


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plain: Tensor | None,
    theta: Tensor,
    gain: Tensor,
    offset: Tensor,
    identity: Tensor | None,
    mixed: Tensor,
    sums: Tensor,
    gram: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    scale: float,
    *draw: Any,
) -> tuple[Tensor, ...]:
    _check_heads(query, key)
    grad_out, query, key, value, mixed = rows(grad_out), rows(query), rows(key), rows(value), rows(mixed)
    plain = None if plain is None else rows(plain)
    factors = _factors(theta, gain, offset, identity)
    grads, factor_grads = grads_fake(query, key, value), _factor_grads(theta)
    problem = pack(query, key, value, DrawNumbers(*draw), scale=scale, outputs=(mixed, grad_out, *grads), sums=sums)
    kernel().mixed_backward(problem, pack_mixing(training, eps, factors, (gram, var), factor_grads, plain, mixed))
    return (*grads, *factor_grads)


def _backward_fake(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, plain: Tensor | None, theta: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return (*grads_fake(query, key, value), *_factor_grads(theta))


def _factor_grads(theta: Tensor) -> tuple[Tensor, ...]:
    heads = theta.shape[0]
    return tuple(theta.new_empty(shape) for shape in ((heads, heads), (heads,), (heads,), (1,)))


class _MixedAttention(torch.autograd.Function):
    """The autograd formula; ``plain`` gets no gradient, since query, key and value get that of both terms."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plain: Tensor | None,
        theta: Tensor,
        gain: Tensor,
        offset: Tensor,
        identity: Tensor | None,
        var: Tensor | None,
        eps: float,
        scale: float,
        drop_ratio: Tensor,
        seed: Tensor,
        seed_threshold: Tensor,
        numbers: Sequence[int],
    ) -> tuple[Tensor, ...]:
        inputs = query, key, value, plain, theta, gain, offset, identity
        draw = drop_ratio, seed, seed_threshold
        with torch._C._AutoDispatchBelowAutograd():
            outputs: tuple[Tensor, ...] = mixed_operator(*inputs, var, eps, scale, *draw, numbers)
        _, mixed, *statistics = outputs
        ctx.save_for_backward(*inputs, mixed, *map(as_bits, (*statistics, drop_ratio)), seed, seed_threshold)
        ctx.numbers = var is None, eps, scale, numbers
        ctx.types = [None if t is None else t.dtype for t in (*inputs, mixed)]
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 15
        training, eps, scale, numbers = ctx.numbers
        everything = ctx.saved_tensors
        tensors, rest = everything[:9], everything[9:]
        saved = [t if t is None else of_type(dtype, t)[0] for t, dtype in zip(tensors, ctx.types, strict=True)]
        *statistics, ratio, seed, seed_threshold = rest
        saved += map(from_bits, statistics)
        draw = from_bits(ratio), seed, seed_threshold
        (grad_out,) = of_type(ctx.types[0], grad_out)
        given = _backward_operator(grad_out, *saved, training, eps, scale, *draw, numbers)
        causes = [t for t in (grad_out, *saved[:8]) if t is not None]
        grad_query, grad_key, grad_value, *factors, grad_identity = final(given, *causes, message=_NO_SECOND)
        has_identity = saved[7] is not None
        return grad_query, grad_key, grad_value, None, *factors, grad_identity if has_identity else None, *(None,) * 7


def _attach(*arguments: Any) -> tuple[Tensor, ...]:
    check_transforms("cpu")
    outputs: tuple[Tensor, ...] = _MixedAttention.apply(*arguments)
    return outputs


_library.impl("cpu_mixed_attention", _forward, "CPU")
_library.impl("cpu_mixed_attention", _attach, "Autograd")
_library.impl("cpu_mixed_attention_backward", _backward, "CPU")
torch.library.register_fake("dropkey::cpu_mixed_attention", _forward_fake, lib=_library)
torch.library.register_fake("dropkey::cpu_mixed_attention_backward", _backward_fake, lib=_library)
