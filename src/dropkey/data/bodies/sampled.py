"""A run of sampled bodies as pictures: drawn from (seed, split, index) alone."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dropkey.data.bodies.backgrounds import background
from dropkey.data.bodies.body_model import NUM_SHARES, SHAPE, BodyModel, PosedBodies
from dropkey.data.bodies.clothes import Wardrobe
from dropkey.data.bodies.view import View
from dropkey.data.seeds import seed_of

__all__ = ["DrawnBodies", "Painter"]

_TOGETHER = 50  # bodies that are posed at a time; another number might round differently
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class DrawnBodies:
    """Pictures of some bodies, and the bodies.

    Args:
        files: one JPEG file after another, uint8.
        ends: (B,) where each file ends.
        vertices: int16 (B, V, 3), tenths of a millimeter around the pelvis, in the camera's axes.
        joints_mm: (B, J, 3) around the pelvis.
        joints_2d: (B, J, 2) column and row in the picture, from -1 to 1.
    """

    files: NDArray[np.uint8]
    ends: NDArray[np.int64]
    vertices: NDArray[np.int16]
    joints_mm: NDArray[np.float32]
    joints_2d: NDArray[np.float32]


class Painter:
    """Draws bodies.

    Args:
        model: the bodies.
        size: side of the pictures in pixels.
        seed: of all that is drawn.
    """

    def __init__(self, model: BodyModel, size: int, seed: int) -> None:
        from dropkey.data.bodies.raycast import Surface

        self.model, self.size, self.seed = model, size, seed
        drawn, template = model.drawn, model.template().drawn[0].numpy()
        self.surface = Surface(template, drawn.faces.int().numpy())
        strongest = drawn.vertex_bone_weights.argmax(1, keepdim=True)
        dominant = drawn.vertex_bone_indices.gather(1, strongest)[:, 0].numpy()
        self.wardrobe = Wardrobe(drawn.bone_labels, dominant, template)
        names = model.joint_names
        self.hips = (names.index("left_hip"), names.index("right_hip"))

    def paint(self, split: str, first: int, count: int) -> DrawnBodies:
        """Return the bodies ``first`` to ``first + count`` of a split; ``first`` is a multiple of 50."""
        starts = range(first, first + count, _TOGETHER)
        parts = [self._together(split, range(start, start + _TOGETHER)) for start in starts]
        files, *truth = zip(*parts, strict=True)
        pictures = [file for part in files for file in part][:count]
        ends = np.cumsum([len(file) for file in pictures])
        vertices, joints, joints_2d = (np.concatenate(part)[:count] for part in truth)
        return DrawnBodies(np.frombuffer(b"".join(pictures), np.uint8), ends, vertices, joints, joints_2d)

    def _together(self, split: str, indices: range) -> tuple[list[bytes], Any, Any, Any]:
        bodies = self.posed(split, indices)
        pelvis = bodies.joints[:, list(self.hips)].mean(1, keepdim=True)
        drawn, joints = bodies.drawn.numpy(), bodies.joints.numpy()
        files, joints_2d = [], []
        for place, index in enumerate(indices):
            image, view = self._picture(drawn[place], np.random.default_rng(seed_of(self.seed, split, index, "scene")))
            joints_2d.append(2 * view.project(joints[place]) / self.size - 1)
            files.append(_jpeg(image))
        vertices = ((bodies.vertices - pelvis) * 10_000).round().to(torch.int16).numpy()
        return files, vertices, ((bodies.joints - pelvis) * 1000).numpy(), np.stack(joints_2d)

    def posed(self, split: str, indices: range) -> PosedBodies:
        """Return bodies; where a pose runs into itself, the body takes the next one."""
        draws = [np.random.default_rng(seed_of(self.seed, split, index, "body")) for index in indices]
        shares = torch.from_numpy(np.stack([draw.random(len(SHAPE)) for draw in draws])).float()
        low, high = torch.tensor(list(SHAPE.values())).unbind(1)
        shape, poses = low + (high - low) * shares, torch.empty(len(indices), NUM_SHARES)
        open_ = torch.ones(len(indices), dtype=torch.bool)
        while open_.any():
            for place in open_.nonzero()[:, 0].tolist():
                poses[place] = torch.from_numpy(draws[place].uniform(1e-3, 1 - 1e-3, NUM_SHARES))
            open_ = open_ & self.model.contacts(shape, poses)
        return self.model.posed(shape, poses)

    def _picture(self, points: NDArray[np.float32], draw: np.random.Generator) -> tuple[NDArray[np.uint8], View]:
        view = View.drawn(points, self.size, draw)
        colors = self.wardrobe.dressed(draw)
        return self.surface.picture(points, colors, view, background(self.size, draw)), view


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
