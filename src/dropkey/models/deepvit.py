"""DeepViT, and the plain ViTs it is compared with, registered with timm: ``timm.create_model("deepvit_s")``.

Deep and narrow vision transformers whose blocks mix attention maps over the heads. Source: Zhou et al., DeepViT, 2021
(arXiv 2103.11886), and its released code.
"""

from functools import partial
from typing import Any

from timm.layers.attention import Attention
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from dropkey.adapters.record import Record
from dropkey.adapters.site import site_of
from dropkey.adapters.tap import listens_to
from dropkey.errors import ArgumentError
from dropkey.models.patch_grid import PatchGrid
from dropkey.models.registration import cfgs_without_weights, register_family
from dropkey.ops.call import AttentionCall
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import HeadMixing

__all__ = ["ConvStem", "DeepViT"]


class ConvStem(PatchGrid):
    """Map images to tokens: 7x7 convolution of stride 2, 3x3 convolution, then patches of half size.

    Args:
        img_size: see PatchGrid.
        patch_size: see PatchGrid; even.
        in_chans: channels of the images.
        embed_dim: channels of the tokens.
        bias: of the projection.
        dynamic_img_pad: must be False.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__(img_size, patch_size)
        if self.patch_size[0] % 2 or self.patch_size[1] % 2 or dynamic_img_pad:
            raise ArgumentError(f"DeepViT's stem takes even patch sizes and no padding, got patch size {patch_size}")
        patch = (self.patch_size[0] // 2, self.patch_size[1] // 2)
        self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(64, **factory)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(64, **factory)
        self.proj = nn.Conv2d(64, embed_dim, patch, stride=patch, bias=bias, **factory)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens (B, patches, embed_dim)."""
        self.check_images(images)
        x = self.bn1(self.conv1(images)).relu()
        x = self.bn2(self.conv2(x)).relu()
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).mT


class DeepAttention(Attention):
    """timm's attention, with Re-attention after the softmax and the attention dropout where ``reattention`` is set."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reattention: HeadMixing | None = None
        self.map_scale = 1.0  # factor of the mixed maps

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map (B, N, dim) to the same shape."""
        if self.reattention is None:
            plain: Tensor = super().forward(x, attn_mask, is_causal)
            return plain
        if attn_mask is not None or is_causal:
            raise ArgumentError("Re-attention makes weights for every key again: DeepViT's blocks take no mask")
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attn_drop.p if self.training else 0.0
        call = AttentionCall(q, k, v, None, False, self.scale, None)
        site = site_of(self)
        at_site = site is not None and (site.acts(self.training) or site.wants_maps)  # the site sees to the softmax
        if not rate and not at_site and refuses(call, self.reattention) is None:
            out = attend_mixed(call, self.reattention, factor=self.map_scale)
        else:
            attn = self.attn_drop((self.scale * q @ k.mT).softmax(dim=-1))
            out = self.mix_maps(attn).to(v.dtype) @ v
        if site is not None and not at_site and listens_to(site):
            site.tell(Record(call, out, drops=False))
        return self._project(out)

    def mix_maps(self, attn: Tensor) -> Tensor:
        """Return what the values are multiplied with, of attention weights (B, H, N, N)."""
        return attn if self.reattention is None else self.map_scale * self.reattention(attn)

    def _project(self, out: Tensor) -> Tensor:
        projected: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return projected


class DeepBlock(Block):
    """timm's block with the input of both branches multiplied by ``branch_scale`` and their output divided by it."""

    branch_scale = 1.0

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map (B, N, dim) to the same shape."""
        scale = self.branch_scale
        attended = self.attn(self.norm1(x * scale), attn_mask=attn_mask, is_causal=is_causal)
        x = x + self.drop_path1(self.ls1(attended)) / scale
        mixed: Tensor = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x * scale)))) / scale
        return mixed


class DeepViT(VisionTransformer):
    """DeepViT: a VisionTransformer of timm with Re-attention in its last blocks.

    Args:
        reattention: number of blocks with Re-attention, counted from the last; None for all.
        norm: of Re-attention: "batch" (the authors') or "layer".
        scale_maps: multiply mixed maps by ``head_dim ** -0.5``.
        branch_scale: see DeepBlock.
        conv_stem: three convolutions in place of one.
        kwargs: of VisionTransformer.

    Raises:
        ArgumentError: more blocks with Re-attention than there are.
    """

    def __init__(
        self,
        reattention: int | None = None,
        norm: str = "batch",
        scale_maps: bool = False,
        branch_scale: float = 1.0,
        conv_stem: bool = False,
        **kwargs: Any,
    ) -> None:
        stem = {"embed_layer": ConvStem} if conv_stem else {}
        defaults = {"attn_layer": DeepAttention, "block_fn": DeepBlock, **_EPS, **stem}
        super().__init__(**{**defaults, **kwargs})
        blocks: Any = self.blocks
        count = len(blocks) if reattention is None else reattention
        if not 0 <= count <= len(blocks):
            raise ArgumentError(f"reattention must be 0 to {len(blocks)}, the number of blocks, got {reattention}")
        factory = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        for block in blocks:
            block.branch_scale = branch_scale
        for block in blocks[len(blocks) - count :]:
            block.attn.reattention = HeadMixing(block.attn.num_heads, norm, **factory)
            block.attn.map_scale = block.attn.scale if scale_maps else 1.0

    def init_weights(self, mode: Any = "", needs_reset: bool = True) -> None:
        """Initialize as timm does, with the released code's class token."""
        super().init_weights(mode, needs_reset)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)


_EPS: dict[str, Any] = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
_NARROW: dict[str, Any] = {"embed_dim": 384, "num_heads": 12, "mlp_ratio": 3.0}
_STEM: dict[str, Any] = {"num_heads": 12, "mlp_ratio": 3.0, "conv_stem": True, "branch_scale": 0.5}

VARIANTS: dict[str, dict[str, Any]] = {
    "deepvit_s": {"embed_dim": 396, "depth": 16, "reattention": 5, "scale_maps": True, **_STEM},
    "deepvit_l": {"embed_dim": 420, "depth": 32, "reattention": 12, **_STEM},
    "deepvit_16b": {"depth": 16, **_NARROW},
    "deepvit_24b": {"depth": 24, **_NARROW},
    "deepvit_32b": {"depth": 32, **_NARROW},
}
PLAIN_VARIANTS: dict[str, dict[str, Any]] = {
    f"vit_{depth}b": {"depth": depth, **_NARROW, **_EPS} for depth in (16, 24, 32)
}

_HALVES: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_STEMMED = ("deepvit_s", "deepvit_l")
_PATCHED = [name for name in (*VARIANTS, *PLAIN_VARIANTS) if name not in _STEMMED]
default_cfgs = {
    **cfgs_without_weights(_STEMMED, first_conv="patch_embed.conv1", **_HALVES),
    **cfgs_without_weights(_PATCHED, first_conv="patch_embed.proj", **_HALVES),
}
register_family(DeepViT, VARIANTS, __name__)
register_family(VisionTransformer, PLAIN_VARIANTS, __name__)
