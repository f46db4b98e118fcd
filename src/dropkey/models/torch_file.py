"""What a file of ``torch.save`` holds, without running code from it.

Torch's unpickler for weights makes tensors, numbers, texts and containers of them. Trainers keep their options and
NumPy's numbers beside the tensors: these are passed over. Anything else that a file names is refused.
"""

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from dropkey.errors import RunError, first_line

__all__ = ["read_torch_file"]

_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_CONTAINERS = ("int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "slice", "range")
# What trainers keep beside tensors. None of these is imported for a file: an empty object stands for each.
_PASSED_OVER = (
    "argparse.Namespace",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _CONTAINERS),
    "_codecs.encode",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"pathlib.{place}{name}" for place in ("", "_local.") for name in _PATHS),
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
)
# The same, of classes that are mappings: the unpickler gives items to a few classes of Python's alone.
_MAPPINGS = (
    "yacs.config.CfgNode",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    *(f"{package}.utilities.data.AttributeDict" for package in ("lightning.fabric", "lightning_fabric")),
)
_FAILURES = (
    *(pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError),
    *(AttributeError, AssertionError, RecursionError, UnicodeDecodeError, OverflowError, MemoryError),
)


class _PassedOver:
    """Stands for an object that is no tensor: takes what it is given and does nothing with it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_PassedOver":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take no arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take no state."""


def _mapping(*args: Any) -> "OrderedDict[Any, Any]":
    """Stands for defaultdict, which is called with what makes its values."""
    return OrderedDict()


_STAND_INS: list[Any] = [
    *((_PassedOver, name) for name in _PASSED_OVER),
    *((OrderedDict, name) for name in _MAPPINGS),
    (_mapping, "collections.defaultdict"),
]


def read_torch_file(path: Path, what: str) -> Any:
    """Return what a file holds, on the CPU: tensors, plain data, and empty objects for what is passed over.

    Args:
        path: written by ``torch.save``.
        what: it should be, for messages: "a checkpoint".

    Raises:
        RunError: missing, damaged, or with objects that only code could make.
    """
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"no file {path}") from None
    except _FAILURES as error:
        raise RunError(f"{path} is not {what} that can be read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Return why a file could not be read; torch's own advice, to trust the file, is left out."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)", text)
    if named is not None:
        return (
            f"beside tensors it holds {named[1].rstrip('.')}, and such objects may run code; keep the tensors alone, "
            "torch.save(model.state_dict(), FILE), or use safetensors"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is damaged or of another kind" if "weights_only" in text or not text else first_line(error)
