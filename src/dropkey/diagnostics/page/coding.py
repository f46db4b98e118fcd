"""Attention maps as few bytes.

A row is stored in parts, so that a strong sink swallows nothing: prefix tokens and the two largest weights of patches
as they are (in bfloat16), and the other patches by how many halvings they lie below the largest of them.
"""

import base64
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CODINGS", "Coded", "Coding"]

_APART = 2  # weights of patches that are stored as they are


class Coded(NamedTuple):
    """Maps (H, Nq, Nk) in parts; P is the number of prefix tokens, A how many patches stand apart.

    Args:
        prefix: bfloat16 (H, Nq, P), weights of prefix tokens.
        apart: bfloat16 (H, Nq, A), the largest weights of patches.
        places: int16 (H, Nq, A), the patches that have them.
        anchor: bfloat16 (H, Nq), the largest weight of the other patches.
        codes: uint8 (H, Nq, Nk - P), of all patches; 0 for those apart.
    """

    prefix: Tensor
    apart: Tensor
    places: Tensor
    anchor: Tensor
    codes: Tensor

    def text(self) -> str:
        """Return all parts, compressed, as text for a page."""
        raw = b"".join(
            (part.view(torch.int16) if part.dtype == torch.bfloat16 else part).contiguous().numpy().tobytes()
            for part in self
        )
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)  # raw deflate, as browsers take it
        return base64.b64encode(compressor.compress(raw) + compressor.flush()).decode()


class Coding(NamedTuple):
    """How finely weights are stored.

    Args:
        levels: numbers that a weight may become, 256 at most; 0 stands for everything ``octaves`` or more below the
            anchor, and the steps between the others are equal factors.
        octaves: halvings from the anchor down to the smallest weight that is kept.
    """

    levels: int
    octaves: float

    @property
    def error(self) -> float:
        """Largest relative error of a weight that is stored by a code, but for the rounding of its anchor."""
        return float(2.0 ** (self.octaves / (self.levels - 1) / 2) - 1)

    def encode(self, maps: Tensor, num_prefix: int) -> Coded:
        """Take maps apart.

        Args:
            maps: float32 (H, Nq, Nk), weights.
            num_prefix: keys before the patches.
        """
        patches = maps[..., num_prefix:]
        apart, places = patches.topk(min(_APART, patches.shape[-1]), -1)
        rest = patches.scatter(-1, places, 0.0)
        anchor = rest.amax(-1).bfloat16()
        octaves = (rest / anchor.float()[..., None]).log2().nan_to_num(-torch.inf, neginf=-torch.inf)
        share = (1 + octaves / self.octaves).clamp(0, 1)
        codes = (share * (self.levels - 1)).round().to(torch.uint8)
        return Coded(maps[..., :num_prefix].bfloat16(), apart.bfloat16(), places.to(torch.int16), anchor, codes)

    def decode(self, coded: Coded) -> Tensor:
        """Return the weights, float32, as the page computes them."""
        below = self.octaves * (coded.codes.float() / (self.levels - 1) - 1)
        patches = torch.where(coded.codes == 0, 0.0, 2.0**below * coded.anchor.float()[..., None])
        patches = patches.scatter(-1, coded.places.long(), coded.apart.float())
        return torch.cat([coded.prefix.float(), patches], -1)


# From fine to coarse: as fine as fits is taken.
CODINGS = (Coding(256, 16.0), Coding(64, 12.0), Coding(24, 10.0), Coding(16, 9.0), Coding(12, 8.0))
