"""A kernel is trusted once it has been right on this GPU.

At the first use of a kind in a process, forward and backward run on small tensors and are compared with the same
written out in float64. The seed is fixed and no generator of torch moves. It compiles nothing that the call itself does
not need: the tensors have the strides' divisibility, the bias and the groups of the call.
"""

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.ops.triton import written_out
from dropkey.ops.triton.launch import Inputs, Launch, launch_backward, launch_forward, padded
from dropkey.ops.triton.mask_test import IN_MEMORY, written_mask
from dropkey.ops.triton.outputs import empty_backward, empty_forward

__all__ = ["Inputs", "Kind", "forget", "outcomes", "trusts_tokens", "why_refused", "why_unsound"]

_LENGTH = 320  # several tiles of every kind, and with the next number a last one that is not whole
_SEED = 0x5EED
_CAPTURING = "their first use is in the capture of a CUDA graph: call once before capturing"
_OUTCOMES: dict["Kind", str | None] = {}
_TOKENS: dict[torch.device, bool] = {}


class WrongMaskError(Exception):
    """A kernel has written another mask than the pattern's."""


class Kind(NamedTuple):
    """What decides which kernels run."""

    pattern: str
    is_stored: bool
    bias: torch.dtype | None
    dtype: torch.dtype
    block_dim: int
    is_causal: bool
    device: torch.device

    @classmethod
    def of(cls, inputs: Inputs, is_stored: bool) -> "Kind":
        """Return the kind of a call."""
        query, bias = inputs.query, inputs.attn_bias
        block_dim = padded(max(query.shape[-1], inputs.value.shape[-1]))
        bias_dtype = None if bias is None else bias.dtype
        return cls(inputs.pattern, is_stored, bias_dtype, query.dtype, block_dim, inputs.is_causal, query.device)

    def __str__(self) -> str:
        extras = (["stored"] if self.is_stored else []) + (["causal"] if self.is_causal else [])
        bias = "no bias" if self.bias is None else f"bias {str(self.bias)[6:]}"
        return ", ".join([self.pattern, bias, str(self.dtype)[6:], f"D {self.block_dim}", *extras])


def outcomes() -> dict[str, str]:
    """Return "passed", or what went wrong, for every kind that was used in this process."""
    return {str(kind): reason or "passed" for kind, reason in _OUTCOMES.items()}


def forget() -> None:
    """Test every kind again at its next use."""
    _OUTCOMES.clear()
    _TOKENS.clear()


def trusts_tokens(device: torch.device) -> bool:
    """Say whether the kernel that chooses tokens is right on a GPU; tests it when first asked."""
    if device not in _TOKENS:
        seed = torch.full((), _SEED, dtype=torch.int64, device=device)
        ratio = torch.full((), 0.4, dtype=torch.float64, device="cpu")
        try:
            _TOKENS[device] = written_mask("token", 2, 1, _LENGTH + 5, ratio, seed)[1]
        except Exception as error:
            _TOKENS[device] = False
            warnings.warn(f"dropkey's Triton kernel for tokens did not run: {error}", RuntimeWarning, stacklevel=2)
    return _TOKENS[device]


def why_refused(inputs: Inputs, is_stored: bool = False) -> str | None:
    """Return why a call must go elsewhere, or None; in the capture of a CUDA graph that goes for this call alone."""
    if _is_capturing(inputs) and Kind.of(inputs, is_stored) not in _OUTCOMES:
        warnings.warn(f"dropkey's Triton kernels are not used here: {_CAPTURING}", RuntimeWarning, stacklevel=2)
        return _CAPTURING
    return why_unsound(inputs, is_stored)


def why_unsound(inputs: Inputs, is_stored: bool = False) -> str | None:
    """Return why the kernels cannot be trusted with a call, or None; tests the kind at its first use."""
    kind = Kind.of(inputs, is_stored)
    if kind not in _OUTCOMES:
        _OUTCOMES[kind] = reason = _tested(inputs, is_stored)
        if reason is not None:
            warnings.warn(f"dropkey's Triton kernels are not used for {kind}: {reason}", RuntimeWarning, stacklevel=2)
    return _OUTCOMES[kind]


def _tested(inputs: Inputs, is_stored: bool) -> str | None:
    if _is_capturing(inputs):
        return _CAPTURING
    try:
        errors = _errors(_small(inputs), is_stored)
    except WrongMaskError as error:
        return f"{error}; torch's attention is used instead"
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return f"they did not run ({type(error).__name__}: {lines[0]}); torch's attention is used instead"
    eps = torch.finfo(inputs.query.dtype).eps
    most = 2 * eps if inputs.query.dtype != torch.float32 else 64 * eps
    wrong = {name: error for name, error in errors.items() if not error <= most}
    if not wrong:
        return None
    found = ", ".join(f"{name} {error:.1e}" for name, error in wrong.items())
    return f"their error in a self-test is {found}, above {most:.1e}; torch's attention is used instead"


