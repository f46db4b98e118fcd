"""Parameters that a regularizer adds to attention modules, as a submodule: they move, train and save with them."""

from collections.abc import Callable

import torch
from torch import nn

from dropkey.adapters.discover import Found
from dropkey.adapters.heads import HEAD_COUNTS, num_heads_of
from dropkey.errors import SiteError

__all__ = ["check_room", "put_in", "take_out"]


def check_room(f: Found, name: str, what: str) -> None:
    """Raise a SiteError for a module that has such an attribute already, or does not say how many heads it has.

    Args:
        f: the module.
        name: of the submodule to be added.
        what: needs it, as the message calls it.
    """
    if hasattr(f.module, name):
        raise SiteError(f"{f.name} ({type(f.module).__name__}) has a {name!r} of its own: choose other blocks")
    if num_heads_of(f.module) is None:
        raise SiteError(
            f"{f.name} ({type(f.module).__name__}) does not say how many heads it has, as {' or '.join(HEAD_COUNTS)}: "
            f"{what} needs to know"
        )


def put_in(f: Found, name: str, build: Callable[..., nn.Module]) -> None:
    """Give a module the parameters, where its own are and in float32 at least.

    Args:
        f: the module, which ``check_room`` has let pass.
        name: of the submodule.
        build: makes it for a number of heads, and a ``device`` and ``dtype``.
    """
    num_heads = num_heads_of(f.module)
    assert num_heads is not None
    parameter = next((p for p in f.module.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    with torch.inference_mode(False):  # parameters to be trained, also if somebody applies while validating
        added = build(num_heads, device=parameter.device, dtype=dtype)
    f.module.add_module(name, added.train(f.module.training))
    if isinstance(f.module, nn.MultiheadAttention):
        # Torch's fast path for evaluation runs around the module, unless it has a hook.
        f.module.register_forward_pre_hook(_no_fast_path)


def take_out(module: nn.Module, name: str) -> None:
    """Take the parameters out again, if they are there."""
    if module._modules.get(name) is None:
        return
    delattr(module, name)
    hooks = module._forward_pre_hooks
    ours = next((key for key, hook in hooks.items() if hook is _no_fast_path), None)
    if ours is not None:  # one for each that was put in
        del hooks[ours]


def _no_fast_path(module: nn.Module, args: tuple[object, ...]) -> None:
    """Do nothing; a function of the module, so that a model with it can be pickled."""
