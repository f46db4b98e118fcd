"""timm's families. Small ones come from create_model where it takes the sizes, otherwise from the model's class."""

import importlib
from functools import partial
from typing import Any

import timm
from timm.models.maxxvit import MaxxVitCfg, MaxxVitTransformerCfg
from timm.models.metaformer import Attention, LayerNorm2dNoBias, LayerNormNoBias, SepConv
from timm.models.mvitv2 import MultiScaleVitCfg
from torch import nn

from dropkey.catalogue.family import Family, images

__all__ = ["TIMM_FAMILIES"]

_VIT: dict[str, Any] = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2}
_VIT64: dict[str, Any] = {**_VIT, "embed_dim": 64}  # rotary embeddings want wider heads
_SWIN: dict[str, Any] = {"img_size": 32, "window_size": 4, "depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16}
_STAGES: dict[str, Any] = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 32)}
_SVT: dict[str, Any] = {**_STAGES, "depths": (1, 1, 1, 2), "num_heads": (1, 2, 2, 2), "wss": (4, 4, 4, 4)}
_MAXXVIT: dict[str, Any] = {"embed_dim": (16, 32), "depths": (1, 1), "stem_width": 8}


def _family(name: str, public: str, size: int, small: str | None = None, **arguments: Any) -> Family:
    """Describe a family; ``small`` is the path of a class below timm.models, or None for ``timm.create_model``."""
    make = partial(timm.create_model, public) if small is None else _class(small)
    return Family(
        name,
        "timm",
        public,
        full=partial(timm.create_model, public),
        small=partial(make, num_classes=3, **arguments),
        inputs=lambda: {"": images(size)},
    )


def _class(path: str) -> type[nn.Module]:
    module, _, name = path.rpartition(".")
    found: type[nn.Module] = getattr(importlib.import_module(f"timm.models.{module}"), name)
    return found


