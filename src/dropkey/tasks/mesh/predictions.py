"""Predictions for the validation bodies: one npz file, or an OBJ file for each body."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropkey.errors import ArgumentError
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import write_atomically
from dropkey.tasks.mesh.predicting import mesh_of, predict

__all__ = ["check_file", "obj_text", "write_predictions"]


def check_file(name: str) -> str:
    """Return a file's name, or raise an ArgumentError if its ending says no format."""
    if Path(name).suffix not in (".npz", ".obj"):
        raise ArgumentError(f"--save-predictions takes FILE.npz for arrays or FILE.obj for surfaces, got {name!r}")
    return name


def write_predictions(trained: Prepared, path: Path) -> None:
    """Write the bodies in the order of the validation data.

    ``bodies.npz`` holds ``vertices_mm``, ``joints_mm``, ``camera``, ``true_vertices_mm``, ``true_joints_mm``, ``faces``
    and ``joint_names``. ``bodies.obj`` becomes ``bodies-00000.obj`` and so on, a body each, y up, in meters.
    """
    check_file(path.name)
    topology, bodies = mesh_of(trained).topology, predict(trained)
    if path.suffix == ".obj":
        for index, vertices in enumerate(bodies.vertices_mm.numpy()):
            text = obj_text(vertices, topology.faces)
            write_atomically(path.with_name(f"{path.stem}-{index:05d}.obj"), text.encode())
        return
    arrays = {name: value.numpy() for name, value in vars(bodies).items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays, faces=topology.faces, joint_names=np.array(topology.joint_names))
    write_atomically(path, content.getvalue())


def obj_text(vertices_mm: NDArray[Any], faces: NDArray[np.int64]) -> str:
    """Return a surface as Wavefront OBJ: meters, x right, y up, z towards the viewer; triangles where they are known.

    Example:
        >>> print(obj_text(np.array([[0, 0, 0], [1000, 0, 0], [0, -500, 0]]), np.array([[0, 1, 2]])))
        v 0.00000 0.00000 0.00000
        v 1.00000 0.00000 0.00000
        v 0.00000 0.50000 0.00000
        f 1 2 3
    """
    points = vertices_mm * np.array([1, -1, -1]) / 1000 + 0.0
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in points]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    return "\n".join(lines)
