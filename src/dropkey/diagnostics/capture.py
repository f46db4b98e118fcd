"""Attention maps of any model, also where a fused kernel computes none."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import Found, attention_modules, left_alone, unknown_attention
from dropkey.adapters.fast_path import encoder_layers_heard
from dropkey.adapters.listeners import listening_everywhere
from dropkey.adapters.names import shown, unwrapped_names
from dropkey.adapters.record import Record
from dropkey.arguments import check_model, check_where
from dropkey.diagnostics.captured import Captured
from dropkey.diagnostics.heard import Heard, check_stage
from dropkey.diagnostics.memory import free_bytes
from dropkey.errors import ArgumentError, SiteError
from dropkey.ops.statistics import is_recomputing

__all__ = ["capture", "hearing", "uncompiled"]

Reduction = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def capture(
    model: nn.Module,
    *,
    where: Callable[[Found], bool] | None = None,
    heads: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    stage: str = "attended",
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    max_bytes: int | None = None,
) -> Iterator[Captured]:
    """Capture the attention maps of every forward pass in this block.

    The model need not have been applied to, fused kernels stay on, and its outputs are the same bit for bit, in
    training and evaluation: a map is computed from the query and key of the very call, and the mask that it drew. A
    compiled model runs eagerly meanwhile. Maps are detached, on the model's device, in float32 (float64 for float64).

    Args:
        model: any module; attention of its own class must be known: see ``dropkey.register``.
        where: says of each attention module (its ``name``, ``kind``, ``block_index``, ``module``) whether to capture
            it; all by default.
        heads: which heads, from 0; all by default. A module with several softmax maps a head has them side by side.
        queries: which queries, from 0, the prefix tokens first; all by default.
        stage: "softmax" for the maps before any drop, "dropped" after the drop of keys, "attended" for what the values
            are multiplied with: after Re-attention too. Dropout of weights inside of torch's kernels is in none of
            them, since nobody can see its mask; ``notes`` says so where it acts.
        reduce: a measure, such as ``dropkey.diagnostics.entropy``, or several by name: a function of maps (b, h, q, Nk)
            that returns (b, ...). It is called with a few images at a time and its results are kept in place of maps.
        max_bytes: most memory that maps may take; by default what is free.

    Yields:
        A Captured, by name: ``maps["blocks.0.attn"]`` is (B, H, Nq, Nk), with B = batch * windows in window attention;
        a list of these where the module has attended several times.

    Raises:
        SiteError: no attention module, or maps that would not fit into memory.
        ArgumentError: an unknown stage, or heads or queries that a module does not have.

    Warns:
        UserWarning: a module looks like attention and no adapter knows its class; not with ``where``. ``notes`` names
            it in any case.

    Example:
        >>> import torch, dropkey
        >>> model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(16, 2, batch_first=True), 2).eval()
        >>> with dropkey.capture(model) as maps:
        ...     out = model(torch.randn(3, 5, 16))
        >>> maps["layers.0.self_attn"].shape
        torch.Size([3, 2, 5, 5])
    """
    check_model(model)
    check_where(where)
    check_stage(stage)
    unknown, names = unknown_attention(model), unwrapped_names(model)
    chosen = [names[f.module] for f in attention_modules(model) if where is None or where(f)]
    if unknown and chosen and where is None:
        warnings.warn(
            f"not captured, since no adapter knows its class: {', '.join(unknown)}; see dropkey.register", stacklevel=3
        )
    captured = Captured(chosen, left_alone(model))
    for missing in unknown:
        captured.note(f"{missing} is not captured: no adapter knows its class")
    budget = _Budget(max_bytes)

    def take(heard: Heard) -> None:
        name = names[heard.found.module]
        _check_choice("heads", heads, heard.shape[1], name)
        _check_choice("queries", queries, heard.shape[2], name)
        if heard.hides_dropout:
            captured.note(f"{shown(name)}: its maps are those before the dropout of weights, whose mask cannot be seen")
        if reduce is None:
            captured.add(name, _whole(heard, stage, heads, queries, budget, name))
        else:
            captured.add(name, _reduced(heard, stage, heads, queries, reduce))

    with hearing(model, take, where):
        yield captured


@contextlib.contextmanager
def hearing(
    model: nn.Module, take: Callable[[Heard], None], where: Callable[[Found], bool] | None = None
) -> Iterator[None]:
    """Let a function hear every attention call of a model as it is made, without changing a bit of the outputs.

    Args:
        model: any module.
        take: is given each call after it has run.
        where: as in ``capture``.
    """
    listening = listening_everywhere(model, lambda found: _Listener(found, take), where)
    with uncompiled(model), listening, encoder_layers_heard(model):
        yield


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run a compiled model eagerly."""
    with contextlib.ExitStack() as stack:
        if any(hasattr(module, "_orig_mod") for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class _Listener:
    """Passes on what it hears, but for what a checkpoint computes again."""

    always = True
    wants_maps = False

    def __init__(self, found: Found, take: Callable[[Heard], None]) -> None:
        self.found = found
        self.take = take

    def heard(self, record: Record) -> None:
        if not is_recomputing():
            with torch.no_grad():
                self.take(Heard(self.found, record))


class _Budget:
    """How much memory the maps of a capture may take, and how much they have taken."""

    def __init__(self, max_bytes: int | None) -> None:
        self.max_bytes = max_bytes
        self.taken = 0

    def take(self, size: int, device: torch.device, name: str, shape: tuple[int, ...]) -> None:
        """Count the bytes of one map, or raise a SiteError if they do not fit."""
        left = free_bytes(device) if self.max_bytes is None else self.max_bytes - self.taken
        if size > left:
            raise SiteError(
                f"the maps of {name} {shape} take {size / 2**20:.4g} MiB, and {max(left, 0) / 2**20:.4g} MiB are left "
                f"beside the {self.taken / 2**20:.4g} MiB of maps so far: pass reduce=, a smaller batch, or choose "
                "sites with where=, heads= or queries="
            )
        self.taken += size


def _whole(
    heard: Heard, stage: str, heads: Sequence[int] | None, queries: Sequence[int] | None, budget: _Budget, name: str
) -> Tensor:
    batch, num_heads, num_queries, num_keys = heard.shape
    sizes = (num_heads if heads is None else len(heads), num_queries if queries is None else len(queries))
    query = heard.record.call.query
    shape = (batch, *sizes, num_keys)
    budget.take(torch.Size(shape).numel() * heard.dtype.itemsize, query.device, name, shape)
    maps = query.new_empty(shape, dtype=heard.dtype)
    start = 0
    for chunk in heard.chunks(stage, heads, queries):
        maps[start : start + len(chunk)] = chunk
        start += len(chunk)
    return maps


def _reduced(
    heard: Heard,
    stage: str,
    heads: Sequence[int] | None,
    queries: Sequence[int] | None,
    reduce: Reduction | Mapping[str, Reduction],
) -> Tensor | dict[str, Tensor]:
    named = reduce if isinstance(reduce, Mapping) else {"": reduce}
    parts: dict[str, list[Tensor]] = {name: [] for name in named}
    for chunk in heard.chunks(stage, heads, queries):
        for name, measure in named.items():
            part = measure(chunk)
            if not isinstance(part, Tensor) or part.shape[:1] != chunk.shape[:1]:
                found = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
                raise ArgumentError(
                    f"reduce must return a tensor with one row for each of the {len(chunk)} images, got {found}"
                )
            parts[name].append(part)
    joined = {name: torch.cat(rows) for name, rows in parts.items()}
    return joined if isinstance(reduce, Mapping) else joined[""]


def _check_choice(what: str, chosen: Sequence[int] | None, count: int, name: str) -> None:
    wrong = [number for number in chosen or () if not 0 <= number < count]
    if wrong:
        raise ArgumentError(f"{name} has {what} 0 to {count - 1}, got {', '.join(map(str, wrong))}")
