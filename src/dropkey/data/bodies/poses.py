"""From angles to a rotation of each bone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["bone_rotations"]

_X, _Y, _Z = torch.eye(3).unbind()
_TRUNK = ("spine05", "spine03", "spine01", "neck01", "head")


def bone_rotations(angles: Mapping[str, Tensor], bones: Sequence[str], rest: Mapping[str, Tensor]) -> Tensor:
    """Return the rotations (B, bones, 3, 3) of bodies, in the axes of the body at rest.

    Args:
        angles: see ``draw_angles``.
        bones: names of the bones.
        rest: positions (3,) of bone heads of the body at rest, by name.
    """
    turned = {"root": _turn(_Y, angles["root_y"]) @ _turn(_X, angles["root_x"]) @ _turn(_Z, angles["root_z"])}
    for bone in _TRUNK:
        x, y, z = (angles[f"{bone}_{axis}"] for axis in "xyz")
        turned[bone] = _turn(_Y, y) @ _turn(_X, x) @ _turn(_Z, z)
    for side, sign in (("L", 1.0), ("R", -1.0)):
        turned |= _limbs({name[:-2]: value for name, value in angles.items() if name.endswith(side)}, side, sign, rest)
    result = torch.eye(3).repeat(len(angles["root_x"]), len(bones), 1, 1)
    for name, rotation in turned.items():
        result[:, bones.index(name)] = rotation
    return result


def _limbs(a: Mapping[str, Tensor], side: str, sign: float, rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Angles about y and z, and twists, are those of the left side; on the right they change their sign."""
    shoulder, elbow, hand = (rest[f"{name}.{side}"] for name in ("upperarm01", "lowerarm01", "wrist"))
    arm, forearm = elbow - shoulder, hand - elbow
    hinge = torch.linalg.cross(arm, forearm)
    leg = _turn(_Y, sign * a["upperleg_y"]) @ _turn(_X, a["upperleg_x"]) @ _turn(_Z, sign * a["upperleg_z"])
    swing = _turn(_X, a["upperarm_x"]) @ _turn(_Y, sign * a["upperarm_y"])
    return {
        f"upperleg01.{side}": leg,
        f"lowerleg01.{side}": _turn(_X, a["lowerleg_x"]),
        f"foot.{side}": _turn(_X, a["foot_x"]),
        f"clavicle.{side}": _turn(_Y, sign * a["clavicle_y"]),
        f"upperarm01.{side}": swing @ _turn(arm, sign * a["upperarm_twist"]),
        f"lowerarm01.{side}": _turn(hinge, a["lowerarm_bend"]),
        f"wrist.{side}": _turn(_X, a["wrist_x"]) @ _turn(_Z, sign * a["wrist_z"]),
    }


def _turn(axis: Tensor, degrees: Tensor) -> Tensor:
    """Return the rotations (B, 3, 3) about an axis (3,), by Rodrigues' formula."""
    x, y, z = (axis / axis.norm()).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = torch.deg2rad(degrees).to(torch.float32)[:, None, None]
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
