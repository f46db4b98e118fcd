"""What a source of bodies gives: pictures with the surface of the body in them, and what all its bodies share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["BodyExample", "BodyImages", "BodySource", "BodyTopology"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BodyExample:
    """A picture and the body in it.

    Args:
        image: RGB, a square crop around the body.
        vertices_mm: (V, 3) in the camera's axes (x right, y down, z away), around the pelvis.
        joints_mm: (J, 3) likewise.
        joints_2d: (J, 2) column and row in the picture, from -1 to 1.
    """

    image: Image.Image
    vertices_mm: Floats
    joints_mm: Floats
    joints_2d: Floats


class BodyImages(Protocol):
    """Examples in a fixed order, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> BodyExample:
        """Return the example at ``index``."""

    def fingerprint(self) -> str:
        """Return what tells these examples from others, wherever they lie."""


@dataclass(frozen=True)
class BodyTopology:
    """What the bodies of a source have in common.

    Args:
        template_mm: (V, 3) an upright body around its pelvis; says which vertex is where on a body.
        mean_mm: (V, 3) mean of the training bodies around their pelvis.
        faces: int64 (F, 3) triangles of the surface, or (0, 3) where the source does not tell them.
        joint_names: names of the J joints.
        hips: indices of the left and the right hip; the pelvis is the middle between them.
        joint_weights: (J, V), joints as sums of vertices.
    """

    template_mm: Floats
    mean_mm: Floats
    faces: NDArray[np.int64]
    joint_names: Sequence[str]
    hips: tuple[int, int]
    joint_weights: Floats

    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return len(self.template_mm)

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.joint_names)


@dataclass(frozen=True)
class BodySource:
    """Training and validation examples of bodies.

    Args:
        name: what ``--data`` calls it.
        train: training examples.
        val: validation examples, of other bodies.
        topology: what they have in common.
    """

    name: str
    train: BodyImages
    val: BodyImages
    topology: BodyTopology