def _is_capturing(inputs: Inputs) -> bool:
    return inputs.query.is_cuda and torch.cuda.is_current_stream_capturing()


def _errors(inputs: Inputs, is_stored: bool) -> dict[str, float]:
    """Return the relative error, by norms, of the output and of each gradient."""
    out, row_stats, bits = empty_forward(inputs.query, inputs.value, is_stored)
    grads = empty_backward(*inputs[:3])
    grad_out = _noise(out.shape, inputs.query, 5)
    launch_forward(Launch(inputs), out, row_stats, bits if is_stored else None)
    drawn = inputs._replace(kept=bits, pattern="bits") if is_stored else inputs
    launch_backward(Launch(drawn), out, row_stats, grad_out, *grads)
    query, key, value = (tensor.double() for tensor in inputs[:3])
    wide = inputs._replace(query=query, key=key, value=value)
    want = [torch.empty_like(tensor, dtype=torch.float64) for tensor in (out, *grads)]
    written_out.forward(wide, want[0])
    written_out.backward(wide, grad_out.double(), *want[1:])
    pairs = zip((out, *grads), want, strict=True)
    errors = torch.stack([(got.double() - right).norm() / right.norm() for got, right in pairs]).tolist()
    return dict(zip(("output", "gradient of query", "gradient of key", "gradient of value"), errors, strict=True))


def _small(inputs: Inputs) -> Inputs:
    """Return a small call of the same kind."""
    query, key = inputs[:2]
    group = query.shape[1] // key.shape[1]
    num_queries, num_keys = _length(query.shape[2]), _length(key.shape[2])
    shapes = [(1, 2 * group, num_queries), (1, 2, num_keys), (1, 2, num_keys)]
    tensors = [
        _noise((*shape, tensor.shape[-1]), tensor, number)
        for number, (shape, tensor) in enumerate(zip(shapes, inputs[:3], strict=True))
    ]
    bias = None if inputs.attn_bias is None else _small_bias(inputs.attn_bias, num_queries, num_keys, query)
    device = query.device
    seed = torch.full((), _SEED, dtype=torch.int64, device=device)
    ratio = torch.full((), 0.4, dtype=torch.float64, device=inputs.drop_ratio.device)
    kept = None
    if inputs.pattern in IN_MEMORY:
        kept, is_right = written_mask(inputs.pattern, 2 * group, num_queries, num_keys, ratio, seed)
        if not is_right:
            raise WrongMaskError(f"the mask that they write for {inputs.pattern} is another one")
    return inputs._replace(
        query=tensors[0], key=tensors[1], value=tensors[2], attn_bias=bias, kept=kept, drop_ratio=ratio, seed=seed
    )


def _length(tokens: int) -> int:
    return _LENGTH if tokens % 16 == 0 else _LENGTH + 5


def _small_bias(bias: Tensor, num_queries: int, num_keys: int, query: Tensor) -> Tensor:
    """A bias of the same dtype, per query or not as the call's, that forbids a sixth of the keys."""
    per_query = bias.dim() > 1 and bias.shape[-2] > 1 and bias.stride(-2) != 0
    shape = (1, 1, num_queries if per_query else 1, num_keys)
    is_allowed = _scattered(shape, query.device, 9) % 6 > 0
    if bias.dtype == torch.bool:
        return is_allowed
    noise = _noise(shape, torch.empty((), dtype=bias.dtype, device=query.device), 10)
    return noise.masked_fill(~is_allowed, -math.inf)


def _noise(shape: tuple[int, ...], like: Tensor, number: int) -> Tensor:
    """Return numbers that look random, of mean 0 and variance 1, laid out as (B, N, H, D), without a generator."""
    size = [shape[0], shape[2], shape[1], shape[3]]
    uniform = _scattered(tuple(size), like.device, number).to(torch.float32) / 2**24
    return ((uniform - 0.5) * math.sqrt(12.0)).to(like.dtype).transpose(1, 2)


def _scattered(shape: tuple[int, ...], device: torch.device, number: int) -> Tensor:
    """Return integers in [0, 2 ** 24) that look random: a multiplicative hash of the place."""
    place = torch.arange(math.prod(shape), dtype=torch.int64, device=device) + number * 1_000_003
    mixed = (place * 0x9E3779B1) % 2**32
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) % 2**32
    return ((mixed ^ (mixed >> 13)) % 2**24).view(shape)
