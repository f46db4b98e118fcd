"""Bodies of a few points as a source, without anny, warp or files."""

import numpy as np
from PIL import Image

from dropkey.data.body_source import BodyExample, BodySource, BodyTopology

JOINTS = 5
HIPS = (0, 1)


class ToyBodies:
    """Bodies that turn about the upright axis; their pictures show by how much."""

    def __init__(self, first, count, size=32, vertices=40):
        self.first, self.count, self.size, self.num_vertices = first, count, size, vertices

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"toy-{self.first}-{self.count}"

    def __getitem__(self, index):
        angle = 0.3 * (self.first + index)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        vertices = (template(self.num_vertices) @ turn.T).astype(np.float32)
        joints = weights(self.num_vertices) @ vertices
        shade = int(127 + 120 * np.sin(angle))
        pixels = np.full((self.size, self.size, 3), (shade, 60, 255 - shade), np.uint8)
        return BodyExample(Image.fromarray(pixels), vertices, joints, joints[:, :2] / 1000)


def template(vertices=40):
    points = np.random.default_rng(0).normal(0, 300, (vertices, 3))
    return (points - points[[0, 1]].mean(0)).astype(np.float32)


def weights(vertices=40):
    return np.eye(JOINTS, vertices, dtype=np.float32)


def topology(vertices=40):
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    names = [f"joint{index}" for index in range(JOINTS)]
    mean = np.mean([ToyBodies(0, 24, vertices=vertices)[i].vertices_mm for i in range(24)], axis=0)
    return BodyTopology(template(vertices), mean.astype(np.float32), faces, names, HIPS, weights(vertices))


def source(train=24, val=6, size=32):
    return BodySource("toy", ToyBodies(0, train, size), ToyBodies(train, val, size), topology())


__all__ = ["HIPS", "JOINTS", "ToyBodies", "source", "topology"]
