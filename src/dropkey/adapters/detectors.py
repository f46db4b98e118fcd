"""Attention of detection libraries (rfdetr, ultralytics, libreyolo), by name: none of them is imported.

The rest of their detectors is torch's nn.MultiheadAttention, or deformable attention, which has no keys.
"""

from dataclasses import replace

from dropkey.adapters.entry import Entry

__all__ = ["DETECTORS_LEFT_ALONE", "DETECTOR_CLASSES"]

_SOFTMAX = Entry(kind="self", routes_softmax=True)
_DINOV2 = replace(_SOFTMAX, own_dropout=("dropout", "attention_probs_dropout_prob"))  # its SDPA form is a subclass
_WINDOW = replace(_SOFTMAX, kind="window", window_mask=(1, "mask"), grid="window_size")

DETECTOR_CLASSES: dict[str, Entry] = {
    "rfdetr.models.backbone.dinov2_with_windowed_attn.Dinov2WithRegistersSelfAttention": _DINOV2,
    "libreyolo.models.rfdetr.dinov2.Dinov2WithRegistersSelfAttention": _DINOV2,
    "libreyolo.models.lwdetr.nn.Attention": _SOFTMAX,
    "libreyolo.models.lwdetr.nn.MultiheadAttention": replace(_SOFTMAX, layout="g"),
    "libreyolo.models.ec.backbone.Attention": Entry(kind="self"),
    "libreyolo.models.dinodetr.swin.WindowAttention": _WINDOW,
    "ultralytics.nn.modules.block.Attention": _SOFTMAX,
    "ultralytics.nn.modules.block.AAttn": _SOFTMAX,  # areas of the image join the batch
}

_DEFORMABLE = "deformable attention: it samples places, there are no keys"
_DEFORMABLE_CLASSES = (
    "rfdetr.models.ops.modules.ms_deform_attn.MSDeformAttn",
    "ultralytics.nn.modules.transformer.MSDeformAttn",
    "libreyolo.models.deformable_detr.ms_deform_attn.MSDeformAttn",
    "libreyolo.models.lwdetr.nn.MSDeformAttn",
    "libreyolo.models.rfdetr.transformer.MSDeformAttn",
    "libreyolo.models.rtdetr.nn.MSDeformableAttention",
    "libreyolo.models.rtdetrv2.decoder.MSDeformableAttention",
    "libreyolo.models.deim.decoder.MSDeformableAttention",
    "libreyolo.models.dfine.decoder.MSDeformableAttention",
    "libreyolo.models.ec.decoder.MSDeformableAttention",
    "libreyolo.models.gtr.decoder.MSDeformableAttention",
)
DETECTORS_LEFT_ALONE = dict.fromkeys(_DEFORMABLE_CLASSES, _DEFORMABLE)
