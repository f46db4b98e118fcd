"""One training run, from its config to its summary."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch import nn

from dropkey.adapters.apply import apply
from dropkey.adapters.handle import Handle, SiteInfo
from dropkey.adapters.maps import attention_maps
from dropkey.data.augmentation import Augmentation, ImageFormat
from dropkey.data.loaders import ImageData
from dropkey.data.seeds import seed_all
from dropkey.data.source import ImageSource
from dropkey.data.sources import load_source
from dropkey.errors import ArgumentError, RunError
from dropkey.ops.map_similarity import map_similarity
from dropkey.regularizers import DropKey
from dropkey.tasks.checkpoints import AtomicCheckpointIO, Checkpoints, check_classes, read_checkpoint
from dropkey.tasks.classification import Classification
from dropkey.tasks.config import TrainConfig, build_re_attention, build_regularizer, parse_model_kwargs
from dropkey.tasks.console import progress_bars, quiet_libraries, row_line
from dropkey.tasks.curves import draw_curves
from dropkey.tasks.failures import mendable_failures
from dropkey.tasks.interruption import Interruption, interruptible_start
from dropkey.tasks.networks import build_network, check_model_name, image_format_of
from dropkey.tasks.recipes import filled, with_recipe
from dropkey.tasks.record import EpochRecord
from dropkey.tasks.run_folder import RunFolder
from dropkey.tasks.sharding import ShardedClassification, sharding
from dropkey.tasks.weights import load_weights

__all__ = ["Prepared", "check_processes", "prepare", "resolve", "train"]


@dataclass(frozen=True)
class Prepared:
    """What a run is made of: the images, the network and the regularizer on it."""

    config: TrainConfig
    source: ImageSource
    data: ImageData
    network: nn.Module
    handle: Handle | None
    notes: Sequence[str] = ()  # what the user should know before training


def resolve(config: TrainConfig, source: ImageSource) -> TrainConfig:
    """Return the config with every default filled in that depends on other options."""
    config = with_recipe(config)
    model = check_model_name(config.model or source.default_model)
    workers = config.workers
    if workers is None:
        workers = 0 if config.data == "digits" else min(4, max(0, (os.cpu_count() or 1) - 1))
    return dataclasses.replace(config, model=model, workers=workers)


def prepare(config: TrainConfig) -> Prepared:
    """Load the images, build the network and apply the regularizer.

    Raises:
        DropKeyError: an option, a folder or a model that cannot be used.
    """
    source = load_source(config.data, Path(config.data_dir) if config.data_dir else None)
    config = resolve(config, source)
    assert config.model is not None
    assert config.workers is not None
    seed_all(config.seed, "weights")
    network = build_network(
        config.model,
        len(source.classes),
        img_size=config.img_size,
        pretrained=config.pretrained,
        **({"drop_path_rate": config.drop_path} if config.drop_path else {}),
        **parse_model_kwargs(config.model_kwargs),
    )
    image_format = image_format_of(network, config.img_size)
    config = dataclasses.replace(config, img_size=image_format.img_size)
    notes = load_weights(network, Path(config.weights)) if config.weights else []
    re_attention = build_re_attention(config)
    if re_attention is not None:
        notes = [*notes, str(apply(network, re_attention))]
    regularizer = build_regularizer(config)
    handle = None if regularizer is None else apply(network, regularizer)
    if config.map_similarity_loss:
        _listen(network, image_format, handle)
    data = ImageData(
        source, image_format, _augmentation(config, source), filled(config.batch_size), config.seed, config.workers or 0
    )
    return Prepared(config, source, data, network, handle, notes)


def _listen(network: nn.Module, image_format: ImageFormat, handle: Handle | None) -> None:
    """See to it that the maps of a network can be compared, or raise a DropKeyError that says why not."""
    if handle is None:
        apply(network, DropKey(0.0)).disable()
    image = torch.zeros(1, 3, image_format.img_size, image_format.img_size)
    with torch.no_grad(), attention_maps(network.eval()) as maps:
        network(image)
    map_similarity(maps)
    network.train()


def _augmentation(config: TrainConfig, source: ImageSource) -> Augmentation:
    return Augmentation(
        shifts=source.shifts,
        flips=source.flips,
        rand_augment=filled(config.rand_augment),
        color_jitter=filled(config.color_jitter),
        random_erasing=filled(config.random_erasing),
    )


def train(prepared: Prepared, folder: RunFolder, *, resume: bool = False, say: Any = print) -> dict[str, Any]:
    """Train, and leave the run folder complete.

    Args:
        prepared: see ``prepare``.
        folder: where everything goes.
        resume: go on from ``last.ckpt`` if there is one.
        say: called with each line for the user.

    Returns:
        The summary that is in summary.json.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after saving.
        DropKeyError: something that the user can mend.
    """
    config = prepared.config
    record = EpochRecord(folder, lambda row: say(row_line(row, filled(config.epochs))))
    checkpoints = Checkpoints(folder, record, config.save_seconds)
    task = ShardedClassification if config.strategy == "fsdp" else Classification
    module = task(prepared.network, config, prepared.source.classes, prepared.handle)
    threads = config.threads or (1 if _is_tiny(prepared.network) else None)
    with quiet_libraries(), mendable_failures(), _threads(threads):
        trainer = _trainer(
            config, folder, [*_averaging(filled(config.ema)), record, Interruption(checkpoints), checkpoints]
        )
        checkpoint = folder.last_checkpoint if resume and folder.last_checkpoint.exists() else None
        if checkpoint is not None:
            prepared.data.start = _start_of(checkpoint, checkpoints, prepared.source)
        with interruptible_start(trainer):
            trainer.fit(module, prepared.data, ckpt_path=checkpoint, weights_only=True)
    summary = _summary(config, record, module)
    if trainer.is_global_zero:
        draw_curves(record.rows, folder.curves_file, _title(config))
        folder.write_summary(summary)
    return summary


def _start_of(checkpoint: Path, checkpoints: Checkpoints, source: ImageSource) -> tuple[int, int]:
    """Return the (epoch, batch) that comes next, after a check that the checkpoint is of this data."""
    content = read_checkpoint(checkpoint)
    check_classes(content, source.classes, checkpoint)
    try:
        epoch, batch = content["callbacks"][checkpoints.state_key]["place"]
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{checkpoint} is no checkpoint of a dropkey run: it does not say where training stood"
        ) from None
    return int(epoch), int(batch)


def _is_tiny(network: nn.Module) -> bool:
    """Whether threads would wait for each other more than they work."""
    return sum(parameter.numel() for parameter in network.parameters()) < 1_000_000


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _averaging(decay: float) -> list[pl.Callback]:
    """Return what keeps averaged weights, or nothing for a decay of 0. It must come before whatever saves."""
    return [EMAWeightAveraging(decay=decay)] if decay else []


def _world(config: TrainConfig) -> tuple[int, int]:
    """Return (processes a machine, machines): torchrun knows them, else the options say."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) if "TORCHELASTIC_RUN_ID" in os.environ else 0
    return (local, int(os.environ["WORLD_SIZE"]) // local) if local else (config.devices, 1)


class _Events(TensorBoardLogger):
    """TensorBoard events alone: config.yaml holds the options already."""

    def save(self) -> None:
        self.experiment.flush()


def check_processes(config: TrainConfig) -> None:
    """Raise an ArgumentError if a run is to be sharded and has one process."""
    if config.strategy == "fsdp" and math.prod(_world(config)) == 1:
        raise ArgumentError(
            "--strategy fsdp shards over processes and there is one: torchrun --nproc-per-node 2 -m dropkey train, "
            "or --devices 2"
        )


def _strategy(config: TrainConfig, world_size: int) -> str | Strategy:
    if config.strategy == "fsdp":
        return sharding(world_size)
    return "ddp" if world_size > 1 else "auto"


def _trainer(config: TrainConfig, folder: RunFolder, callbacks: list[pl.Callback]) -> pl.Trainer:
    devices, num_nodes = _world(config)
    return pl.Trainer(
        max_epochs=config.epochs,
        devices=devices,
        num_nodes=num_nodes,
        strategy=_strategy(config, devices * num_nodes),
        precision=config.precision,
        callbacks=[*callbacks, *progress_bars()],
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_grad or None,
        plugins=[AtomicCheckpointIO()],
        logger=_Events(str(folder.root), name="", version=""),
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=bool(progress_bars()),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=str(folder.root),
    )


def _summary(config: TrainConfig, record: EpochRecord, module: Classification) -> dict[str, Any]:
    last, best = record.rows[-1], record.rows[record.best_epoch]
    return {
        "best_val_accuracy": best["val_accuracy"],
        "best_epoch": best["epoch"],
        "final_val_accuracy": last["val_accuracy"],
        "final_val_loss": last["val_loss"],
        "final_train_accuracy": last["clean_train_accuracy"],
        "final_train_loss": last["clean_train_loss"],
        "generalization_gap": round(last["clean_train_accuracy"] - last["val_accuracy"], 6),
        "epochs": len(record.rows),
        "train_seconds": round(record.train_seconds, 3),
        "images_per_second": round(record.num_images / record.step_seconds, 1),
        "num_parameters": sum(parameter.numel() for parameter in module.network.parameters()),
        "drop_ratios": [] if module.handle is None else module.handle.drop_ratios,
        "sites": [] if module.handle is None else [_site(site) for site in module.handle.sites],
        "seed": config.seed,
        "model": config.model,
        "data": config.data,
        "regularizer": config.regularizer,
    }


def _site(site: SiteInfo) -> dict[str, Any]:
    return {"name": site.name, "block": site.block_index, "drop_ratio": site.drop_ratio}


def _title(config: TrainConfig) -> str:
    what = config.regularizer if config.regularizer == "none" else f"{config.regularizer} {config.drop_ratio:g}"
    return f"{config.model} on {config.data}, {what}, seed {config.seed}"
