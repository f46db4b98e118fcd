"""How far each joint of a sampled body bends: truncated normal distributions in degrees.

Axes are the body's at rest: x to its left, y to its back, z up. Limits were set by hand until no body looked broken;
noise without limits breaks most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ANGLES", "ROOT", "Angle", "draw_angles"]


@dataclass(frozen=True)
class Angle:
    """A normal distribution cut off at both ends, in degrees."""

    mean: float
    std: float
    low: float
    high: float

    def at(self, share: Tensor) -> Tensor:
        """Return the angle below which a share in (0, 1) of the distribution lies."""
        ends = torch.tensor([self.low, self.high], dtype=share.dtype)
        low, high = torch.special.ndtr((ends - self.mean) / self.std)
        angle: Tensor = self.mean + self.std * torch.special.ndtri(low + (high - low) * share)
        return angle


_SIDED = {
    "upperleg_x": Angle(-18, 28, -85, 18),
    "upperleg_y": Angle(-2, 10, -32, 8),
    "upperleg_z": Angle(0, 8, -20, 20),
    "lowerleg_x": Angle(30, 30, 0, 105),
    "foot_x": Angle(0, 8, -18, 15),
    "clavicle_y": Angle(0, 4, -8, 6),
    "upperarm_x": Angle(-15, 28, -75, 25),
    "upperarm_y": Angle(5, 32, -65, 36),
    "upperarm_twist": Angle(0, 15, -35, 35),
    "lowerarm_bend": Angle(20, 35, -34, 85),
    "wrist_x": Angle(0, 10, -20, 20),
    "wrist_z": Angle(0, 10, -20, 20),
}
# What bends, by a name of ours; those of the limbs once for each side.
ANGLES: dict[str, Angle] = {
    "spine05_x": Angle(4, 8, -8, 20),
    "spine05_y": Angle(0, 4, -8, 8),
    "spine05_z": Angle(0, 5, -10, 10),
    "spine03_x": Angle(4, 8, -8, 20),
    "spine03_y": Angle(0, 4, -8, 8),
    "spine03_z": Angle(0, 6, -12, 12),
    "spine01_x": Angle(2, 6, -8, 15),
    "spine01_y": Angle(0, 4, -8, 8),
    "spine01_z": Angle(0, 6, -12, 12),
    "neck01_x": Angle(3, 8, -12, 18),
    "neck01_y": Angle(0, 6, -12, 12),
    "neck01_z": Angle(0, 12, -25, 25),
    "head_x": Angle(2, 8, -12, 18),
    "head_y": Angle(0, 6, -12, 12),
    "head_z": Angle(0, 12, -25, 25),
    **{f"{name}.{side}": angle for side in "LR" for name, angle in _SIDED.items()},
}
ROOT = {"x": 8.0, "y": 8.0, "z": 60.0}  # the whole body turns by up to this, evenly distributed
_LIVELINESS = (0.35, 1.0)  # factor on all angles of a body: some stand nearly still


def draw_angles(shares: Tensor) -> dict[str, Tensor]:
    """Return the angles (B,) of bodies in degrees, by name, and those of the root as ``root_x``, ``_y``, ``_z``.

    Args:
        shares: (B, 1 + 3 + len(ANGLES)) evenly distributed numbers in (0, 1), all that is random in a pose.
    """
    low, high = _LIVELINESS
    liveliness = low + (high - low) * shares[:, 0]
    angles = {f"root_{axis}": ROOT[axis] * (2 * shares[:, 1 + i] - 1) for i, axis in enumerate("xyz")}
    for column, (name, angle) in enumerate(ANGLES.items(), start=4):
        angles[name] = liveliness * angle.at(shares[:, column])
    for side in "LR":
        _keep_natural(angles, side, 1 - liveliness)
    return angles


def _keep_natural(angles: dict[str, Tensor], side: str, calm: Tensor) -> None:
    """Calm arms hang beside the body; a raised arm takes its shoulder along; a lifted thigh bends its knee."""
    angles[f"upperarm_y.{side}"] = angles[f"upperarm_y.{side}"] + 28 * calm
    angles[f"lowerarm_bend.{side}"] = angles[f"lowerarm_bend.{side}"] - 15 * calm
    raised = (angles[f"upperarm_y.{side}"] - 10).clamp(max=0)
    angles[f"clavicle_y.{side}"] = angles[f"clavicle_y.{side}"] + 0.12 * raised
    thigh = angles[f"upperleg_x.{side}"]
    angles[f"lowerleg_x.{side}"] = torch.maximum(angles[f"lowerleg_x.{side}"], -0.6 * thigh)
