"""timm's attention classes, by name: timm itself is not imported.

All of them call SDPA or softmax(dim=-1), depending on their fused_attn; both are routed.
"""

from dataclasses import replace

from dropkey.adapters.entry import Entry

__all__ = ["TIMM_CLASSES", "TIMM_LEFT_ALONE"]

_SELF = Entry(kind="self", routes_softmax=True)
# Differential attention has two maps a head, subtracted from each other: both lose the same keys.
_DIFFERENTIAL = replace(_SELF, maps_per_head=2, one_mask=True)
_NO_PREFIX = replace(_SELF, num_prefix_tokens=0)  # before the blocks in which the class token comes in
_CLASS = replace(_SELF, kind="class")
_POOL = replace(_SELF, kind="pool")
_WINDOW = replace(_SELF, kind="window")
_SINGLE_HEAD = replace(_SELF, layout="b")
_SHIFTED_WINDOW = replace(_WINDOW, window_mask=(1, "mask"), grid="window_size")

TIMM_CLASSES: dict[str, Entry] = {
    "timm.layers.attention.Attention": Entry(kind="self", routes_softmax=True, selects_keys=True),
    "timm.layers.attention.AttentionRope": _SELF,
    "timm.layers.attention2d.Attention2d": _SELF,
    "timm.layers.attention2d.MultiQueryAttention2d": _SELF,
    "timm.layers.attention_pool.AttentionPoolLatent": _POOL,
    "timm.layers.attention_pool.AttentionPoolPrr": _POOL,
    "timm.layers.attention_pool2d.AttentionPool2d": _POOL,
    "timm.layers.attention_pool2d.RotAttentionPool2d": _POOL,
    "timm.layers.bottleneck_attn.BottleneckAttn": replace(_SELF, layout="g"),
    "timm.layers.diff_attention.DiffAttention": _DIFFERENTIAL,
    "timm.layers.halo_attn.HaloAttn": replace(_WINDOW, layout="gw"),
    "timm.layers.non_local_attn.NonLocalAttn": _SINGLE_HEAD,
    "timm.layers.other_pool.SimPool1d": _POOL,
    "timm.layers.other_pool.SimPool2d": _POOL,
    "timm.models.beit.Attention": _SELF,
    "timm.models.cait.ClassAttn": _CLASS,
    "timm.models.cait.TalkingHeadAttn": _NO_PREFIX,  # dropped where the softmax is: after the heads were mixed
    "timm.models.convit.GPSA": replace(
        _NO_PREFIX, one_mask=True
    ),  # a softmax of contents and one of positions: both lose the same keys
    "timm.models.convit.MHSA": _SELF,
    "timm.models.cpubone.ConvAttention": _SELF,
    "timm.models.crossvit.CrossAttention": replace(_SELF, kind="cross"),
    "timm.models.davit.WindowAttention": replace(_WINDOW, grid="window_size"),
    "timm.models.efficientformer.Attention": _SELF,
    "timm.models.efficientformer_v2.Attention2d": _SELF,
    "timm.models.efficientformer_v2.Attention2dDownsample": _SELF,
    # One softmax a head, each on the output of the head before.
    "timm.models.efficientvit_msra.CascadedGroupAttention": replace(_WINDOW, layout="b"),
    "timm.models.eva.EvaAttention": _SELF,
    "timm.models.fastvit.Attention": _SELF,
    "timm.models.gcvit.WindowAttentionGlobal": replace(_WINDOW, grid="window_size"),
    "timm.models.gemma4_vit.Gemma4Attention": _SELF,
    "timm.models.hiera.MaskUnitAttention": replace(_WINDOW, layout="bhw"),
    "timm.models.hieradet_sam2.MultiScaleAttention": _WINDOW,
    "timm.models.iformer.SHMA": _SINGLE_HEAD,
    "timm.models.levit.Attention": _SELF,
    "timm.models.levit.AttentionDownsample": _SELF,
    "timm.models.lowformer.ConvAttention": _SELF,
    "timm.models.maxxvit.Attention2d": _SELF,
    "timm.models.maxxvit.AttentionCl": replace(_WINDOW, grid="rel_pos.window_size"),
    "timm.models.metaformer.Attention": _SELF,
    "timm.models.mvitv2.MultiScaleAttention": _SELF,
    "timm.models.nest.Attention": replace(_WINDOW, layout="bhw"),
    "timm.models.nextvit.EfficientAttention": _SELF,
    "timm.models.pvt_v2.Attention": _SELF,
    "timm.models.shvit.SHSA": _SINGLE_HEAD,
    "timm.models.swin_transformer.WindowAttention": _SHIFTED_WINDOW,
    "timm.models.swin_transformer_v2.WindowAttention": _SHIFTED_WINDOW,
    "timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention": _SHIFTED_WINDOW,
    "timm.models.tiny_vit.Attention": _WINDOW,
    "timm.models.tnt.Attention": _SELF,
    "timm.models.twins.GlobalSubSampleAttn": _SELF,
    "timm.models.twins.LocallyGroupedAttn": replace(_WINDOW, layout="bwh", grid="ws"),
    # Blocks with attention and MLP side by side, without an attention module of their own.
    "timm.models.vision_transformer.ParallelScalingBlock": _SELF,
    "timm.models.vision_transformer.DiffParallelScalingBlock": _DIFFERENTIAL,
    "timm.models.vision_transformer_relpos.RelPosAttention": _SELF,
    "timm.models.vision_transformer_sam.Attention": replace(_SELF, layout="g"),
    "timm.models.visformer.Attention": _SELF,
    "timm.models.volo.Attention": _SELF,
    "timm.models.volo.ClassAttention": _CLASS,
    # The keys are the positions of the window around each place, which is where its axis of windows comes from.
    "timm.models.volo.OutlookAttention": replace(_SELF, kind="outlook", layout="bhw", grid="kernel_size"),
}

