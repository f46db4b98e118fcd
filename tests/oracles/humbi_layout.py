"""Made data in the layout of HUMBI's body session: points on stick figures before cameras, and pictures of them."""

import numpy as np
from PIL import Image, ImageDraw

NUM_VERTICES, NUM_JOINTS = 60, 25
SIZE = (192, 108)


def joint_rows():
    """Which three vertices the middle of which is a joint; the hips are joints 12 and 9."""
    return np.random.default_rng(5).permuted(np.tile(np.arange(NUM_VERTICES), (NUM_JOINTS, 1)), axis=1)[:, :3]


def body(seed):
    """Vertices (60, 3) and joints (25, 3) in meters, y down, about 1.6 m tall around (0, 0, 0)."""
    draw = np.random.default_rng(seed)
    base = np.random.default_rng(0).uniform([-0.25, -0.8, -0.15], [0.25, 0.8, 0.15], (NUM_VERTICES, 3))
    vertices = base * draw.uniform(0.9, 1.1, 3) + 0.03 * draw.normal(size=base.shape)
    return vertices, vertices[joint_rows()].mean(1)


def camera(number):
    """Rotation, center and intrinsic matrix of a camera 3 m away, looking at the middle of the stage."""
    angle = 0.7 * number
    backward = np.array([np.sin(angle), 0, -np.cos(angle)])
    right = np.array([np.cos(angle), 0, np.sin(angle)])
    rotation = np.stack([right, [0, 1, 0], -backward])
    intrinsic = np.array([[150.0, 0, SIZE[0] / 2], [0, 150.0, SIZE[1] / 2], [0, 0, 1]])
    return rotation, 3 * backward, intrinsic


def project(points, number):
    rotation, center, intrinsic = camera(number)
    pixels = (points - center) @ rotation.T @ intrinsic.T
    return pixels[:, :2] / pixels[:, 2:]


def write(root, subjects=3, frames=2, cameras=2):
    """Write ``subject_1`` and so on below ``root``."""
    for subject in range(1, subjects + 1):
        folder = root / f"subject_{subject}" / "body"
        for frame in range(frames):
            _write_frame(folder / f"{frame + 1:08d}", 10 * subject + frame, cameras)
        _write_cameras(folder, cameras)
    return root


def _write_frame(folder, seed, cameras):
    vertices, joints = body(seed)
    (folder / "reconstruction").mkdir(parents=True)
    np.savetxt(folder / "reconstruction" / "smpl_vertex.txt", vertices, fmt="%.6f")
    np.savetxt(folder / "reconstruction" / "keypoints.txt", joints, fmt="%.6f")
    np.savetxt(folder / "reconstruction" / "smpl_parameter.txt", np.zeros(86), fmt="%.6f")
    (folder / "image").mkdir()
    for number in range(cameras):
        picture = Image.new("RGB", SIZE, (90, 90, 90))
        for x, y in project(vertices, number):
            ImageDraw.Draw(picture).ellipse((x - 1, y - 1, x + 1, y + 1), fill=(255, 220, 60))
        picture.save(folder / "image" / f"image{number:07d}.jpg", quality=95)


def _write_cameras(folder, cameras):
    heading = ["NumCameras: 107", "NumFrames: 1", "NumPoints: 0"]
    blocks = {"extrinsic": [], "intrinsic": [], "project": []}
    for number in range(cameras):
        rotation, center, intrinsic = camera(number)
        matrix = intrinsic @ np.c_[rotation, -rotation @ center]
        for name, rows in (("extrinsic", [center, *rotation]), ("intrinsic", intrinsic), ("project", matrix)):
            blocks[name] += [f"0 {number}", *(" ".join(f"{value:.8f}" for value in row) for row in rows)]
    for name, lines in blocks.items():
        (folder / f"{name}.txt").write_text("\n".join([*heading, *lines]) + "\n")
