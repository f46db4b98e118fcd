"""Compile the kernel once per machine and keep the result in a cache of the user's.

The library has a plain C interface and no torch headers, so one build serves every torch version. Its file name is made
from all that it depends on: source, compiler, flags and machine.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["BuildError", "build", "instruction_sets"]

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


class BuildError(Exception):
    """The kernel cannot be built here; the message is one line that says why."""


# Intel's processors make dot products of bfloat16 at half the rate of multiply-adds: widening is faster there.
_BEST = {"AuthenticAMD": "avx512bf16", "GenuineIntel": "avx512"}


def instruction_sets() -> list[str]:
    """Return the instruction sets of this processor, best first, beginning with DROPKEY_CPU_ISA if that is set.

    Raises:
        BuildError: DROPKEY_CPU_ISA names none.
    """
    have = _processor_flags()
    names = list(INSTRUCTION_SETS)
    asked = os.environ.get("DROPKEY_CPU_ISA")
    best = asked or next((isa for vendor, isa in _BEST.items() if vendor in have), names[0])
    if best not in names:
        raise BuildError(f"DROPKEY_CPU_ISA is {best!r}, which is none of {', '.join(names)}")
    return [name for name in names[names.index(best) :] if INSTRUCTION_SETS[name][0] <= have]


def build(isa: str) -> Path:
    """Return the library for an instruction set, compiled now if the cache does not have it yet.

    Raises:
        BuildError: no compiler, a compiler that fails or takes too long, or a cache that cannot be written.
    """
    command = [*_compiler(), *COMMON_FLAGS, *INSTRUCTION_SETS[isa][1]]
    try:
        folder = _cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / f"cpu-{isa}-{_fingerprint(command)}.so"
        with _locked(library.with_suffix(".lock")):
            if not library.exists():
                _compile(command, library)
    except OSError as error:
        raise BuildError(f"the kernel cannot be built: {error}") from error
    return library


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


def _cache_folder() -> Path:
    """DROPKEY_CACHE_DIR, or "dropkey" in the user's cache folder."""
    own = os.environ.get("DROPKEY_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dropkey"


def _fingerprint(command: list[str]) -> str:
    digest = hashlib.sha256()
    for part in (*command, _version(command[0]), platform.system(), platform.machine()):
        digest.update(part.encode() + b"\0")
    for path in sorted((*SOURCE.glob("*.h"), *SOURCE.glob("*.cpp"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout


def _compile(command: list[str], library: Path) -> None:
    """Compile next to the final place and rename, so that nobody ever loads half a file."""
    handle, name = tempfile.mkstemp(dir=library.parent, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        done = _run([*command, "-o", str(part), str(SOURCE / "kernel.cpp")])
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise BuildError(f"{command[0]} failed: {(lines or ['no message'])[0].strip()[:200]}")
        part.chmod(0o755)
        part.replace(library)
    finally:
        part.unlink(missing_ok=True)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took longer than {TIME_LIMIT_S} seconds") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from compiling the same file at the same time."""
    try:
        import fcntl
    except ImportError:  # not on Windows; there two compilers may work at once, and the later one wins
        yield
        return
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
