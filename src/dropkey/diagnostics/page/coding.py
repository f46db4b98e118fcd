"""Attention maps as few bytes: each row by its peak, and by how many halvings below it the other weights lie."""

import base64
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CODINGS", "Coding", "text_of"]


class Coding(NamedTuple):
    """How finely weights are stored.

    Args:
        levels: numbers that a weight may become, 256 at most; 0 stands for everything ``octaves`` or more below the
            peak, and the steps between the others are equal factors.
        octaves: halvings from the peak of a row down to its smallest weight that is kept.
    """

    levels: int
    octaves: float

    @property
    def error(self) -> float:
        """Largest relative error of a stored weight."""
        return float(2.0 ** (self.octaves / (self.levels - 1) / 2) - 1)

    def encode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes, uint8 like ``maps``, and the peak of each row, float16 without the last axis."""
        peaks = maps.amax(-1).clamp_min(torch.finfo(torch.float16).tiny).half()
        octaves = (maps / peaks.float()[..., None]).log2()
        share = (1 + octaves / self.octaves).nan_to_num(0.0).clamp(0, 1)
        return (share * (self.levels - 1)).round().to(torch.uint8), peaks

    def decode(self, codes: Tensor, peaks: Tensor) -> Tensor:
        """Return the weights, float32, as the page computes them."""
        below = self.octaves * (codes.float() / (self.levels - 1) - 1)
        return torch.where(codes == 0, 0.0, 2.0**below * peaks.float()[..., None])


# From fine to coarse: as fine as fits is taken.
CODINGS = (Coding(256, 16.0), Coding(64, 12.0), Coding(24, 10.0), Coding(16, 9.0))


def text_of(codes: Tensor, peaks: Tensor) -> str:
    """Return both, compressed, as text for a page."""
    raw = peaks.contiguous().numpy().astype("<f2").tobytes() + codes.contiguous().numpy().tobytes()
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)  # raw deflate, as browsers take it
    return base64.b64encode(compressor.compress(raw) + compressor.flush()).decode()
