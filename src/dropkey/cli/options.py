"""Options of a subcommand from a dataclass of plain data, on the command line and in a YAML file."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import jsonargparse

from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["Parser", "add_fields", "values_of"]


class Parser(jsonargparse.ArgumentParser):
    """A parser whose errors are one line, and that takes no abbreviations.

    YAML is read safely: a file can set options and do nothing else.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
        self.add_argument("--config", action="config", help="YAML file with any of these options")

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the options as a flat mapping, or raise an ArgumentError that names what is wrong."""
        try:
            return dict(vars(self.parse_args(list(arguments))))
        except jsonargparse.ArgumentError as error:
            raise ArgumentError(self._in_one_line(str(error))) from None

    def _in_one_line(self, message: str) -> str:
        text = " ".join(part.strip() for part in message.splitlines() if part.strip())
        word = next((word for word in text.replace("'", " ").split() if word.startswith("--")), "")
        if text.lower().startswith("unrecognized arguments"):
            known = [option for action in self._actions for option in action.option_strings]
            text += did_you_mean(word.split("=")[0], known)
        return text


def add_fields(
    parser: Parser, config_class: type, defaults: Mapping[str, Any] | None = None, without: Sequence[str] = ()
) -> None:
    """Add one option a field: ``data_dir`` becomes ``--data-dir``; the help is in the field's metadata."""
    types = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.name in without:
            continue
        kind, shape = types[field.name], dict[str, Any]()
        if kind is bool:
            shape = {"nargs": "?", "const": True}
        elif typing.get_origin(kind) is tuple:
            kind, shape = str, {"nargs": "+"}
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default=(defaults or {}).get(field.name, field.default),
            help=field.metadata["help"].replace("%", "%%"),
            **shape,
        )


def values_of(config_class: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are fields of a dataclass."""
    return {field.name: options[field.name] for field in dataclasses.fields(config_class)}
