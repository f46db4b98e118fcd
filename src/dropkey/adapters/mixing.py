"""Putting Re-attention's parameters into attention modules, and taking them out again.

They are a submodule of the attention module, ``reattention``: they move, train, save and are wrapped with it.
"""

from collections.abc import Sequence

import torch
from torch import nn

from dropkey.adapters.discover import Found
from dropkey.adapters.heads import HEAD_COUNTS, num_heads_of
from dropkey.errors import SiteError
from dropkey.ops.reattention import GatedHeadMixing
from dropkey.regularizers import ReAttention

__all__ = ["MIXER", "blocks_to_mix", "check_mixable", "mixer_of", "not_plain", "put_in", "take_out"]

MIXER = "reattention"  # name of the submodule that holds Re-attention's parameters in an attention module


def blocks_to_mix(found: Sequence[Found], regularizer: ReAttention) -> list[Found]:
    """Return the modules of the chosen blocks, counted among the blocks with plain self-attention.

    Raises:
        ArgumentError: more blocks asked for than there are.
        SiteError: no plain self-attention.
    """
    plain = [f for f in found if _is_plain(f)]
    if not plain:
        kinds = ", ".join(sorted({f.kind for f in found}))
        raise SiteError(f"Re-attention needs plain self-attention, this model has none; kinds: {kinds}")
    blocks = sorted({f.block_index for f in plain})
    chosen = {blocks[place] for place in regularizer.chosen(len(blocks))}
    return [f for f in plain if f.block_index in chosen]


def not_plain(found: Sequence[Found]) -> list[str]:
    """Return "name (Class)" of the modules that Re-attention is not for."""
    return [f"{f.name} ({type(f.module).__name__}: {f.kind})" for f in found if not _is_plain(f)]


def _is_plain(f: Found) -> bool:
    return f.entry.kind == "self" and f.entry.maps_per_head == 1


def check_mixable(f: Found) -> None:
    """Raise a SiteError for a module that cannot take Re-attention's parameters."""
    if hasattr(f.module, MIXER):
        raise SiteError(f"{f.name} ({type(f.module).__name__}) has a {MIXER!r} of its own: choose other blocks")
    _num_heads(f)


def mixer_of(module: nn.Module) -> nn.Module | None:
    """Return what a module mixes its attention maps with, if Re-attention was applied to it."""
    return module._modules.get(MIXER)


def put_in(f: Found, norm: str) -> None:
    """Give a module the parameters, where its own are and in float32 at least."""
    parameter = next((p for p in f.module.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    with torch.inference_mode(False):  # parameters to be trained, also if somebody applies while validating
        mixer = GatedHeadMixing(_num_heads(f), norm, device=parameter.device, dtype=dtype)
    f.module.add_module(MIXER, mixer.train(f.module.training))
    if isinstance(f.module, nn.MultiheadAttention):
        # Torch's fast path for evaluation runs around the module, unless it has a hook.
        f.module.register_forward_pre_hook(_no_fast_path)


def take_out(module: nn.Module) -> None:
    """Take the parameters out again, if they are there."""
    if mixer_of(module) is not None:
        delattr(module, MIXER)
    hooks = module._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if hook is _no_fast_path]:
        del hooks[key]


def _no_fast_path(module: nn.Module, args: tuple[object, ...]) -> None:
    """Do nothing; a function of the module, so that a model with it can be pickled."""


def _num_heads(f: Found) -> int:
    count = num_heads_of(f.module)
    if count is None:
        raise SiteError(
            f"{f.name} ({type(f.module).__name__}) does not say how many heads it has, as {' or '.join(HEAD_COUNTS)}: "
            "Re-attention needs to know"
        )
    return count
