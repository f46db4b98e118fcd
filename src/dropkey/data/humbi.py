"""HUMBI's bodies as they are unpacked: ``DIR/subject_N/body/FRAME/{image,reconstruction}/`` beside the cameras.

The license of the data allows no download by a program. All positions are in meters in the stage's axes, y down.

Source: Yu et al., HUMBI: A Large Multiview Dataset of Human Body Expressions, CVPR 2020.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dropkey.data.body_source import BodyExample, BodySource, BodyTopology
from dropkey.data.joint_weights import fit_joint_weights
from dropkey.data.picture import read_image
from dropkey.errors import DataError

__all__ = ["HUMBI_JOINTS", "humbi"]

Doubles = NDArray[np.float64]

# keypoints.txt has OpenPose's 25 points, in this order.
HUMBI_JOINTS = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye"),
    *("left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe"),
    *("right_small_toe", "right_heel"),
)
_HIPS = (HUMBI_JOINTS.index("left_hip"), HUMBI_JOINTS.index("right_hip"))
_VAL_SHARE = 0.1  # of the subjects, the last ones
_FITTED = 200  # frames from which the mean body and the joints of a surface are learned, spread evenly
_ROOM = 1.15  # of the square crop around the body
_FEWEST = 2  # pictures in a split


@dataclass(frozen=True)
class Camera:
    """A camera of the stage: a point p is seen at K R (p - center)."""

    rotation: Doubles
    center: Doubles
    intrinsic: Doubles


@dataclass(frozen=True)
class Shot:
    """One picture of one frame."""

    image: Path
    frame: Path
    camera: Camera


def humbi(data_dir: Path) -> BodySource:
    """Return HUMBI's bodies below ``data_dir``; the last tenth of the subjects is for validation.

    Raises:
        DataError: no subjects, a file that is missing or broken, cameras that no file describes, or too few pictures.
    """
    subjects = sorted(data_dir.glob("subject_*/body"), key=lambda body: _number(body.parent.name))
    if len(subjects) < 2:
        raise DataError(
            f"{data_dir} holds {len(subjects)} subject_N/body folders, and two are needed, one to validate: unpack "
            "HUMBI's body session (humbi-data.net) there"
        )
    first_val = len(subjects) - max(1, round(_VAL_SHARE * len(subjects)))
    train, val = (
        [shot for body in part for shot in _shots(body)] for part in (subjects[:first_val], subjects[first_val:])
    )
    for name, shots in (("training", train), ("validation", val)):
        if len(shots) < _FEWEST:
            raise DataError(
                f"{data_dir} has {len(shots)} pictures of {name} subjects, and {_FEWEST} are needed: unpack more "
                "subjects"
            )
    topology = _topology(train)
    bodies = [HumbiBodies(shots, topology.num_vertices) for shots in (train, val)]
    return BodySource("humbi", bodies[0], bodies[1], topology)


class HumbiBodies:
    """Pictures of frames, cropped to the body, with the surface in the axes of the camera."""

    def __init__(self, shots: Sequence[Shot], num_vertices: int) -> None:
        self.shots, self.num_vertices = shots, num_vertices

    def __len__(self) -> int:
        return len(self.shots)

    def fingerprint(self) -> str:
        places = [(shot.image.parts[-5:], shot.image.stat().st_size) for shot in self.shots]
        return hashlib.blake2b(repr(places).encode(), digest_size=16).hexdigest()

    def __getitem__(self, index: int) -> BodyExample:
        shot = self.shots[index]
        vertices, joints = _reconstruction(shot.frame, self.num_vertices)
        camera = shot.camera
        vertices, joints = ((points - camera.center) @ camera.rotation.T for points in (vertices, joints))
        if vertices[:, 2].min() <= 0:
            raise DataError(f"{shot.frame}: the body is behind the camera of {shot.image.name}: leave that picture out")
        seen, seen_joints = (_project(points, camera) for points in (vertices, joints))
        low, high = seen.min(0), seen.max(0)
        side, corner = _ROOM * (high - low).max(), (low + high) / 2 - _ROOM * (high - low).max() / 2
        box = (*corner, *(corner + side))
        image = read_image(shot.image).transform(
            (round(side), round(side)), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
        )
        pelvis = joints[list(_HIPS)].mean(0)
        vertices_mm, joints_mm = (((points - pelvis) * 1000).astype(np.float32) for points in (vertices, joints))
        return BodyExample(image, vertices_mm, joints_mm, (2 * (seen_joints - corner) / side - 1).astype(np.float32))


def _project(points: Doubles, camera: Camera) -> Doubles:
    pixels = points @ camera.intrinsic.T
    seen: Doubles = pixels[:, :2] / pixels[:, 2:]
    return seen


def _topology(train: Sequence[Shot]) -> BodyTopology:
    """The template is the first body as it stands; the mean is over all cameras and some of the frames."""
    frames = sorted({shot.frame for shot in train})
    count = len(_points(frames[0] / "reconstruction" / "smpl_vertex.txt"))
    some = [_around_pelvis(frame, count) for frame in frames[:: -(-len(frames) // _FITTED)]]
    vertices, joints = (np.stack(part) for part in zip(*some, strict=True))
    turn = np.mean([shot.camera.rotation for shot in train], axis=0)
    return BodyTopology(
        template_mm=vertices[0],
        mean_mm=(vertices.mean(0) @ turn.T).astype(np.float32),
        faces=_faces(train[0].frame.parent),
        joint_names=HUMBI_JOINTS,
        hips=_HIPS,
        joint_weights=fit_joint_weights(vertices, joints),
    )


def _around_pelvis(frame: Path, num_vertices: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vertices, joints = _reconstruction(frame, num_vertices)
    pelvis = joints[list(_HIPS)].mean(0)
    return ((vertices - pelvis) * 1000).astype(np.float32), ((joints - pelvis) * 1000).astype(np.float32)


def _shots(body: Path) -> list[Shot]:
    cameras = _cameras(body)
    shots = []
    for frame in sorted(path for path in body.iterdir() if (path / "reconstruction").is_dir()):
        for image in sorted((frame / "image").glob("image*.*")):
            number = _number(image.stem)
            if number in cameras:  # some cameras were never calibrated; HUMBI lists none of these
                shots.append(Shot(image, frame, cameras[number]))
    if not shots:
        raise DataError(
            f"{body} has no picture FRAME/image/imageNNNNNNN.jpg with a FRAME/reconstruction and a camera in "
            "extrinsic.txt: unpack the body session again"
        )
    return shots


def _number(name: str) -> int:
    digits = re.search(r"\d+$", name)
    return int(digits[0]) if digits else -1


def _cameras(body: Path) -> dict[int, Camera]:
    """Three lines of heading; then a line ``0 CAMERA`` and the numbers of each camera."""
    placed, lenses = _blocks(body / "extrinsic.txt", 4), _blocks(body / "intrinsic.txt", 3)
    missing = sorted(set(placed) - set(lenses))
    if missing:
        raise DataError(f"{body / 'intrinsic.txt'} lacks camera {missing[0]}, which extrinsic.txt has: unpack it again")
    return {number: Camera(block[1:], block[0], lenses[number]) for number, block in placed.items()}


def _blocks(file: Path, rows: int) -> dict[int, Doubles]:
    lines = [line for line in _text(file).splitlines() if line.strip()][3:]
    try:
        blocks = {}
        for start in range(0, len(lines), rows + 1):
            numbers = [[float(word) for word in line.split()] for line in lines[start + 1 : start + rows + 1]]
            block = np.array(numbers)
            if block.shape != (rows, 3):
                raise ValueError
            blocks[int(lines[start].split()[1])] = block
    except (ValueError, IndexError):
        raise DataError(f"{file} is not a list of cameras, {rows} lines of 3 numbers each: unpack it again") from None
    return blocks


def _reconstruction(frame: Path, num_vertices: int) -> tuple[Doubles, Doubles]:
    folder = frame / "reconstruction"
    vertices, joints = _points(folder / "smpl_vertex.txt"), _points(folder / "keypoints.txt")
    if len(joints) != len(HUMBI_JOINTS):
        raise DataError(f"{folder / 'keypoints.txt'} has {len(joints)} points, not 25: leave {frame} out")
    if len(vertices) != num_vertices:
        raise DataError(
            f"{folder / 'smpl_vertex.txt'} has {len(vertices)} vertices, and other frames {num_vertices}: leave "
            f"{frame} out"
        )
    return vertices, joints


def _points(file: Path) -> Doubles:
    """Return the points (N, 3) in a text file, a line each."""
    lines = [line.split() for line in _text(file).splitlines() if line.strip()]
    try:
        points = np.array([[float(word) for word in line] for line in lines])
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise DataError(f"{file} is not a list of points, 3 numbers a line: leave {file.parent.parent} out")
    return points


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        raise DataError(f"no file {file}: unpack HUMBI's body session again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} ({error}): unpack it again") from None


def _faces(body: Path) -> NDArray[np.int64]:
    """Return the triangles in ``body/smpl_mesh.txt``, counted from 0, or none: HUMBI has them in its code alone."""
    file = body / "smpl_mesh.txt"
    return _points(file).astype(np.int64) if file.exists() else np.empty((0, 3), np.int64)
