"""What a run has trained, ready to be evaluated."""

import dataclasses

from dropkey.errors import RunError
from dropkey.runs.checkpoints import read_checkpoint
from dropkey.runs.options import refuse_idle
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.registry import task_of

__all__ = ["load_run"]

_PREFIX = "network."  # of the weights in a checkpoint


def load_run(folder: RunFolder, which: str = "last", data_dir: str | None = None) -> Prepared:
    """Load what a run has trained; averaged weights where it kept any.

    Args:
        folder: of the run.
        which: "last", or "best" by the headline measure.
        data_dir: where the data are now, if elsewhere.

    Raises:
        ArgumentError: a ``data_dir`` for data that are in no folder.
        RunError: no run, no checkpoint, or a damaged one.
    """
    saved = folder.read_config()
    task = task_of(saved)
    config = task.read(saved, str(folder.config_file))
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
        refuse_idle(config, ["data_dir"])
    path = {"last": folder.last_checkpoint, "best": folder.best_checkpoint}[which]
    checkpoint = read_checkpoint(path)
    prepared = task.prepare(config, fresh=False)
    prepared.module.check(checkpoint, path)
    weights = checkpoint["state_dict"].items()
    state = {name.removeprefix(_PREFIX): value for name, value in weights if name.startswith(_PREFIX)}
    try:
        prepared.network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"{path} does not fit the model of {folder.config_file}: {reason}") from None
    return prepared