TIMM_FAMILIES = [
    _family("ViT", "vit_small_patch16_224", 32, **_VIT),
    _family("ViT, parallel blocks", "vit_small_patch16_18x2_224", 32, **_VIT),
    _family("ViT, differential", "vit_dlittle_patch16_reg1_gap_256", 32, **_VIT64),
    _family("ViT, attention beside MLP", "vit_pwee_patch16_reg1_gap_256", 32, **_VIT64),
    _family("ViT, relative positions", "vit_relpos_small_patch16_224", 32, **_VIT),
    _family("ViT, rotary", "vit_small_patch16_rope_224", 32, **_VIT64),
    _family("ViT, hybrid", "vit_tiny_r_s16_p8_224", 32, **_VIT),
    _family("DeiT, distilled", "deit_small_distilled_patch16_224", 32, **_VIT),
    _family("DeiT III", "deit3_small_patch16_224", 32, **_VIT),
    _family("DINOv2, registers", "vit_small_patch14_reg4_dinov2", 28, **{**_VIT, "img_size": 28}),
    _family("DINOv3", "vit_small_patch16_dinov3", 32, **_VIT64),
    _family("SigLIP, attention pool", "vit_base_patch16_siglip_224", 32, **_VIT),
    _family("EVA-02", "eva02_tiny_patch14_224", 28, **{**_VIT, "img_size": 28}),
    _family("BEiT", "beit_base_patch16_224", 32, **_VIT),
    _family("BEiT v2", "beitv2_base_patch16_224", 32, **_VIT),
    _family("NaFlexViT", "naflexvit_base_patch16_gap", 32, depth=2, embed_dim=32, num_heads=2),
    _family("SAM", "samvit_base_patch16", 64, **{**_VIT, "img_size": 64}, global_attn_indexes=(1,), window_size=3),
    _family("Swin", "swin_tiny_patch4_window7_224", 32, **_SWIN),
    _family("Swin v2", "swinv2_tiny_window8_256", 32, **_SWIN),
    _family("Swin v2, cr", "swinv2_cr_tiny_224", 32, **{**_SWIN, "window_size": (4, 4)}),
    _family(
        "VOLO",
        "volo_d1_224",
        64,
        "volo.VOLO",
        layers=[1, 1, 1, 1],
        img_size=64,
        stem_hidden_dim=8,
        embed_dims=[16, 32, 32, 32],
        num_heads=[2, 2, 2, 2],
    ),
    _family("CaiT", "cait_xxs24_224", 32, **_VIT),
    _family("XCiT", "xcit_nano_12_p16_224", 32, **_VIT),
    _family("PVT v2", "pvt_v2_b0", 64, **_STAGES, num_heads=(1, 2, 2, 2)),
    _family("Twins-PCPVT", "twins_pcpvt_small", 64, img_size=64, **_STAGES, num_heads=(1, 2, 2, 2)),
    _family("Twins-SVT", "twins_svt_small", 64, img_size=64, **_SVT),
    _family(
        "MViT v2",
        "mvitv2_tiny",
        32,
        "mvitv2.MultiScaleVit",
        cfg=MultiScaleVitCfg(depths=(1, 1), embed_dim=(16, 32), num_heads=(1, 2)),
        img_size=(32, 32),
    ),
    _family("Hiera", "hiera_tiny_224", 64, img_size=(64, 64), stages=(1, 1, 1, 1), embed_dim=16, num_heads=1),
    _family("SAM 2, Hiera", "sam2_hiera_tiny", 64, embed_dim=16, stages=(1, 2, 2, 1), global_att_blocks=(4,)),
    _family(
        "LeViT", "levit_128s", 64, img_size=64, embed_dim=(32, 32, 32), key_dim=8, num_heads=(2, 2, 2), depth=(1, 1, 1)
    ),
    _family(
        "MaxViT",
        "maxvit_tiny_tf_224",
        64,
        "maxxvit.MaxxVit",
        cfg=MaxxVitCfg(
            **_MAXXVIT,
            block_type=("M", "M"),
            transformer_cfg=MaxxVitTransformerCfg(dim_head=16, window_size=(4, 4)),
        ),
        img_size=64,
    ),
    _family(
        "CoAtNet",
        "coatnet_nano_rw_224",
        64,
        "maxxvit.MaxxVit",
        cfg=MaxxVitCfg(**_MAXXVIT, block_type=("C", "T"), transformer_cfg=MaxxVitTransformerCfg(dim_head=16)),
        img_size=64,
    ),
    _family("ConViT", "convit_tiny", 32, **_VIT, local_up_to_layer=1),
    _family(
        "CrossViT",
        "crossvit_tiny_240",
        32,
        "crossvit.CrossVit",
        img_size=32,
        patch_size=(8, 16),
        embed_dim=(16, 32),
        depth=((1, 2, 0),),
        num_heads=(2, 2),
        mlp_ratio=(2, 2, 1),
    ),
    _family(
        "TNT",
        "tnt_s_patch16_224",
        32,
        img_size=32,
        depth=2,
        embed_dim=32,
        inner_dim=8,
        num_heads_inner=2,
        num_heads_outer=2,
    ),
    _family(
        "NesT",
        "nest_tiny",
        64,
        "nest.Nest",
        img_size=64,
        num_levels=2,
        embed_dims=(16, 32),
        num_heads=(1, 2),
        depths=(1, 1),
    ),
    _family(
        "GC ViT",
        "gcvit_xxtiny",
        64,
        "gcvit.GlobalContextVit",
        img_size=64,
        depths=(2, 2),
        embed_dim=16,
        num_heads=(2, 2),
        window_ratio=(16, 16),
    ),
    _family("Visformer", "visformer_tiny", 64, img_size=64, embed_dim=32, num_heads=2, depth=(1, 1, 1)),
    _family(
        "CAFormer",
        "caformer_s18",
        64,
        "metaformer.MetaFormer",
        depths=(1, 1, 1, 1),
        dims=(8, 16, 32, 32),
        token_mixers=[SepConv, SepConv, Attention, Attention],
        norm_layers=[LayerNorm2dNoBias, LayerNorm2dNoBias, LayerNormNoBias, LayerNormNoBias],
    ),
    _family("TinyViT", "tiny_vit_5m_224", 64, **_STAGES, num_heads=(1, 1, 2, 2), window_sizes=(4, 4, 4, 4)),
    _family("FastViT", "fastvit_sa12", 64, layers=(1, 1, 1, 1), embed_dims=(32, 32, 32, 32)),
    _family(
        "EfficientFormer",
        "efficientformer_l1",
        224,
        "efficientformer.EfficientFormer",
        depths=(1, 1, 1, 2),
        embed_dims=(8, 8, 8, 16),
        num_vit=1,
    ),
    _family(
        "EfficientFormer v2",
        "efficientformerv2_s0",
        64,
        "efficientformer_v2.EfficientFormerV2",
        depths=(1, 1, 2, 2),
        img_size=64,
        embed_dims=(8, 8, 16, 16),
        num_vit=1,
    ),
    _family(
        "EfficientViT (MSRA)",
        "efficientvit_m0",
        64,
        "efficientvit_msra.EfficientVitMsra",
        img_size=64,
        embed_dim=(16, 16),
        key_dim=(4, 4),
        depth=(1, 1),
        num_heads=(2, 2),
        window_size=(2, 2),
        kernels=(3, 3),
        down_ops=(("", 1), ("subsample", 2)),
    ),
    _family("Next-ViT", "nextvit_small", 64, "nextvit.NextViT", in_chans=3, stem_chs=(8, 8, 8), depths=(1, 1, 5, 1)),
    _family("DaViT", "davit_tiny", 64, depths=(1, 1), embed_dims=(16, 32), num_heads=(1, 2), window_size=4),
    _family(
        "PiT",
        "pit_ti_224",
        32,
        "pit.PoolingVisionTransformer",
        img_size=32,
        patch_size=8,
        stride=4,
        base_dims=[8, 8, 8],
        depth=[1, 1, 1],
        heads=[1, 2, 2],
    ),
    _family("MobileViT", "mobilevit_xxs", 64),
    _family("ViTamin", "vitamin_small_224", 64, img_size=64, depth=2),
    _family("SHViT", "shvit_s1", 128, embed_dim=(16, 32, 32), depth=(1, 1, 1), partial_dim=(8, 16, 16)),
    _family("iFormer", "iformer_t", 64, dims=(8, 16, 32, 32), depths=(1, 1, 3, 3), attn_groups=(0, 0, 1, 1)),
    _family("LowFormer", "lowformer_b0", 64, width_list=[8, 8, 16, 32, 32], depth_list=[0, 1, 1, 1, 1]),
    _family("CPUBone", "cpubone_nano", 64, width_list=[8, 8, 16, 32, 32], depth_list=[0, 1, 1, 1, 1]),
    _family("MobileNet v4, hybrid", "mobilenetv4_hybrid_medium", 64),
    _family("BoTNet", "botnet26t_256", 64, img_size=64),
    _family("HaloNet", "halonet26t", 256),
    _family("ResNet of CLIP", "resnet50_clip", 64),
    _family("CSATv2", "csatv2", 128),
    _family("Gemma 4 ViT", "gemma4_vit_167m", 48, depth=2),
]

# What they call attention has no keys: apply refuses these models and says why.
TIMM_WITHOUT_KEYS = [
    _family("CoaT", "coat_lite_tiny", 64, img_size=64),
    _family("EdgeNeXt", "edgenext_xx_small", 64),
    _family("MobileViT v2", "mobilevitv2_050", 64),
    _family("SwiftFormer", "swiftformer_xs", 64),
    _family("EfficientViT (MIT)", "efficientvit_b0", 64),
    _family("LambdaResNet", "lambda_resnet26t", 64),
]
