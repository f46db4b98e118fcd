"""The cache of drawn bodies, with a painter that needs neither anny nor warp; and joints learned from surfaces."""

import io
import re
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from dropkey.data import cache
from dropkey.data.bodies import body_model, sampled, source
from dropkey.data.body_batches import BodyAugmentation, BodyData
from dropkey.data.joint_weights import fit_joint_weights
from dropkey.errors import DataError

NAMES = ["left_hip", "right_hip", "nose"]


class FakeModel:
    """Takes the place of anny's bodies."""

    def __init__(self, folder):
        self.joint_names = NAMES
        self.faces = _Tensor(np.array([[0, 1, 2]]))

    def template(self):
        return _Rest()


class _Tensor(np.ndarray):
    def __new__(cls, array):
        return np.asarray(array).view(cls)

    def numpy(self):
        return np.asarray(self)

    def mean(self, axis=None, keepdim=False):
        return _Tensor(np.asarray(self).mean(axis, keepdims=keepdim))


class _Rest:
    vertices = _Tensor(np.random.default_rng(9).normal(size=(1, 30, 3)))
    joints = _Tensor(np.random.default_rng(9).normal(size=(1, 3, 3)))


class FakePainter:
    """Draws gray squares whose gray is the index, and bodies of which the joints are the first vertices."""

    painted: ClassVar[list] = []

    def __init__(self, model, size, seed):
        self.model, self.size, self.seed = model, size, seed
        self.hips = (0, 1)

    def paint(self, split, first, count):
        self.painted.append((split, first))
        files, vertices = [], []
        for index in range(first, first + count):
            file = io.BytesIO()
            Image.new("RGB", (self.size, self.size), (index % 256,) * 3).save(file, "JPEG")
            files.append(file.getvalue())
            vertices.append(np.random.default_rng((self.seed, len(split), index)).normal(0, 3000, (30, 3)))
        vertices = np.array(vertices)
        vertices -= vertices[:, :2].mean(1, keepdims=True)
        joints = (vertices[:, :3] / 10).astype(np.float32)
        ends = np.cumsum([len(file) for file in files])
        files = np.frombuffer(b"".join(files), np.uint8)
        return sampled.DrawnBodies(files, ends, vertices.round().astype(np.int16), joints, joints[..., :2] / 1000)


@pytest.fixture(autouse=True)
def _fake(monkeypatch, tmp_path):
    FakePainter.painted.clear()
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "BodyModel", FakeModel)
    monkeypatch.setattr(source, "Painter", FakePainter)
    monkeypatch.setattr(source, "anny_version", lambda: "0")
    monkeypatch.setattr(source, "CHUNK", 20)


def test_bodies_are_drawn_once_and_more_are_added(capsys):
    first = source.bodies(train=30, val=5, size=32)
    assert FakePainter.painted == [("train", 0), ("train", 20), ("val", 0)]
    assert "60 bodies are drawn, once, into" in capsys.readouterr().err
    again = source.bodies(train=50, val=5, size=32)
    assert FakePainter.painted[3:] == [("train", 40)]
    assert len(first.train) == 30
    assert len(again.train) == 50
    for index in (0, 29):
        assert (first.train[index].vertices_mm == again.train[index].vertices_mm).all()
    assert first.train.fingerprint() != again.train.fingerprint()
    assert first.val.fingerprint() == again.val.fingerprint()


def test_an_example_is_what_was_drawn():
    bodies = source.bodies(train=30, val=5, size=32)
    example = bodies.train[23]
    assert example.image.size == (32, 32)
    assert abs(int(np.asarray(example.image)[5, 5, 0]) - 23) <= 2
    assert example.vertices_mm.dtype == np.float32
    assert np.abs(example.joints_mm - example.vertices_mm[:3]).max() < 0.11
    assert bodies.topology.hips == (0, 1)
    assert bodies.topology.joint_names == NAMES
    mean = np.mean([bodies.train[index].vertices_mm for index in range(30)], axis=0)
    assert np.abs(bodies.topology.mean_mm - mean).max() < 0.01


