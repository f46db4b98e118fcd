"""T2T-ViT, registered with timm: ``timm.create_model("t2t_vit_14")``.

Images become tokens in three overlapping soft splits with two small token transformers between them; deep and narrow
pre-norm blocks follow. Source: Yuan et al., Tokens-to-Token ViT, ICCV 2021 (arXiv 2101.11986), and its released code.
"""

from functools import partial
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.init import trunc_normal_

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.models.patch_grid import PatchGrid
from dropkey.models.registration import cfgs_without_weights, register_family
from dropkey.models.token_stages import TokenPerformer, TokenTransformer

__all__ = ["T2TViT", "TokensToToken", "sinusoid_table"]

_STAGES: dict[str, type[nn.Module]] = {"performer": TokenPerformer, "transformer": TokenTransformer}


class TokensToToken(PatchGrid):
    """Map images (B, in_chans, H, W) to tokens (B, H/16 * W/16, embed_dim): split, mix, split, mix, split, project.

    Args:
        img_size: see PatchGrid.
        patch_size: must be 16: the product of the three strides.
        in_chans: channels of the images.
        embed_dim: channels of the tokens.
        stage: "performer" or "transformer".
        token_dim: channels between the stages.
        bias: of the projection.
        dynamic_img_pad: must be False.

    Raises:
        ArgumentError: another patch size or stage, or padding asked for.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
        *,
        stage: str = "performer",
        token_dim: int = 64,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__(img_size, patch_size)
        if self.patch_size != (16, 16) or dynamic_img_pad:
            raise ArgumentError(f"T2T-ViT has patch size 16 and no padding, got patch size {patch_size}")
        if stage not in _STAGES:
            raise ArgumentError(f"unknown stage {stage!r}{did_you_mean(stage, _STAGES)}; known: {', '.join(_STAGES)}")
        self.split0 = nn.Unfold(7, stride=4, padding=2)
        self.stage1 = _STAGES[stage](in_chans * 7 * 7, token_dim, **factory)
        self.split1 = nn.Unfold(3, stride=2, padding=1)
        self.stage2 = _STAGES[stage](token_dim * 3 * 3, token_dim, **factory)
        self.split2 = nn.Unfold(3, stride=2, padding=1)
        self.proj = nn.Linear(token_dim * 3 * 3, embed_dim, bias=bias, **factory)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens."""
        self.check_images(images)
        rows, cols = self.img_size
        x = self.stage1(self.split0(images).mT)
        x = self.stage2(self.split1(_as_map(x, rows // 4, cols // 4)).mT)
        tokens: Tensor = self.proj(self.split2(_as_map(x, rows // 8, cols // 8)).mT)
        return tokens


def _as_map(tokens: Tensor, rows: int, cols: int) -> Tensor:
    return tokens.mT.reshape(len(tokens), -1, rows, cols)


class ScaledAttention(Attention):
    """timm's attention with a scale of choice; timm's fused path always takes ``head_dim ** -0.5``."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map (B, N, dim) to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attn_drop.p if self.training else 0.0
        out = scaled_dot_product_attention(q, k, v, attn_mask, rate, is_causal, scale=self.scale)
        projected: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return projected


class T2TViT(VisionTransformer):
    """T2T-ViT: a VisionTransformer of timm on tokens-to-token, with a fixed sinusoid position embedding.

    Args:
        stage: of tokens-to-token: "performer" or "transformer" (the t_ variants).
        qk_scale: factor of the logits in the blocks; None for ``head_dim ** -0.5``, which the released weights go with.
            The authors' constructors set ``dim ** -0.5`` (t2t_vit_14_wide: ``512 ** -0.5``) under ``pretrained=True``.
        token_dim: channels inside of tokens-to-token.
        kwargs: of VisionTransformer; images of a fixed size only.
    """

    def __init__(
        self, stage: str = "performer", qk_scale: float | None = None, token_dim: int = 64, **kwargs: Any
    ) -> None:
        embed_layer = partial(TokensToToken, stage=stage, token_dim=token_dim)
        defaults: dict[str, Any] = {
            "embed_layer": embed_layer,
            "attn_layer": ScaledAttention,
            "norm_layer": partial(nn.LayerNorm, eps=1e-5),
            "qkv_bias": False,
        }
        super().__init__(**{**defaults, **kwargs})
        if qk_scale is not None:
            blocks: Any = self.blocks
            for block in blocks:
                block.attn.scale = qk_scale

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Initialize as released: truncated normal weights and class token; the position embedding is not trained."""
        super().init_weights(mode, needs_reset)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            self.pos_embed.requires_grad_(False)
            self.pos_embed.copy_(sinusoid_table(*self.pos_embed.shape[1:]))


def sinusoid_table(num_positions: int, dim: int) -> Tensor:
    """Return the fixed position embedding (1, num_positions, dim): sines in even channels, cosines in odd ones.

    Neighboring channels share a frequency, ``10000 ** -(2 * (channel // 2) / dim)``.
    """
    channel = torch.arange(dim, dtype=torch.float64)
    frequency = 10000.0 ** (-2 * (channel // 2) / dim)
    angle = torch.arange(num_positions, dtype=torch.float64).unsqueeze(1) * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)


def _size(embed_dim: int, depth: int, num_heads: int, mlp_ratio: float, stage: str = "performer") -> dict[str, Any]:
    sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
    return {**sizes, "stage": stage}


VARIANTS = {
    "t2t_vit_7": _size(256, 7, 4, 2.0),
    "t2t_vit_10": _size(256, 10, 4, 2.0),
    "t2t_vit_12": _size(256, 12, 4, 2.0),
    "t2t_vit_14": _size(384, 14, 6, 3.0),
    "t2t_vit_19": _size(448, 19, 7, 3.0),
    "t2t_vit_24": _size(512, 24, 8, 3.0),
    "t2t_vit_t_14": _size(384, 14, 6, 3.0, "transformer"),
    "t2t_vit_t_19": _size(448, 19, 7, 3.0, "transformer"),
    "t2t_vit_t_24": _size(512, 24, 8, 3.0, "transformer"),
    "t2t_vit_14_resnext": _size(384, 14, 32, 3.0),
    "t2t_vit_14_wide": _size(768, 4, 12, 3.0),
}

default_cfgs = cfgs_without_weights(VARIANTS)
register_family(T2TViT, VARIANTS, __name__)
