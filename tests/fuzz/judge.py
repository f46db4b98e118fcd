"""What a call's numbers are worth: errors against float64 in units of rounding, beside those of torch's attention."""

from typing import NamedTuple

import torch

import dropkey
from dropkey.ops.dispatch import BACKENDS
from fuzz.calls import Call, truth

__all__ = ["RUNNABLE", "Verdict", "judge", "takes"]

RUNNABLE = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]
NAMES = ("out", "dq", "dk", "dv")


class Verdict(NamedTuple):
    """Errors of one call on one backend, in eps of the largest value: (name, ours, that of torch's attention)."""

    backend: str
    errors: tuple[tuple[str, float, float], ...]

    def beyond(self, factor: float) -> list[str]:
        """Return which of out, dq, dk and dv exceed ``factor`` times torch's error and eps."""
        return [name for name, ours, torchs in self.errors if name in NAMES and not ours <= factor * torchs + factor]


def takes(backend: str, call: Call) -> bool:
    """Say whether a backend is for calls like this one; a learned bias may need another."""
    return not (backend == "triton" and call.learned_bias)


def judge(call: Call, number: int, backends=("cpu", "reference", "auto")) -> list[Verdict]:
    """Run a call on backends; raise an AssertionError for another mask, shape, type or layout, or what is no number."""
    batch, heads, queries, _ = call.shape
    generator = torch.Generator().manual_seed(number + 1)
    grad_out = torch.randn(batch, heads, queries, call.tensors[2].shape[3], generator=generator).to(
        call.tensors[0].dtype
    )
    wanted, keep = truth(call, grad_out)
    check_masks(call, keep)
    torchs = call.run("sdpa", grad_out)
    check_plain(call, torchs, torchs, wanted, "sdpa")
    verdicts = []
    for backend in backends:
        found = call.run(backend, grad_out)
        check_plain(call, found, torchs, wanted, backend)
        names = [*NAMES, *(["dbias"] if call.learned_bias else []), "dscale"][: len(wanted)]
        errors = (
            (name, in_eps(got, want), in_eps(theirs, want))
            for name, got, theirs, want in zip(names, found, torchs, wanted, strict=True)
        )
        verdicts.append(Verdict(backend, tuple(errors)))
    return verdicts


def in_eps(got, want) -> float:
    largest = want.abs().max().item() if want.numel() else 0.0
    difference = (got.double() - want).abs().max().item() if want.numel() else 0.0
    eps = torch.finfo(got.dtype).eps
    return difference / (eps * largest) if largest else (0.0 if difference < eps else float("inf"))


def check_plain(call, found, torchs, wanted, backend):
    for got, theirs, want in zip(found, torchs, wanted, strict=True):
        assert got.shape == want.shape, (backend, got.shape, want.shape)
        assert got.isfinite().all(), (backend, "not finite")
        assert got.dtype == theirs.dtype
    assert found[0].stride() == torchs[0].stride(), (backend, "layout")


def check_masks(call, keep):
    """Every backend sees the keys of the exported mask: queries of zeros attend alike to what they see."""
    batch, heads, queries, keys = keep.shape
    if batch * heads * queries * keys > 40_000 or keys > 130:
        return
    zeros, eye = torch.zeros(batch, heads, queries, 1), torch.eye(keys).expand(batch, heads, keys, keys)
    seen = keep | ~keep.any(-1, keepdim=True)
    for backend in RUNNABLE:
        out = dropkey.attention(zeros, torch.zeros(batch, heads, keys, 1), eye, backend=backend, **call.drop)
        assert torch.equal(out > 0, seen), (backend, "mask")
