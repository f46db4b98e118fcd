"""Folders of images: everything that is left out is counted and named, and changed data has another fingerprint."""

import contextlib
import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from dropkey.data import image_tree
from dropkey.data.folder import folder
from dropkey.data.image_tree import ImageTree
from dropkey.data.sources import load_source
from dropkey.errors import DataError


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            for count in range(3):
                image(tmp_path / "images" / split / name / f"{count}.png", 40 * label + count)
    return tmp_path / "images"


def names(tree):
    return [path.relative_to(tree.root).as_posix() for path, _ in tree.files]


BEFORE = [f"{name}/{count}.png" for name in ("cat", "dog") for count in range(3)]


def hidden(train):
    image(train / ".ipynb_checkpoints" / "a.png")
    image(train / "cat" / ".ipynb_checkpoints" / "a.png")
    image(train / "@eaDir" / "a.png")
    image(train / "cat" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    image(train / "__MACOSX" / "cat" / "0.png")
    image(train / "cat" / "._0.png")
    image(train / "#recycle" / "a.png")
    (train / ".DS_Store").write_bytes(b"")
    (train / "cat" / "Thumbs.db").write_bytes(b"")
    (train / "dog" / "desktop.ini").write_text("")
    return {"hidden or system folders": 6, "hidden or system files": 4}


def other_kinds(train):
    for name in ("a.heic", "b.HEIC", "c.svg", "d.txt", "e.xyz", "noend"):
        (train / "cat" / name).write_bytes(b"something")
    return {".heic files": 2, ".svg files": 1, ".txt files": 1, ".xyz files": 1, "other files": 1}


def beside_the_classes(train):
    image(train / "loose.png")
    (train / "labels.csv").write_text("")
    return {"files outside of class folders": 2}


def broken_links(train):
    (train / "cat" / "gone.png").symlink_to("nowhere.png")
    (train / "cat" / "itself.png").symlink_to("itself.png")
    (train / "emu").symlink_to(train / "nowhere")
    return {"links that lead nowhere": 2, "links that cannot be followed, Too many levels of symbolic links": 1}


def circles(train):
    (train / "all").symlink_to(train)
    (train / "above").symlink_to(train.parent)
    (train / "cat" / "self").symlink_to(train / "cat")
    (train / "dog" / "up").symlink_to("..")
    return {"links to a folder that they lie in": 4}


def no_files(train):
    os.mkfifo(train / "cat" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(train / "cat"):  # names of sockets are short
        listener.bind("socket.png")
    return {"devices and sockets": 2}


CASES = [hidden, other_kinds, beside_the_classes, broken_links, circles, no_files]


@pytest.mark.parametrize("spoil", CASES)
def test_what_is_no_image_is_left_out_and_counted(spoil, root):
    counts = spoil(root / "train")
    tree = ImageTree(root / "train")
    assert tree.classes == ["cat", "dog"]
    assert names(tree) == BEFORE
    assert dict(tree.left_out._counts) == counts
    said = str(folder(root).left_out)
    assert all(f"{reason}: {count} ({root}/train/" in said for reason, count in counts.items())


def test_all_of_it_at_once(root):
    total = sum(sum(spoil(root / "train").values()) for spoil in CASES)
    tree = ImageTree(root / "train")
    assert names(tree) == BEFORE
    assert len(tree.left_out) == total
    assert len(str(tree.left_out).split("; ")) == 6  # five reasons, and the others
    assert "; others: " in str(tree.left_out)


def test_nothing_was_left_out(root):
    assert not folder(root).left_out
    assert str(folder(root).left_out) == "nothing"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_folders_that_cannot_be_read(root, monkeypatch):
    image(root / "train" / "cat" / "private" / "a.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith(("private", "dog")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(image_tree.os, "scandir", lambda path: real(path) if "dog" in str(path) else scandir(path))
        tree = ImageTree(root / "train")
    assert names(tree) == BEFORE
    assert f"folders that cannot be read, Permission denied: 1 ({root}/train/cat/private)" in str(tree.left_out)
    monkeypatch.setattr(image_tree.os, "scandir", scandir)
    with pytest.raises(DataError, match=r"cannot read the folder .*dog: Permission denied"):
        ImageTree(root / "train")


def test_links_are_followed(root, tmp_path):
    image(tmp_path / "elsewhere" / "deep" / "9.png")
    image(tmp_path / "one.png")
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "dog" / "9.png").symlink_to(tmp_path / "one.png")
    (root / "train" / "emu").symlink_to(tmp_path / "elsewhere")
    tree = ImageTree(root / "train")
    assert names(tree) == sorted([*BEFORE, "cat/more/deep/9.png", "dog/9.png", "emu/deep/9.png"])
    assert tree.classes == ["cat", "dog", "emu"]
    assert not tree.left_out


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".jpe", ".TIF", ".avif"])
def test_other_suffixes_of_pictures(suffix, root):
    if suffix not in image_tree.SUFFIXES and suffix.lower() not in image_tree.SUFFIXES:
        pytest.skip("not of this Pillow")
    path = root / "train" / "cat" / f"a{suffix}"
    image(path)
    tree = ImageTree(root / "train")
    assert names(tree)[3] == f"cat/a{suffix}"
    assert tree[3][0].size == (6, 5)


