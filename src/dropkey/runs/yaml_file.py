"""Options in a YAML file: a flat mapping, read without running code and without filling memory."""

from pathlib import Path
from typing import Any

import yaml

from dropkey.errors import RunError, first_line

__all__ = ["read_options"]

_LARGEST = 1_000_000  # bytes
_DEEPEST = 20  # an option is a number, a text or a short list


def read_options(path: Path) -> dict[str, Any]:
    """Return the options of a YAML file.

    Raises:
        FileNotFoundError: there is none.
        RunError: it cannot be read, is no mapping of names, has a name twice, refers to itself, or is deeper or longer
            than options are.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise RunError(f"cannot read {path}: it is longer than options are")
    try:
        text = content.decode("utf-8")
        _check_shape(path, text)
        _check_names(path, text)
        values = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise RunError(f"cannot read {path}: it is not UTF-8, from byte {error.start} on; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise RunError(f"cannot read {path}: {_reason(error)}") from None
    except (ValueError, OverflowError, RecursionError) as error:  # a date or a number that is none
        raise RunError(f"cannot read {path}: {first_line(error)}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise RunError(f"{path} holds no options: a line each is expected, such as epochs: 20")
    return values


def _check_shape(path: Path, text: str) -> None:
    """Raise a RunError for a text whose objects would be too many or too deep, before any of them is made."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise RunError(f"cannot read {path}: it has an alias, *{event.anchor}; options are written out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise RunError(f"cannot read {path}: it is nested deeper than options are")


def _check_names(path: Path, text: str) -> None:
    """Raise a RunError for a name that is there twice: YAML would take the last one without a word."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    names = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise RunError(f"cannot read {path}: it has {twice!r} twice; leave one out")


def _reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f" in line {mark.line + 1}"
    return f"{getattr(error, 'problem', None) or first_line(error)}{place}"
