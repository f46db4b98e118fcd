"""Seeing random numbers become masks.

Every dropout, of whatever library, draws random numbers and multiplies by what it makes of them, or fills by it. Below
autograd all of them are a few operations of torch: this mode follows the tensors that depend on random numbers and on
nothing else, until one of them meets a tensor of the model.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from dropkey.diagnostics.audit.drop import Drop, DropKind, fingerprint, unit_of
from dropkey.diagnostics.audit.running import Running

__all__ = ["Watch"]

_HIDES = -1e3  # an addition to logits from here down hides a key
_FACTORIES = ("empty", "zeros", "ones", "full", "arange", "scalar_tensor", "linspace", "eye")
_DERIVED_FACTORIES = ("empty_like", "zeros_like", "ones_like", "full_like", "new_")
_SAME_DRAWS = {  # elementwise and views: a draw stays a draw
    *("mul", "div", "add", "sub", "rsub", "neg", "floor", "ceil", "round", "trunc", "lt", "le", "gt", "ge", "eq", "ne"),
    *("logical_not", "bitwise_not", "logical_and", "bitwise_and", "where", "masked_fill", "clone", "_to_copy", "copy"),
    *("view", "_unsafe_view", "expand", "unsqueeze", "squeeze", "permute", "transpose", "t", "select", "slice"),
    *("alias", "detach", "reshape", "clamp", "clamp_min", "clamp_max", "fill", "contiguous", "lift_fresh"),
    *("reciprocal", "split", "split_with_sizes", "unbind", "chunk", "as_strided", "flip", "_reshape_alias"),
}
_KEEPS_CHANCE = {  # of these the chance of a nonzero stays what the draw was told
    *("mul", "div", "clone", "_to_copy", "view", "_unsafe_view", "expand", "unsqueeze", "squeeze", "permute"),
    *("transpose", "detach", "reshape", "alias", "contiguous", "as_strided", "_reshape_alias"),
}
_PASSES_WEIGHTS = {"_to_copy", "clone", "view", "_unsafe_view", "expand", "alias", "detach", "reshape", "mul", "div"}
_RATE_NAMES = ("dropout_p", "p_dropout", "dropout", "dropout_rate", "dropout_prob", "drop_prob")


class _Origin(NamedTuple):
    """Of a tensor that depends on no input: whether random, by which chance it is not zero, and if draws are apart."""

    is_random: bool
    chance: float | None = None
    is_independent: bool = True


class _Call(NamedTuple):
    """One operation below autograd."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    schema: Any

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def outputs(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(self.out) if isinstance(leaf, Tensor)]

    def argument(self, names: Sequence[str]) -> Any:
        """The argument of the first of these names that the operation has."""
        for place, described in enumerate(self.schema.arguments):
            if described.name in names:
                given = self.args[place] if place < len(self.args) else described.default_value
                return self.kwargs.get(described.name, given)
        return None


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Collects the drops of whatever runs in it; changes nothing.

    Args:
        running: says which module runs.
    """

    def __init__(self, running: Running) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drops: list[Drop] = []
        self._running = running
        # What is known of a tensor:
        self._origins: MutableMapping[Tensor, _Origin] = WeakTensorKeyDictionary()  # it depends on no input
        self._scaled: MutableMapping[Tensor, float] = WeakTensorKeyDictionary()  # it was just multiplied by this
        self._masked: MutableMapping[Tensor, Drop] = WeakTensorKeyDictionary()  # it is the result of this drop
        self._weights: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()  # it is a softmax: attention weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # made of other operations: with tensors of inference mode they arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        schema = func._schema
        name = schema.name.removeprefix("aten::")
        name = name.removesuffix("_") if schema.is_mutable and not name.startswith("__") else name
        out = func(*args, **kwargs)
        call = _Call(name, tuple(args), kwargs, out, schema)
        meeting = _MEETINGS.get(name)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._drawn(call)
        elif meeting is None or not self._meets(call, meeting):
            self._follow(call)
        return out

    # Where random numbers come from.

    def _drawn(self, call: _Call) -> None:
        if call.name == "native_dropout":
            self._native_dropout(call)
            return
        rate = call.argument(_RATE_NAMES)
        if isinstance(rate, float) and not call.name.startswith(("rand", "bernoulli")):
            if rate > 0:
                self._tell(Drop("opaque", rate=rate))
            self._forget(call.outputs)
            return
        chance = None
        if call.name == "bernoulli":
            given = call.argument(("p",))
            chance = given if isinstance(given, float) else _constant(call.tensors[:1])
        for output in call.outputs:
            self._origins[output] = _Origin(True, chance)

    def _native_dropout(self, call: _Call) -> None:
        source, rate, train = call.args[0], call.argument(("p",)), call.argument(("train",))
        result, mask = call.out
        if train is False or not rate:
            return
        seen = mask & (source != 0)
        scales = [float((result[seen][0] / source[seen][0]).float())] if seen.any() else []
        kind: DropKind = "weights" if source in self._weights else "values"
        drop = self._mask_drop(kind, ~mask, source, rate)
        drop.scales, drop.tolerance = scales, _rounding(result.dtype)
        self._tell(drop)

    # What becomes of them.

    def _follow(self, call: _Call) -> None:
        tensors = call.tensors
        origins = [self._origins.get(tensor) for tensor in tensors]
        foreign = [t for t, origin in zip(tensors, origins, strict=True) if origin is None and t.numel() != 1]
        if call.name == "copy":  # the destination is overwritten as a whole
            foreign = [t for t in foreign if t is not call.args[0]]
        random = [origin for origin in origins if origin is not None and origin.is_random]
        is_factory = call.name in _FACTORIES or call.name.startswith(_DERIVED_FACTORIES)
        if is_factory or (not foreign and (random or any(origins))):
            self._keep_following(call, [] if is_factory else random)
            return
        if call.name == "_local_scalar_dense" and random:
            self._tell(Drop("other", remark="branches on a random number"))
        self._forget(call.outputs)
        self._note_scale(call)
        self._note_weights(call)

    def _keep_following(self, call: _Call, random: Sequence[_Origin]) -> None:
        if call.name == "_local_scalar_dense":
            if random:
                self._tell(Drop("other", remark="branches on a random number"))
            return
        chance = random[0].chance if len(random) == 1 and call.name in _KEEPS_CHANCE else None
        independent = call.name in _SAME_DRAWS and all(origin.is_independent for origin in random)
        for output in call.outputs:
            self._origins[output] = _Origin(bool(random), chance, independent)

    def _forget(self, outputs: Sequence[Tensor]) -> None:
        for output in outputs:
            for notes in (self._origins, self._scaled, self._weights, self._masked):
                notes.pop(output, None)

    def _note_scale(self, call: _Call) -> None:
        """Note ``x / keep`` before a mask, and after one."""
        if call.name not in ("mul", "div") or not isinstance(call.args[0], Tensor):
            return
        factor = _number(call.args[1])
        if not factor:
            return
        factor = factor if call.name == "mul" else 1 / factor
        drop = self._masked.get(call.args[0])
        if drop is not None and drop.scales:
            drop.scales.append(drop.scales[0] * factor)
        for output in call.outputs:
            self._scaled[output] = factor

    def _note_weights(self, call: _Call) -> None:
        first = call.args[0] if call.args else None
        passes = call.name in _PASSES_WEIGHTS and isinstance(first, Tensor) and first in self._weights
        if passes or call.name in ("_softmax", "_safe_softmax"):
            for output in call.outputs:
                self._weights[output] = True

    # Where they meet a tensor of the model.

    def _meets(self, call: _Call, meeting: Callable[["Watch", _Call], Drop | None]) -> bool:
        tensors = call.tensors
        origins = [self._origins.get(tensor) for tensor in tensors]
        is_mixed = any(origin is not None and origin.is_random for origin in origins) and any(
            origin is None and tensor.numel() != 1 for tensor, origin in zip(tensors, origins, strict=True)
        )
        if not is_mixed:
            return False
        drop = meeting(self, call)
        if drop is None:
            return False
        self._tell(drop)
        self._forget(call.outputs)
        for output in call.outputs if drop.scales else ():
            self._masked[output] = drop
        return True

    def _is_random(self, value: Any) -> bool:
        origin = self._origins.get(value) if isinstance(value, Tensor) else None
        return origin is not None and origin.is_random

    def multiplied(self, call: _Call) -> Drop | None:
        """``values * mask``."""
        first, second = call.args[:2]
        values, mask = (second, first) if self._is_random(first) else (first, second)
        drawn = _unexpanded(mask)
        kept = drawn[drawn != 0]
        if kept.numel() and kept.max() != kept.min():
            return Drop("other", remark="multiplies by noise")
        chance = self._origins[mask].chance
        kind: DropKind = "weights" if values in self._weights else "values"
        drop = self._mask_drop(kind, drawn == 0, values, None if chance is None else 1 - chance, mask)
        if kept.numel():
            scale = float(kept.flatten()[0])
            factor = self._scaled.get(values)
            drop.scales = [scale] if factor is None else [scale, scale * factor]
            drop.tolerance = _rounding(mask.dtype) if mask.is_floating_point() else _rounding(values.dtype)
        return drop

    def filled(self, call: _Call) -> Drop | None:
        """``values.masked_fill(mask, number)``, ``values[mask] = number``."""
        values, mask = call.args[0], call.args[1]
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        if not self._is_random(mask) or mask.dtype != torch.bool or len(call.args) < 3:
            return None
        return self._replaced(values, mask, mask, _number(call.args[2]))

    def chosen(self, call: _Call) -> Drop | None:
        """``torch.where(mask, values, number)``, either way round."""
        mask, one, other = call.args[:3]
        if not self._is_random(mask):
            return None
        for values, number, dropped in ((one, _number(other), ~mask), (other, _number(one), mask)):
            if number is not None:
                return self._replaced(values, mask, dropped, number)
        return None

    def added(self, call: _Call) -> Drop | None:
        """``logits + mask``, with one large negative number in the mask."""
        first, second = call.args[:2]
        values, mask = (second, first) if self._is_random(first) else (first, second)
        if values in self._masked:  # alpha dropout shifts what it has multiplied, and has a scale of its own
            self._masked[values].scales.clear()
            return None
        drawn = _unexpanded(mask)
        marked = drawn[drawn != 0]
        if not drawn.is_floating_point() or not marked.numel() or marked.max() != marked.min():
            return Drop("other", remark="adds noise")
        number = float(marked.flatten()[0]) * float(call.argument(("alpha",)) or 1)
        if call.name == "sub":
            number = -number
        chance = self._origins[mask].chance
        drop = self._mask_drop("keys", drawn != 0, values, chance, mask)
        if number <= _HIDES:
            return drop
        if abs(number) < 1e-3:
            drop.remark = f"adds {number:.3g} to the logits, which hides no key"
            drop.dropped = 0
            return drop
        return Drop("other", remark="adds noise")

    def selected(self, call: _Call) -> Drop | None:
        """``values[random indices]``: some tokens are left out."""
        values, output = call.args[0], call.outputs[0]
        if self._is_random(values) or not values.numel():
            return None
        return Drop("selection", unit="token", share=max(0.0, 1 - output.numel() / values.numel()))

    def _replaced(self, values: Tensor, mask: Tensor, dropped: Tensor, number: float | None) -> Drop | None:
        if number is None or not (number == 0 or number <= _HIDES):
            return Drop("other", remark="fills by a random mask")
        kind: DropKind = "keys" if number else "weights" if values in self._weights else "values"
        chance = self._origins[mask].chance
        rate = chance if chance is None or dropped is mask else 1 - chance
        drop = self._mask_drop(kind, _unexpanded(dropped), values, rate, mask)
        if not number:
            factor = self._scaled.get(values)
            drop.scales = [1.0] if factor is None else [1.0, factor]
        return drop

    def _mask_drop(
        self, kind: DropKind, dropped: Tensor, values: Tensor, rate: float | None, mask: Tensor | None = None
    ) -> Drop:
        origin = None if mask is None else self._origins[mask]
        drop = Drop(kind, unit_of(dropped if mask is None else mask, values), rate=rate)
        if origin is None or origin.is_independent:
            drop.draws, drop.dropped = dropped.numel(), int(dropped.sum())
        else:
            drop.share = float(dropped.double().mean())
        drop.fingerprint = fingerprint(dropped)
        return drop

    def _tell(self, drop: Drop) -> None:
        drop.owner, drop.place = self._running.innermost, self._running.next_place()
        self.drops.append(drop)


_MEETINGS: dict[str, Callable[[Watch, _Call], Drop | None]] = {
    "mul": Watch.multiplied,
    "masked_fill": Watch.filled,
    "index_put": Watch.filled,
    "where": Watch.chosen,
    "add": Watch.added,
    "sub": Watch.added,
    "index": Watch.selected,
    "gather": Watch.selected,
    "index_select": Watch.selected,
}


def _unexpanded(mask: Tensor) -> Tensor:
    """Return each draw of a mask once."""
    for axis, stride in enumerate(mask.stride()):
        if stride == 0 and mask.shape[axis] > 1:
            mask = mask.narrow(axis, 0, 1)
    return mask


def _number(value: Any) -> float | None:
    """Return a number, of a tensor with one element too."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 and not value.is_complex() else None
    return float(value) if isinstance(value, int | float) else None


def _constant(tensors: Sequence[Tensor]) -> float | None:
    """Return the number that all elements of a tensor are, if they are."""
    low, high = tensors[0].aminmax() if tensors and tensors[0].numel() else (None, None)
    return float(low) if low is not None and low == high else None


def _rounding(dtype: torch.dtype) -> float:
    return max(1e-4, 4 * torch.finfo(dtype).eps) if dtype.is_floating_point else 1e-4
