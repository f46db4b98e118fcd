"""What a kernel takes of a GPU: compiled ahead of time, so that no GPU is needed to see it.

``python -m dropkey.ops.triton.resources`` prints the numbers of docs/explanation/triton.md; minutes.
"""

import itertools
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dropkey.ops.triton.backward import key_value_kernel, query_kernel
from dropkey.ops.triton.forward import forward_kernel
from dropkey.ops.triton.tiles import Gpu, Tile, default_tile

__all__ = ["GPUS", "TARGETS", "Resources", "Variant", "compile_ahead", "loop_instructions", "resources", "table_row"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
GPUS: dict[str, Gpu] = {"sm_80": "ampere", "sm_90": "hopper", "sm_100": "hopper", "gfx942": "amd"}
KERNELS = {"forward": forward_kernel, "query": query_kernel, "key_value": key_value_kernel}
_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_FLOAT32 = ("row_stats", "delta")
_MULTIPLE_OF_16 = [["tt.divisibility", 16]]


class Variant(NamedTuple):
    """One kernel, specialized."""

    kernel: str = "forward"
    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 64
    pattern: int = 0
    bias: int = 0
    is_causal: bool = False
    is_stored: bool = False  # forward writes the mask that it draws


class Resources(NamedTuple):
    """What a compiled kernel takes."""

    registers: int  # a thread
    spilled_bytes: int  # to memory, a thread
    shared_bytes: int  # a block
    scalar_spills: int = 0  # AMD: scalar registers (masks, mostly) kept in lanes of vector registers, not in memory


def compile_ahead(variant: Variant, tile: Tile, target: str) -> Any:
    """Compile a kernel for a target of ``TARGETS``; pointers and strides as of tensors with aligned rows."""
    kernel = KERNELS[variant.kernel]
    constants = {name: value for name, value in _constants(variant, tile).items() if name in kernel.arg_names}
    signature = {name: _signature(name, variant) for name in kernel.arg_names}
    signature |= dict.fromkeys((name for name in kernel.arg_names if name in constants), "constexpr")
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for place, name in enumerate(kernel.arg_names):
        kind = signature[name]
        if isinstance(kind, tuple):
            attributes |= {(place, axis): _MULTIPLE_OF_16 for axis in range(3)}
        elif kind.startswith("*"):
            attributes[(place,)] = _MULTIPLE_OF_16
    values: dict[tuple[int, ...], Any] = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    values[(kernel.arg_names.index("bias_strides"), 3)] = 1
    source = ASTSource(kernel, signature, values, attributes)
    return triton.compile(
        source, target=TARGETS[target], options={"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    )


def resources(compiled: Any) -> Resources:
    """Read off a compiled kernel what it takes."""
    if "cubin" in compiled.asm:
        return _of_cubin(compiled)
    text = compiled.asm["amdgcn"]
    found = {name: int(number) for name, number in re.findall(r"\.(\w+):\s+(\d+)\n", text)}
    spilled = max(4 * found["vgpr_spill_count"], found["private_segment_fixed_size"])
    return Resources(found["vgpr_count"], spilled, compiled.metadata.shared, found["sgpr_spill_count"])


def _of_cubin(compiled: Any) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(compiled.asm["cubin"])
        tools = triton.knobs.nvidia
        text = _output_of(tools.cuobjdump.path, "--dump-resource-usage", str(path))
        found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        spilled = 0
        if found["STACK"] or found["LOCAL"]:  # spilled registers are on the stack, but not all that is there
            path.write_text(compiled.asm["ptx"])
            capability = compiled.metadata.target.arch
            ptxas = (tools.ptxas_blackwell if capability >= 100 else tools.ptxas).path
            suffix = "a" if capability >= 90 else ""
            options = ("-v", "--regAllocOptLevel=2", f"--gpu-name=sm_{capability}{suffix}")
            text = _output_of(ptxas, *options, str(path), "-o", str(path) + ".o")
            spilled = max(map(int, re.findall(r"(\d+) bytes spill", text)))
    return Resources(found["REG"], spilled, compiled.metadata.shared)


def _output_of(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def _constants(variant: Variant, tile: Tile) -> dict[str, Any]:
    block_dim = max(16, triton.next_power_of_2(variant.head_dim))
    constants: dict[str, Any] = {
        "GROUP": 1,
        "PATTERN": variant.pattern,
        "BIAS": variant.bias,
        "BIAS_PER_QUERY": True,
        "CAUSAL": variant.is_causal,
        "STORE": variant.is_stored,
        "LATE": not variant.bias,
        "UPCAST": False,
        "DIM": variant.head_dim,
        "BLOCK_DIM": block_dim,
        "VALUE_DIM": variant.head_dim,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
    }
    if not variant.bias:
        constants["bias"] = None
    if variant.pattern not in (2, 3) and not variant.is_stored:
        constants["kept"] = None
    return constants


def _signature(name: str, variant: Variant) -> Any:
    if name.endswith("_strides"):
        return ("i32", "i32", "i32", "constexpr") if name == "bias_strides" else ("i32", "i32", "i32")
    if name == "threshold" or name.startswith("num_"):
        return "i32"
    if name in ("scale", "logit_scale"):
        return "fp32"
    if name in ("seed", "kept"):
        return {"seed": "*i64", "kept": "*u8"}[name]
    return "*fp32" if name in _FLOAT32 else "*" + _TYPES[variant.dtype]


def loop_instructions(variant: Variant, tile: Tile, target: str) -> Counter[str]:
    """Count the machine instructions a pair of query and key, by name, in a CUDA kernel's loop over whole tiles.

    It is the first that goes back by more than 100 instructions. "all" are all of them, addresses and waiting included.
    """
    compiled = compile_ahead(variant, tile, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(compiled.asm["cubin"])
        text = _output_of(triton.knobs.nvidia.cuobjdump.path, "-sass", str(path))
    lines = [(int(at, 16), line) for at, line in re.findall(r"/\*([0-9a-f]{4,})\*/ +(.*?);", text)]
    jumps = ((int(to, 16), at) for at, line in lines for to in re.findall(r"BRA.* 0x([0-9a-f]+)", line))
    bodies = ([line for at, line in lines if start <= at <= end] for start, end in jumps)
    names = [re.sub(r"^@\S+ ", "", line).split()[0] for line in next(body for body in bodies if len(body) > 100)]
    pairs = tile.block_m * tile.block_n / (32 * tile.num_warps)
    counts = Counter(".".join(name.split(".")[:2]) if name.startswith("IMAD") else name.split(".")[0] for name in names)
    return Counter({name: count / pairs for name, count in counts.items()} | {"all": len(names) / pairs})


def table_row(kernel: str, dtype: torch.dtype, head_dim: int) -> str:
    """Return registers a thread / spilled bytes / shared KiB of the default tile, for every target."""
    tiles, cells = [], []
    for target, gpu in GPUS.items():
        tile = default_tile(kernel, head_dim, dtype == torch.float32, gpu)
        found = resources(compile_ahead(Variant(kernel, dtype, head_dim), tile, target))
        tiles.append(", ".join(map(str, tile)))
        cells.append(f"{found.registers} / {found.spilled_bytes} / {found.shared_bytes // 1024}")
    cells = ["", f"{str(dtype)[6:]}, {head_dim}", kernel, "; ".join(dict.fromkeys(tiles)), *cells, ""]
    return " | ".join(cells).strip()


if __name__ == "__main__":
    for dtype, head_dim, kernel in itertools.product((torch.bfloat16, torch.float32), (32, 64, 128, 256), KERNELS):
        print(table_row(kernel, dtype, head_dim), flush=True)
    for kernel, pattern in itertools.product(KERNELS, (0, 3)):
        counts = loop_instructions(Variant(kernel, pattern=pattern), default_tile(kernel, 64, False, "hopper"), "sm_90")
        print(kernel, pattern, *(f"{name} {counts[name]:.1f}" for name in ("all", "IMAD.WIDE", "LOP3", "ISETP")))
