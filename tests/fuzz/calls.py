"""One random call: shapes that broadcast, layouts, masks, scales and what runs around it, from one number."""

import random
from typing import NamedTuple

import numpy as np
import torch
from oracles.attention import gradients_at_once
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import dropkey
from dropkey.ops.cpu.door import PATTERNS

__all__ = ["Call", "Subclass", "random_call", "truth"]

NAMES = ("element", *PATTERNS)  # what every backend draws, the default twice as often
USUAL_SPREADS = (0.1, 1.0, 1.0, 3.0, 10.0)  # standard deviation of the logits
LARGE_SPREADS = (25.0, 100.0, 900.0)


class Subclass(Tensor):
    """Somebody's own tensors that mean nothing more by it."""


class Call(NamedTuple):
    """Arguments of one call, with what runs around it."""

    tensors: tuple[Tensor, Tensor, Tensor]  # leaves that want a gradient, contiguous
    layouts: tuple[str, str, str]  # how each is laid out before it is passed
    bias: Tensor | None
    learned_bias: bool
    is_causal: bool
    scale: float | Tensor | None
    drop: dict
    around: str  # "", a kind of checkpoint, or "hooks"
    spread: float
    subclass: bool

    @property
    def shape(self):
        """(B, H, Nq, Nk), after broadcasting."""
        query, key, _ = self.tensors
        batch, heads = (max(t.shape[axis] for t in self.tensors) for axis in (0, 1))
        return batch, heads, query.shape[2], key.shape[2]

    def run(self, backend: str, grad_out: Tensor):
        """Return out and the gradients of query, key, value, bias and scale, as far as they are wanted."""
        leaves = [tensor.detach().clone().requires_grad_() for tensor in self.tensors]
        bias = self.bias
        if bias is not None and self.learned_bias:
            bias = bias.detach().clone().requires_grad_()
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = scale.detach().clone().requires_grad_()

        def attend(query, key, value):
            laid = [laid_out(t, layout) for t, layout in zip((query, key, value), self.layouts, strict=True)]
            if self.subclass and backend != "cpu":
                laid[0] = laid[0].as_subclass(Subclass)
            return dropkey.attention(
                *laid, attn_bias=bias, is_causal=self.is_causal, scale=scale, backend=backend, **self.drop
            )

        out = run_around(self.around, attend, leaves)
        wanted = [*leaves, *([bias] if self.learned_bias else []), *([scale] if isinstance(scale, Tensor) else [])]
        out = out.as_subclass(Tensor)
        out.backward(grad_out.to(out.dtype))  # a reentrant checkpoint knows no torch.autograd.grad
        return (out.detach(), *(leaf.grad for leaf in wanted))


def run_around(around, attend, leaves):
    if around.startswith("checkpoint"):
        return checkpoint(attend, *leaves, use_reentrant=around.endswith("reentrant"))
    if around == "hooks":
        with saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
            return attend(*leaves)
    return attend(*leaves)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """Return the same numbers in another layout."""
    if layout == "token major":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "gaps":
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if layout == "channel major":
        return tensor.mT.contiguous().mT
    if layout == "inside":
        return torch.nn.functional.pad(tensor, (1, 2, 1, 1))[..., 1:-1, 1:-2]
    return tensor


