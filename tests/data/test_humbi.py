"""HUMBI's layout, on made data whose bodies and cameras are known; and what is said of broken folders."""

import re
import shutil

import numpy as np
import pytest
from oracles import humbi_layout

from dropkey.data.humbi import HUMBI_JOINTS, humbi
from dropkey.errors import DataError

HIPS = [HUMBI_JOINTS.index("left_hip"), HUMBI_JOINTS.index("right_hip")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return humbi_layout.write(tmp_path_factory.mktemp("humbi"))


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "humbi")


def test_subjects_are_split_and_every_picture_is_there(root):
    source = humbi(root)
    assert len(source.train) == 2 * 2 * 2
    assert len(source.val) == 1 * 2 * 2
    assert source.topology.num_vertices == humbi_layout.NUM_VERTICES
    assert source.topology.faces.shape == (0, 3)


def test_a_body_is_in_the_axes_of_its_camera_around_its_pelvis(root):
    example = humbi(root).train[1]  # subject 1, frame 1, camera 1
    vertices, joints = humbi_layout.body(10)
    rotation, _, _ = humbi_layout.camera(1)
    expected = (vertices - joints[HIPS].mean(0)) @ rotation.T * 1000
    assert np.abs(example.vertices_mm - expected).max() < 0.01
    assert np.abs(example.joints_mm[HIPS].mean(0)).max() < 1e-3


def test_joints_in_the_picture_are_where_the_crop_shows_them(root):
    example = humbi(root).train[0]
    vertices, joints = humbi_layout.body(10)
    seen, seen_joints = humbi_layout.project(vertices, 0), humbi_layout.project(joints, 0)
    side = 1.15 * (seen.max(0) - seen.min(0)).max()
    corner = (seen.max(0) + seen.min(0)) / 2 - side / 2
    assert np.abs(example.joints_2d - (2 * (seen_joints - corner) / side - 1)).max() < 1e-3
    assert np.abs(example.joints_2d).max() < 1
    pixels = np.asarray(example.image).astype(int)
    place = ((seen[0] - corner) / side * example.image.width).astype(int)
    assert pixels[place[1], place[0], 0] > 200, "the first vertex is drawn where it is projected"


def test_joints_are_learned_from_the_surface(root):
    source = humbi(root)
    weights = source.topology.joint_weights
    assert np.allclose(weights.sum(1), 1, atol=1e-4)
    template = source.topology.template_mm
    vertices, joints = humbi_layout.body(10)
    assert np.abs(template - (vertices - joints[HIPS].mean(0)) * 1000).max() < 0.01
    assert np.abs(weights @ template - (joints - joints[HIPS].mean(0)) * 1000).max() < 1


def test_faces_where_they_lie_beside(copy):
    (copy / "subject_1" / "body" / "smpl_mesh.txt").write_text("0 1 2\n1 2 3\n")
    assert humbi(copy).topology.faces.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_a_picture_of_an_unknown_camera_is_left_out(copy):
    image = copy / "subject_1" / "body" / "00000001" / "image" / "image0000000.jpg"
    shutil.copy(image, image.with_name("image0000099.jpg"))
    assert len(humbi(copy).train) == 8


FIRST = "subject_1/body"
FRAME = f"{FIRST}/00000001/reconstruction"
BROKEN = {
    "no vertices": (f"{FRAME}/smpl_vertex.txt", None, "no file .*smpl_vertex.txt"),
    "words for vertices": (f"{FRAME}/smpl_vertex.txt", "a b c\n", "smpl_vertex.txt is not a list of points"),
    "two numbers": (f"{FRAME}/smpl_vertex.txt", "1 2\n", "is not a list of points, 3 numbers a line"),
    "no number": (f"{FRAME}/smpl_vertex.txt", "nan 1 2\n" * 60, "is not a list of points"),
    "empty": (f"{FRAME}/smpl_vertex.txt", "", "is not a list of points"),
    "few vertices": (f"{FIRST}/00000002/reconstruction/smpl_vertex.txt", "1 2 3\n", "1 vertices, and other frames 60"),
    "few keypoints": (f"{FRAME}/keypoints.txt", "1 2 3\n", "has 1 points, not 25"),
    "no cameras": (f"{FIRST}/extrinsic.txt", None, "no file .*extrinsic.txt"),
    "cut cameras": (f"{FIRST}/extrinsic.txt", "a\nb\nc\n0 0\n1 2 3\n", "is not a list of cameras"),
    "no lenses": (f"{FIRST}/intrinsic.txt", "a\nb\nc\n0 0\n1 0 0\n0 1 0\n0 0 1\n", "lacks camera 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_named(copy, case):
    file, text, message = BROKEN[case]
    if text is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        humbi(copy)
    assert "\n" not in str(raised.value)


def test_too_few_subjects_or_pictures(tmp_path):
    humbi_layout.write(tmp_path, subjects=1)
    with pytest.raises(DataError, match="holds 1 subject_N/body folders, and two are needed"):
        humbi(tmp_path)
    humbi_layout.write(tmp_path / "b", subjects=2, frames=1, cameras=1)
    with pytest.raises(DataError, match="1 pictures of training subjects, and 2 are needed"):
        humbi(tmp_path / "b")


def test_a_subject_without_pictures_is_named(copy):
    for frame in ("00000001", "00000002"):
        shutil.rmtree(copy / FIRST / frame / "image")
    with pytest.raises(DataError, match=re.escape(f"{copy / FIRST} has no picture")):
        humbi(copy)


def test_a_body_behind_its_camera_is_named(copy):
    for frame in ("00000001", "00000002"):
        file = copy / FIRST / frame / "reconstruction" / "smpl_vertex.txt"
        np.savetxt(file, np.loadtxt(file) - np.array([0, 0, 9.0]))
    with pytest.raises(DataError, match="behind the camera"):
        humbi(copy).train[0]
