"""Which modules of a model put out a map of the image: a vector for each of its patches, row by row."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dropkey.diagnostics.token_grid import grid_by_shape

__all__ = ["FeatureMap", "feature_maps", "first_tensor", "patches_apart"]

_PATCHES = 256  # that are looked at
_LEAST_CORRELATION = 0.9


class FeatureMap(NamedTuple):
    """How a tensor holds a map of the image.

    Args:
        grid: (rows, cols) of its patches.
        channels: axis of the vectors; rows and columns, or patches row by row, are the axes between batch and these.
    """

    grid: tuple[int, int]
    channels: int

    def vectors(self, tensor: Tensor, patches: Tensor | slice = slice(None)) -> Tensor:
        """Return the vectors of the patches, or of some of them, float64 (B, patches, C)."""
        return tensor.movedim(self.channels, -1).flatten(1, -2)[:, patches].double()


@torch.no_grad()
def feature_maps(model: nn.Module, images: Tensor) -> dict[nn.Module, FeatureMap]:
    """Find the modules that put out a map of the image, by moving the image and looking what moves with it.

    Noise is added to an image of noise, then the same noise growing from the top to the bottom, and from left to right.
    The share of the noise that reaches a patch says in which row and column of the image it lies. So tokens that were
    sorted by windows are not taken for a map of the image, whatever their shape.

    Args:
        model: in evaluation mode, with ``patches_apart``.
        images: (B, C, height, width); only shape, type and device matter.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    image, noise = torch.randn(2, *images.shape[1:], dtype=images.dtype, device=images.device)
    down, right = (torch.linspace(0, 1, side, dtype=images.dtype, device=images.device) for side in size)
    verdicts: dict[nn.Module, FeatureMap | None] = {}

    def look(module: nn.Module, args: Any, output: Any) -> None:
        found = _of_moved(first_tensor(output), size)
        verdicts[module] = found if verdicts.get(module, found) == found else None

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        model(torch.stack([image, image + noise, image + noise * down[:, None], image + noise * right]))
    finally:
        for hook in hooks:
            hook.remove()
    return {module: found for module, found in verdicts.items() if found is not None}


@contextlib.contextmanager
def patches_apart(attention: Sequence[nn.Module]) -> Iterator[None]:
    """Keep what attention modules know of a patch to that patch, and let no other patch learn of it.

    They put out zeros, and convolutions inside of them that keep the shape pass on what they are given.
    """

    def silence(module: nn.Module, args: Any, output: Any) -> Any:
        return tree_map_only(Tensor, torch.zeros_like, output)

    def pass_on(convolution: nn.Conv2d, args: Any, output: Tensor) -> Tensor:
        return args[0] if args[0].shape == output.shape and convolution.kernel_size != (1, 1) else output

    hooks = [module.register_forward_hook(silence) for module in attention]
    inside = [inner for module in attention for inner in module.modules() if isinstance(inner, nn.Conv2d)]
    hooks += [convolution.register_forward_hook(pass_on) for convolution in inside]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(output: Any) -> Tensor | None:
    """Return an output that is a tensor, or the first of several."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) else None


def _of_moved(output: Tensor | None, image: tuple[int, int]) -> FeatureMap | None:
    """Say how the output of the four moved images is a map of the image, if it is."""
    if output is None or output.dim() not in (3, 4) or len(output) != 4 or not output.is_floating_point():
        return None
    for channels in (-1, 1):
        *_, rows, cols = output.movedim(channels, -1).shape[:-1]
        grid = (rows, cols) if output.dim() == 4 else grid_by_shape(cols, 0, None, image).size
        if grid is None or grid == (1, 1) or round(image[0] / grid[0]) != round(image[1] / grid[1]):
            continue
        found = FeatureMap(grid, channels)
        places = torch.randperm(grid[0] * grid[1], device=output.device)[:_PATCHES]
        vectors = found.vectors(output, places)
        moved, *grown = vectors[1:] - vectors[0]
        of_rows, of_cols = ((each * moved).sum(-1) / (moved * moved).sum(-1) for each in grown)
        if _grows_with(of_rows, places // grid[1]) and _grows_with(of_cols, places % grid[1]):
            return found
    return None


def _grows_with(shares: Tensor, places: Tensor) -> bool:
    if places.max() == 0:
        return True
    return float(torch.corrcoef(torch.stack([shares, places.double()]))[0, 1]) > _LEAST_CORRELATION
