"""Where the keys of a site lie: the patch grid and the tokens before it, as far as a model says so itself."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["GridAndPrefix", "around_of", "embedding_of", "geometry_of", "grid_of_images", "pair"]

GridAndPrefix = tuple[tuple[int, int] | None, int]

_ONE_TOKEN = ("cls_token", "class_token", "class_embedding", "distillation_token")


def around_of(model: nn.Module, name: str) -> list[nn.Module]:
    """Return the modules that contain the named one, nearest first."""
    parts = name.split(".")[:-1] if name else []
    return [model.get_submodule(".".join(parts[:length])) for length in range(len(parts), -1, -1)]


def geometry_of(around: Sequence[nn.Module]) -> GridAndPrefix:
    """Return (rows, cols) of the patch keys, or None, and the number of prefix tokens.

    They come from the nearest module around the site that has ``patch_embed.grid_size`` and ``num_prefix_tokens``
    (timm), an image and a patch size in its config and tokens in its ``embeddings`` (transformers), or all of these
    itself (torchvision).
    """
    grids = (_timm_grid(module) or _grid_of_sizes(module) for module in around)
    prefixes = (_num_prefix_tokens(module) for module in around)
    return next((g for g in grids if g is not None), None), next((p for p in prefixes if p is not None), 0)


def embedding_of(around: Sequence[nn.Module]) -> nn.Module | None:
    """Return the module that cuts images into the patches of a site: ``patch_embed``, or that of transformers."""
    for module in around:
        for holder, name in ((module, "patch_embed"), (getattr(module, "embeddings", None), "patch_embeddings")):
            embedding = getattr(holder, name, None)
            if isinstance(embedding, nn.Module):
                return embedding
    return None


def grid_of_images(embedding: nn.Module, images: Any) -> tuple[int, int] | None:
    """Return the (rows, cols) of patches that an embedding makes of images (B, C, height, width), or None."""
    patch = pair(getattr(embedding, "patch_size", None))
    if not isinstance(images, Tensor) or images.dim() != 4:
        return None
    height, width = int(images.shape[-2]), int(images.shape[-1])
    feature_size: Any = getattr(embedding, "dynamic_feat_size", None)
    if callable(feature_size):
        return pair(feature_size((height, width)))
    return None if patch is None else (height // patch[0], width // patch[1])


def pair(size: Any) -> tuple[int, int] | None:
    """Return a size as (rows, cols), or None if it is not one."""
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) and len(size) == 2 else None


def _timm_grid(module: nn.Module) -> tuple[int, int] | None:
    return pair(getattr(getattr(module, "patch_embed", None), "grid_size", None))


def _grid_of_sizes(module: nn.Module) -> tuple[int, int] | None:
    holder = getattr(module, "config", module)
    image, patch = pair(getattr(holder, "image_size", None)), pair(getattr(holder, "patch_size", None))
    if image is None or patch is None or _token_holder(module) is None:
        return None
    return image[0] // patch[0], image[1] // patch[1]


def _num_prefix_tokens(module: nn.Module) -> int | None:
    count = getattr(module, "num_prefix_tokens", None)
    if isinstance(count, int):
        return count
    holder = _token_holder(module)
    if holder is None:
        return None
    registers = getattr(holder, "register_tokens", None)
    single = sum(isinstance(getattr(holder, name, None), nn.Parameter) for name in _ONE_TOKEN)
    return single + (registers.shape[1] if isinstance(registers, nn.Parameter) else 0)


def _token_holder(module: nn.Module) -> nn.Module | None:
    """Return the module that holds the class token of a transformers or torchvision model."""
    embeddings = getattr(module, "embeddings", None)
    if isinstance(embeddings, nn.Module) and hasattr(module, "config"):
        return embeddings
    return module if hasattr(module, "class_token") and hasattr(module, "patch_size") else None
