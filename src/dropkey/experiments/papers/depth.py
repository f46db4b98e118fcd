"""Deeper vision transformers, with and without Re-attention."""

from typing import Any

from dropkey.experiments.experiment import Experiment, Row, Table
from dropkey.experiments.readings.collapse import SimilarBlocks
from dropkey.experiments.scales import Scale

__all__ = ["depth"]

_WIDTH = {"small": 48, "gpu": 192, "paper": 384}
_DEPTHS = (12, 16, 24, 32)


def depth(scale: Scale, data: str, data_dir: str) -> Experiment:
    """Re-attention in ViTs of 12 to 32 blocks, and what else was tried against attention collapse.

    Claim: deeper plain ViTs stop getting better since the maps of their top blocks become alike; Re-attention keeps
    them apart and accuracy rises with depth (DeepViT, 2021). Published on ImageNet, accuracy and similar blocks: ViT
    of 16, 24, 32 blocks 78.88, 79.35, 79.27 with 5, 11, 15; with Re-attention 79.10, 79.99, 80.90 with 0. A larger
    width, a temperature and dropping attention were found to change little of it.

    Here Re-attention starts as the identity, in all blocks. A block counts as similar where more than 0.9 of the
    columns of its maps have a cosine above 0.5 with those of the block before; DeepViT does not give its threshold.

    Small: 39 runs of 40 to 140 seconds on one core, and five minutes to look at them. ``dropkey experiment depth``;
    at the paper's scale ``--dry-run`` says what it takes.
    """
    shared = {**scale.options(data, data_dir), "regularizer": "none"}
    if scale.name == "small":
        shared |= {"evaluate_every": 20, "attention_every": 0}
    if scale.name == "paper":
        shared |= {"model": "vit_16b"}
    width = _WIDTH[scale.name]
    tables = [Table("12 blocks and more, against 12", [_row(scale, width, count) for count in _DEPTHS])]
    for count in _DEPTHS:
        rows = [
            _row(scale, width, count),
            _row(scale, width, count, "Re-attention", re_attention="all"),
        ]
        if count == 24:
            rows += [
                _row(scale, 2 * width, count, "twice the width"),
                _row(scale, width, count, "learned temperature", locality_attention="temperature"),
                _row(scale, width, count, "dropout 0.1", regularizer="dropout", drop_ratio=0.1),
                _row(scale, width, count, "DropKey 0.1", regularizer="dropkey", drop_ratio=0.1),
                _row(scale, width, count, "loss on alike maps, 0.1", map_similarity_loss=0.1),
            ]
        tables.append(Table(f"{count} blocks, against plain ones", rows))
    return Experiment(tables, shared, seeds=3, readings=(SimilarBlocks(),), pool="depth")


def _row(scale: Scale, width: int, count: int, what: str = "", **options: Any) -> Row:
    heads = width // (16 if scale.name == "small" else 32)
    patch = ",patch_size=8" if scale.name == "small" else ""
    kwargs = f"depth={count},embed_dim={width},num_heads={heads}{patch}"
    label = f"{count} blocks{', ' if what else ''}{what}"
    return Row(label, {"regularizer": "none", "model_kwargs": kwargs, **options})
