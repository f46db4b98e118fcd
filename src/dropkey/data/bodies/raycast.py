"""Pictures of a triangle mesh by warp's ray casting, one ray a pixel, on the CPU: the same bits every time."""

from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from dropkey.data.bodies.view import View

__all__ = ["Surface"]

Floats = NDArray[np.float32]

wp.config.quiet = True


@wp.kernel
def _cast(
    mesh: wp.uint64,
    colors: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    focal: float,
    center: wp.vec2,
    to_lamp: wp.vec3,
    ambient: float,
    key: float,
    image: wp.array(dtype=wp.vec3, ndim=2),
):
    row, col = wp.tid()
    x = (float(col) + 0.5 - center[0]) / focal
    y = (float(row) + 0.5 - center[1]) / focal
    ray = wp.normalize(wp.vec3(x, y, 1.0))
    hit = wp.mesh_query_ray(mesh, wp.vec3(0.0, 0.0, 0.0), ray, 100.0)
    if hit.result:
        first = 3 * hit.face
        color = colors[faces[first]] * hit.u + colors[faces[first + 1]] * hit.v
        color = color + colors[faces[first + 2]] * (1.0 - hit.u - hit.v)
        normal = hit.normal
        if wp.dot(normal, ray) > 0.0:
            normal = -normal
        image[row, col] = color * (ambient + key * wp.max(wp.dot(normal, to_lamp), 0.0))


class Surface:
    """A surface that is drawn in many poses: the search tree is built once, and only its boxes follow the pose.

    Args:
        points: vertices (V, 3) of one pose.
        faces: triangles (F, 3), int32.
    """

    def __init__(self, points: Floats, faces: NDArray[np.int32]) -> None:
        self.faces: Any = wp.array(faces.reshape(-1), dtype=int, device="cpu")
        placed = wp.array(points, dtype=wp.vec3, device="cpu")
        self.mesh: Any = wp.Mesh(points=placed, indices=self.faces, bvh_constructor="sah")

    def picture(self, points: Floats, colors: Floats, view: View, behind: Floats) -> NDArray[np.uint8]:
        """Return a picture (size, size, 3).

        Args:
            points: vertices (V, 3) around the root of the body, in meters and the camera's axes.
            colors: (V, 3) in [0, 1].
            view: camera and light.
            behind: (size, size, 3), what is seen past the body.
        """
        placed = points + np.array([0, 0, view.distance], np.float32)
        self.mesh.points = wp.array(placed, dtype=wp.vec3, device="cpu")
        image = wp.array(behind, dtype=wp.vec3, device="cpu")
        paint = wp.array(colors, dtype=wp.vec3, device="cpu")
        camera = [view.focal, wp.vec2(*view.center.tolist())]
        light = [wp.vec3(*view.to_lamp.tolist()), view.ambient, view.key]
        inputs = [self.mesh.id, paint, self.faces, *camera, *light, image]
        wp.launch(_cast, dim=behind.shape[:2], inputs=inputs, device="cpu")
        return (image.numpy().clip(0, 1) * 255 + 0.5).astype(np.uint8)
