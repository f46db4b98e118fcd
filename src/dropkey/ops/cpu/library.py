"""The compiled kernel, loaded."""

import ctypes
import functools
import logging
import os
from pathlib import Path

from dropkey.ops.cpu.build import BuildError, SlowCompilerError, build, instruction_sets, requested, why_not
from dropkey.ops.cpu.door import MIXING_LAYOUT, PROBLEM_LAYOUT, PROJECTION_LAYOUT

__all__ = ["Kernel", "kernel", "remark", "unavailable"]

_LOG = logging.getLogger("dropkey")
_NOTES = {
    "amx": "bfloat16 attention in tiles, Re-attention and float32 as on avx512bf16",
    "emulated-amx": "its tiles are emulated, for tests",
}


class Kernel:
    """The entry points of one compiled library.

    Raises:
        BuildError: the system does not let this process use the instructions.
    """

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self.remark = f"instruction set {isa}" + (f": {_NOTES[isa]}" if isa in _NOTES else "")
        self._library = ctypes.CDLL(str(path))
        refusal = self._number("dropkey_refusal")
        if refusal:
            raise BuildError(f"the system does not let this process use {isa}: {os.strerror(refusal)}")
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
            if self._number(f"dropkey_{name}_bytes") != layout.size:
                raise BuildError("the compiled kernel does not fit this version of dropkey")
        pool = _torch_pool()
        if pool is not None:
            self._entry("dropkey_use_pool", ctypes.c_void_p)(pool)

    def use_instead(self, asked: str, reason: str) -> None:
        """Say why this library is used where DROPKEY_CPU_ISA names another."""
        _LOG.warning("DROPKEY_CPU_ISA=%s cannot be used: %s; the kernel uses %s", asked, reason, self.isa)
        self.remark += f"; DROPKEY_CPU_ISA={asked} cannot be used: {reason}"

    def _number(self, name: str) -> int:
        entry = getattr(self._library, name)
        entry.restype = ctypes.c_int64
        return int(entry())

    def _entry(self, name: str, *types: type) -> "ctypes._NamedFuncPointer":
        entry: ctypes._NamedFuncPointer = getattr(self._library, name)
        entry.argtypes, entry.restype = types, None
        return entry


@functools.cache
def _load() -> Kernel | str:
    """The kernel in the best instruction set that this machine and its compiler know, or why there is none."""
    reasons: dict[str, str] = {}  # why an instruction set is not used
    try:
        asked = requested()
        refusal = why_not(asked) if asked else None
        if asked and refusal:
            reasons[asked] = refusal
        for isa in instruction_sets():
            try:
                found = Kernel(build(isa), isa)
            except SlowCompilerError:
                raise
            except BuildError as error:  # an older compiler may know fewer instruction sets than the processor
                reasons[isa] = str(error)
            else:
                if asked and asked in reasons:
                    found.use_instead(asked, reasons[asked])
                return found
    except (BuildError, OSError, AttributeError) as error:
        return str(error)
    return list(reasons.values())[-1]


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


def remark() -> str | None:
    """Return which instruction set is used, and why another is not that was asked for; None without a kernel."""
    loaded = _load()
    return None if isinstance(loaded, str) else loaded.remark


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
