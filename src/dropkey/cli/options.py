"""Options of a subcommand from a dataclass of plain data, on the command line and in a YAML file."""

import dataclasses
import re
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
        self.wanted: dict[str, str] = {}  # what each option takes, in words
        self.add_argument("--config", action="config", help="YAML file with any of these options")

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the options as a flat mapping, or raise an ArgumentError that names what is wrong."""
        try:
            return dict(vars(self.parse_args(list(arguments))))
        except jsonargparse.ArgumentError as error:
            raise ArgumentError(self._in_one_line(str(error))) from None

    def _in_one_line(self, message: str) -> str:
        text = " ".join(part.strip() for part in message.splitlines() if part.strip())
        if text.lower().startswith("unrecognized arguments"):
            word = next((word for word in text.split() if word.startswith("--")), "")
            known = [option for action in self._actions for option in action.option_strings]
            return text + did_you_mean(word.split("=")[0], known)
        wrong = re.match(r'Parser key "(\w+)":.*?(?:Expected|Does not validate).*(?:Got|Given) value: (.*)$', text)
        if wrong is None or wrong[1] not in self.wanted:
            return text
        return f"--{wrong[1].replace('_', '-')} takes {self.wanted[wrong[1]]}, got {wrong[2]}"


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
        default = (defaults or {}).get(field.name, field.default)
        parser.wanted[field.name] = _in_words(kind)
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default=list(default) if isinstance(default, tuple) else default,
            help=field.metadata["help"].replace("%", "%%"),
            **shape,
        )


def values_of(config_class: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are fields of a dataclass."""
    return {field.name: options[field.name] for field in dataclasses.fields(config_class)}


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    kinds = [part for part in typing.get_args(kind) or (kind,) if part is not type(None)]
    return " or ".join(names.get(part, str(part)) for part in kinds)
