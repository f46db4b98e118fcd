"""One training run, from what was prepared to its summary."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from dropkey.adapters.site import site_of
from dropkey.diagnostics.callback import AttentionCallback
from dropkey.errors import ArgumentError, RunError
from dropkey.ops.dispatch import is_available
from dropkey.runs.checkpoints import AtomicCheckpointIO, Checkpoints, read_checkpoint
from dropkey.runs.config import RunConfig
from dropkey.runs.console import progress_bars, quiet_libraries, row_line
from dropkey.runs.curves import draw_curves
from dropkey.runs.failures import mendable_failures
from dropkey.runs.interruption import Interruption, interruptible_start
from dropkey.runs.prepared import Prepared
from dropkey.runs.record import EpochRecord
from dropkey.runs.run_folder import RunFolder
from dropkey.runs.sharding import make_sharded, sharding
from dropkey.runs.summary import summary_of

__all__ = ["check_processes", "num_processes", "train"]


def train(
    prepared: Prepared,
    folder: RunFolder,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
    bar: bool = True,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train, and leave the run folder complete.

    Args:
        prepared: what a task has prepared.
        folder: where everything goes.
        resume: continue from ``last.ckpt`` if there is one.
        say: called with each line for the user.
        bar: show on a terminal how far the run is.
        watch: called with each row of metrics.csv, before its checkpoint is written; what it raises ends the run.

    Returns:
        The summary that is in summary.json.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after saving.
        DropKeyError: something that the user can mend.
    """
    config, headline = prepared.config, prepared.headline
    record = EpochRecord(folder, headline, _report(prepared, say, watch))
    if num_processes(config) == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]  # whatever ranks are left in the environment
    fingerprint = prepared.data.fingerprint()
    checkpoints = Checkpoints(folder, record, config.save_seconds, fingerprint)
    threads = config.threads or (1 if _is_tiny(prepared.network) else torch.get_num_threads())
    if config.strategy == "fsdp":
        make_sharded(prepared.module)
    _build_kernel(prepared)
    with quiet_libraries(), mendable_failures(), _threads(threads):
        looks = _looks(config.attention_every)
        callbacks = [*_averaging(config.ema), *looks, record, Interruption(checkpoints), checkpoints]
        bars = progress_bars() if bar else []
        trainer = _trainer(config, folder, callbacks, bars, prepared.module.uses_all_parameters)
        checkpoint = folder.last_checkpoint if resume and folder.last_checkpoint.exists() else None
        if checkpoint is not None:
            prepared.data.start = _start_of(checkpoint, checkpoints, prepared)
        with interruptible_start(trainer):
            trainer.fit(prepared.module, prepared.data, ckpt_path=checkpoint, weights_only=True)
        summary = {**summary_of(prepared, record), "data_fingerprint": fingerprint}
    for look in looks:
        share = look.seconds / max(record.train_seconds, 1e-9)
        say(f"looks at attention took {look.seconds:.1f} s, {share:.1%} of the run: {folder.root / 'attention'}")
    if trainer.is_global_zero:
        draw_curves(record.rows, folder.curves_file, _title(config), headline, record.best)
        folder.write_summary(summary)
    return summary


def _report(
    prepared: Prepared, say: Callable[[str], None], watch: Callable[[Mapping[str, Any]], None] | None
) -> Callable[[Mapping[str, Any]], None]:
    def report(row: Mapping[str, Any]) -> None:
        say(row_line(row, prepared.config.epochs, prepared.measures))
        if watch is not None:
            watch(row)

    return report


def _start_of(path: Path, checkpoints: Checkpoints, prepared: Prepared) -> tuple[int, int]:
    """Return the (epoch, batch) that comes next, after a check that the checkpoint is of this data."""
    content = read_checkpoint(path)
    prepared.module.check(content, path)
    try:
        state = content["callbacks"][checkpoints.state_key]
        epoch, batch = state["place"]
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{path} is not a checkpoint of a dropkey run: it does not say where training stood") from None
    if state.get("fingerprint", checkpoints.fingerprint) != checkpoints.fingerprint:
        place = prepared.config.data_dir or prepared.config.data
        raise RunError(
            f"{path} was trained on other data than {place} holds now: files were added, removed or changed; restore "
            "them, or start a new run"
        )
    return int(epoch), int(batch)


def _build_kernel(prepared: Prepared) -> None:
    """Have the native kernel compiled, if it is needed and never was: not on the time of the first step."""
    if any(map(site_of, prepared.network.modules())) and not torch.cuda.is_available():
        is_available("cpu")


def _is_tiny(network: nn.Module) -> bool:
    """Whether threads would wait for each other more than they work."""
    return sum(parameter.numel() for parameter in network.parameters()) < 1_000_000


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _averaging(decay: float) -> list[pl.Callback]:
    """Return what keeps averaged weights, or nothing for a decay of 0. It must come before whatever saves."""
    return [EMAWeightAveraging(decay=decay)] if decay else []


def _looks(interval: int) -> list[AttentionCallback]:
    """Return what looks at attention, or nothing for an interval of 0."""
    return [AttentionCallback(interval, network=lambda module: module.network)] if interval else []


def _world(config: RunConfig) -> tuple[int, int]:
    """Return (processes per machine, machines): torchrun knows them, else the options say."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) if "TORCHELASTIC_RUN_ID" in os.environ else 0
    return (local, int(os.environ["WORLD_SIZE"]) // local) if local else (config.devices, 1)


class _Events(TensorBoardLogger):
    """TensorBoard events alone: config.yaml holds the options already."""

    def save(self) -> None:
        self.experiment.flush()


def num_processes(config: RunConfig) -> int:
    """Return how many processes share a run."""
    return math.prod(_world(config))


def check_processes(config: RunConfig) -> None:
    """Raise an ArgumentError if a run is to be sharded and has one process, or if two things say how many it has."""
    local, _ = _world(config)
    if config.devices not in (1, local):
        raise ArgumentError(f"--devices {config.devices} under torchrun, which starts {local} processes: leave it out")
    if config.strategy == "fsdp" and num_processes(config) == 1:
        raise ArgumentError(
            "--strategy fsdp shards over processes and there is one: torchrun --nproc-per-node 2 -m dropkey train, "
            "or --devices 2"
        )


def _strategy(config: RunConfig, world_size: int, uses_all: bool) -> str | Strategy:
    if config.strategy == "fsdp":
        return sharding(world_size)
    if world_size == 1:
        return "auto"
    return "ddp" if uses_all else "ddp_find_unused_parameters_true"


def _trainer(
    config: RunConfig, folder: RunFolder, callbacks: list[pl.Callback], bars: list[pl.Callback], uses_all: bool
) -> pl.Trainer:
    devices, num_nodes = _world(config)
    return pl.Trainer(
        max_epochs=config.epochs,
        check_val_every_n_epoch=config.evaluate_every,
        devices=devices,
        num_nodes=num_nodes,
        strategy=_strategy(config, devices * num_nodes, uses_all),
        precision=config.precision,
        callbacks=[*callbacks, *bars],
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_grad or None,
        plugins=[AtomicCheckpointIO()],
        logger=_Events(str(folder.root), name="", version=""),
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=bool(bars),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=str(folder.root),
    )


def _title(config: RunConfig) -> str:
    what = config.regularizer if config.regularizer == "none" else f"{config.regularizer} {config.drop_ratio:g}"
    return f"{config.model} on {config.data}, {what}, seed {config.seed}"
