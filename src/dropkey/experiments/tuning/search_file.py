"""``search.yaml``: which search a folder holds, and the time that it took so far."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dropkey.errors import RunError
from dropkey.runs.run_folder import write_atomically

__all__ = ["SearchFile"]


class SearchFile:
    """The file.

    Args:
        root: folder of the search; made if it is not there.
        options: that all trials share.

    Raises:
        RunError: the folder holds a search with other options.
    """

    def __init__(self, root: Path, options: Mapping[str, Any]) -> None:
        self.path = root / "search.yaml"
        self.options = dict(options)
        self.seconds = 0.0
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {root}: {error.strerror}") from None
        if self.path.exists():
            self._read()
        self.write_seconds(self.seconds)

    @property
    def name(self) -> str:
        """What the search is called in its storage: the same for the same options."""
        return (
            "dropkey-" + hashlib.blake2b(json.dumps(self.options, sort_keys=True).encode(), digest_size=8).hexdigest()
        )

    def write_seconds(self, seconds: float) -> None:
        """Remember how long the search took so far."""
        content = {"options": self.options, "seconds": round(seconds, 1)}
        write_atomically(self.path, yaml.safe_dump(content, sort_keys=False).encode())

    def _read(self) -> None:
        try:
            content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
            before, self.seconds = dict(content["options"]), float(content["seconds"])
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError):
            raise RunError(f"cannot read {self.path}: delete the folder, or choose another --output") from None
        for name in {**before, **self.options}:
            if before.get(name) != self.options.get(name):
                raise RunError(
                    f"{self.path.parent} holds a search with {name} {before.get(name, 'unset')}, not "
                    f"{self.options.get(name, 'unset')}: choose another --output"
                )
