"""From where a sampled body is seen, and in what light."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["View"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A pinhole camera in front of a body, and a lamp.

    Args:
        distance: of the body's root from the camera in meters.
        focal: in pixels.
        center: (2,) column and row of the picture in which the camera looks straight ahead.
        to_lamp: (3,) unit vector towards the lamp, in the camera's axes (x right, y down, z away).
        ambient: brightness where the lamp does not shine.
        key: brightness that the lamp adds where it shines straight.
    """

    distance: float
    focal: float
    center: Floats
    to_lamp: Floats
    ambient: float
    key: float

    @classmethod
    def drawn(cls, points: Floats, size: int, draw: np.random.Generator) -> Self:
        """Draw a view of a body that shows all of it, in 78 to 95% of the picture.

        Args:
            points: vertices (V, 3) of the body around its root in meters.
            size: side of the picture in pixels.
            draw: draws the view.
        """
        distance = draw.uniform(3, 6)
        x, y, z = np.ascontiguousarray(points.T)  # rows are much faster to search than columns
        seen = np.stack([x, y]) / (z + np.float32(distance))
        low, high = seen.min(1), seen.max(1)
        share = draw.uniform(0.78, 0.95)
        focal = share * size / float((high - low).max())
        room = (size - focal * (high - low)) / 2
        shift = draw.uniform(-0.8, 0.8, 2) * np.minimum(room, 0.1 * size)
        center = (size / 2 + shift - focal * (low + high) / 2).astype(np.float32)
        azimuth, elevation = np.deg2rad([draw.uniform(-75, 75), draw.uniform(10, 65)])
        flat = np.cos(elevation)
        lamp = [np.sin(azimuth) * flat, -np.sin(elevation), -np.cos(azimuth) * flat]
        ambient, key = draw.uniform(0.25, 0.45), draw.uniform(0.5, 0.8)
        return cls(float(distance), float(focal), center, np.array(lamp, np.float32), float(ambient), float(key))

    def project(self, points: Floats) -> Floats:
        """Return where points (..., 3) around the root appear: columns and rows (..., 2) in pixels."""
        pixels: Floats = self.focal * points[..., :2] / (points[..., 2:] + self.distance) + self.center
        return pixels