def test_half_a_file_is_drawn_again(tmp_path):
    source.bodies(train=20, val=5, size=32)
    file = next((tmp_path / "cache").rglob("train-000000.npz"))
    file.write_bytes(file.read_bytes()[:1000])
    FakePainter.painted.clear()
    source.bodies(train=20, val=5, size=32)
    assert FakePainter.painted == [("train", 0)]


def test_what_is_interrupted_leaves_no_file(tmp_path, monkeypatch):
    def paint(self, split, first, count):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakePainter, "paint", paint)
    with pytest.raises(KeyboardInterrupt):
        source.bodies(train=20, val=5, size=32)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep bodies in .*set DROPKEY_CACHE_DIR"):
        source.bodies(train=20, val=5, size=32)


@pytest.mark.parametrize("package", ["anny", "warp-lang", "roma"])
def test_a_missing_package_is_named(package, monkeypatch):
    def version(name):
        if name == package:
            raise body_model.importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(body_model.importlib.metadata, "version", version)
    with pytest.raises(DataError, match=re.escape(f"{package}: pip install 'dropkey[mesh]'")):
        body_model.anny_version()


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache.cache_folder("x") == tmp_path / "cache" / "x"
    monkeypatch.delenv("DROPKEY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder("x") == tmp_path / "xdg" / "dropkey" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder("x") == tmp_path / ".cache" / "dropkey" / "x"


def test_joint_weights_find_the_sum_of_vertices():
    draw = np.random.default_rng(0)
    base = draw.normal(0, 300, (1, 50, 3))
    vertices = (base + 40 * draw.normal(size=(80, 50, 3))).astype(np.float32)
    near = np.argsort(np.linalg.norm(base[0] - base[0, 7], axis=1))[:3]
    joints = vertices[:, near].mean(1, keepdims=True)
    weights = fit_joint_weights(vertices, joints)
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert np.abs(weights @ vertices - joints).max() < 0.1
    assert (fit_joint_weights(vertices + 500, joints + 500) @ vertices - joints < 0.2).all()


def test_augmentation_turns_the_body_with_the_picture():
    """A pixel of its own color at a joint stays at that joint."""
    bodies = source.bodies(train=20, val=5, size=64)
    example = bodies.train[0]
    pixels = np.zeros((64, 64, 3), np.uint8)
    joint = np.array([0.5, -0.25], np.float32)
    col, row = ((joint + 1) * 32).astype(int)
    pixels[row - 2 : row + 2, col - 2 : col + 2] = 255
    joints_2d = np.tile(joint, (3, 1))
    example = type(example)(Image.fromarray(pixels), example.vertices_mm, example.joints_mm, joints_2d)
    for seed in range(5):
        changed = BodyAugmentation(rotation=60, scale=0.2).change(example, np.random.default_rng(seed))
        rows, cols = np.nonzero(np.asarray(changed.image)[..., 0] > 100)
        middle = np.array([cols.mean() + 0.5, rows.mean() + 0.5]) / 32 - 1
        assert np.abs(middle - changed.joints_2d[0]).max() < 0.05
        assert np.linalg.norm(changed.vertices_mm, axis=1) == pytest.approx(
            np.linalg.norm(example.vertices_mm, axis=1), rel=1e-4
        )
    # The turn of the picture and of the body is the same one.
    flat = type(example)(example.image, example.vertices_mm, np.pad(joints_2d, ((0, 0), (0, 1))), joints_2d)
    turned = BodyAugmentation(rotation=60).change(flat, np.random.default_rng(1))
    assert np.allclose(turned.joints_mm[:, :2], turned.joints_2d, atol=1e-5)


def test_batches_repeat_and_augmentation_depends_on_the_epoch():
    bodies = source.bodies(train=20, val=5, size=32)
    data = BodyData(bodies, 32, BodyAugmentation(color_noise=0.4), batch_size=4, seed=1)
    dataset = data.train_dataset()
    same, again, other = dataset[0, 3], dataset[0, 3], dataset[1, 3]
    assert (same.images == again.images).all()
    assert (same.images != other.images).any()
    clean = data.clean_dataset("val", [2])[0]
    assert clean.images.shape == (3, 32, 32)
    assert np.abs(clean.vertices.numpy() * 1000 - bodies.val[2].vertices_mm).max() < 1e-3
