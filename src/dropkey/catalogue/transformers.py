"""transformers' families, from configurations alone: nothing is downloaded."""

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from torch import nn

from dropkey.catalogue.family import Family
from dropkey.catalogue.pixels import pixels_for

__all__ = ["TRANSFORMERS_FAMILIES", "TRANSFORMERS_WITHOUT_KEYS"]

_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
_SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
}
_PYRAMID: dict[str, Any] = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
}
_PVT: dict[str, Any] = {
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [16, 32],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
}
_LAYERS: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}


def _family(
    name: str,
    model: str,
    config: str,
    arguments: dict[str, Any],
    img_size: int = 32,
    full: dict[str, Any] | None = None,
) -> Family:
    """Describe a family; ``full`` is what its default configuration would look up on the hub."""
    return Family(
        name,
        "transformers",
        model,
        full=lambda: _build(model, config, full or {}),
        small=lambda: _build(model, config, arguments),
        inputs=lambda: pixels_for(
            getattr(transformers, model), _configured(config, arguments), batch_size=2, img_size=img_size
        ),
    )


def _build(model: str, config: str, arguments: dict[str, Any]) -> nn.Module:
    built: nn.Module = getattr(transformers, model)(_configured(config, arguments))
    return built


def _configured(config: str, arguments: dict[str, Any]) -> Any:
    return _config(config)(**{key: value() if callable(value) else value for key, value in arguments.items()})


