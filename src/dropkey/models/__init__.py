"""Models registered with timm by importing this package."""

from dropkey.models import small_vit

__all__ = ["small_vit"]
