"""Models registered with timm by importing this package."""

from dropkey.models import ceit, deepvit, small_vit, t2t_vit
from dropkey.models.official import from_official

__all__ = ["ceit", "deepvit", "from_official", "small_vit", "t2t_vit"]
