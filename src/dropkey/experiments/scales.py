"""How large an experiment is: what its classifiers share at each scale.

small: two CPU cores; gpu: one GPU, ten minutes; paper: the full recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SCALES", "Scale"]


@dataclass(frozen=True)
class Scale:
    """One scale.

    Args:
        name: of the scale.
        words: what it trains, for people.
        shared: options of all classifiers.
        drop_ratio: of DropKey and of dropout, where the experiment does not vary it.
        model: the model's name, without the size of the small one.
    """

    name: str
    words: str
    shared: Mapping[str, Any]
    drop_ratio: float

    def options(self, data: str, data_dir: str) -> dict[str, Any]:
        """Return what all classifiers share, on one source of images."""
        per_class = {"train_per_class": 20} if data == "cifar100" and "train_per_class" in self.shared else {}
        where = {"data_dir": data_dir} if data_dir else {}
        return {"data": data, **where, **self.shared, **per_class}


_SMALL = {
    "model": "vit_mini_patch4_32",
    "model_kwargs": "embed_dim=64,num_heads=4",
    "train_per_class": 100,
    "epochs": 20,
    "evaluate_every": 10,
    "attention_every": 10,
    "batch_size": 50,
    "lr": 2e-3,
    "warmup_epochs": 2,
    "mirror": False,
    "random_crop": False,
    "label_smoothing": 0.0,
    "clip_grad": 1.0,
    "cutmix": 0.0,
    "rand_augment": 0.0,
    "threads": 1,
    "workers": 0,
    "save_seconds": 600.0,
}
_GPU = {
    "model": "vit_mini_patch4_32",
    "epochs": 60,
    "evaluate_every": 10,
    "attention_every": 20,
    "batch_size": 500,
    "lr": 2e-3,
    "warmup_epochs": 5,
    "label_smoothing": 0.1,
    "clip_grad": 1.0,
    "cutmix": 0.0,
    "rand_augment": 0.0,
    "precision": "bf16-mixed",
    "workers": 8,
}
_PAPER = {"model": "t2t_vit_14", "epochs": 300, "batch_size": 128, "workers": 8}

SCALES = {
    "small": Scale(
        "small",
        "1,000 CIFAR-10 images (100 a class) for 20 epochs without augmentation, a ViT of 64 tokens, 6 blocks of width "
        "64, 0.21 million parameters; tested on the 10,000 test images",
        _SMALL,
        0.3,
    ),
    "gpu": Scale("gpu", "all 50,000 training images for 60 epochs, a ViT of 1.8 million parameters", _GPU, 0.3),
    "paper": Scale("paper", "the recipe of DeiT for 300 epochs", _PAPER, 0.1),
}
