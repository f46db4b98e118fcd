"""CeiT, registered with timm: ``timm.create_model("ceit_small")``.

A convolutional stem, a depthwise convolution inside of every feed-forward layer, and a last block that attends over the
class tokens of all layers. Source: Yuan et al., Incorporating Convolution Designs into Visual Transformers, ICCV 2021
(arXiv 2103.11816), and its released code.
"""

from functools import partial
from typing import Any

import torch
from timm.models import VisionTransformer, checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from dropkey.errors import ArgumentError
from dropkey.models.ceit_layers import ImageToTokens, LayerwiseClassAttention, LocallyEnhancedFeedForward
from dropkey.models.registration import cfgs_without_weights, register_family

__all__ = ["CeiT"]


class CeiT(VisionTransformer):
    """CeiT: a VisionTransformer of timm with its stem, feed-forward and last block.

    ``forward_features`` returns (B, 1 + patches, C): the class token out of the last block, then the patch tokens of
    the last layer, all normalized.

    Args:
        img_size: (height, width) or one number, in pixels, multiples of 16.
        patch_size: pixels that one token stands for.
        embed_dim, depth, num_heads, mlp_ratio, qkv_bias, weight_init: as in VisionTransformer.
        kwargs: of VisionTransformer; images of a fixed size only, no patch dropout.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        weight_init: Any = "",
        **kwargs: Any,
    ) -> None:
        rows, cols = (img_size, img_size) if isinstance(img_size, int) else img_size
        feed_forward: Any = partial(LocallyEnhancedFeedForward, grid_size=(rows // patch_size, cols // patch_size))
        super().__init__(
            img_size,
            patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            weight_init="skip",
            embed_layer=ImageToTokens,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            mlp_layer=feed_forward,
            **kwargs,
        )
        factory = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        self.lca = LayerwiseClassAttention(embed_dim, num_heads, mlp_ratio, qkv_bias, **factory)
        self.pos_layer_embed = nn.Parameter(torch.zeros(1, depth, embed_dim, **factory))
        self.weight_init_mode = "reset" if weight_init == "skip" else weight_init
        if weight_init != "skip":
            self.init_weights(needs_reset=False)

    def init_weights(self, mode: Any = "", needs_reset: bool = True) -> None:
        """Initialize as released: truncated normal weights and tokens; layer embeddings are zero."""
        super().init_weights(mode, needs_reset)
        assert self.cls_token is not None
        trunc_normal_(self.cls_token, std=0.02)
        zeros_(self.pos_layer_embed)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay."""
        return {"pos_embed", "cls_token", "pos_layer_embed"}

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image size; position embeddings are resampled."""
        super().set_input_size(img_size, patch_size)
        blocks: Any = self.blocks
        for block in blocks:
            block.mlp.grid_size = self.patch_embed.grid_size

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map images (B, in_chans, H, W) to (B, 1 + patches, C), see the class."""
        return self._conclude(self._layers(x, len(self.blocks), attn_mask, is_causal))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Return the final features and the tokens after chosen blocks; arguments and result as in timm.

        The last block needs the class tokens of all layers: ``stop_early`` counts with ``intermediates_only`` alone.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ArgumentError(f"output_fmt must be 'NCHW' or 'NLC', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.blocks), indices)
        num_layers = last + 1 if stop_early and intermediates_only else len(self.blocks)
        layers = self._layers(x, num_layers, attn_mask, is_causal)
        chosen = [self.norm(layers[index]) if norm else layers[index] for index in take]
        prefixes = [tokens[:, :1] for tokens in chosen]
        patches = [self._as_map(tokens[:, 1:]) if output_fmt == "NCHW" else tokens[:, 1:] for tokens in chosen]
        if output_dict:
            outputs = {"image_intermediates": patches}
            outputs |= {"image_intermediates_prefix": prefixes} if return_prefix_tokens else {}
            return outputs if intermediates_only else {**outputs, "image_features": self._conclude(layers)}
        pairs: Any = list(zip(patches, prefixes, strict=True)) if return_prefix_tokens else patches
        return pairs if intermediates_only else (self._conclude(layers), pairs)

    def _layers(self, images: Tensor, num_layers: int, attn_mask: Tensor | None, is_causal: bool) -> list[Tensor]:
        """Return the tokens (B, 1 + patches, C) after each of the first blocks."""
        x = self._pos_embed(self.patch_embed(images))
        layers = []
        for block in self.blocks[:num_layers]:
            if self.grad_checkpointing:
                x = checkpoint(block, x, attn_mask=attn_mask, is_causal=is_causal)
            else:
                x = block(x, attn_mask=attn_mask, is_causal=is_causal)
            layers.append(x)
        return layers

    def _conclude(self, layers: list[Tensor]) -> Tensor:
        """Return what forward_features does, from the tokens after every block."""
        class_tokens = torch.stack([tokens[:, 0] for tokens in layers], dim=1) + self.pos_layer_embed
        tokens: Tensor = self.norm(torch.cat([self.lca(class_tokens), layers[-1][:, 1:]], dim=1))
        return tokens

    def _as_map(self, patches: Tensor) -> Tensor:
        rows, cols = self.patch_embed.grid_size
        return patches.mT.reshape(len(patches), -1, rows, cols)


VARIANTS = {
    "ceit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "ceit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "ceit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}

default_cfgs = cfgs_without_weights(VARIANTS, first_conv="patch_embed.conv")
register_family(CeiT, VARIANTS, __name__)
