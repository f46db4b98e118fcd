"""Options of a subcommand from the fields of a config: on the command line, in a YAML file, and in the help."""

import argparse
import dataclasses
import re
import textwrap
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.runs.numbers import in_words
from dropkey.runs.options import flag, options_of, type_of
from dropkey.runs.yaml_file import read_options

__all__ = ["Given", "Parser", "read_file", "text_of"]

Option = dataclasses.Field[Any]


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user said, and nothing else.

    Args:
        values: by the names of the options.
        asked: the names of those that must act or be refused. A file may list an option that does not act, as long as
            it has its default.
    """

    values: Mapping[str, Any]
    asked: Collection[str]

    def of(self, config_class: type) -> dict[str, Any]:
        """Return the values of the options of a config."""
        names = [field.name for field in options_of(config_class)]
        return {name: self.values[name] for name in names if name in self.values}


class Parser(jsonargparse.ArgumentParser):
    """A parser that returns what was said, with errors of one line, and without abbreviations.

    The command line goes before the file that ``--config`` names, wherever it stands.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, exit_on_error=False, allow_abbrev=False, formatter_class=_Help
        )
        self._options: dict[str, tuple[type, Option]] = {}
        self._groups: dict[str, Any] = {}
        self.add_argument(
            "--config",
            type=str,
            metavar="FILE",
            help="YAML file with any of these options; the command line goes before it",
        )

    def add_options(
        self, config_class: type, defaults: Mapping[str, Any] | None = None, without: Collection[str] = ()
    ) -> None:
        """Add the options of a config, under the headings of their groups.

        Args:
            config_class: its fields are the options: ``data_dir`` becomes ``--data-dir``.
            defaults: what the help shows where that is not the field's own default.
            without: names to leave out.
        """
        for field in options_of(config_class):
            if field.metadata["group"] not in self._groups:
                self._groups[field.metadata["group"]] = self.add_argument_group(field.metadata["group"])
            if field.name not in without:
                self._options[field.name] = (config_class, field)
                help = _help(field, (defaults or {}).get(field.name, field.default), without)
                self._add(type_of(config_class, field), field, help)

    def _add(self, kind: Any, field: Option, help: str) -> None:
        shape: dict[str, Any] = {"metavar": field.metadata["takes"] or _metavar(kind), "type": kind}
        if kind is bool:
            shape |= {"nargs": "?", "const": True}
        elif field.metadata["several"]:
            shape |= {"nargs": "+", "type": str}
        self._groups[field.metadata["group"]].add_argument(flag(field.name), help=help, **shape)

    def read(self, arguments: Sequence[str]) -> Given:
        """Return what was said, or raise an ArgumentError that names what is wrong."""
        said = self._checked(lambda: self.parse_args(list(arguments), defaults=False), _on_line(arguments))
        said = {name: value for name, value in said.items() if value is not None}
        file = said.pop("config", None)
        if file is None:
            return Given(said, set(said))
        values = self._from_file(Path(file), said)
        asked = set(said) | {name for name, value in values.items() if value != self._default(name)}
        return Given({**values, **said}, asked)

    def _from_file(self, path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
        values = read_file(path)
        known = [action.dest for action in self._actions if action.option_strings]
        known = [name for name in known if name not in ("config", "help")]  # of the command line alone
        for name, value in values.items():
            if name not in known:
                raise ArgumentError(f"{path} has an unknown option {name!r}{did_you_mean(str(name), known)}")
            if isinstance(value, dict):
                raise ArgumentError(f"{path}: {name} must be written as on the command line, got a mapping")
        # The parser wants what is named without an option to be in every source that it reads.
        named = {action.dest: said[action.dest] for action in self._actions if not action.option_strings}
        listed = {name: [value] if self._takes_several(name, value) else value for name, value in values.items()}
        read = self._checked(lambda: self.parse_object({**named, **listed}, defaults=False), values)
        return {name: value for name, value in read.items() if name in values}

    def _takes_several(self, name: str, value: Any) -> bool:
        """Whether a file gives one text where the command line takes several words."""
        return isinstance(value, str) and name in self._options and bool(self._options[name][1].metadata["several"])

    def _default(self, name: str) -> Any:
        return self._options[name][1].default if name in self._options else None

    def _checked(self, parse: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            values = dict(vars(parse()))
        except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
            raise ArgumentError(self._in_one_line(str(error), given)) from None
        return {name: self._joined(name, _plain(value)) for name, value in values.items()}

    def _joined(self, name: str, value: Any) -> Any:
        several = name in self._options and self._options[name][1].metadata["several"]
        return several(value) if several and isinstance(value, list) else value

    def _in_one_line(self, message: str, given: Mapping[str, Any]) -> str:
        text = " ".join(part.strip() for part in message.splitlines() if part.strip())
        if text.lower().startswith("unrecognized arguments"):
            word = next((word for word in text.split() if word.startswith("-")), "")
            known = [option for action in self._actions for option in action.option_strings]
            known = [option for option in known if "_" not in option]  # the parser's own, such as --print_shtab
            return f"no option {word.split('=')[0]}{did_you_mean(word.split('=')[0], known)}" if word else text
        wrong = re.match(r'Parser key "(\w+)"', text)
        if wrong is None or wrong[1] not in self._options:
            return text
        config_class, field = self._options[wrong[1]]
        kind, value = type_of(config_class, field), str(given.get(wrong[1]))
        hint = did_you_mean(value, typing.get_args(kind)) if typing.get_origin(kind) is typing.Literal else ""
        return f"{flag(wrong[1])} must be {in_words(kind)}, got {value}{hint}"


class _Help(jsonargparse.DefaultHelpFormatter):
    """Says what an option does in our own words, and nothing of Python's types."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "max_help_position": 30})  # type: ignore[no-untyped-call]

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap at spaces alone: an option's name stays whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "?" and action.option_strings:  # a flag; true or false after it are for arms and files
            return ""
        words = str(super()._format_args(action, default_metavar))
        return f"{action.metavar} ..." if action.nargs == "+" else words

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any = None) -> None:
        words = [action.dest for action in actions if not action.option_strings]
        super().add_usage(" ".join(["%(prog)s", *words, "[options]"]), actions, groups, prefix)


def read_file(path: Path) -> dict[str, Any]:
    """Return the options in a YAML file; no code in it is run.

    Raises:
        ArgumentError: no such file.
        RunError: no options in it, or more than options are.
    """
    try:
        values = read_options(path)
    except FileNotFoundError:
        raise ArgumentError(f"cannot read --config {path}: No such file or directory") from None
    return {name: value for name, value in values.items() if value is not None}


def text_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return what stands after an option on a command line that is not parsed yet."""
    return _on_line(arguments).get(option)


def _on_line(arguments: Sequence[str]) -> dict[str, str]:
    """Return the raw text of each option on a command line, for messages."""
    texts: dict[str, str] = {}
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            texts[name.replace("-", "_")] = value if sign else after
    return texts


def _plain(value: Any) -> Any:
    """Return a number of Python itself where the parser makes one of a type with a range, which YAML cannot write."""
    bases = [base for base in (int, float) if isinstance(value, base) and not isinstance(value, bool)]
    return bases[0](value) if bases else value


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    if isinstance(kind, type) and issubclass(kind, int):
        return "N"
    return "X" if isinstance(kind, type) and issubclass(kind, float) else "TEXT"


def _help(field: Option, default: Any, without: Collection[str]) -> str:
    """Return what an option does, its default, and what makes it act."""
    notes = []
    shown = field.metadata["shown"] or (" ".join(default) if isinstance(default, tuple) else default)
    if shown != "" and shown is not False:
        notes.append(f"default: {_text(shown)}")
    when = [str(when) for when in field.metadata["when"] if when.option not in without]
    if when:
        notes.append("acts with " + " and ".join(when))
    text: str = field.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
    return text.replace("%", "%%")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
