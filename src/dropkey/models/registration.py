"""Registering a family of models with timm from a table of its variants."""

from collections.abc import Iterable, Mapping
from typing import Any

from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model

__all__ = ["Variants", "cfgs_without_weights", "register_family"]

Variants = Mapping[str, Mapping[str, Any]]  # name -> arguments of the model's class


def cfgs_without_weights(names: Iterable[str], **fields: Any) -> Any:
    """Return what timm calls default_cfgs, for ImageNet images of 224 pixels; ``fields`` go before the defaults."""
    cfg = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "classifier": "head",
        **fields,
    }
    return generate_default_cfgs({name: dict(cfg) for name in names})


def register_family(model_class: type[VisionTransformer], variants: Variants, module: str) -> None:
    """Make ``timm.create_model(name, ...)`` build ``model_class`` with the arguments of each variant.

    What the user passes goes before the variant's arguments.

    Args:
        model_class: a VisionTransformer.
        variants: see Variants.
        module: ``__name__`` of the calling module, which holds the family's ``default_cfgs``.
    """
    for name, arguments in variants.items():
        register_model(_entry_point(model_class, name, arguments, module))


def _entry_point(model_class: type[VisionTransformer], name: str, arguments: Mapping[str, Any], module: str) -> Any:
    def build(pretrained: bool = False, **kwargs: Any) -> Any:
        feature_cfg = {"out_indices": 3, "feature_cls": "getter"}
        return build_model_with_cfg(model_class, name, pretrained, feature_cfg=feature_cfg, **{**arguments, **kwargs})

    build.__name__ = build.__qualname__ = name
    build.__module__ = module
    build.__doc__ = f"Build {name}: {model_class.__name__} with {dict(arguments)}."
    return build
