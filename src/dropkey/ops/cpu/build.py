"""Compile the kernel once per machine and keep the result in a cache of the user's.

The library has a plain C interface and no torch headers, so one build serves every torch version. Its file name is made
from all that it depends on: source, machine, compiler and flags. See ``cache.py`` for what is loaded from there.
"""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path

from dropkey.ops.cpu.cache import CacheError, cache_folder, in_place, is_sound, locked, make_private

__all__ = ["BuildError", "SlowCompilerError", "build", "instruction_sets", "requested", "why_not"]

_LOG = logging.getLogger("dropkey")

SOURCE = Path(__file__).parent / "kernel"
TIME_LIMIT_S = 180
COMMON_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-w")
_AVX512 = ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")

# From the best to the one that every machine has: what the processor must name among its flags, and what the compiler
# is told. On aarch64 "plain" is NEON, which every such compiler uses by itself.
INSTRUCTION_SETS: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "avx512bf16": (
        {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"},
        (*_AVX512, "-mavx512bf16"),
    ),
    "avx512": ({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}, _AVX512),
    "avx2": ({"avx2", "fma"}, ("-mavx2", "-mfma")),
    "plain": (set(), ()),
}

# Used where DROPKEY_CPU_ISA names them, never by themselves: nobody has measured AMX, and its emulation is for tests.
ON_REQUEST: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "amx": (
        INSTRUCTION_SETS["avx512bf16"][0] | {"amx_tile", "amx_bf16"},
        (*INSTRUCTION_SETS["avx512bf16"][1], "-mamx-tile", "-mamx-bf16"),
    ),
    "emulated-amx": (set(), ("-O1", "-DDROPKEY_EMULATED_TILES")),  # compiled in half the time
}
_ALL = {**INSTRUCTION_SETS, **ON_REQUEST}


class BuildError(Exception):
    """The kernel cannot be built here; the message is one line that says why."""


class SlowCompilerError(BuildError):
    """The compiler takes too long: for another instruction set it would as well."""


# Intel's processors make dot products of bfloat16 at half the rate of multiply-adds: widening is faster there.
_BEST = {"AuthenticAMD": "avx512bf16", "GenuineIntel": "avx512"}


def instruction_sets() -> list[str]:
    """Return the instruction sets of this processor, best first, beginning with what DROPKEY_CPU_ISA names of them."""
    have = _processor_flags()
    names, asked = list(INSTRUCTION_SETS), requested()
    best = next((isa for vendor, isa in _BEST.items() if vendor in have), names[0])
    order = names[names.index(asked if asked in names else best) :]
    if asked in ON_REQUEST:
        order.insert(0, asked)
    return [name for name in order if _ALL[name][0] <= have]


def requested() -> str | None:
    """Return what DROPKEY_CPU_ISA asks for, whether or not there is such an instruction set; None if it is not set."""
    return os.environ.get("DROPKEY_CPU_ISA") or None


def why_not(isa: str) -> str | None:
    """Return why an instruction set cannot be used on this processor, or None."""
    if isa not in _ALL:
        return f"it is none of {', '.join(['amx', *INSTRUCTION_SETS])}"
    lacking = sorted(_ALL[isa][0] - _processor_flags())
    return f"this processor has no {', '.join(lacking)}" if lacking else None


def build(isa: str) -> Path:
    """Return the library for an instruction set: from the cache, or compiled now, which a line on stderr says.

    Without a compiler, what another one has made of the same source on this machine is used.

    Raises:
        BuildError: no compiler, a compiler that fails or takes too long, or a cache that cannot be written, or that
            others can write.
    """
    folder = cache_folder()
    stem = f"cpu-{isa}-{_fingerprint()}"
    try:
        command = [*_compiler(), *COMMON_FLAGS, *_ALL[isa][1]]
    except BuildError:
        found = next((path for path in sorted(folder.glob(f"{stem}-*.so")) if is_sound(path)), None)
        if found is None:
            raise
        return found
    library = folder / f"{stem}-{_digest(*command, _version(command[0]))[:8]}.so"
    if not is_sound(library):  # a cache that is complete need not be written
        _build_in(folder, library, command)
    return library


def _build_in(folder: Path, library: Path, command: list[str]) -> None:
    try:
        make_private(folder)
        with locked(library.with_suffix(".lock")):
            if not is_sound(library):  # nobody has made it meanwhile
                _compile(command, library)
    except CacheError as error:
        raise BuildError(str(error)) from error
    except OSError as error:
        raise BuildError(f"the kernel cannot be built: {error}") from error


def _processor_flags() -> set[str]:
    """Names of the vendor and of the instruction sets, as Linux lists them; nothing where it is not Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    named = (next((line for line in lines if line.startswith(key)), "") for key in ("vendor_id", "flags"))
    return {word for line in named for word in line.partition(":")[2].split()}


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX", "").split()
    if chosen:
        if not shutil.which(chosen[0]):
            raise BuildError(f"the compiler that CXX names, {chosen[0]!r}, is not there")
        return chosen
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler (c++, g++ or clang++): install one, or set CXX")


def _fingerprint() -> str:
    """Return what the source and the machine are known by."""
    parts = [platform.system(), platform.machine()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted((*SOURCE.glob("*.h"), *SOURCE.glob("*.cpp"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout


def _compile(command: list[str], library: Path) -> None:
    _LOG.warning("dropkey compiles its CPU kernel, once on this machine: about ten seconds")
    with in_place(library) as part:
        done = _run([*command, "-o", str(part), str(SOURCE / "kernel.cpp")])
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise BuildError(f"{command[0]} failed: {(lines or ['no message'])[0].strip()[:200]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a compiler; one that takes too long is ended, with all that it has started."""
    # Whatever a compiler prints, in whatever encoding, must be no error of ours.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        _end(process)
        raise SlowCompilerError(f"{command[0]} took longer than {TIME_LIMIT_S} seconds") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
