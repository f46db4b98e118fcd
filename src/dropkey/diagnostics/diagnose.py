"""A look at the attention of any model on some images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import Found, attention_modules, left_alone, unknown_attention
from dropkey.adapters.grid_of_pass import grids_of_pass
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.restoring import evaluating
from dropkey.arguments import check_count, check_model, check_where
from dropkey.diagnostics.block_outputs import block_outputs
from dropkey.diagnostics.capture import hearing
from dropkey.diagnostics.heard import Heard
from dropkey.diagnostics.look import Look
from dropkey.diagnostics.report import Report
from dropkey.diagnostics.window_search import window_places
from dropkey.errors import ArgumentError, SiteError

__all__ = ["diagnose"]


@torch.no_grad()
def diagnose(
    model: nn.Module,
    images: Tensor,
    *,
    where: Callable[[Found], bool] | None = None,
    max_patches: int = 256,
) -> Report:
    """Look at the attention of a model in evaluation mode: maps, measures on them, and how alike its blocks are.

    The model runs on one image at a time, so memory does not grow with the batch beyond the maps that are kept, and
    nothing is changed in it. A model that was applied to is seen as it is: Re-attention acts, dropped keys come back.

    Args:
        model: any model that takes a batch of images by position.
        images: (B, C, height, width), normalized as the model expects them, on its device.
        where: as in ``dropkey.capture``.
        max_patches: patches that a kept map may have; those of larger grids are pooled to square cells. Measures are
            those of the whole maps, but for the effective rank.

    Returns:
        A Report: ``print`` it, or see its ``figure``.

    Raises:
        ArgumentError: not a batch of images.
        SiteError: no attention module that is known.

    Example:
        >>> import torch, dropkey
        >>> from torchvision.models import VisionTransformer
        >>> model = VisionTransformer(32, 8, 2, 2, 16, 32)
        >>> report = dropkey.diagnose(model, torch.randn(1, 3, 32, 32))
        >>> report.sites[0].maps.shape
        torch.Size([1, 2, 17, 17])
    """
    check_model(model)
    check_where(where)
    check_count("max_patches", max_patches, 1)
    if not isinstance(images, Tensor) or images.dim() != 4 or not len(images):
        found = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ArgumentError(f"diagnose takes images (B, C, height, width), got {found}")
    size = (int(images.shape[-2]), int(images.shape[-1]))
    look = Look(unwrapped_names(model), size, max_patches, window_places(model, images, where))
    chosen = [found for found in attention_modules(model) if where is None or where(found)]
    calls: list[Heard] = []
    with (
        evaluating(model),
        hearing(model, calls.append, where),
        grids_of_pass(model) as grids,
        block_outputs(model, chosen) as features,
    ):
        for image in torch.split(images, 1):
            calls.clear()
            model(image)
            if not calls:
                raise SiteError(f"no attention module of this {type(model).__name__} has attended")
            look.at(calls, grids, features)
    unseen = [] if where else [f"{name} was not seen: no adapter knows its class" for name in unknown_attention(model)]
    return look.report(type(model).__name__, images.detach().float().cpu(), [*unseen, *left_alone(model)])
