"""Putting Re-attention's parameters into attention modules, and taking them out again.

They are a submodule of the attention module, ``reattention``: they move, train, save and are wrapped with it.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from dropkey.adapters import added_parameters
from dropkey.adapters.discover import Found
from dropkey.adapters.plain_attention import plain_ones
from dropkey.ops.reattention import GatedHeadMixing
from dropkey.regularizers import ReAttention

__all__ = ["MIXER", "blocks_to_mix", "check_mixable", "mixer_of", "put_in", "take_out"]

MIXER = "reattention"  # name of the submodule that holds Re-attention's parameters in an attention module


def blocks_to_mix(found: Sequence[Found], regularizer: ReAttention) -> list[Found]:
    """Return the modules of the chosen blocks, counted among the blocks with plain self-attention.

    Raises:
        ArgumentError: more blocks asked for than there are.
        SiteError: no plain self-attention.
    """
    plain = plain_ones(found, "Re-attention")
    blocks = sorted({f.block_index for f in plain})
    chosen = {blocks[place] for place in regularizer.chosen(len(blocks))}
    return [f for f in plain if f.block_index in chosen]


def check_mixable(f: Found) -> None:
    """Raise a SiteError for a module that cannot take Re-attention's parameters."""
    added_parameters.check_room(f, MIXER, "Re-attention")


def mixer_of(module: nn.Module) -> nn.Module | None:
    """Return what a module mixes its attention maps with, if Re-attention was applied to it."""
    return module._modules.get(MIXER)


def put_in(f: Found, norm: str) -> None:
    """Give a module the parameters."""
    added_parameters.put_in(f, MIXER, partial(GatedHeadMixing, norm=norm))


def take_out(module: nn.Module) -> None:
    """Take the parameters out again, if they are there."""
    added_parameters.take_out(module, MIXER)
