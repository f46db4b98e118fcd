"""Small detectors that train from scratch on a CPU, as transformers' configurations: nothing is downloaded."""

from collections.abc import Callable
from typing import Any

import transformers

__all__ = ["BACKBONE_PRETRAINED", "PRESETS"]

Sides = tuple[int, int]

_WIDTHS = [16, 32, 64, 96]


def _config(name: str, **arguments: Any) -> Any:
    return getattr(transformers, name)(**arguments)


def _d_fine_mini(sides: Sides) -> Any:
    """D-FINE of 0.7 million parameters; batch norms of the backbone are trained, since it starts from nothing."""
    return _config(
        "DFineConfig",
        backbone_config=_config(
            "RTDetrResNetConfig",
            embedding_size=_WIDTHS[0],
            hidden_sizes=_WIDTHS,
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        ),
        freeze_backbone_batch_norms=False,
        encoder_in_channels=_WIDTHS[1:],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        d_model=64,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=128,
        decoder_layers=3,
        decoder_attention_heads=4,
        num_queries=50,
        num_denoising=0,
        depth_mult=0.34,
        hidden_expansion=0.5,
    )


def _detr_mini(sides: Sides) -> Any:
    """DETR with a backbone of layer norms: transformers freezes the batch norms of a DETR, trained before or not."""
    return _config(
        "DetrConfig",
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=_config("ConvNextConfig", hidden_sizes=_WIDTHS, depths=[1, 1, 2, 1], out_features=["stage4"]),
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_layers=3,
        decoder_attention_heads=4,
        decoder_ffn_dim=128,
        num_queries=50,
        auxiliary_loss=True,
    )


def _yolos_mini(sides: Sides) -> Any:
    """YOLOS, a plain ViT that reads boxes from tokens of its own, with patches of 8 pixels."""
    return _config(
        "YolosConfig",
        image_size=list(sides),
        patch_size=8,
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=192,
        num_detection_tokens=50,
        use_mid_position_embeddings=False,
    )


def _detr_r50(sides: Sides) -> Any:
    """DETR as published, with timm's ResNet-50; its frozen batch norms make sense with pretrained weights alone."""
    return _config(
        "DetrConfig",
        backbone_config=_config("TimmBackboneConfig", backbone="resnet50", out_indices=[1, 2, 3, 4]),
        num_queries=100,
        auxiliary_loss=True,
    )


# From the sides of the input, (rows, cols), to the configuration.
PRESETS: dict[str, Callable[[Sides], Any]] = {
    "d_fine_mini": _d_fine_mini,
    "detr_mini": _detr_mini,
    "yolos_mini": _yolos_mini,
    "detr_r50": _detr_r50,
}
BACKBONE_PRETRAINED = ("detr_r50",)  # presets for which --pretrained takes the weights of the backbone
