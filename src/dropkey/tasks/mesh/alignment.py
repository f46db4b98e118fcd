"""How bodies are laid on each other before they are compared."""

from typing import Any

from torch import Tensor

from dropkey.errors import DropKeyError

__all__ = ["pelvis_centered", "pelvis_of", "similarity_aligned"]


def pelvis_of(joints: Tensor, hips: tuple[int, int]) -> Tensor:
    """Return the pelvis (B, 1, 3) of joints (B, J, 3): the mean of the two hips."""
    left, right = hips
    return ((joints[:, left] + joints[:, right]) / 2).unsqueeze(1)


def pelvis_centered(joints: Tensor, hips: tuple[int, int]) -> Tensor:
    """Return joints (B, J, 3) around their pelvis."""
    return joints - pelvis_of(joints, hips)


def similarity_aligned(points: Tensor, target: Tensor) -> Tensor:
    """Return points after the rotation, scale and shift that bring them closest to the target.

    A reflection is not among them, so a body is never laid on its mirror image. The sum of squared distances is
    minimized, in double precision.

    Args:
        points: (B, N, 3).
        target: (B, N, 3).

    Raises:
        DropKeyError: roma is not installed.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, 1991.
    """
    rotation, shift, scale = _roma().rigid_points_registration(points.double(), target.double(), compute_scaling=True)
    turned = points.double() @ rotation.transpose(-1, -2)
    aligned: Tensor = scale[:, None, None] * turned + shift[:, None]
    return aligned


def _roma() -> Any:
    try:
        import roma
    except ModuleNotFoundError:
        raise DropKeyError("PA-MPJPE needs the package roma: pip install 'dropkey[mesh]'") from None
    return roma
