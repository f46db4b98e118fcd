"""Small detectors of every family, as folders with a config.json."""

import transformers

LAYERS = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 12,
}


def convnext(*stages):
    return transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=list(stages))


def plain(name, *stages):
    backbone = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone_config": convnext(*stages)}
    return getattr(transformers, name)(**LAYERS, **backbone, auxiliary_loss=True)


def real_time(name, **more):
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    shape = {"encoder_in_channels": [8, 16, 16], "decoder_in_channels": [32, 32, 32], "encoder_hidden_dim": 32}
    return getattr(transformers, name)(
        **LAYERS, **shape, backbone_config=backbone, freeze_backbone_batch_norms=False, num_denoising=8, **more
    )


def yolos():
    return transformers.YolosConfig(
        image_size=[64, 64],
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_detection_tokens=12,
    )


CONFIGS = {
    "detr": lambda: plain("DetrConfig", "stage4"),
    "conditional_detr": lambda: plain("ConditionalDetrConfig", "stage4"),
    "deformable_detr": lambda: plain("DeformableDetrConfig", "stage2", "stage3", "stage4"),
    "rt_detr_v2": lambda: real_time("RTDetrV2Config"),
    "d_fine": lambda: real_time("DFineConfig"),
    "yolos": yolos,
}
