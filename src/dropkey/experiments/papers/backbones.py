"""The papers' backbones, with and without DropKey."""

from typing import Any

from dropkey.experiments.experiment import Experiment, Row, Table
from dropkey.experiments.scales import Scale

__all__ = ["backbones"]

_MODELS = {
    "small": ("deit_tiny_patch16_224", "t2t_vit_7", "volo_d1_224", "ceit_tiny", "deepvit_s"),
    "gpu": ("deit_tiny_patch16_224", "t2t_vit_7", "volo_d1_224", "ceit_tiny", "deepvit_s"),
    "paper": ("deit_base_patch16_224", "t2t_vit_14", "t2t_vit_19", "volo_d1_224", "ceit_small", "deepvit_s"),
}
_CONVOLUTIONAL = {
    "small": ("resnet18", "regnety_002"),
    "gpu": ("resnet18", "regnety_002"),
    "paper": ("resnet50", "regnety_040"),
}


def backbones(scale: Scale, data: str, data_dir: str) -> Experiment:
    """DropKey in ViT, DeiT, T2T-ViT, VOLO, CeiT and DeepViT, with ResNet and RegNetY beside them.

    Claim: DropKey helps each of them (DropKey, CVPR 2023: see the experiment regularizers for its numbers), and
    DeepViT is more accurate than convolutional networks of its size (DeepViT, 2021: DeepViT-S 82.3 with 27 million
    parameters, RegNetY-4G 80.0 with 21, ResNet-50 76.2 with 25).

    The learning rate is the same for all: this ranks no architectures at the small scale, where all start from nothing
    on 1,000 images of 64 pixels, for 6 epochs (120 steps), and are measured on 1,000 held-out training images.

    Small: 36 runs; how long they take was not measured. ``dropkey experiment backbones``; at the paper's scale
    ``--dry-run`` says what it takes.
    """
    shared: dict[str, Any] = scale.options(data, data_dir)
    if scale.name == "small":
        shared = {**shared, "img_size": 64, "epochs": 6, "evaluate_every": 6, "attention_every": 0, "val_share": 0.02}
        shared.pop("model_kwargs")
    elif scale.name == "gpu":
        shared = {**shared, "img_size": 64, "attention_every": 0}
    models = _MODELS[scale.name]
    plain = {name: Row(name, {"regularizer": "none", "model": name}) for name in models + _CONVOLUTIONAL[scale.name]}
    ratio = 0.1 if scale.name == "small" else 0.05
    tables = [Table(f"Without a regularizer, against {models[0]}", list(plain.values()))]
    for name in models:
        options = {"regularizer": "dropkey", "drop_ratio": ratio, "model": name}
        tables.append(Table(name, [plain[name], Row(f"{name}, DropKey {ratio:g}", options)]))
    return Experiment(tables, shared, seeds=3, pool="backbones")
