"""The kernels compiled ahead of time for GPUs that are not here: they compile, and the default tiles do not spill."""

import itertools

import pytest
import torch

from dropkey.ops.triton.tiles import candidate_tiles, default_tile

resources = pytest.importorskip("dropkey.ops.triton.resources")

KERNELS = ("forward", "query", "key_value")
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SHARED_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
# What takes the most registers, as a rule: a byte a key, a bias, and a causal mask.
DEMANDING = {"pattern": 2, "bias": 1, "is_causal": True}
# Hopper's tiles in half precision that were timed: they spill, and are faster than the largest that do not.
TIMED_SPILLS = {("query", 128): 244, ("key_value", 128): 244}
SPARED_BYTES = 32  # the most that CUDA's compiler spills where it leaves registers unused, for more blocks at a time
FULL_BYTES = {("key_value", 256, torch.float32): 8}  # two more registers than the 512 of a thread on AMD


def assert_fits(kernel, target, dtype=torch.bfloat16, head_dim=64, **options):
    """Assert that the default tile fits the target and spills nothing; with options, nothing for want of registers."""
    tile = default_tile(kernel, head_dim, dtype == torch.float32, resources.GPUS[target])
    variant = resources.Variant(kernel, dtype, head_dim, **options)
    found = resources.resources(resources.compile_ahead(variant, tile, target))
    most = 512 if target == "gfx942" else min(255, 65536 // (32 * tile.num_warps))
    assert 0 < found.registers <= most
    assert found.shared_bytes <= SHARED_BYTES[target]
    is_spared = bool(options) and target != "gfx942" and found.registers < most
    is_timed = resources.GPUS[target] == "hopper" and dtype != torch.float32
    timed = TIMED_SPILLS.get((kernel, head_dim), 0) if is_timed else 0
    full = FULL_BYTES.get((kernel, head_dim, dtype), 0) if options and target == "gfx942" else 0
    assert found.spilled_bytes <= max(timed, full, SPARED_BYTES if is_spared else 0)


@pytest.mark.parametrize("target", TARGETS)
def test_the_forward_kernel_does_not_spill(target):
    assert_fits("forward", target)


@pytest.mark.parametrize(("kernel", "target"), [("query", "sm_90"), ("key_value", "sm_80")])
def test_the_backward_kernels_do_not_spill(kernel, target):
    assert_fits(kernel, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_dim", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("variant", [{}, DEMANDING], ids=["plain", "demanding"])
def test_every_head_dim(kernel, target, dtype, head_dim, variant):
    assert_fits(kernel, target, dtype, head_dim, **variant)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pattern", range(4))
@pytest.mark.parametrize("bias", range(3))
@pytest.mark.parametrize("is_causal", [False, True])
def test_every_variant(kernel, target, pattern, bias, is_causal):
    assert_fits(kernel, target, pattern=pattern, bias=bias, is_causal=is_causal)


@pytest.mark.slow
def test_a_tile_that_is_too_large_is_seen_to_spill():
    too_large = resources.compile_ahead(resources.Variant("key_value"), resources.Tile(128, 128, 4, 1), "sm_80")
    assert resources.resources(too_large).spilled_bytes > 0


@pytest.mark.parametrize("kernel", ["forward"])
def test_the_draw_is_made_once_a_pair(kernel):
    """Nine wide products for eight keys, and no exchange of bits: what docs/explanation/triton.md counts on paper."""
    tile = default_tile(kernel, 64, False, "hopper")
    ptx, without = (
        resources.compile_ahead(resources.Variant(kernel, pattern=pattern), tile, "sm_90").asm["ptx"]
        for pattern in (0, 2)
    )
    bodies = 1 if kernel == "key_value" else 2  # whole tiles, and tiles with a mask
    calls = bodies * tile.block_m * tile.block_n // 8 // (32 * tile.num_warps)
    products = ptx.count("mul.wide.u32") - without.count("mul.wide.u32")
    assert 9 * calls <= products <= 12 * calls


def test_a_stored_mask_does_not_spill():
    assert_fits("forward", "sm_90", is_stored=True)


@pytest.mark.parametrize(("target", "reach"), [("sm_90", 1), ("gfx942", 2)])
def test_the_kernels_of_windows_compile(target, reach):
    windows, ast_source = pytest.importorskip("dropkey.ops.triton.windows"), resources.ASTSource
    sizes = {"num_rows": "i64", "threshold": "i64", **dict.fromkeys(("num_queries", "num_cells", "num_keys"), "i32")}
    sizes |= dict.fromkeys(("num_prefix", "grid_rows", "grid_cols", "reach"), "i32")
    pointers = {"kept": "*u8", "seeds": "*u8", "seed": "*i64"}
    constants = {"STREAM": 3, "CROSS": True, "BLOCK_ROWS": 8, "BLOCK_CELLS": 128, "BLOCK_KEYS": 128, "num_queries": 1}
    constants |= {"reach": 1} if reach == 1 else {}
    for kernel in (windows.seed_points_kernel, windows.spread_kernel):
        known = {name: value for name, value in constants.items() if name in kernel.arg_names}
        kinds = {name: "constexpr" if name in known else {**sizes, **pointers}[name] for name in kernel.arg_names}
        compiled_kernel = resources.triton.compile(ast_source(kernel, kinds, known), target=resources.TARGETS[target])
        assert resources.resources(compiled_kernel).spilled_bytes == 0


def test_a_row_of_the_table():
    cells = resources.table_row("forward", torch.bfloat16, 64).split(" | ")
    assert cells[:3] == ["| bfloat16, 64", "forward", "128, 64, 8, 2; 64, 32, 4, 3; 128, 32, 4, 2"]
    assert [cell.split(" / ")[1] for cell in cells[3:]] == ["0"] * 4


def test_instructions_of_the_loop():
    tile = default_tile("forward", 64, False, "hopper")
    drawn, read = (
        resources.loop_instructions(resources.Variant("forward", pattern=pattern), tile, "sm_90") for pattern in (0, 3)
    )
    assert 12 < read["all"] < drawn["all"] < 22
    assert 9 / 8 <= drawn["IMAD.WIDE"] < 2


def test_candidates_start_with_the_default():
    gpus = ("ampere", "hopper", "amd")
    for kernel, dim, is_float32, gpu in itertools.product(KERNELS, (16, 64, 128, 256), (False, True), gpus):
        tiles = candidate_tiles(kernel, dim, is_float32, gpu)
        assert tiles[0] == default_tile(kernel, dim, is_float32, gpu)
        assert len(set(tiles)) == len(tiles)
        assert all(tile.block_n % 32 == 0 and tile.block_m >= 16 for tile in tiles)
