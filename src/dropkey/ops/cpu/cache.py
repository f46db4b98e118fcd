"""The folder of compiled libraries: only what this user or root has put there is loaded, and only if undamaged.

A library runs with the user's rights as soon as it is loaded. So folder and file must belong to the user or to root,
and nobody else may write them; beside each library lies the SHA-256 of its bytes, which tells damage.
"""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CacheError", "cache_folder", "in_place", "is_sound", "locked", "make_private"]

_STALE_S = 3600.0  # a file half written that is older was left by a process that was killed


class CacheError(Exception):
    """A cache that must not be used; the message is one line that says why and what helps."""


def cache_folder() -> Path:
    """Return DROPKEY_CACHE_DIR, or "dropkey" in the user's cache folder; without a home, one of the user's in /tmp."""
    own = os.environ.get("DROPKEY_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "dropkey"
    try:
        return Path.home() / ".cache" / "dropkey"
    except RuntimeError:  # no HOME, and nobody of this number in the list of users: a container
        return Path(tempfile.gettempdir()) / f"dropkey-{_user()}"


def make_private(folder: Path) -> None:
    """Make a folder that only this user may write, if it is not there.

    Raises:
        CacheError: it belongs to somebody else, or others may write in it.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    reason = _why_not_ours(folder)
    if reason:
        raise CacheError(f"the cache folder {folder} {reason}: set DROPKEY_CACHE_DIR to a folder of your own")


def is_sound(library: Path) -> bool:
    """Say whether a library is there, is this user's or root's as its folder is, and has the bytes it was made with."""
    if _why_not_ours(library.parent) or _why_not_ours(library):
        return False
    try:
        return _checksum_file(library).read_text() == _checksum(library)
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def in_place(library: Path) -> Iterator[Path]:
    """Give a file to write, which becomes the library at the end: nobody ever sees half of one."""
    _sweep(library.parent)
    handle, name = tempfile.mkstemp(dir=library.parent, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o755)
        checksum = part.with_suffix(".sum.part")
        checksum.write_text(_checksum(part))
        part.replace(library)
        checksum.replace(_checksum_file(library))
    finally:
        part.unlink(missing_ok=True)
        part.with_suffix(".sum.part").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file at the same time; a lock that is a link is taken away."""
    try:
        import fcntl
    except ImportError:  # not on Windows; there two compilers may work at once, and the later one wins
        yield
        return
    handle = _opened(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    path.unlink()
    return os.open(path, flags, 0o600)


def _why_not_ours(path: Path) -> str | None:
    """Return what makes a file or folder unsafe to load from, or None."""
    if not hasattr(os, "getuid"):
        return None if path.exists() else "is not there"
    try:
        found = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found.st_uid not in (os.getuid(), 0):
        return f"belongs to user {found.st_uid}"
    others = found.st_mode & stat.S_IWOTH
    group = found.st_mode & stat.S_IWGRP and found.st_gid not in (os.getgid(), 0)
    return "may be written by others" if others or group else None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _sweep(folder: Path) -> None:
    """Remove what processes have left that were killed while they wrote."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.lstat().st_mtime > _STALE_S:
                part.unlink()


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
