"""The compiled kernel, loaded."""

import ctypes
import functools
from pathlib import Path

from dropkey.ops.cpu.build import BuildError, SlowCompilerError, build, instruction_sets
from dropkey.ops.cpu.door import MIXING_LAYOUT, PROBLEM_LAYOUT, PROJECTION_LAYOUT

__all__ = ["Kernel", "kernel", "unavailable"]


class Kernel:
    """The entry points of one compiled library."""

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self._library = ctypes.CDLL(str(path))
        self.forward = self._entry("dropkey_forward", ctypes.c_char_p)
        self.backward = self._entry("dropkey_backward", ctypes.c_char_p)
        self.mask = self._entry("dropkey_mask", ctypes.c_char_p, ctypes.c_void_p)
        self.mixed_forward = self._entry("dropkey_mixed_forward", ctypes.c_char_p, ctypes.c_char_p)
        self.mixed_backward = self._entry("dropkey_mixed_backward", ctypes.c_char_p, ctypes.c_char_p)
        addresses, numbers = (ctypes.c_void_p, ctypes.c_void_p), (ctypes.c_int64,) * 5
        self.tokens = self._entry("dropkey_tokens", *addresses, *numbers, ctypes.c_void_p)
        self.projected_forward = self._entry("dropkey_projected_forward", ctypes.c_char_p)
        self.projected_backward = self._entry("dropkey_projected_backward", ctypes.c_char_p)
        for name, layout in (("problem", PROBLEM_LAYOUT), ("mixing", MIXING_LAYOUT), ("projection", PROJECTION_LAYOUT)):
            size = getattr(self._library, f"dropkey_{name}_bytes")
            size.restype = ctypes.c_int64
            if size() != layout.size:
                raise BuildError("the compiled kernel does not fit this version of dropkey")
        pool = _torch_pool()
        if pool is not None:
            self._entry("dropkey_use_pool", ctypes.c_void_p)(pool)

    def _entry(self, name: str, *types: type) -> "ctypes._NamedFuncPointer":
        entry: ctypes._NamedFuncPointer = getattr(self._library, name)
        entry.argtypes, entry.restype = types, None
        return entry


@functools.cache
def _load() -> Kernel | str:
    """The kernel in the best instruction set that this machine and its compiler know, or why there is none."""
    reason = "no instruction set"
    try:
        for isa in instruction_sets():
            try:
                return Kernel(build(isa), isa)
            except SlowCompilerError:
                raise
            except BuildError as error:  # an older compiler may know fewer instruction sets than the processor
                reason = str(error)
    except (BuildError, OSError, AttributeError) as error:
        reason = str(error)
    return reason


def kernel() -> Kernel:
    """Return the loaded kernel; only where ``unavailable`` returns None."""
    loaded = _load()
    if isinstance(loaded, str):
        raise BuildError(loaded)
    return loaded


def unavailable() -> str | None:
    """Return why there is no kernel on this machine, or None; compiles it if need be."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


# What torch.compiler.assume_constant_result would set, at the price of importing the whole compiler (over a second).
unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _torch_pool() -> int | None:
    """Address of the entry point of the OpenMP library that torch has loaded: its threads are up already, and spin."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line):
        address = ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
        if address is not None:
            return address
    return None
