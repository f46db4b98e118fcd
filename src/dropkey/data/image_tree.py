"""The images below one folder, one folder a class."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dropkey.data.left_out import LeftOut
from dropkey.data.picture import SUFFIXES, class_name, read_image, readable_name, size_of_image
from dropkey.errors import DataError

__all__ = ["ImageTree"]

_OF_SYSTEMS = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
_FILES_READ = 256  # of which a fingerprint knows the content; of the others it knows name and size


class ImageTree:
    """The images below one folder, in the order of their paths.

    Links are followed, but not back to a folder that they lie in. Hidden files and folders, those of operating systems
    and file servers, and files of other kinds are left out and counted.

    Args:
        root: a folder with one folder a class.

    Raises:
        DataError: no such folder, no class in it, or a class without images.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out = LeftOut()
        self.files: list[tuple[Path, int]] = []
        folders = self._class_folders()
        self.classes = list(folders)
        for label, folder in enumerate(folders.values()):
            count = len(self.files)
            self.files += [(path, label) for path in sorted(self._images(folder))]
            if len(self.files) == count:
                others = f"; left out: {self.left_out}" if self.left_out else ""
                raise DataError(
                    f"class folder {readable_name(folder)} holds no images ({', '.join(sorted(SUFFIXES))}){others}"
                )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return read_image(path), label

    def label(self, index: int) -> int:
        """Return the class index at ``index`` without reading the image."""
        return self.files[index][1]

    def size(self, index: int) -> tuple[int, int] | None:
        """Return (width, height) of an image as its file says, or None."""
        return size_of_image(self.files[index][0])

    def fingerprint(self) -> str:
        """Return what tells these images from others: names, sizes, and the content of 256 files spread evenly.

        Raises:
            DataError: a file that cannot be read.
        """
        digest = hashlib.blake2b(digest_size=16)
        step = -(-len(self.files) // _FILES_READ)
        for index, (path, label) in enumerate(self.files):
            name = path.relative_to(self.root).as_posix()
            try:
                digest.update(repr((class_name(name), label, path.stat().st_size)).encode())
                if index % step == 0:
                    digest.update(hashlib.blake2b(path.read_bytes()).digest())
            except OSError as error:
                raise DataError(f"cannot read the image {readable_name(path)}: {error.strerror}") from None
        return digest.hexdigest()

    def _class_folders(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        try:
            entries = sorted(os.scandir(self.root), key=lambda entry: entry.name)
        except FileNotFoundError:
            raise DataError(
                f"no folder {readable_name(self.root)}: images are expected in {readable_name(self.root)}/<class>/"
            ) from None
        except OSError as error:
            raise DataError(f"cannot read the folder {readable_name(self.root)}: {error.strerror}") from None
        for entry in entries:
            if not self._takes(entry):
                continue
            if not entry.is_dir():
                self.left_out.add("files outside of class folders", Path(entry.path))
                continue
            name = class_name(entry.name)
            if name in folders:
                raise DataError(f"two folders in {readable_name(self.root)} are called {name!r}: rename one of them")
            folders[name] = Path(entry.path)
        if not folders:
            raise DataError(
                f"{readable_name(self.root)} holds no class folders: images are expected in "
                f"{readable_name(self.root)}/<class>/"
            )
        return dict(sorted(folders.items()))

    def _images(self, folder: Path) -> Iterator[Path]:
        """Yield the image files below a folder; count what is none."""
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if folder.parent == self.root:
                raise DataError(f"cannot read the folder {readable_name(folder)}: {error.strerror}") from None
            self.left_out.add(f"folders that cannot be read, {error.strerror}", folder)
            return
        for entry in entries:
            path = Path(entry.path)
            if not self._takes(entry):
                continue
            if entry.is_dir():
                yield from self._images(path)
            elif path.suffix.lower() in SUFFIXES:
                yield path
            else:
                self.left_out.add(f"{path.suffix.lower() or 'other'} files", path)

    def _takes(self, entry: os.DirEntry[str]) -> bool:
        """Say whether a file or folder may be part of the images, and count it if not."""
        reason = _reason_against(entry)
        if reason is not None:
            self.left_out.add(reason, Path(entry.path))
        return reason is None


def _reason_against(entry: os.DirEntry[str]) -> str | None:
    try:
        is_dir, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:  # a link that leads round in a circle, or into a folder that may not be entered
        return f"links that cannot be followed, {error.strerror}"
    if entry.name.startswith((".", "@", "#")) or entry.name.lower() in _OF_SYSTEMS:
        return f"hidden or system {'folders' if is_dir else 'files'}"
    if not is_dir and not is_file:
        return "links that lead nowhere" if entry.is_symlink() else "devices and sockets"
    if is_dir and entry.is_symlink() and _lies_in(Path(entry.path)):
        return "links to a folder that they lie in"
    return None


def _lies_in(link: Path) -> bool:
    """Say whether a link leads to a folder above itself."""
    return Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link))
