"""Pictures of any depth, orientation and format come as the RGB bytes that a viewer shows, or are refused by name."""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from dropkey.data.augmentation import Augmentation, ImageFormat, clean_transform, train_transform
from dropkey.data.picture import SUFFIXES, read_image, readable_name, size_of_image
from dropkey.errors import DataError

RAMP = np.linspace(0, 1, 12 * 20).reshape(12, 20)
GRAY = np.rint(RAMP * 255).astype(np.uint8)


def saved(folder, values, name, mode=None, **options):
    path = folder / name
    (values if isinstance(values, Image.Image) else Image.fromarray(values, mode)).save(path, **options)
    return path


def pixels(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


DEPTHS = {
    "8 bits": (GRAY, [".png", ".tiff", ".bmp", ".pgm"]),
    "16 bits": (np.rint(RAMP * 65535).astype(np.uint16), [".png", ".tiff", ".pgm"]),
    "16 bits, big end first": (np.rint(RAMP * 65535).astype(">u2"), [".tiff"]),
    "32 bits holding 16": (np.rint(RAMP * 65535).astype(np.int32), [".tiff"]),
    "32 bits holding 8": (GRAY.astype(np.int32), [".tiff"]),
    "floats up to 1": (RAMP.astype(np.float32), [".tiff"]),
    "floats up to 255": ((RAMP * 255).astype(np.float32), [".tiff"]),
    "floats up to 65535": ((RAMP * 65535).astype(np.float32), [".tiff"]),
    "floats of one dark image": ((RAMP / 10).astype(np.float32), [".tiff"]),
}


@pytest.mark.parametrize(("depth", "suffix"), [(d, s) for d, (_, found) in DEPTHS.items() for s in found])
def test_gray_of_any_depth(depth, suffix, tmp_path):
    values = DEPTHS[depth][0]
    found = pixels(saved(tmp_path, values, f"x{suffix}"))
    wanted = GRAY / 10 if "dark" in depth else GRAY
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel], wanted, atol=1)


@pytest.mark.parametrize("white", [30, 200, 255, 256, 257])
def test_dark_gray_of_16_bits_stays_dark(white, tmp_path):
    """The depth decides, not the brightest pixel."""
    values = np.full((4, 4), white, np.uint16)
    assert pixels(saved(tmp_path, values, "x.png")).max() == round(white / 257)


UNCLEAR = {
    "below zero": np.full((3, 3), -1.0, np.float32),
    "not a number": np.array([[0.5, np.nan]], np.float32),
    "infinite": np.array([[0.5, np.inf]], np.float32),
    "between": np.full((3, 3), 3.5, np.float32),
    "large": np.full((3, 3), 1e6, np.float32),
    "large integers": np.full((3, 3), 2**30, np.int32),
    "negative integers": np.full((3, 3), -5, np.int32),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_values_that_do_not_say_what_is_white(case, tmp_path):
    path = saved(tmp_path, UNCLEAR[case], "x.tiff")
    with pytest.raises(DataError, match=r"x\.tiff .*nothing says what is white: use 8 or 16 bits") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", "RGB"), (".png", "RGB"), (".webp", "RGB"), (".tiff", "RGB"), (".tiff", "L"), (".png", "L")],
)
def test_orientation(orientation, suffix, mode, tmp_path):
    """As the EXIF standard says: what each value makes of the corner that is marked."""
    values = np.zeros((16, 32, 3), np.uint8)
    values[:8, :8] = 255  # the upper left corner of what the camera has saved
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(values).convert(mode), f"x{suffix}", exif=exif)
    found = pixels(path)
    upright = found.shape[:2] == (16, 32)
    assert upright == (orientation <= 4)
    width, height = size_of_image(path)
    assert (height, width) == found.shape[:2]
    rows, cols = found.shape[0] // 2, found.shape[1] // 2
    corners = {
        "upper left": found[:rows, :cols],
        "upper right": found[:rows, cols:],
        "lower left": found[rows:, :cols],
        "lower right": found[rows:, cols:],
    }
    brightest = max(corners, key=lambda name: corners[name].mean())
    assert brightest == ["upper left", "upper right", "lower right", "lower left"][(orientation - 1) % 4]


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_format_and_mode_gives_rgb_bytes(suffix, tmp_path):
    written = []
    for mode in MODES:
        image = Image.new("PA", (21, 13)) if mode == "PA" else Image.new("RGB", (21, 13), (200, 99, 50)).convert(mode)
        with contextlib.suppress(OSError, ValueError, KeyError):  # Pillow cannot write every mode in every format
            image.save(tmp_path / f"{mode.replace(';', '_')}{suffix}")
            written.append(mode)
    for mode in written:
        assert pixels(tmp_path / f"{mode.replace(';', '_')}{suffix}").shape == (13, 21, 3)
    assert {"L", "RGB"} & set(written)


