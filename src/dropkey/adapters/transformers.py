"""transformers' attention classes; transformers itself is not imported.

Most of them hand query, key, value and mask to the function that ``ALL_ATTENTION_FUNCTIONS`` holds under the name of
the model's attention implementation. They are known by that: a forward which mentions this table. Of its functions
"sdpa" calls SDPA and "eager" softmax, which the site's class routes as everywhere else, after the model has made the
mask that belongs to the function. So there is no implementation of ours to register, nothing to restore, and no padding
mask to lose. Other implementations (flash, flex, paged) run around torch's attention: a model set to one is refused.
"""

import inspect
import re
from dataclasses import replace
from functools import cache

from torch import nn

from dropkey.adapters.entry import Entry

__all__ = ["TRANSFORMERS_CLASSES", "implementation_problem", "interface_entry", "transformers_reason"]

_OWN_DROPOUT = ("attention_dropout", "dropout", "dropout_prob")
_INTERFACE = Entry(kind="self", routes_softmax=True, own_dropout=_OWN_DROPOUT)
_SOFTMAX = Entry(kind="self", routes_softmax=True, own_dropout=("dropout", "attn_drop", "attn_dropout"))
_WINDOW = replace(_SOFTMAX, kind="window", window_mask=(1, "attention_mask"), grid="window_size")
_SDPA = Entry(kind="self", own_dropout=("dropout",))
_FOLDED = replace(_SOFTMAX, layout="g")

# Those whose forward does not use the table.
_CLASSES = {
    "aimv2.modeling_aimv2.Aimv2AttentionPoolingHead": replace(_SDPA, kind="pool"),
    "cvt.modeling_cvt.CvtSelfAttention": _SOFTMAX,
    "dab_detr.modeling_dab_detr.DabDetrAttention": replace(_SOFTMAX, own_dropout=("attention_dropout",)),
    "dab_detr.modeling_dab_detr.DetrAttention": replace(_SOFTMAX, own_dropout=("attention_dropout",)),
    "data2vec.modeling_data2vec_vision.Data2VecVisionSdpaSelfAttention": _SDPA,
    "data2vec.modeling_data2vec_vision.Data2VecVisionSelfAttention": _SOFTMAX,
    "donut.modeling_donut_swin.DonutSwinSelfAttention": _WINDOW,
    "flava.modeling_flava.FlavaSelfAttention": _SOFTMAX,
    "glpn.modeling_glpn.GLPNEfficientSelfAttention": _SOFTMAX,
    "hiera.modeling_hiera.HieraMaskUnitAttention": replace(_SOFTMAX, kind="window", layout="bhw"),
    "imagegpt.modeling_imagegpt.ImageGPTAttention": _SOFTMAX,
    "levit.modeling_levit.LevitAttention": _SOFTMAX,
    "levit.modeling_levit.LevitAttentionSubsample": _SOFTMAX,
    "mask2former.modeling_mask2former.Mask2FormerAttention": _FOLDED,
    "maskformer.modeling_maskformer_swin.MaskFormerSwinSelfAttention": _WINDOW,
    "mgp_str.modeling_mgp_str.MgpstrAttention": _SOFTMAX,
    "mobilevit.modeling_mobilevit.MobileViTSelfAttention": _SOFTMAX,
    "oneformer.modeling_oneformer.OneFormerAttention": _FOLDED,
    "perceiver.modeling_perceiver.PerceiverSelfAttention": _SOFTMAX,
    "pvt.modeling_pvt.PvtEfficientSelfAttention": _SOFTMAX,
    "pvt_v2.modeling_pvt_v2.PvtV2SelfAttention": _SOFTMAX,
    "sam.modeling_sam.SamVisionAttention": _FOLDED,
    "sam.modeling_sam.SamVisionSdpaAttention": _SDPA,
    "sam_hq.modeling_sam_hq.SamHQVisionAttention": _FOLDED,
    "sam_hq.modeling_sam_hq.SamHQVisionSdpaAttention": _SDPA,
    "swinv2.modeling_swinv2.Swinv2SelfAttention": _WINDOW,
    "table_transformer.modeling_table_transformer.TableTransformerAttention": _FOLDED,
    "timesformer.modeling_timesformer.TimesformerSelfAttention": _SOFTMAX,
}
TRANSFORMERS_CLASSES: dict[str, Entry] = {
    **{f"transformers.models.{path}": entry for path, entry in _CLASSES.items()},
    # The table is used here too, but not everything in it is.
    "transformers.models.swin.modeling_swin.SwinAttention": replace(
        _INTERFACE, kind="window", window_mask=(1, "attention_mask"), grid="relative_position_bias.window_size"
    ),
}

_REASONS = {
    "DeformableAttention": "deformable attention: it samples places, there are no keys",
    "MHAttentionMap": "maps for masks: there are no values",
    "EfficientAdditiveAttention": "linear attention: no softmax over keys",
    "MobileViTV2LinearSelfAttention": "linear attention: no softmax over keys",
    "MaskPredictor": "predicts masks: no attention",
}


@cache
def interface_entry(attention_class: type) -> Entry | None:
    """Return how to enter a class whose forward uses transformers' table of attention functions, otherwise None."""
    forward = inspect.unwrap(attention_class.__dict__.get("forward", lambda: None))
    code = getattr(forward, "__code__", None)
    return _INTERFACE if code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names else None


def transformers_reason(attention_class: type) -> str | None:
    """Return why an attention of transformers has nothing to drop, or None."""
    if not attention_class.__module__.startswith("transformers."):
        return None
    name = attention_class.__name__
    return next((reason for pattern, reason in _REASONS.items() if re.search(pattern, name)), None)


def implementation_problem(module: nn.Module) -> str | None:
    """Return why a module cannot be entered as its model's attention implementation is set, or None."""
    if not any(map(interface_entry, type(module).__mro__)):
        return None
    name = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if name in (None, "sdpa", "eager"):
        return None
    return (
        f"its attention implementation {name!r} runs around torch's attention: "
        'call model.set_attn_implementation("sdpa") first'
    )
