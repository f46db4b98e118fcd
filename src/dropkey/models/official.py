"""Loading the authors' released weights: their key names, our models, the same logits."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.models import VisionTransformer
from torch import Tensor

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.models import ceit, deepvit, t2t_vit

__all__ = ["from_official"]

# Pattern and replacement, applied in order to each of the authors' key names.
Renames = Sequence[tuple[str, str]]

_T2T_VIT: Renames = (
    (r"^tokens_to_token\.", "patch_embed."),
    (r"^patch_embed\.attention", "patch_embed.stage"),
    (r"^patch_embed\.project\.", "patch_embed.proj."),
    (r"^(patch_embed\.stage\d\.mlp)\.0\.", r"\1.fc1."),
    (r"^(patch_embed\.stage\d\.mlp)\.2\.", r"\1.fc2."),
)
_CEIT: Renames = (
    (r"^i2t\.(backbone\.)?", "patch_embed."),
    (r"\.leff\.", ".mlp."),
    (r"^lca\.attn\.", "lca."),
    (r"^lca\.feedforward\.", "lca.mlp."),
)
_DEEPVIT: Renames = (
    (r"\.attn\.reatten_matrix\.", ".attn.reattention.theta."),
    (r"\.attn\.var_norm\.", ".attn.reattention.norm."),
)
_RENAMES: dict[str, Renames] = {
    **dict.fromkeys(t2t_vit.VARIANTS, _T2T_VIT),
    **dict.fromkeys(ceit.VARIANTS, _CEIT),
    **dict.fromkeys([*deepvit.VARIANTS, *deepvit.PLAIN_VARIANTS], _DEEPVIT),
}
# Where training scripts keep the weights; averaged ones first, which the published accuracies are of.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def from_official(name: str, state_dict: Mapping[str, Any], **kwargs: Any) -> VisionTransformer:
    """Build a model with weights in the authors' key names; it gives the logits of the authors' code.

    The number of classes and, for square images, the image size are read from the weights. Read a released file with
    ``torch.load(path, map_location="cpu", weights_only=True)``.

    Args:
        name: a T2T-ViT, CeiT, DeepViT or plain ViT of ``dropkey.models``, such as "t2t_vit_14".
        state_dict: the weights, also inside of a checkpoint under "state_dict_ema", "state_dict" or "model", and with
            a "module." before each name. Averaged weights are preferred.
        kwargs: arguments of ``timm.create_model``, such as ``drop_path_rate`` or, for T2T-ViT, ``qk_scale``. For
            another number of classes call ``model.reset_classifier`` afterwards.

    Returns:
        The model, in training mode as timm makes it.

    Raises:
        ArgumentError: an unknown name, or weights that do not fit it: missing, unexpected or of another shape.

    Source: the released code of the three papers. T2T-ViT's constructors set ``qk_scale`` to ``dim ** -0.5`` under
    ``pretrained=True``, but its published accuracies belong to ``head_dim ** -0.5``, the default here.
    """
    if name not in _RENAMES:
        raise ArgumentError(f"no official weights are known for {name!r}{did_you_mean(name, _RENAMES)}")
    weights = {_renamed(key, _RENAMES[name]): value for key, value in _unwrapped(state_dict).items()}
    model = timm.create_model(name, **{**_sizes(weights), **kwargs})
    assert isinstance(model, VisionTransformer)
    _check_fit(name, model, weights)
    model.load_state_dict(weights)
    return model


def _unwrapped(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    for wrapper in _WRAPPERS:
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            return inner
    return state_dict


def _renamed(key: str, renames: Renames) -> str:
    key = key.removeprefix("module.")
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Read the number of classes and the side of square images off the weights."""
    sizes = {}
    if "head.weight" in weights:
        sizes["num_classes"] = len(weights["head.weight"])
    if "pos_embed" in weights:
        side = math.isqrt(weights["pos_embed"].shape[1] - 1)
        if side * side == weights["pos_embed"].shape[1] - 1:
            sizes["img_size"] = 16 * side
    return sizes


def _check_fit(name: str, model: VisionTransformer, weights: Mapping[str, Tensor]) -> None:
    """Raise an ArgumentError that says in one line what does not fit."""
    own = model.state_dict()
    faults = {
        "missing": [key for key in own if key not in weights],
        "unexpected": [key for key in weights if key not in own],
        "of another shape": [key for key in own if key in weights and own[key].shape != weights[key].shape],
    }
    told = [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys]
    if told:
        raise ArgumentError(f"these are not the weights of {name}, in our key names: {'; '.join(told)}")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
