"""Vision transformers for images of 8 to 32 pixels, registered with timm: ``timm.create_model("vit_mini_patch4_32")``.

Pre-norm blocks, no class token: the mean of the patch tokens is classified. Position embeddings start at the size of
the patch embeddings, not near zero as timm's do: with few images and few steps the model otherwise takes most of the
training to find out where its patches are.
"""

from typing import Any

from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

__all__ = ["vit_mini_patch2_8", "vit_mini_patch4_28", "vit_mini_patch4_32"]


def _cfg(img_size: int) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, img_size, img_size),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {"vit_mini_patch2_8": _cfg(8), "vit_mini_patch4_28": _cfg(28), "vit_mini_patch4_32": _cfg(32)}
)


def _small_vit(variant: str, pretrained: bool, defaults: dict[str, Any], kwargs: dict[str, Any]) -> VisionTransformer:
    merged = {"class_token": False, "global_pool": "avg", "mlp_ratio": 2.0, **defaults, **kwargs}
    model = build_model_with_cfg(VisionTransformer, variant, pretrained, **merged)
    assert isinstance(model, VisionTransformer)
    assert model.pos_embed is not None
    nn.init.normal_(model.pos_embed, std=0.5)
    return model


@register_model
def vit_mini_patch2_8(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build a ViT for 8 x 8 images: 16 tokens of width 64, 4 blocks, 4 heads; 0.14 million parameters."""
    defaults = {"img_size": 8, "patch_size": 2, "embed_dim": 64, "depth": 4, "num_heads": 4}
    return _small_vit("vit_mini_patch2_8", pretrained, defaults, kwargs)


@register_model
def vit_mini_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build a ViT for 28 x 28 images: 49 tokens of width 192, 6 blocks, 3 heads; 1.8 million parameters."""
    defaults = {"img_size": 28, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3}
    return _small_vit("vit_mini_patch4_28", pretrained, defaults, kwargs)


@register_model
def vit_mini_patch4_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build a ViT for 32 x 32 images: 64 tokens of width 192, 6 blocks, 3 heads; 1.8 million parameters."""
    defaults = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3}
    return _small_vit("vit_mini_patch4_32", pretrained, defaults, kwargs)