def random_call(number: int, *, large: bool = False, dtype: torch.dtype = torch.float32, small: bool = False) -> Call:
    """Make the call of this number.

    Args:
        number: the same number, the same call.
        large: logits of standard deviation 25 to 900 in place of up to 10.
        dtype: of query, key and value.
        small: no call of more than 40 tokens.
    """
    draw, generator = random.Random(number), torch.Generator().manual_seed(number)
    batch, kv_heads, group = draw.randint(1, 3), draw.randint(1, 3), draw.choice((1, 1, 1, 2))
    longest = (40, 40) if small else draw.choice(((40, 40), (40, 40), (100, 130), (600, 40), (40, 700)))
    queries, keys = draw.randint(1, longest[0]), draw.randint(1, longest[1])
    dim, value_dim = draw.choice((1, 8, 12, 16, 33, 64)), draw.choice((1, 8, 12, 35, 64))
    shapes = [(batch, kv_heads * group, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim)]
    shapes = [shared(draw, shape, heads=group == 1) for shape in shapes]
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    scale = draw.choice((None, None, 0.3, "learned"))
    spread = draw.choice(LARGE_SPREADS if large else USUAL_SPREADS)
    number_scale = dim**-0.5 if scale is None else 0.3
    tensors[0] *= spread / (number_scale * dim**0.5)
    tensors = tuple(tensor.to(dtype) for tensor in tensors)
    if scale == "learned":
        scale = torch.tensor(0.3)
    full = (max(s[0] for s in shapes), max(s[1] for s in shapes), queries, keys)
    bias, learned = random_bias(draw, generator, full, dtype)
    drop = {
        "drop_ratio": draw.choice((0.01, 0.3, 0.3, 0.7, 0.99)),
        "pattern": draw.choice(NAMES),
        "seed": draw.choice((number, np.int64(number), torch.tensor(number))),
    }
    prefix = draw.randint(0, min(2, keys - 1))
    drop.update(grid_size=(1, keys - prefix), num_prefix_tokens=prefix)
    layouts = tuple(draw.choice(("", "token major", "gaps", "channel major", "inside")) for _ in range(3))
    around = draw.choice(("", "", "", "hooks", "checkpoint reentrant", "checkpoint"))
    is_causal, subclass = draw.random() < 0.2, draw.random() < 0.1
    return Call(tensors, layouts, bias, learned, is_causal, scale, drop, around, spread, subclass)


def shared(draw, shape, heads):
    """Let a tensor be shared by all images, or heads, now and then."""
    batch = 1 if draw.random() < 0.15 else shape[0]
    return (batch, 1 if heads and draw.random() < 0.15 else shape[1], *shape[2:])


def random_bias(draw, generator, shape, dtype):
    """Return a bias of some kind and broadcast form, or None; and whether it is learned."""
    kind = draw.choice(("", "", "bool", "bool", "float", "learned", "padding"))
    if not kind:
        return None, False
    sizes = [size if draw.random() < 0.6 else 1 for size in shape]
    sizes = sizes[draw.choice((0, 0, 0, 1, 2)) :]
    may = torch.rand(sizes, generator=generator) < draw.choice((0.0, 0.5, 0.9))
    if kind == "bool":
        return may, False
    bias = torch.randn(sizes, generator=generator)
    if kind == "learned":
        return bias, True
    lowest = draw.choice((-torch.inf, torch.finfo(dtype).min, -1e9, -1e4, -5000.0))
    bias = torch.where(may, bias, lowest)
    return bias.to(draw.choice((torch.float32, dtype))), False


def truth(call: Call, grad_out: Tensor):
    """Return what ``Call.run`` should, from the float64 oracle, and the mask, bool (B, H, Nq, Nk)."""
    batch, heads, queries, keys = shape = call.shape
    keep = dropkey.keep_mask(*shape, **call.drop).numpy()
    repeats = [heads // t.shape[1] for t in call.tensors]
    query, key, value = (
        np.broadcast_to(t.double().repeat_interleave(times, 1).numpy(), (batch, heads, *t.shape[2:]))
        for t, times in zip(call.tensors, repeats, strict=True)
    )
    allowed = np.tri(queries, keys, dtype=bool) if call.is_causal else np.ones((queries, keys), dtype=bool)
    allowed, bias = np.broadcast_to(allowed, shape), np.zeros(shape)
    if call.bias is not None and call.bias.dtype == torch.bool:
        allowed = allowed & call.bias.numpy()
    elif call.bias is not None:
        bias = np.broadcast_to(call.bias.double().numpy(), shape)
        allowed = allowed & ~(bias <= -5000)
    scale = query.shape[3] ** -0.5 if call.scale is None else float(call.scale)
    out, *grads, grad_logits, grad_scale = gradients_at_once(
        query, key, value, keep, allowed, grad_out.double().numpy(), bias, scale
    )
    found = [torch.from_numpy(out)]
    for grad, tensor, times in zip(grads, call.tensors, repeats, strict=True):
        folded = torch.from_numpy(grad).unflatten(1, (-1, times)).sum(2)
        found.append(folded.sum_to_size(tensor.shape))
    if call.learned_bias:
        found.append(torch.from_numpy(grad_logits).sum_to_size(call.bias.shape))
    if isinstance(call.scale, Tensor):
        found.append(torch.tensor(grad_scale))
    return found, torch.from_numpy(keep)