def _config(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(transformers, name)
    return found


def _backbone(stages: int) -> dict[str, Any]:
    """A small ResNet for the DETRs, giving its last stages."""
    names = ["stage2", "stage3", "stage4"][-stages:]
    resnet = partial(
        _config("ResNetConfig"),
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=names,
    )
    return {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone_config": resnet}


def _real_time() -> dict[str, Any]:
    """Sizes of RT-DETR and its kin."""
    resnet = partial(
        _config("RTDetrResNetConfig"),
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return {
        **_LAYERS,
        "backbone_config": resnet,
        "encoder_in_channels": [8, 16, 16],
        "decoder_in_channels": [32, 32, 32],
        "encoder_hidden_dim": 32,
    }


_DETR = {**_LAYERS, **_backbone(1), "dropout": 0.0}

TRANSFORMERS_FAMILIES = [
    _family("ViT", "ViTForImageClassification", "ViTConfig", _VIT),
    _family("DeiT", "DeiTForImageClassification", "DeiTConfig", _VIT),
    _family("DINOv2", "Dinov2ForImageClassification", "Dinov2Config", _VIT),
    _family("DINOv2, registers", "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", _VIT),
    _family("DINOv3", "DINOv3ViTModel", "DINOv3ViTConfig", {**_VIT, "num_register_tokens": 4}),
    _family("CLIP, vision", "CLIPVisionModel", "CLIPVisionConfig", _VIT),
    _family("SigLIP, vision", "SiglipVisionModel", "SiglipVisionConfig", _VIT),
    _family(
        "SigLIP 2, vision",
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        {key: value for key, value in _VIT.items() if key != "image_size"} | {"num_patches": 16},
    ),
    _family("BEiT", "BeitForImageClassification", "BeitConfig", {**_VIT, "use_relative_position_bias": True}),
    _family(
        "Data2Vec, vision",
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**_VIT, "use_relative_position_bias": True},
    ),
    _family("ViT-MSN", "ViTMSNForImageClassification", "ViTMSNConfig", _VIT),
    _family(
        "ViT-MAE",
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {
            **_VIT,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
    ),
    _family("I-JEPA", "IJepaForImageClassification", "IJepaConfig", _VIT),
    _family("OWL-ViT, vision", "OwlViTVisionModel", "OwlViTVisionConfig", _VIT),
    _family("AIMv2, vision", "Aimv2VisionModel", "Aimv2VisionConfig", _VIT),
    _family(
        "DPT",
        "DPTForDepthEstimation",
        "DPTConfig",
        {
            **_VIT,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 8, 8],
            "fusion_hidden_size": 8,
        },
    ),
    _family(
        "YOLOS",
        "YolosForObjectDetection",
        "YolosConfig",
        {**_VIT, "image_size": [32, 32], "num_detection_tokens": 5},
    ),
    _family("Swin", "SwinForImageClassification", "SwinConfig", _SWIN),
    _family("Swin v2", "Swinv2ForImageClassification", "Swinv2Config", _SWIN),
    _family("Donut's Swin", "DonutSwinModel", "DonutSwinConfig", _SWIN),
    _family(
        "VideoMAE",
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        {**_VIT, "num_frames": 4},
    ),
    _family(
        "ViViT",
        "VivitForVideoClassification",
        "VivitConfig",
        {**_VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]},
    ),
    _family(
        "TimeSformer",
        "TimesformerForVideoClassification",
        "TimesformerConfig",
        {**_VIT, "num_frames": 2},
    ),
    _family(
        "SAM, vision",
        "SamVisionModel",
        "SamVisionConfig",
        {**_VIT, "mlp_dim": 32, "window_size": 3, "global_attn_indexes": [1], "output_channels": 8},
    ),
    _family(
        "PVT",
        "PvtForImageClassification",
        "PvtConfig",
        {**_PVT, "sequence_reduction_ratios": [2, 1], "patch_sizes": [4, 2]},
    ),
    _family(
        "PVT v2", "PvtV2ForImageClassification", "PvtV2Config", {**_PVT, "sr_ratios": [2, 1], "patch_sizes": [7, 3]}
    ),
    _family("SegFormer", "SegformerForImageClassification", "SegformerConfig", _PYRAMID, 64),
    _family("GLPN", "GLPNForDepthEstimation", "GLPNConfig", {**_PYRAMID, "decoder_hidden_size": 8}, 64),
    _family(
        "LeViT",
        "LevitForImageClassification",
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        64,
    ),
    _family(
        "Hiera",
        "HieraForImageClassification",
        "HieraConfig",
        {"embed_dim": 16, "image_size": [64, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
        64,
    ),
    _family(
        "MobileViT",
        "MobileViTForImageClassification",
        "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 8]},
        64,
    ),
    _family(
        "CvT",
        "CvtForImageClassification",
        "CvtConfig",
        {"embed_dim": [8, 16, 16], "depth": [1, 2, 3], "num_heads": [1, 2, 2]},
        64,
    ),
    _family("DETR", "DetrForObjectDetection", "DetrConfig", _DETR, 64, _backbone(1)),
    _family("Conditional DETR", "ConditionalDetrForObjectDetection", "ConditionalDetrConfig", _DETR, 64, _backbone(1)),
    _family(
        "DAB-DETR",
        "DabDetrForObjectDetection",
        "DabDetrConfig",
        {**{k: v for k, v in _DETR.items() if k != "d_model"}, "hidden_size": 32},
        64,
        _backbone(1),
    ),
    _family(
        "Table Transformer",
        "TableTransformerForObjectDetection",
        "TableTransformerConfig",
        _DETR,
        64,
        _backbone(1),
    ),
    _family(
        "Deformable DETR",
        "DeformableDetrForObjectDetection",
        "DeformableDetrConfig",
        {**_LAYERS, **_backbone(3), "dropout": 0.0},
        64,
        _backbone(3),
    ),
    _family("RT-DETR", "RTDetrForObjectDetection", "RTDetrConfig", _real_time(), 64),
    _family("RT-DETR v2", "RTDetrV2ForObjectDetection", "RTDetrV2Config", _real_time(), 64),
    _family("D-FINE", "DFineForObjectDetection", "DFineConfig", _real_time(), 64),
]

# What they call attention has no keys: apply refuses these models and says why.
TRANSFORMERS_WITHOUT_KEYS = [
    _family(
        "MobileViT v2",
        "MobileViTV2ForImageClassification",
        "MobileViTV2Config",
        {"image_size": 64, "width_multiplier": 0.5},
        64,
    ),
]
