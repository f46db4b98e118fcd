"""anny's bodies: a surface that is drawn, and a coarser one with the same shape and pose that is the truth.

anny is Apache-2.0 with CC0 data, all in its wheel. Its topologies named after SMPL download files that may not be used
commercially; they are never asked for here.
"""

import contextlib
import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropkey.data.bodies.angles import ANGLES, draw_angles
from dropkey.data.bodies.contact import touches_itself
from dropkey.data.bodies.poses import bone_rotations
from dropkey.errors import DataError

__all__ = ["NUM_SHARES", "SHAPE", "BodyModel", "PosedBodies", "anny_version"]

_DRAWN, _TRUE = "anny", "notoes_collapse10pc"  # 13,718 and 1,229 vertices
_KEPT = "build_compact_model_data_*.safetensors"  # 60 MB; what anny makes on the way to it are 750 MB more
NUM_SHARES = 1 + 3 + len(ANGLES)  # random numbers in a pose
# Shape: evenly distributed between these, in anny's scale from 0 to 1.
SHAPE = {
    "gender": (0.0, 1.0),
    "age": (0.6, 0.95),
    "muscle": (0.3, 0.8),
    "weight": (0.3, 0.8),
    "height": (0.3, 0.75),
    "proportions": (0.3, 0.8),
}


def anny_version() -> str:
    """Return anny's version, or raise a DataError that says how to install what the bodies need."""
    try:
        importlib.metadata.version("warp-lang")
        importlib.metadata.version("roma")
        return importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"--data bodies needs the package {error.name}: pip install 'dropkey[mesh]'") from None


@dataclass(frozen=True)
class PosedBodies:
    """Bodies in meters, in a camera's axes: x right, y down, z away; the origin is the root of the body.

    Args:
        drawn: vertices (B, 13718, 3).
        vertices: (B, 1229, 3).
        joints: (B, J, 3).
    """

    drawn: Tensor
    vertices: Tensor
    joints: Tensor


class BodyModel:
    """Bodies by shape and pose.

    Args:
        folder: where anny keeps what it builds once, and warp its compiled kernels.

    Raises:
        DataError: a package is missing.
    """

    def __init__(self, folder: Path) -> None:
        anny_version()
        with _cached_in(folder) as anny:
            self.drawn, self.true = (anny.Anny(topology=name).to(torch.float32) for name in (_DRAWN, _TRUE))
            regressor = anny.KeypointsRegressor.coco(self.drawn)
        self.joint_names: list[str] = regressor.labels[:17]
        self.joint_weights: Tensor = regressor.regression_weights[:17].float()
        self.bones: list[str] = self.true.bone_labels
        self.rest = self._rest_heads()

    @property
    def faces(self) -> Tensor:
        """Triangles (F, 3) of the true surface."""
        faces: Tensor = self.true.faces
        return faces

    @torch.no_grad()
    def template(self) -> PosedBodies:
        """Return the body of middle shape at rest."""
        return self._skinned(torch.full((1, len(SHAPE)), 0.5), torch.eye(4).repeat(1, len(self.bones), 1, 1))

    @torch.no_grad()
    def contacts(self, shape: Tensor, shares: Tensor) -> Tensor:
        """Return (B,) bool: whether a body would run into itself."""
        heads = self.true(self._pose(shares), shape)["bone_poses"][:, :, :3, 3]
        return touches_itself(heads, self.bones)

    @torch.no_grad()
    def posed(self, shape: Tensor, shares: Tensor) -> PosedBodies:
        """Return bodies.

        Args:
            shape: (B, 6) in the order of ``SHAPE``.
            shares: (B, NUM_SHARES) evenly distributed numbers in (0, 1); see ``draw_angles``.
        """
        return self._skinned(shape, self._pose(shares))

    def _pose(self, shares: Tensor) -> Tensor:
        pose = torch.eye(4).repeat(len(shares), len(self.bones), 1, 1)
        pose[..., :3, :3] = bone_rotations(draw_angles(shares), self.bones, self.rest)
        return pose

    def _skinned(self, shape: Tensor, pose: Tensor) -> PosedBodies:
        drawn, true = (_to_camera(model(pose, shape)["vertices"]) for model in (self.drawn, self.true))
        return PosedBodies(drawn, true, self.joint_weights @ drawn)

    @torch.no_grad()
    def _rest_heads(self) -> dict[str, Tensor]:
        pose = torch.eye(4).repeat(1, len(self.bones), 1, 1)
        heads = self.true(pose, torch.full((1, len(SHAPE)), 0.5))["bone_poses"][0, :, :3, 3]
        return dict(zip(self.bones, heads, strict=True))


def _to_camera(points: Tensor) -> Tensor:
    """From anny's axes (x to the body's left, y to its back, z up) to those of a camera that it looks into."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, -z, y], -1)


@contextlib.contextmanager
def _cached_in(folder: Path) -> Iterator[Any]:
    """Give anny, with its cache and warp's below ``folder``; keep of it what is needed the next time, and no more."""
    import warp

    warp.config.quiet = True
    warp.config.kernel_cache_dir = str(folder / "warp")
    import anny
    import anny.paths

    kept, before = folder / "anny", anny.paths.get_anny_cache_path()
    is_built = len(list(kept.glob(f"*/{_KEPT}"))) >= 2
    if not is_built:
        print("anny builds its bodies, once: about a minute, 2.2 GB of memory", file=sys.stderr, flush=True)
    kept.mkdir(parents=True, exist_ok=True)
    work = kept if is_built else Path(tempfile.mkdtemp(dir=folder, prefix="anny.part-"))
    anny.paths.set_anny_cache_path(work)
    try:
        yield anny
        if not is_built:
            _keep(work, kept)
    finally:
        anny.paths.set_anny_cache_path(before)
        if not is_built:
            shutil.rmtree(work, ignore_errors=True)


def _keep(work: Path, kept: Path) -> None:
    for file in work.glob(f"*/{_KEPT}"):
        place = kept / file.parent.name / file.name
        place.parent.mkdir(exist_ok=True)
        file.replace(place)
