"""Which backend runs a call.

A new backend is one object with ``name``, ``unavailable``, ``refuses`` and ``attend``, added to ``BACKENDS``: callers
do not change.
"""

from typing import Protocol

from torch import Tensor

from dropkey.errors import ArgumentError, BackendError, did_you_mean, first_line
from dropkey.ops.call import AttentionCall
from dropkey.ops.cpu.backend import Cpu
from dropkey.ops.ordinary import is_ordinary
from dropkey.ops.reference import Reference
from dropkey.ops.sdpa import Sdpa, plain
from dropkey.ops.triton import Triton

__all__ = ["Backend", "attend", "attend_kept", "backends", "check_backend", "select"]


class Backend(Protocol):
    """What dispatch asks of a backend."""

    name: str

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""


# In the order in which "auto" asks them.
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Triton(), Cpu(), Sdpa(), Reference())}


def backends() -> dict[str, str]:
    """Return, for every backend, ``"available"`` or why it does not work on this machine.

    Example:
        >>> backends()["reference"]
        'available'
    """
    reasons = {name: backend.unavailable() for name, backend in BACKENDS.items()}
    return {name: "available" if reason is None else f"unavailable: {reason}" for name, reason in reasons.items()}


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
        return next(b for b in BACKENDS.values() if b.unavailable() is None and b.refuses(call) is None)
    chosen = BACKENDS[check_backend(backend)]
    _require(backend, chosen.unavailable() or chosen.refuses(call))
    return chosen


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
    chosen = select(call, backend)
    if chosen.name == "cpu" or is_ordinary(call.query, call.key, call.value, call.attn_bias):
        return chosen.attend(call)
    return _attend_extraordinary(chosen, call)


def _attend_extraordinary(backend: Backend, call: AttentionCall) -> Tensor:
    """Run a call on tensors of somebody's own, whose operations may be missing: then the error names them."""
    try:
        return backend.attend(call)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        kinds = " and ".join(sorted({f"{type(t).__name__} of {t.dtype}" for t in (call.query, call.key, call.value)}))
        raise BackendError(
            f"backend {backend.name!r} cannot attend with {kinds}: {first_line(error)}; pass plain float tensors"
        ) from error


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
