"""The looks at attention that a training run keeps: a report a file."""

import dataclasses
import io
from pathlib import Path

import torch

from dropkey.diagnostics.pooled_report import pooled
from dropkey.diagnostics.report import Report, SiteReport
from dropkey.errors import RunError

__all__ = ["read_looks", "write_look"]

_PATCHES = 144  # of kept maps: a look at a ViT-S takes 3 MB an image at most


def write_look(folder: Path, epoch: int, report: Report) -> None:
    """Write a report, whole or not at all: its maps pooled, maps and images in half precision."""
    values = dataclasses.asdict(pooled(report, _PATCHES))
    for holder, name in [(values, "images"), (values, "rollout"), *((site, "maps") for site in values["sites"])]:
        holder[name] = None if holder[name] is None else holder[name].half()
    content = io.BytesIO()
    torch.save(values, content)
    path = folder / f"epoch-{epoch:04d}.report"
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.getvalue())
    part.replace(path)


def read_looks(folder: Path) -> dict[str, Report]:
    """Read all looks in a folder, in their order, without running code from files.

    Returns:
        By "epoch 5" for the fifth, as a run counts on the console; nothing if there are none.

    Raises:
        RunError: a damaged file.
    """
    paths = {path.stem.removeprefix("epoch-"): path for path in folder.glob("epoch-*.report")}
    numbers = {int(number): path for number, path in paths.items() if number.isdecimal()}
    return {f"epoch {number + 1}": _read(numbers[number]) for number in sorted(numbers)}


def _read(path: Path) -> Report:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        for holder, name in [(values, "images"), (values, "rollout"), *((site, "maps") for site in values["sites"])]:
            holder[name] = None if holder[name] is None else holder[name].float()
        sites = tuple(SiteReport(**site) for site in values["sites"])
        return Report(**{**values, "sites": sites})
    except Exception as error:  # whatever a damaged file makes the unpickler raise
        raise RunError(f"{path} is not a look at attention that this version of dropkey has kept") from error
