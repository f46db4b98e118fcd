"""The source ``bodies``: sampled bodies, drawn once and kept in the user's cache folder."""

import contextlib
import functools
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from dropkey.data.bodies.body_model import BodyModel, anny_version
from dropkey.data.bodies.sampled import DrawnBodies, Painter
from dropkey.data.body_source import BodyExample, BodySource, BodyTopology
from dropkey.data.cache import cache_folder
from dropkey.data.joint_weights import fit_joint_weights
from dropkey.errors import DataError

__all__ = ["CHUNK", "bodies", "bodies_folder"]

CHUNK = 500  # bodies in a file of the cache
_LAYOUT = 1  # of the cache; another number for another way to draw
_SEED = 0  # never the seed of a run: all runs are compared on the same bodies


def bodies(train: int = 8000, val: int = 500, size: int = 128, seed: int = _SEED) -> BodySource:
    """Return sampled bodies; those that the cache does not hold yet are drawn now.

    What is drawn depends on ``seed``, the split and the index alone: fewer bodies are the first of more.

    Args:
        train: number of training bodies.
        val: number of validation bodies.
        size: side of the pictures in pixels.
        seed: of all that is sampled.

    Raises:
        DataError: a package is missing, or the cache folder cannot be written.
    """
    cache = _Cache(bodies_folder(), size, seed)
    try:
        cache.fill({"train": train, "val": val})
        template, faces, names = cache.template()
        examples = {name: SampledBodies(cache.read(name, count)) for name, count in (("train", train), ("val", val))}
    except OSError as error:
        where = "set DROPKEY_CACHE_DIR to a folder with 200 MB of room"
        raise DataError(f"cannot keep bodies in {cache.folder} ({error.strerror or error}): {where}") from None
    return BodySource(
        "bodies", examples["train"], examples["val"], _topology(examples["train"], template, faces, names)
    )


def bodies_folder() -> Path:
    """Return where drawn bodies, and what anny builds for them, are kept.

    Raises:
        DataError: a package is missing.
    """
    return cache_folder("bodies") / f"{_LAYOUT}-anny-{anny_version()}"


def _topology(
    train: "SampledBodies", template: NDArray[np.float32], faces: NDArray[np.int64], names: Sequence[str]
) -> BodyTopology:
    some = slice(0, CHUNK)
    return BodyTopology(
        template_mm=template,
        mean_mm=(train.vertices.mean(0) / 10).astype(np.float32),
        faces=faces,
        joint_names=names,
        hips=(names.index("left_hip"), names.index("right_hip")),
        joint_weights=fit_joint_weights(np.float32(0.1) * train.vertices[some], train.joints_mm[some]),
    )


class SampledBodies:
    """Drawn bodies in memory."""

    def __init__(self, chunks: Sequence[DrawnBodies]) -> None:
        self.vertices = np.concatenate([chunk.vertices for chunk in chunks])  # tenths of a millimeter
        self.joints_mm = np.concatenate([chunk.joints_mm for chunk in chunks])
        self.joints_2d = np.concatenate([chunk.joints_2d for chunk in chunks])
        self.files = [chunk.files[start:end] for chunk in chunks for start, end in _ranges(chunk.ends)]

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        return hashlib.blake2b(self.joints_mm.tobytes(), digest_size=16).hexdigest()

    def __getitem__(self, index: int) -> BodyExample:
        image = Image.open(io.BytesIO(self.files[index].tobytes()))
        vertices_mm = self.vertices[index].astype(np.float32) / 10
        return BodyExample(image.convert("RGB"), vertices_mm, self.joints_mm[index], self.joints_2d[index])


class _Cache:
    """Files of 500 bodies each, and of the template; each is written whole or not at all."""

    def __init__(self, folder: Path, size: int, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed

    @functools.cached_property
    def painter(self) -> Painter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Painter(BodyModel(self.folder), self.size, self.seed)

    def fill(self, counts: dict[str, int]) -> None:
        """Draw what is missing."""
        missing = [
            (split, first)
            for split, count in counts.items()
            for first in range(0, count, CHUNK)
            if not _is_whole(self._file(split, first))
        ]
        if not missing:
            return
        console = Console(stderr=True)
        print(f"{len(missing) * CHUNK:,} bodies are drawn, once, into {self.folder}", file=sys.stderr, flush=True)
        with _one_thread():
            painter = self.painter
            for split, first in track(missing, "drawing", console=console, disable=not console.is_terminal):
                if not _is_whole(self._file(split, first)):  # another process may have drawn it by now
                    _write(self._file(split, first), vars(painter.paint(split, first, CHUNK)))

    def read(self, split: str, count: int) -> list[DrawnBodies]:
        """Return the first bodies of a split."""
        chunks = []
        for first in range(0, count, CHUNK):
            with np.load(self._file(split, first)) as arrays:
                chunk = {name: arrays[name] for name in arrays.files}
            some = slice(0, count - first)
            chunks.append(DrawnBodies(**{name: a if name == "files" else a[some] for name, a in chunk.items()}))
        return chunks

    def template(self) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
        """Return the template's vertices in millimeters, the faces, and the names of the joints."""
        file = self.folder / "template.npz"
        if not _is_whole(file):
            model = self.painter.model
            rest = model.template()
            pelvis = rest.joints[:, list(self.painter.hips)].mean(1, keepdim=True)
            template = ((rest.vertices - pelvis)[0] * 1000).numpy()
            _write(file, {"template_mm": template, "faces": model.faces.numpy(), "names": np.array(model.joint_names)})
        with np.load(file) as arrays:
            return arrays["template_mm"], arrays["faces"], arrays["names"].tolist()

    def _file(self, split: str, first: int) -> Path:
        return self.folder / f"{self.size}px-seed{self.seed}" / f"{split}-{first:06d}.npz"


def _is_whole(file: Path) -> bool:
    return file.exists() and zipfile.is_zipfile(file)


def _write(file: Path, arrays: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as part:
            np.savez(part, **arrays)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _ranges(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    return zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads round differently; one thread makes the same bits everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
