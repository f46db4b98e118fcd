"""Where the windows of a model lie on the image, as the model itself says.

No library is asked how it cuts windows, sorts tokens, shifts or pads. On noise of the images' shape, the tokens of a
window depend on the patches that they are: gradients with respect to the last map of the image before say on which.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from dropkey.adapters.discover import Found, attention_modules
from dropkey.adapters.listeners import listening_everywhere
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.record import Record
from dropkey.adapters.restoring import restored
from dropkey.diagnostics.capture import uncompiled
from dropkey.diagnostics.feature_maps import FeatureMap, feature_maps, first_tensor, patches_apart
from dropkey.diagnostics.source import Source
from dropkey.diagnostics.windows import WindowPlaces

__all__ = ["window_places"]

_CHECKPOINTS = "grad_checkpointing"


def window_places(
    model: nn.Module, images: Tensor, where: Callable[[Found], bool] | None = None
) -> dict[str, WindowPlaces]:
    """Find where the windows of a model's window attention lie on images of this shape.

    The model runs twice, on a few images of noise; random state, modes and buffers are as before afterwards.

    Args:
        model: any model that takes a batch of images by position.
        images: (B, C, height, width); only shape, type and device matter.
        where: says of each attention module whether to look there; all of windows by default.

    Returns:
        By the module's name, as in ``dropkey.capture``. A module is not in it where its keys do not come from one patch
        each (a convolution between the last map of the image and its keys), inside of a checkpoint of its own, in half
        precision, and with weights that were made in inference mode. Queries that do not come from one patch each are
        taken for those of the keys, if there are as many.

    Example:
        >>> import timm, torch, dropkey
        >>> from dropkey.diagnostics import window_places
        >>> model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(1, 2))
        >>> keys = window_places(model, torch.empty(1, 3, 56, 56))["layers.0.blocks.0.attn"].keys
        >>> keys.grid, keys.patches.shape
        ((14, 14), torch.Size([4, 49]))
    """
    names = unwrapped_names(model)
    every = attention_modules(model)
    looked_at = {f.module for f in every if f.kind == "window" and (where is None or where(f))}
    has_gradients = not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
    if not looked_at or not has_gradients:
        return {}
    found: dict[str, WindowPlaces] = {}
    seen: list[Source] = []
    with (
        torch.inference_mode(False),
        uncompiled(model),
        restored(model),
        _without_checkpoints(model),
        patches_apart([f.module for f in every]),
    ):
        model.eval()
        inside = {inner for f in every for inner in f.module.modules()}
        maps = {module: each for module, each in feature_maps(model, images).items() if module not in inside}
        two = torch.randn(2, *images.shape[1:], dtype=images.dtype, device=images.device, requires_grad=True)
        listening = listening_everywhere(
            model, lambda f: _Listener(names[f.module], seen, found), lambda f: f.module in looked_at
        )
        with torch.enable_grad(), _kept(maps, seen), listening:
            model(two)
    return found


@contextlib.contextmanager
def _without_checkpoints(model: nn.Module) -> Iterator[None]:
    """Let no part be computed again for a gradient: timm checkpoints in evaluation too."""
    parts = [module for module in model.modules() if getattr(module, _CHECKPOINTS, False) is True]
    try:
        for part in parts:
            setattr(part, _CHECKPOINTS, False)
        yield
    finally:
        for part in parts:
            setattr(part, _CHECKPOINTS, True)


@contextlib.contextmanager
def _kept(maps: Mapping[nn.Module, FeatureMap], seen: list[Source]) -> Iterator[None]:
    """Keep the maps of the image as modules put them out."""

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.requires_grad:
            seen.append(Source(tensor, maps[module]))

    hooks = [module.register_forward_hook(keep) for module in maps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Listener:
    """Finds the places of one module's windows."""

    always = True
    wants_maps = True  # so that calls are heard with their gradients

    def __init__(self, name: str, seen: list[Source], found: dict[str, WindowPlaces]) -> None:
        self.name = name
        self.seen = seen
        self.found = found

    def heard(self, record: Record) -> None:
        with contextlib.suppress(CheckpointError):  # no gradient inside of a checkpoint before its end
            if self.name not in self.found:  # by an earlier call of this pass
                self._find(record)

    def _find(self, record: Record) -> None:
        probes = _Probes.of(record)
        source = next((source for source in reversed(self.seen) if source.reaches(probes.keys[0])), None)
        keys = None if source is None else source.places(probes.keys)
        if source is None or keys is None:
            return
        num_queries, num_keys = record.call.mask_shape[2:]
        queries = source.places(probes.queries) if source.reaches(probes.queries[0]) else None
        queries = queries or (keys if num_queries == num_keys else None)
        if queries is not None:
            self.found[self.name] = WindowPlaces(queries, keys)


class _Probes(NamedTuple):
    """Numbers that say of which patches the tokens of windows are, each (W, n)."""

    queries: list[Tensor]
    keys: list[Tensor]

    @classmethod
    def of(cls, record: Record) -> "_Probes":
        call = record.call
        if not record.of_logits:
            return cls([_projected(call.query)], [_projected(call.key)])
        assert call.attn_bias is not None
        logits = call.attn_bias[:, 0]
        return cls(_of_halves(logits), _of_halves(logits.mT))


def _of_halves(logits: Tensor) -> list[Tensor]:
    """Return numbers for the tokens of the last axis but one, by their logits with one half of the others, and so on.

    A patch that is query and key says nothing of either while it is in that half, so there are two halves; and these
    twice, since one may hold nothing but padding.
    """
    count = logits.shape[-1]
    halves = [torch.randperm(count, device=logits.device) < count // 2 for _ in range(2)]
    weights = torch.randn(count, dtype=logits.dtype, device=logits.device)
    return [logits @ (weights * chosen) for half in halves for chosen in (half, ~half)]


def _projected(tokens: Tensor) -> Tensor:
    """Return one number for each token of the first head."""
    return tokens[:, 0] @ torch.randn_like(tokens[0, 0, 0])
