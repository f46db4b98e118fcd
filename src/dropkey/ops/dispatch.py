"""Which backend runs a call.

A new backend is one object of a class derived from ``Backend``, added to ``BACKENDS``: callers do not change.
"""

from collections.abc import Iterator

from torch import Tensor

from dropkey.errors import ArgumentError, BackendError, did_you_mean, first_line
from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu.backend import Cpu
from dropkey.ops.cpu.keep import kept_tokens as tokens_kept_here
from dropkey.ops.ordinary import is_ordinary
from dropkey.ops.reference import Reference
from dropkey.ops.sdpa import Sdpa, plain
from dropkey.ops.triton import Triton, kept_rows
from dropkey.patterns import Geometry

__all__ = ["attend", "attend_kept", "backends", "check_backend", "is_available", "kept_tokens", "select"]


# In the order in which "auto" asks them.
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Triton(), Cpu(), Sdpa(), Reference())}


def backends() -> dict[str, str]:
    """Return, for every backend, ``"available"`` or why it does not work on this machine.

    For "triton" it also says which kinds of calls this process has tested on the GPU, and with what outcome.

    Example:
        >>> backends()["reference"]
        'available'
    """
    return {name: _state(backend) for name, backend in BACKENDS.items()}


def is_available(name: str) -> bool:
    """Say whether the backend of that name works on this machine."""
    return BACKENDS[check_backend(name)].unavailable() is None


def _state(backend: Backend) -> str:
    reason, remark = backend.unavailable(), backend.remark()
    if reason is not None:
        return f"unavailable: {reason}"
    return "available" if remark is None else f"available; {remark}"


def check_backend(name: str) -> str:
    """Return ``name``, or raise an ArgumentError if there is no backend of that name."""
    if name != "auto" and name not in BACKENDS:
        hint = did_you_mean(name, BACKENDS)
        raise ArgumentError(f"unknown backend {name!r}{hint}; known: auto, {', '.join(BACKENDS)}")
    return name


def select(call: AttentionCall, backend: str) -> Backend:
    """Return the backend that runs a call: the one asked for, or for "auto" the first that does not refuse it.

    Raises:
        BackendError: the backend asked for cannot run here, or cannot run this call.
    """
    if backend == "auto":
        return next(_ready(call))
    chosen = BACKENDS[check_backend(backend)]
    _require(backend, chosen.unavailable() or chosen.refuses(call))
    return chosen


def _ready(call: AttentionCall) -> Iterator[Backend]:
    return (b for b in BACKENDS.values() if b.unavailable() is None and b.refuses(call) is None)


def _require(backend: str, refusal: str | None) -> None:
    if refusal:
        raise BackendError(f"backend {backend!r} cannot run this call: {refusal}; use backend='auto'")


def attend(call: AttentionCall, backend: str = "auto") -> Tensor:
    """Run a call. Without a draw it is torch's own attention, bit for bit, unless the reference is asked for.

    Raises:
        BackendError: the backend asked for cannot run here, or cannot run this call.
    """
    if call.is_empty or (call.draw is None and backend != "reference"):
        check_backend(backend)
        return plain(call)
    chosen = _trusted(call, backend)
    if chosen.refuses_strangers or is_ordinary(call.query, call.key, call.value, call.attn_bias):
        return chosen.attend(call)
    return _attend_extraordinary(chosen, call)


def _trusted(call: AttentionCall, backend: str) -> Backend:
    """Return the backend that runs a call, once it has been seen to run such calls rightly."""
    chosen = select(call, backend)
    reason = chosen.distrusts(call)
    if reason is None:
        return chosen
    if backend != "auto":
        _require(backend, reason)
    return next(b for b in _ready(call) if b is not chosen)


def _attend_extraordinary(backend: Backend, call: AttentionCall) -> Tensor:
    """Run a call on tensors of somebody's own, whose operations may be missing: then the error names them."""
    try:
        return backend.attend(call)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        kinds = " and ".join(sorted({f"{type(t).__name__} of {t.dtype}" for t in (call.query, call.key, call.value)}))
        raise BackendError(
            f"backend {backend.name!r} cannot attend with {kinds}: {first_line(error)}; pass plain float tensors"
        ) from error


def kept_tokens(draw: Draw, geometry: Geometry) -> Tensor:
    """Return the tokens that the token pattern keeps, the fastest way there is on their device.

    Args:
        draw: with its ratio on the CPU, since the shape of what is returned follows it.
        geometry: of the call.

    Returns:
        int64 (B, number of kept), as rows of (B * N) tokens, image by image in the order of the keys or of their ranks.
    """
    rows = kept_rows(draw, geometry) if draw.seed.is_cuda else None
    return tokens_kept_here(draw, geometry) if rows is None else rows


def attend_kept(call: AttentionCall, backend: str = "auto") -> Tensor:
    """Run a call over keys that were chosen beforehand: nothing more is dropped, and the fastest backend may run it.

    Raises:
        BackendError: the backend asked for cannot run here.
    """
    assert call.draw is None
    _require(backend, None if backend == "auto" else BACKENDS[check_backend(backend)].unavailable())
    asked = BACKENDS.values() if backend == "auto" else [BACKENDS[backend]]
    ready = (b for b in asked if b.unavailable() is None and b.refuses(call) is None)
    chosen = next(ready, BACKENDS["sdpa"])
    return chosen.attend(call)
