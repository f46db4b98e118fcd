"""Random registered modules: attention in one call or sliced in loops, checkpointed or not, judged call by call."""

import random

import torch
from oracles.attention import gradients_at_once
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.adapters.listeners import recording
from dropkey.adapters.site import site_of
from dropkey.ops.dispatch import BACKENDS
from fuzz.calls import run_around

__all__ = ["LOOPS", "Sliced", "judge_module"]

LOOPS = ("", "heads", "images", "queries")
RUNNABLE = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]


@dropkey.register
class Sliced(nn.Module):
    """Attention whose calls are slices of heads, images or queries; notes what each call was given."""

    def __init__(self, loop="", pieces=2):
        super().__init__()
        self.loop, self.pieces = loop, pieces

    def slices(self, query, key):
        """(slices of batch, heads and queries; of batch and heads of the keys) of each call."""
        everything = slice(None)
        axis = {"images": 0, "heads": 1, "queries": 2}.get(self.loop)
        if axis is None:
            return [((everything,) * 3, (everything,) * 2)]
        size = query.shape[axis]
        step = -(-size // self.pieces)
        found = []
        for first in range(0, size, step):
            piece = [everything] * 3
            piece[axis] = slice(first, first + step)
            found.append((tuple(piece), tuple(piece[n] if key.shape[n] > 1 else everything for n in range(2))))
        return found

    def forward(self, query, key, value, mask=None):
        """Attend, piece by piece."""
        axis = {"images": 0, "heads": 1, "queries": 2}.get(self.loop, 0)
        outs = []
        for q, kv in self.slices(query, key):
            outs.append(F.scaled_dot_product_attention(query[q], key[kv], value[kv], attn_mask=mask))
        return torch.cat(outs, axis)


def judge_module(number: int) -> None:
    """Run the module of this number, forward and backward; raise an AssertionError if a number is not right."""
    draw, generator = random.Random(number), torch.Generator().manual_seed(number)
    batch, heads, queries, keys, dim = (draw.randint(1, n) for n in (3, 3, 12, 20, 9))
    shared = [draw.random() < 0.3 for _ in range(2)]
    sizes = [(batch, heads, queries), *[(1 if shared[0] else batch, 1 if shared[1] else heads, keys)] * 2]
    inputs = [torch.randn(*size, dim, generator=generator) for size in sizes]
    mask = torch.rand(keys, generator=generator) < 0.8 if draw.random() < 0.3 else None
    mask = mask if mask is None else mask.expand(1, keys)
    module = Sliced(draw.choice(LOOPS), draw.randint(1, 3)).train()
    prefix = draw.randint(0, min(2, keys - 1))
    regularizer = dropkey.DropKey(
        draw.choice((0.2, 0.5, 0.9)), schedule="constant", pattern=draw.choice(("element", "column", "token", "block"))
    )
    backend = draw.choice(["auto", *RUNNABLE])
    grid = {"grid_size": (1, keys - prefix), "num_prefix_tokens": prefix}
    handle = dropkey.apply(module, regularizer, backend=backend, **grid)
    site = site_of(module)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    around = draw.choice(("", "checkpoint reentrant", "checkpoint", "hooks"))
    with recording([module]) as (records,):
        out = run_around(around, lambda *tensors: module(*tensors, mask), leaves)
    grad_out = torch.randn(out.shape, generator=generator)
    if not around.startswith("checkpoint"):
        handle.drop_ratios = [0.1]  # the backward pass is that of the ratio before
    out.backward(grad_out)
    grads = [leaf.grad for leaf in leaves]
    seeds = [int(record.call.draw.seed) for record in records]
    calls = module.slices(*inputs[:2])
    assert len(seeds) == len(set(seeds)) == len(calls) == site.calls_per_pass, "calls draw by themselves"
    wanted = [torch.zeros_like(out).double(), *(torch.zeros_like(tensor).double() for tensor in inputs)]
    for (q, kv), seed in zip(calls, seeds, strict=True):
        add_call(wanted, [t.detach().double() for t in inputs], q, kv, mask, grad_out, seed, regularizer, grid)
    for got, want in zip((out, *grads), wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


def add_call(wanted, inputs, q, kv, mask, grad_out, seed, regularizer, grid):
    query, key, value = inputs[0][q], inputs[1][kv], inputs[2][kv]
    batch, heads, queries, _ = query.shape
    shape = (batch, heads, queries, key.shape[2])
    keep = dropkey.keep_mask(
        *shape, drop_ratio=regularizer.drop_ratio, pattern=regularizer.pattern, seed=seed, **grid
    ).numpy()
    key_whole, value_whole = (t.expand(batch, heads, -1, -1).numpy() for t in (key, value))
    allowed = (torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)).numpy()
    scale = query.shape[3] ** -0.5
    out, *grads, _, _ = gradients_at_once(
        query.numpy(), key_whole, value_whole, keep, allowed, grad_out[q].double().numpy(), 0.0, scale
    )
    wanted[0][q] += torch.from_numpy(out)
    wanted[1][q] += torch.from_numpy(grads[0])
    for place, grad, tensor in ((2, grads[1], key), (3, grads[2], value)):
        wanted[place][kv] += torch.from_numpy(grad).sum_to_size(tensor.shape)
