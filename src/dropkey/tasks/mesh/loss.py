"""What METRO minimizes: distances of joints, of vertices at each level, and of joints in the picture."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from dropkey.data.body_batches import BodyBatch
from dropkey.tasks.mesh.alignment import pelvis_centered, pelvis_of
from dropkey.tasks.mesh.body_network import Body, BodyNetwork

__all__ = ["JOINT_LOSSES", "MeshLoss"]


@dataclass(frozen=True)
class MeshLoss:
    """A weighted sum of mean distances, in meters and halves of the picture.

    Args:
        squared: joints, in space and in the picture, by squares instead of absolute differences.
        joints: weight of the joints, direct and those of the surface.
        vertices: weight of the vertices at each level, by absolute differences.
        seen: weight of the joints in the picture.

    Source: METRO's published code: 1000, 100 / 3 and 100, squared.
    """

    squared: bool
    joints: float
    vertices: float
    seen: float

    def __call__(self, network: BodyNetwork, body: Body, truth: BodyBatch, hips: tuple[int, int]) -> Tensor:
        """Return the loss of a batch, a scalar."""
        distance = F.mse_loss if self.squared else F.l1_loss
        target, of_surface = pelvis_centered(truth.joints, hips), network.joints_of(body.vertices)
        joints = distance(pelvis_centered(body.joints, hips), target)
        joints = joints + distance(pelvis_centered(of_surface, hips), target)
        surface = truth.vertices - pelvis_of(truth.joints, hips)
        pairs = zip(body.levels, network.level_indices, strict=True)
        vertices = sum((F.l1_loss(level, surface[:, indices]) for level, indices in pairs), joints.new_zeros(()))
        seen = sum((distance(body.seen(points), truth.joints_2d) for points in (body.joints, of_surface)), joints * 0)
        return self.joints * joints + self.vertices * vertices + self.seen * seen


# By the option --joint-loss. Absolute differences let the small model leave the mean body sooner.
JOINT_LOSSES = {
    "l1": MeshLoss(squared=False, joints=1.0, vertices=1.0, seen=0.1),
    "mse": MeshLoss(squared=True, joints=1000.0, vertices=100 / 3, seen=100.0),
}
