"""Where what is made once is kept: the user's cache folder, and writing there so that nobody sees half of a file."""

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """Return the folder called ``name`` in DROPKEY_CACHE_DIR, or in "dropkey" in the user's cache folder."""
    own, base = os.environ.get("DROPKEY_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own) / name
    if base:
        return Path(base) / "dropkey" / name
    try:
        return Path.home() / ".cache" / "dropkey" / name
    except RuntimeError:  # no HOME, and nobody of this number in the list of users: a container
        return Path(tempfile.gettempdir()) / f"dropkey-{os.getuid()}" / name
