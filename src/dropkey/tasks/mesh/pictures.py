"""Pictures of predicted bodies: over the image, from the side, and with the error as color; one column an arm."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dropkey.data.body_batches import BodyData
from dropkey.runs.prepared import Prepared
from dropkey.tasks.mesh.predicting import PredictedBodies, mesh_of

__all__ = ["render", "sheet"]

Floats = NDArray[np.float32]

_SIDE = 240  # pixels of a panel
_BIG = 2  # drawn larger, then made smaller: smooth edges
_GRAY = np.array([0.62, 0.70, 0.80])
_TO_LAMP = np.array([0.3, -0.5, -0.81])
_WORST_MM = 200.0  # error of the last color
_MARGIN = 26


def sheet(trained: Prepared, arms: Mapping[str, PredictedBodies], count: int) -> bytes:
    """Return a PNG: the best and the worst bodies of the first arm, one a row.

    A row shows the image, the true body from the side, and for each arm the body over the image, from the side, and
    with its errors as colors.

    Args:
        trained: knows the images and the faces.
        arms: bodies by name, all of the same validation data.
        count: number of the best, and of the worst.
    """
    assert isinstance(trained.data, BodyData)
    faces = mesh_of(trained).topology.faces
    errors = next(iter(arms.values())).errors_mm()
    order = errors.argsort().tolist()
    chosen = [*order[:count], *order[-count:]] if len(order) > 2 * count else order
    columns = 2 + 3 * len(arms)
    page = Image.new("RGB", (columns * _SIDE, _MARGIN + len(chosen) * (_SIDE + _MARGIN)), "white")
    pen = ImageDraw.Draw(page)
    for place, title in enumerate(["image", "true, from the left", *_titles(arms)]):
        pen.text((place * _SIDE + 6, 6), title, fill="black")
    for row, index in enumerate(chosen):
        top = _MARGIN + row * (_SIDE + _MARGIN)
        image = trained.data.source.val[index].image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        for place, panel in enumerate(_row(image, index, arms, faces)):
            page.paste(panel, (place * _SIDE, top))
        said = "   ".join(f"{name}: MPJPE {float(arm.errors_mm()[index]):.0f} mm" for name, arm in arms.items())
        pen.text((6, top + _SIDE + 6), f"body {index}   {said}", fill="black")
    content = io.BytesIO()
    page.save(content, "PNG")
    return content.getvalue()


def _titles(arms: Mapping[str, PredictedBodies]) -> list[str]:
    return [
        title for name in arms for title in (name[-34:], "from the left", f"error, 0 to {_WORST_MM:.0f} mm or more")
    ]


def _row(image: Image.Image, index: int, arms: Mapping[str, PredictedBodies], faces: NDArray[Any]) -> list[Image.Image]:
    first = next(iter(arms.values()))
    true = first.true_vertices_mm[index].numpy()
    reach = 1.1 * float(np.abs(true).max())
    blank = Image.new("RGB", image.size, (244, 244, 244))
    panels = [image, render(_from_left(true) / reach, faces, _plain(true), blank)]
    for arm in arms.values():
        vertices, (scale, right, down) = arm.vertices_mm[index].numpy(), arm.camera[index].tolist()
        seen = scale * (vertices / 1000 + np.array([right, down, 0]))
        wrong = np.linalg.norm(vertices - true, axis=1) / _WORST_MM
        colors = colormaps["inferno"](wrong.clip(0, 1))[:, :3]
        panels += [
            render(seen, faces, _plain(vertices), image),
            render(_from_left(vertices) / reach, faces, _plain(vertices), blank),
            render(vertices / reach, faces, colors, blank),
        ]
    return panels


def _plain(vertices: Floats) -> NDArray[Any]:
    return np.tile(_GRAY, (len(vertices), 1))


def _from_left(vertices: Floats) -> Floats:
    """Return a body as seen from the left of the picture: what was near is on the right."""
    x, y, z = vertices.T
    return np.stack([-z, y, x], 1)


def render(points: NDArray[Any], faces: NDArray[Any], colors: NDArray[Any], behind: Image.Image) -> Image.Image:
    """Draw a surface over a picture, the farthest triangle first; points alone where there are no faces.

    Args:
        points: (V, 3), x right and y down from -1 to 1 over the picture, z away.
        faces: (F, 3).
        colors: (V, 3) in [0, 1].
        behind: square.
    """
    size = behind.width * _BIG
    canvas = behind.resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    places = (points[:, :2] + 1) * size / 2
    if not len(faces):
        for (x, y), color in zip(places, colors, strict=True):
            pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=_bytes(color))
        return canvas.resize(behind.size, Image.Resampling.LANCZOS)
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    normals *= -np.sign(normals[:, 2:] + 1e-12)  # towards the viewer, whichever way round the corners go
    light = 0.45 + 0.6 * (normals @ _TO_LAMP).clip(0)
    shades = colors[faces].mean(1) * light[:, None]
    for face in np.argsort(-corners[:, :, 2].mean(1), kind="stable"):
        pen.polygon([tuple(place) for place in places[faces[face]]], fill=_bytes(shades[face]))
    return canvas.resize(behind.size, Image.Resampling.LANCZOS)


def _bytes(color: NDArray[Any]) -> tuple[int, int, int]:
    red, green, blue = (color.clip(0, 1) * 255).astype(int).tolist()
    return red, green, blue
