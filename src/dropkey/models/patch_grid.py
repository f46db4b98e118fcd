"""What timm's VisionTransformer asks of a patch embedding, for stems that are not one convolution."""

from typing import Any

from torch import Tensor, nn

from dropkey.errors import ArgumentError

__all__ = ["PatchGrid"]


class PatchGrid(nn.Module):
    """Base of the stems: image size, patch size and the grid of patches that follows.

    Args:
        img_size: (height, width) or one number, in pixels, multiples of the patch size.
        patch_size: pixels that one token stands for, along each axis.

    Raises:
        ArgumentError: an image size that the patch size does not divide.
    """

    def __init__(self, img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.patch_size = _pair(patch_size)
        self._set_img_size(img_size)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image size; the patch size of these stems is fixed."""
        if patch_size is not None and _pair(patch_size) != self.patch_size:
            raise ArgumentError(f"{type(self).__name__} has patch size {self.patch_size}, which cannot be changed")
        if img_size is not None:
            self._set_img_size(img_size)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Return how many pixels one token stands for."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Return the grid (rows, cols) of an image size."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def check_images(self, images: Tensor) -> None:
        """Raise an ArgumentError for images of another size than the model's."""
        if tuple(images.shape[-2:]) != self.img_size:
            raise ArgumentError(
                f"the model takes images of {self.img_size} pixels, got {tuple(images.shape[-2:])}: build it with "
                "img_size=... or call its set_input_size"
            )

    def _set_img_size(self, img_size: int | tuple[int, int]) -> None:
        size = _pair(img_size)
        if size[0] % self.patch_size[0] or size[1] % self.patch_size[1]:
            raise ArgumentError(f"img_size {size} must be a multiple of the patch size {self.patch_size}")
        self.img_size = size
        self.grid_size = self.dynamic_feat_size(self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    rows, cols = (sides, sides) if isinstance(sides, int) else sides
    return rows, cols
