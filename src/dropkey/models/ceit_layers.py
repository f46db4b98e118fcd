"""What CeiT is made of besides timm's attention: its stem, feed-forward layer and last block."""

from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dropkey.errors import ArgumentError
from dropkey.models.patch_grid import PatchGrid
from dropkey.ops.statistics import normalize_once

__all__ = ["ImageToTokens", "LayerwiseClassAttention", "LocallyEnhancedFeedForward"]


class ImageToTokens(PatchGrid):
    """Map images (B, in_chans, H, W) to tokens (B, H/16 * W/16, embed_dim).

    7x7 convolution of stride 2, batch norm without activation, 3x3 max pooling of stride 2, then patches of a quarter
    of ``patch_size``.

    Args:
        img_size: see PatchGrid.
        patch_size: see PatchGrid; a multiple of 4.
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
        if self.patch_size[0] % 4 or self.patch_size[1] % 4 or dynamic_img_pad:
            raise ArgumentError(f"CeiT takes patch sizes that are multiples of 4 and no padding, got {patch_size}")
        patch = (self.patch_size[0] // 4, self.patch_size[1] // 4)
        self.conv = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False, **factory)
        self.bn = nn.BatchNorm2d(64, **factory)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.proj = nn.Conv2d(64, embed_dim, patch, stride=patch, bias=bias, **factory)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens."""
        self.check_images(images)
        tokens: Tensor = self.proj(self.maxpool(self.bn(self.conv(images))))
        return tokens.flatten(2).mT


class LocallyEnhancedFeedForward(nn.Module):
    """1x1, depthwise and 1x1 convolution on the patch tokens, each with batch norm; the class token passes unchanged.

    Takes the arguments with which timm's Block builds its MLP; there is no dropout inside, as released.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: None = None,
        bias: bool = True,
        drop: float = 0.0,
        *,
        grid_size: tuple[int, int],
        kernel_size: int = 3,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.act = act_layer()
        self.conv1 = nn.Conv2d(in_features, hidden_features, 1, bias=bias, **factory)
        self.bn1 = nn.BatchNorm2d(hidden_features, **factory)
        self.conv2 = nn.Conv2d(
            hidden_features, hidden_features, kernel_size, padding=kernel_size // 2, groups=hidden_features, **factory
        )
        self.bn2 = nn.BatchNorm2d(hidden_features, **factory)
        self.conv3 = nn.Conv2d(hidden_features, in_features, 1, bias=bias, **factory)
        self.bn3 = nn.BatchNorm2d(in_features, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1 + rows * cols, C) to the same shape."""
        class_token, patches = x[:, :1], x[:, 1:]
        x = patches.mT.reshape(len(x), -1, *self.grid_size)
        x = self.act(normalize_once(self.bn1, self.conv1(x)))
        x = self.act(normalize_once(self.bn2, self.conv2(x)))
        x = normalize_once(self.bn3, self.conv3(x))
        return torch.cat([class_token, x.flatten(2).mT], dim=1)


class LayerwiseClassAttention(nn.Module):
    """A last block that lets the last layer's class token attend to the class tokens of all layers.

    Its keys are layers, not patches, so DropKey stays out: the handle's table names it as not reached, and
    ``dropkey.register`` makes it known to those who want it.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, **factory: Any) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, **factory)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, **factory)
        self.proj = nn.Linear(dim, dim, **factory)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, **factory)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), **factory)

    def forward(self, class_tokens: Tensor) -> Tensor:
        """Map the class tokens (B, layers, C) to one (B, 1, C)."""
        last = class_tokens[:, -1:]
        x = last + self._attend(self.norm1(class_tokens))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(scaled_dot_product_attention(q[:, :, -1:], k, v).transpose(1, 2).flatten(2))
        return out