def test_what_pillow_can_read_of_the_usual_suffixes():
    usual = {".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm"}
    assert usual <= SUFFIXES
    assert (".avif" in SUFFIXES) == features.check("avif")


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4\n", b"<svg/>", b""]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_documents_are_not_run(content, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("ran a program"))
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=f"x{suffix} is not an image"):
        read_image(tmp_path / f"x{suffix}")


def test_remarks_of_pillow_name_the_file(tmp_path, monkeypatch):
    path = saved(tmp_path, GRAY, "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY.size - 1)
    with pytest.warns(UserWarning, match=r"x\.png: .*decompression bomb"):
        assert pixels(path).shape == (12, 20, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY.size // 3)
    with pytest.raises(DataError, match=r"x\.png .*decompression bomb"):
        read_image(path)
    assert size_of_image(tmp_path / "nowhere.png") is None


@pytest.mark.parametrize("name", ["two\nlines.png", "caf\udce9.png", "bell\a.png", "tab\t.png"])
def test_names_are_shown_in_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        read_image(tmp_path / name)
    assert str(error.value).isprintable()
    str(error.value).encode()
    assert readable_name("größe.png") == "größe.png"


@pytest.mark.parametrize("size", [(30000, 1), (1, 30000), (2000, 3), (1, 1)])
@pytest.mark.parametrize("side", [8, 32, 224])
def test_strips_do_not_fill_memory(size, side, monkeypatch):
    largest = []
    real = Image.Image.resize

    def resize(self, new, *args, **kwargs):
        largest.append(new[0] * new[1])
        return real(self, new, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", resize)
    image = Image.new("RGB", size, (9, 9, 9))
    for transform in (clean_transform(ImageFormat(side)), train_transform(ImageFormat(side), Augmentation())):
        assert transform(image).shape == (3, side, side)
    assert max(largest, default=0) < 12 * max(side, 16) ** 2


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60))
def test_the_middle_is_what_it_was(width, height):
    """Only strips are cut before they are resized."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    expected = clean_transform(ImageFormat(16))(image)
    if max(width, height) > 8 * min(width, height):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dropkey.data.augmentation._without_far_ends", lambda image: image)
        assert np.array_equal(clean_transform(ImageFormat(16))(image), expected)


FORMATS = ["jpeg", "png", "tiff", "webp", "gif", "bmp", "ppm"]


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS), st.integers(1, 6))
def test_damaged_files_are_read_or_refused_by_name(seed, kind, cuts):
    random = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(cuts):
        content[random.integers(len(content))] = random.integers(256)
    if random.random() < 0.4:
        del content[random.integers(1, len(content)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged.{kind}"
        path.write_bytes(content)
        said = outcome(path)
        size_of_image(path)
    assert said == "RGB" or (f"damaged.{kind}" in said and said.isprintable())


def outcome(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read_image(path).mode
        except DataError as error:
            return str(error)


def test_a_missing_image_is_not_called_a_broken_one(tmp_path):
    with pytest.raises(DataError, match=r"^no image .*gone\.png$"):
        read_image(tmp_path / "gone.png")
