"""Maps of images in a forward pass, and of which of their patches the tokens of windows are made.

Two gradients with respect to the map, of the sum of one number for each token and of the sum weighted by 1, 2, 3, ...,
have the number of its token as their ratio at each patch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropkey.diagnostics.feature_maps import FeatureMap
from dropkey.diagnostics.windows import Places

__all__ = ["Source"]

_TOLERANCE = 0.05  # of a token's number
_NONE, _SEVERAL = -1, -2  # in place of a token: none is made of this patch, or none of it alone


@dataclass(frozen=True)
class Source:
    """A map of each of two images.

    Two, so that it is seen whether the windows of one follow those of the other; and since torch 2.14 computes wrong
    gradients of batch normalization for some layouts of a single image.

    Args:
        tensor: in the graph of what is asked of it.
        feature_map: how it holds the maps.
    """

    tensor: Tensor
    feature_map: FeatureMap

    def reaches(self, probe: Tensor) -> bool:
        """Whether numbers depend on these maps."""
        if not probe.requires_grad:
            return False
        gradient = torch.autograd.grad(probe.sum(), self.tensor, retain_graph=True, allow_unused=True)[0]
        return gradient is not None and bool(gradient.any())

    def places(self, probes: Sequence[Tensor]) -> Places | None:
        """Return where the tokens of an image's windows lie, or None if they are not made of one patch each.

        Args:
            probes: each (2 * W, n), numbers that depend on the map of their image by their own token and perhaps
                others of their window; every token is alone in one probe at least.
        """
        windows, tokens = len(probes[0]) // 2, probes[0].shape[1]
        numbers = self._tokens(probes, range(windows))
        if (numbers != _SEVERAL).all():
            return self._disjoint(numbers, windows, tokens)
        return self._overlapping(probes)

    def _disjoint(self, numbers: Tensor, windows: int, tokens: int) -> Places | None:
        """Lay out windows that share no patch, whose tokens may each be made of a square cell of patches."""
        rows, cols = self.feature_map.grid
        cell = round(math.sqrt(rows * cols / max(1, _distinct(numbers[numbers >= 0]))))
        if rows % cell or cols % cell:
            return None
        cells = numbers.view(rows // cell, cell, cols // cell, cell).transpose(1, 2).flatten(2)
        token = cells.amax(-1).flatten()
        is_whole = ((cells == cells.amax(-1, keepdim=True)) | (cells == _NONE)).all()
        if not is_whole or token.min() < 0 or _distinct(token) < len(token):
            return None
        patches = torch.full((windows * tokens,), -1)
        patches[token] = torch.arange(len(token))
        return Places((rows // cell, cols // cell), patches.view(windows, tokens))

    def _overlapping(self, probes: Sequence[Tensor]) -> Places | None:
        """Lay out windows one after the other: those that share patches, or leave out some of each cell."""
        windows, tokens = len(probes[0]) // 2, probes[0].shape[1]
        patches = torch.full((windows, tokens), -1)
        for window in range(windows):
            numbers = self._tokens(probes, [window])
            its_patches = (numbers >= 0).nonzero().flatten()
            if (numbers == _SEVERAL).any() or _distinct(numbers[its_patches]) < len(its_patches):
                return None
            patches[window, numbers[its_patches] - window * tokens] = its_patches
        grid = self.feature_map.grid
        if _distinct(patches[patches >= 0]) == math.prod(grid):
            return Places(grid, patches)
        numbers = torch.full((math.prod(grid),), _NONE)
        numbers[patches[patches >= 0]] = torch.arange(windows * tokens)[patches.flatten() >= 0]
        return self._disjoint(numbers, windows, tokens)

    def _tokens(self, probes: Sequence[Tensor], windows: Sequence[int]) -> Tensor:
        """Return the number, over all windows, of the token of these windows that each patch becomes, int64 (P,)."""
        best = self._tokens_by(probes[0], windows)
        for probe in probes[1:]:
            if best.min() >= 0:
                break
            best = best.maximum(self._tokens_by(probe, windows))
        return best.cpu()

    def _tokens_by(self, probe: Tensor, windows: Sequence[int]) -> Tensor:
        count, tokens = probe.shape
        asked = torch.zeros_like(probe)
        asked[list(windows)] = 1
        ones, of_the_other = self._gradients(probe, asked)
        if of_the_other.any():
            return torch.full_like(ones[:, 0], _SEVERAL, dtype=torch.int64)
        window, its_window = self._ratio(probe, ones, asked * _numbers(count, probe)[:, None])
        token, its_token = self._ratio(probe, ones, asked * _numbers(tokens, probe))
        number = torch.where(its_window & its_token, (window - 1) * tokens + token - 1, _SEVERAL)
        size = ones.norm(dim=-1)
        return number.where(size > 1e-9 * size.max(), _NONE)

    def _ratio(self, probe: Tensor, ones: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the whole number that is the weight at each patch, int64 (P,), and whether there is one."""
        weighted = self._gradients(probe, weights)[0]
        ratio = (ones * weighted).sum(-1) / (ones * ones).sum(-1)
        number = ratio.round()
        rest = (weighted - ratio[:, None] * ones).norm(dim=-1)
        fits = ((ratio - number).abs() < _TOLERANCE) & (number >= 1) & (rest < 1e-3 * weighted.norm(dim=-1))
        return number.nan_to_num().long(), fits

    def _gradients(self, probe: Tensor, weights: Tensor) -> Tensor:
        """Return the gradient of weighted numbers with respect to both maps, float64 (2, P, C)."""
        return self.feature_map.vectors(torch.autograd.grad(probe, self.tensor, weights, retain_graph=True)[0])


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(1, count + 1, dtype=like.dtype, device=like.device)


def _distinct(numbers: Tensor) -> int:
    return len(set(numbers.tolist()))
