"""Windows put back on the image: where the patches of every window lie, as the model itself says.

No library is asked how it cuts windows, shifts or pads. On noise of the images' shape, the logit of a token with itself
depends on the one place of the feature map that the token comes from. Two gradients with respect to the feature map, of
the sum of all these logits and of their sum weighted by 1, 2, 3, ..., have the token's number as their ratio there.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import Found, attention_modules
from dropkey.adapters.geometry import around_of
from dropkey.adapters.listeners import listening_everywhere
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.record import Record
from dropkey.adapters.restoring import restored
from dropkey.diagnostics.token_grid import grid_by_shape
from dropkey.errors import ArgumentError

__all__ = ["WindowPlaces", "window_places"]

_TOLERANCE = 0.05  # of a token's number


@dataclass(frozen=True)
class WindowPlaces:
    """Where the tokens of every window of one attention module lie.

    Args:
        grid: (rows, cols) of the feature map's patches.
        patches: int64 (W, n), for every token of every window its patch, row by row; -1 where it is padding.
    """

    grid: tuple[int, int]
    patches: Tensor

    def on_image(self, maps: Tensor, queries: Sequence[int] | None = None) -> Tensor:
        """Return maps of windows as maps over the patches of the image; patches of other windows weigh 0.

        Args:
            maps: (B * W, H, n, n), as ``dropkey.capture`` gives them.
            queries: which patches, row by row; all by default.

        Returns:
            (B, H, rows * cols or as many as queries, rows * cols).

        Raises:
            ArgumentError: maps of other windows, or patches that are none.
        """
        windows, tokens = self.patches.shape
        if len(maps) % windows or maps.shape[2:] != (tokens, tokens):
            raise ArgumentError(
                f"these are {windows} windows of {tokens} tokens an image, got maps of shape {tuple(maps.shape)}"
            )
        count = self.grid[0] * self.grid[1]
        chosen = range(count) if queries is None else queries
        if not all(0 <= query < count for query in chosen):
            raise ArgumentError(f"queries must be patches 0 to {count - 1}, got {list(chosen)}")
        patches = self.patches.to(maps.device)
        of_patch = torch.full((count,), -1, device=maps.device)
        is_patch = patches.flatten() >= 0
        of_patch[patches.flatten()[is_patch]] = torch.arange(windows * tokens, device=maps.device)[is_patch]
        asked = of_patch[torch.as_tensor(list(chosen), device=maps.device)]
        window, token = asked // tokens, asked % tokens
        rows = maps.reshape(-1, windows, *maps.shape[1:])[:, window, :, token]  # (queries, B, H, n)
        keys = patches[window]  # (queries, n)
        result = maps.new_zeros((*rows.shape[:3], count + 1))
        result.scatter_(3, keys.where(keys >= 0, count)[:, None, None].expand_as(rows), rows)
        return result[..., :count].permute(1, 2, 0, 3)


def window_places(
    model: nn.Module, images: Tensor, where: Callable[[Found], bool] | None = None
) -> dict[str, WindowPlaces]:
    """Find where the windows of a model's window attention lie on images of this shape.

    The model runs once on noise; random state, modes and buffers are as before afterwards.

    Args:
        model: any model that takes a batch of images by position.
        images: (B, C, height, width); only shape, type and device matter.
        where: says of each attention module whether to look there; all of windows by default.

    Returns:
        By the module's name, as in ``dropkey.capture``. A module is not in it where its tokens do not come from one
        place each (overlapping windows, a convolution before), or where it is not known how they lie on the image.

    Example:
        >>> import timm, torch, dropkey
        >>> from dropkey.diagnostics import window_places
        >>> model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(1, 2))
        >>> places = window_places(model, torch.empty(1, 3, 56, 56))["layers.0.blocks.0.attn"]
        >>> places.grid, places.patches.shape
        ((14, 14), torch.Size([4, 49]))
    """
    names = unwrapped_names(model)
    looked_at = [f for f in attention_modules(model) if _is_asked(f) and (where is None or where(f))]
    if not looked_at:
        return {}
    image = (int(images.shape[-2]), int(images.shape[-1]))
    found: dict[str, WindowPlaces] = {}

    def listener(f: Found) -> _Numbers:
        return _Numbers(lambda places: found.__setitem__(names[f.module], places), sources[f.module], image)

    sources: dict[nn.Module, list[Tensor]] = {f.module: [] for f in looked_at}
    modules = {f.module for f in looked_at}
    with torch.inference_mode(False), torch.enable_grad(), restored(model), _cut(model, looked_at, sources):
        model.eval()
        with listening_everywhere(model, listener, lambda f: f.module in modules):
            model(torch.randn(1, *images.shape[1:], dtype=images.dtype, device=images.device))
    return found


def _is_asked(f: Found) -> bool:
    """Whether a module attends in windows that it cuts out of tokens in order, row by row.

    Where the axis of windows comes after the heads, they are cut out of tokens that were sorted by windows before.
    """
    return f.kind == "window" and not f.entry.layout.endswith("hw")


@contextlib.contextmanager
def _cut(model: nn.Module, looked_at: Sequence[Found], sources: dict[nn.Module, list[Tensor]]) -> Iterator[None]:
    """Begin a graph anew at the innermost module around each attention whose input is still the one image's."""
    hooks = []
    for f in looked_at:

        def begin(
            module: nn.Module, args: tuple[object, ...], kept: list[Tensor] = sources[f.module]
        ) -> tuple[object, ...] | None:
            if not args or not isinstance(args[0], Tensor) or args[0].dim() not in (3, 4) or len(args[0]) != 1:
                return None
            kept[:] = [args[0].detach().requires_grad_()]
            return kept[0], *args[1:]

        hooks += [module.register_forward_pre_hook(begin) for module in [f.module, *around_of(model, f.name)[:3]]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Numbers:
    """Numbers the tokens of one module's windows by gradients."""

    always = True
    wants_maps = True  # so that calls are heard with their gradients

    def __init__(self, take: Callable[[WindowPlaces], None], source: list[Tensor], image: tuple[int, int]) -> None:
        self.take = take
        self.source = source
        self.image = image

    def heard(self, record: Record) -> None:
        logits = _of_tokens_with_themselves(record)
        if not self.source or logits is None or not logits.requires_grad:
            return
        numbers = torch.arange(1, logits.numel() + 1, device=logits.device).view_as(logits)
        ones, numbered = (
            torch.autograd.grad((logits * weight).sum(), self.source[0], retain_graph=True, allow_unused=True)[0]
            for weight in (torch.ones_like(logits), numbers.to(logits.dtype))
        )
        places = None if ones is None else self._places(ones, numbered, logits.shape)
        if places is not None:
            self.take(places)

    def _places(self, ones: Tensor, numbered: Tensor, shape: torch.Size) -> WindowPlaces | None:
        for channels in (-1, 1):
            one, other = (gradient.movedim(channels, -1)[0].double() for gradient in (ones, numbered))
            ratio = (one * other).sum(-1) / (one * one).sum(-1)
            number = ratio.round()
            fits = ((ratio - number).abs() < _TOLERANCE) & (number >= 1) & (number <= shape.numel())
            rest = (other - ratio[..., None] * one).norm(dim=-1) < 1e-3 * other.norm(dim=-1)
            if bool((fits & rest).all()) and len(set(number.flatten().tolist())) == number.numel():
                return self._laid_out(number.long() - 1, shape)
        return None

    def _laid_out(self, token: Tensor, shape: torch.Size) -> WindowPlaces | None:
        """Turn the token of every patch into the patch of every token."""
        rows, cols = (
            token.shape if token.dim() == 2 else grid_by_shape(token.numel(), 0, None, self.image).size or (0, 0)
        )
        if rows * cols != token.numel() or round(self.image[0] / rows) != round(self.image[1] / cols):
            return None
        patches = torch.full((shape.numel(),), -1, dtype=torch.int64)
        patches[token.flatten().cpu()] = torch.arange(token.numel())
        return WindowPlaces((rows, cols), patches.view(shape))


def _of_tokens_with_themselves(record: Record) -> Tensor | None:
    """Return the logits (W, n) of every query with the key in its place, of the first head, or None."""
    call = record.call
    if call.mask_shape[2] != call.mask_shape[3]:
        return None
    if record.of_logits:
        assert call.attn_bias is not None
        return call.attn_bias[:, 0].diagonal(dim1=-2, dim2=-1)
    return (call.query[:, 0] * call.key[:, 0]).sum(-1)
