"""One picture in a file, as RGB bytes: whatever its depth, its orientation and its format."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from dropkey.errors import DataError

__all__ = ["SUFFIXES", "class_name", "read_image", "readable_name", "size_of_image"]

# Formats that hold pictures and nothing that is run: no PostScript, no document.
_SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    **({"AVIF": (".avif",)} if features.check("avif") else {}),
}
_FORMATS = tuple(_SUFFIXES_OF)
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES_OF.values() for suffix in suffixes)
_ERRORS = (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError, Image.DecompressionBombError)
_BYTE, _WORD = 255, 65535
_LOWEST_OF_BYTES = 16  # the largest of floating values up to 255: between it and 1 nothing says what is white


def read_image(path: Path, *, upright: bool = True) -> Image.Image:
    """Return an image file as RGB, turned upright as its EXIF tag says.

    Gray of 16 bits is divided by 257. In deeper gray white is 1 (floating values up to 1), 255 or 65535, whichever the
    largest value of the image does not exceed. Transparency is left out, and of several frames the first is taken.

    Args:
        path: the file.
        upright: False for the rows and columns as they are stored, where boxes are of these.

    Raises:
        DataError: a file that is no image, is cut short, or whose values do not say what is white; it names the file.
    """
    name = readable_name(path)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            # By an open file: given a path, Pillow maps TIFFs into memory and garbles those that lie on their side.
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                turned = ImageOps.exif_transpose(image) if upright else image
                picture = _in_bytes(turned) if _is_deep(turned) else turned.convert("RGB")
        except FileNotFoundError:
            raise DataError(f"no image {name}") from None
        except UnidentifiedImageError:
            raise DataError(f"{name} is not an image that can be read: mend or delete it") from None
        except _ERRORS as error:
            raise DataError(
                f"cannot read the image {name} ({error or type(error).__name__}): mend or delete it"
            ) from None
    for remark in remarks:
        warnings.warn(f"{name}: {' '.join(str(remark.message).split())}", UserWarning, stacklevel=2)
    return picture


def size_of_image(path: Path) -> tuple[int, int] | None:
    """Return (width, height) as the head of an image file says, upright; None if it says nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                # Pillow turns TIFFs by itself.
                turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
                width, height = image.size
                return (height, width) if turned else (width, height)
    except (UnidentifiedImageError, *_ERRORS):
        return None


def readable_name(path: Path | str) -> str:
    """Return a path as one line of text can show it: line feeds and bytes that are no text are escaped."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def class_name(folder: str) -> str:
    """Return the class that a folder stands for: accents in one form, on every system."""
    return unicodedata.normalize("NFC", readable_name(folder))


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _in_bytes(image: Image.Image) -> Image.Image:
    """Bring gray of more than 8 bits to 8."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())  # NaN in either if there is one
    white = _white(image.mode, low, high)
    if white is None:
        raise ValueError(
            f"its gray values go from {low:g} to {high:g}, and nothing says what is white: use 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8)).convert("RGB")


def _white(mode: str, low: float, high: float) -> float | None:
    if mode.startswith("I;"):
        return _WORD
    if not 0 <= low <= high <= _WORD:
        return None
    if mode == "F" and high < _LOWEST_OF_BYTES:
        return 1 if high <= 1 else None
    return _BYTE if high <= _BYTE else _WORD