_CHANNELS = "channel attention: no keys"
_LINEAR = "linear attention: no softmax over keys"
_GATES = "gates features: no keys"
_POSITIONS = "a bias of positions, kept as it is"

TIMM_LEFT_ALONE: dict[str, str] = {
    "timm.layers.cbam.ChannelAttn": _GATES,
    "timm.layers.cbam.SpatialAttn": _GATES,
    "timm.layers.cbam.LightSpatialAttn": _GATES,
    "timm.layers.coord_attn.CoordAttn": _GATES,
    "timm.layers.coord_attn.SimpleCoordAttn": _GATES,
    "timm.layers.coord_attn.EfficientLocalAttn": _GATES,
    "timm.layers.coord_attn.StripAttn": _GATES,
    "timm.layers.lambda_layer.LambdaLayer": _LINEAR,
    "timm.layers.non_local_attn.BatNonLocalAttn": _GATES,
    "timm.layers.pos_embed_rel.RelPosBias": _POSITIONS,
    "timm.layers.pos_embed_rel.RelPosMlp": _POSITIONS,
    "timm.layers.selective_kernel.SelectiveKernelAttn": _GATES,
    "timm.layers.split_attn.SplitAttn": _GATES,
    "timm.models.coat.FactorAttnConvRelPosEnc": _LINEAR,
    "timm.models.csatv2.SpatialAttention": "its softmax runs over the images of a batch: no keys",
    "timm.models.davit.ChannelAttention": _CHANNELS,
    "timm.models.davit.ChannelAttentionV2": _CHANNELS,
    "timm.models.edgenext.CrossCovarianceAttn": _CHANNELS,
    "timm.models.efficientvit_mit.LiteMLA": _LINEAR,
    "timm.models.mobilevit.LinearSelfAttention": _LINEAR,
    "timm.models.nextvit.ConvAttention": "grouped convolution: no keys",
    "timm.models.swiftformer.EfficientAdditiveAttention": _LINEAR,
    "timm.models.xcit.XCA": _CHANNELS,
}