def test_a_class_whose_images_are_all_of_another_kind(root):
    for file in (root / "train" / "dog").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"dog holds no images .*left out: \.heic files: 3 "):
        folder(root)


def test_class_names_in_two_forms_are_one_class(root):
    image(root / "train" / "cafe\u0301" / "a.png")  # accent and letter apart, as on a Mac
    image(root / "val" / "café" / "a.png")
    assert list(folder(root).classes) == ["café", "cat", "dog"]
    image(root / "train" / "café" / "b.png")
    with pytest.raises(DataError, match=r"two folders .* are called 'café'"):
        folder(root)


def test_class_names_that_are_no_text(root):
    for split in ("train", "val"):
        image(root / split / "caf\udce9" / "a.png")
    names_of_classes = list(folder(root).classes)
    assert names_of_classes == [r"caf\xe9", "cat", "dog"]
    "".join(names_of_classes).encode()


def test_different_classes_are_quoted_and_cut(root):
    for number in range(8):
        image(root / "train" / f"only {number}" / "a.png")
    image(root / "val" / "two\nlines" / "a.png")
    with pytest.raises(DataError) as error:
        folder(root)
    said = str(error.value)
    assert "only train has 'only 0', 'only 1', 'only 2', 'only 3', 'only 4' and 3 more; only val has 'two" in said
    assert said.isprintable()


def test_long_names_and_folders_that_may_not_be_entered(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="File name too long"):
        folder(tmp_path / ("x" * 300))

    def scandir(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "train").mkdir()
    monkeypatch.setattr(image_tree.os, "scandir", scandir)
    with pytest.raises(DataError, match=r"cannot read the folder .*train: Permission denied"):
        folder(tmp_path)


# Fingerprints.


def removed(root):
    (root / "train" / "cat" / "1.png").unlink()


def added(root):
    image(root / "val" / "dog" / "7.png")


def renamed(root):
    (root / "train" / "cat" / "1.png").rename(root / "train" / "cat" / "9.png")


def moved(root):
    (root / "train" / "cat" / "1.png").rename(root / "train" / "dog" / "9.png")


def repainted(root):
    path = root / "train" / "dog" / "2.png"
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert path.stat().st_size == size


def swapped(root):
    one, two = (root / "train" / name / "0.png" for name in ("cat", "dog"))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def class_renamed(root):
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "car")


@pytest.mark.parametrize("change", [removed, added, renamed, moved, repainted, swapped, class_renamed])
def test_other_data_has_another_fingerprint(change, root):
    before = folder(root).fingerprint()
    change(root)
    assert folder(root).fingerprint() != before


def test_the_same_data_elsewhere_has_the_same_fingerprint(root, tmp_path):
    before = folder(root).fingerprint()
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy" / "train" / "cat" / "notes.txt").write_text("")
    os.utime(tmp_path / "copy" / "train" / "cat" / "0.png", (0, 0))
    assert folder(tmp_path / "copy").fingerprint() == before
    assert len(before) == 32


def test_of_many_files_some_are_read(root, monkeypatch):
    monkeypatch.setattr(image_tree, "_FILES_READ", 2)
    before = folder(root).fingerprint()
    repainted_first = root / "train" / "cat" / "0.png"
    image(repainted_first, 99)
    assert folder(root).fingerprint() != before


def test_fingerprints_of_arrays():
    digits = load_source("digits")
    assert digits.fingerprint() == load_source("digits").fingerprint()
    other = load_source("digits")
    other.train.pixels = other.train.pixels.copy()
    other.train.pixels[5, 3, 3] ^= 1
    assert other.fingerprint() != digits.fingerprint()
    other = load_source("digits")
    other.val.labels = np.roll(other.val.labels, 1)
    assert other.fingerprint() != digits.fingerprint()


def test_a_file_that_is_gone(root):
    source = folder(root)
    (root / "train" / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: No such file"):
        source.fingerprint()
