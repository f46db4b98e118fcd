"""Dropout that a timm model brings along: of whole patches, and before its head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.errors import ArgumentError, first_line

__all__ = ["check_dropout", "dropout_arguments"]


def dropout_arguments(patch_drop: float, head_drop: float) -> dict[str, Any]:
    """Return the arguments of ``timm.create_model`` for dropout of patches and before the head; none for 0.

    Args:
        patch_drop: share of its patches that each image loses before the first block, in training, in [0, 1). Dropped
            patches cost nothing. The token pattern of DropKey differs: a dropped token loses its keys alone, others in
            every block, and goes on as a query.
        head_drop: share of the features dropped before the head, in training, in [0, 1).

    Source: PatchDropout, Liu et al., WACV 2023 (arXiv 2208.07220), as timm has it.
    """
    shares = {"patch_drop_rate": patch_drop, "drop_rate": head_drop}
    return {name: share for name, share in shares.items() if share}


def check_dropout(network: nn.Module, name: str, patch_drop: float, head_drop: float, example: Tensor) -> None:
    """Run a model once and see that the dropout it was built with acts: many constructors take what they never use.

    Args:
        network: what was built; left in training mode.
        name: of the model.
        patch_drop: see ``dropout_arguments``.
        head_drop: likewise.
        example: an image (1, 3, height, width).

    Raises:
        ArgumentError: the model has no such dropout, or fails without some of its patches.
    """
    patches = [module for module in network.modules() if type(module).__name__.startswith("PatchDropout")]
    heads = [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p == head_drop]
    if patch_drop and not _some_run(network, name, patches, example):
        raise ArgumentError(f"--patch-drop: {name} has no dropout of patches (timm's patch_drop_rate): leave it out")
    in_function = getattr(network, "drop_rate", 0.0) == head_drop  # convolutional networks of timm call F.dropout
    if head_drop and not in_function and not _some_run(network, name, heads, example):
        raise ArgumentError(f"--head-drop: {name} has no dropout before its head (timm's drop_rate): leave it out")


def _some_run(network: nn.Module, name: str, droppers: Sequence[nn.Module], example: Tensor) -> bool:
    """Say whether a forward pass, in which they alone are in training mode, calls any of these modules."""
    ran: set[nn.Module] = set()
    hooks = [dropper.register_forward_hook(lambda module, args, out: ran.add(module)) for dropper in droppers]
    network.eval()
    for dropper in droppers:
        dropper.train()
    try:
        with torch.no_grad():
            network(example)
    except RuntimeError as error:
        raise ArgumentError(f"{name} fails with --patch-drop ({first_line(error)}): leave it out") from error
    finally:
        network.train()
        for hook in hooks:
            hook.remove()
    return bool(ran)
