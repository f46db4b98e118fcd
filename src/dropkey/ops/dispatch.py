"""The one door to the backends: which of them runs a call, draws a mask, lists tokens, mixes maps or projects.

A new backend is one object of a class derived from ``Backend``, added to ``BACKENDS``: callers do not change.
"""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from dropkey.arguments import short
from dropkey.errors import ArgumentError, BackendError, did_you_mean, first_line
from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu.backend import Cpu
from dropkey.ops.mixing import Mixing
from dropkey.ops.ordinary import is_ordinary
from dropkey.ops.projection import Projection
from dropkey.ops.reference import Reference
from dropkey.ops.sdpa import Sdpa, plain
from dropkey.ops.triton import Triton
from dropkey.patterns import Geometry

__all__ = [
    "attend",
    "attend_kept",
    "attend_mixed",
    "attend_projected",
    "backends",
    "check_backend",
    "draw_keep",
    "is_available",
    "kept_tokens",
    "refuses_mixing",
    "refuses_projection",
    "select",
]


def draw_keep(draw: Draw, mask_shape: tuple[int, int, int, int]) -> Tensor:
    """Return the keep mask of a draw, the fastest way there is on its device.

    Args:
        draw: which keys are dropped.
        mask_shape: (B, H, Nq, Nk).

    Returns:
        bool, broadcastable to ``mask_shape``; the same bits whichever backend draws them.
    """
    pattern = draw._replace(candidates=None)
    return draw.spared(_able(lambda b: b.refuses_mask(pattern, mask_shape)).draw_keep(pattern, mask_shape))


# In the order in which "auto" asks them.
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Triton(), Cpu(), Sdpa(draw_keep), Reference())}


def backends() -> dict[str, str]:
    """Return, for every backend, ``"available"`` or why it does not work on this machine.

    For "triton" it also says which kinds of calls this process has tested on the GPU, and with what outcome; for "cpu"
    which instruction set the kernel uses.

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
    if not isinstance(name, str) or (name != "auto" and name not in BACKENDS):
        hint = did_you_mean(str(name), BACKENDS)
        raise ArgumentError(f"unknown backend {short(name)}{hint}; known: auto, {', '.join(BACKENDS)}")
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
    return _able(lambda backend: backend.refuses_tokens(draw)).kept_tokens(draw, geometry)


def attend_kept(call: AttentionCall, backend: str = "auto") -> Tensor:
    """Run a call over keys that were chosen beforehand: nothing more is dropped, and the fastest backend may run it.

    Raises:
        BackendError: the backend asked for cannot run here.
    """
    assert call.draw is None
    _require(backend, None if backend == "auto" else BACKENDS[check_backend(backend)].unavailable())
    ready = (b for b in _asked(backend) if b.unavailable() is None and b.refuses(call) is None)
    chosen = next(ready, BACKENDS["sdpa"])
    return chosen.attend(call)


def refuses_mixing(call: AttentionCall, backend: str = "auto") -> str | None:
    """Return why no backend that is asked can mix the maps of a call (Re-attention, see ``Mixing``), or None."""
    return _refusal(lambda b: b.refuses_mixing(call), backend)


def attend_mixed(call: AttentionCall, mixing: Mixing, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Run a call that ``refuses_mixing`` lets pass.

    Returns:
        (B, H, Nq, Dv) in the query's dtype, and the variance that each head was divided by, float64 (H,).

    Raises:
        BackendError: no backend that is asked can run it.
    """
    return _able(lambda b: b.refuses_mixing(call), backend).attend_mixed(call, mixing)


def refuses_projection(projection: Projection, backend: str = "auto") -> str | None:
    """Return why no backend that is asked can run an attention with its linear layers, or None."""
    return _refusal(lambda b: b.refuses_projection(projection), backend)


def attend_projected(projection: Projection, rows: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Run an attention that ``refuses_projection`` lets pass, from every token to those of ``rows``.

    Args:
        projection: the input and the linear layers.
        rows: int64 (B, K), the K tokens of each image that have keys, as rows of ``projection.x.view(B * N, C)``.

    Returns:
        (B, N, C'), and what the attention gave, (B, N, H * D), to look at: no gradient flows through it.

    Raises:
        BackendError: no backend that is asked can run it.
    """
    return _able(lambda b: b.refuses_projection(projection), backend).attend_projected(projection, rows)


def _asked(backend: str) -> Iterable[Backend]:
    return BACKENDS.values() if backend == "auto" else (BACKENDS[check_backend(backend)],)


def _able(refusal: Callable[[Backend], str | None], backend: str = "auto") -> Backend:
    """Return the first backend asked that has an ability. Whether it is available is asked last: that may build it."""
    for asked in _asked(backend):
        if refusal(asked) is None and asked.unavailable() is None:
            return asked
    raise BackendError(f"backend {backend!r} cannot do this: {_refusal(refusal, backend)}")


def _refusal(refusal: Callable[[Backend], str | None], backend: str) -> str | None:
    """Return why no backend that is asked has an ability, one reason each, or None."""
    reasons = []
    for asked in _asked(backend):
        reason = refusal(asked) or asked.unavailable()
        if reason is None:
            return None
        reasons.append(f"{asked.name}: {reason}")
    return "; ".join(reasons)
