"""What a trained model predicts for the validation bodies, all at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dropkey.data.body_batches import BodyBatch
from dropkey.runs.prepared import Prepared
from dropkey.tasks.mesh.alignment import pelvis_centered, pelvis_of
from dropkey.tasks.mesh.module import Mesh

__all__ = ["PredictedBodies", "mesh_of", "predict"]


@dataclass(frozen=True)
class PredictedBodies:
    """Validation bodies in their order, in millimeters around the pelvis, in the camera's axes.

    Args:
        vertices_mm: predicted (B, V, 3).
        joints_mm: predicted (B, J, 3), those of the surface.
        camera: predicted (B, 3): scale a meter, and shift to the right and down in meters.
        true_vertices_mm: (B, V, 3).
        true_joints_mm: (B, J, 3).
    """

    vertices_mm: Tensor
    joints_mm: Tensor
    camera: Tensor
    true_vertices_mm: Tensor
    true_joints_mm: Tensor

    def errors_mm(self) -> Tensor:
        """Return the mean distance of joints of each body, (B,)."""
        errors: Tensor = (self.joints_mm - self.true_joints_mm).norm(dim=-1).mean(1)
        return errors


def mesh_of(trained: Prepared) -> Mesh:
    """Return the module of a mesh run."""
    assert isinstance(trained.module, Mesh)
    return trained.module


@torch.no_grad()
def predict(trained: Prepared) -> PredictedBodies:
    """Return the bodies that a trained model sees in the validation pictures."""
    module = mesh_of(trained)
    network, hips = module.network.eval(), module.topology.hips
    device = next(network.parameters()).device
    parts = []
    for batch in trained.data.val_dataloader()[0]:
        images, vertices, joints, _ = BodyBatch(*batch)
        body = network(images.to(device))
        surface, of_surface = body.vertices.cpu(), network.joints_of(body.vertices).cpu()
        pelvis, true_pelvis = pelvis_of(of_surface, hips), pelvis_of(joints, hips)
        camera = body.camera.cpu()
        camera = torch.cat([camera[:, :1], camera[:, 1:] + pelvis[:, 0, :2]], 1)  # of a body around its pelvis
        predicted = [1000 * (surface - pelvis), 1000 * pelvis_centered(of_surface, hips), camera]
        parts.append([*predicted, 1000 * (vertices - true_pelvis), 1000 * pelvis_centered(joints, hips)])
    return PredictedBodies(*(torch.cat(column) for column in zip(*parts, strict=True)))
