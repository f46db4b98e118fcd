"""What each section does, in which order, and in how many processes; nothing here imports torch."""

import tempfile
from typing import Any

from benchmarks.gpu.cases import cases, sampled
from benchmarks.gpu.record import Record
from benchmarks.gpu.workers import Worker, asked, num_workers, run_cases

__all__ = ["FEATURES", "correctness", "features", "first_call", "step", "time", "tune"]

# Names of functions of ``features``, most important first.
FEATURES = (
    "self_test",
    "implicit_seed",
    "repeats_bit_for_bit",
    "no_synchronization",
    "compiled_equals_eager",
    "ratio_without_recompiling",
    "cuda_graph",
    "cuda_graph_ratio",
    "handle_in_a_graph",
    "checkpointing",
    "two_streams",
    "timm_model",
    "linear_memory",
    "wide_strides",
    "many_elements",
    "block_at_a_changing_ratio",
)

TOKENS_IN_ALL = 32768
MOST_BATCH = 256
FLEX = "flexattention, hashed mask"
FLEX_LIMIT = 25.0  # seconds, since torch must compile it
# (N, H, D), the most important first.
SIZES = [
    (197, 12, 64), (1025, 12, 64), (3137, 12, 64), (577, 12, 64), (785, 12, 64), (197, 6, 64), (1025, 8, 128),
    (197, 8, 128), (3137, 8, 128), (1025, 16, 64), (197, 16, 64), (3137, 6, 64), (3137, 16, 64), (577, 8, 128),
    (785, 8, 128), (577, 6, 64), (785, 6, 64), (1025, 6, 64), (577, 16, 64), (785, 16, 64), (197, 6, 128),
    (577, 6, 128), (785, 6, 128), (1025, 6, 128), (3137, 6, 128),
]  # fmt: skip
FLEX_SIZES = [(1025, 12, 64)]
TINY = (17, 2, 16)

KERNELS = ("forward", "query", "key_value")
TUNED = ((197, 128, 12, 64), (1025, 24, 12, 64), (197, 128, 8, 128), (1025, 24, 8, 128))  # N, B, H, D
MOST_TILES = 8

SMALL, BASE = "vit_small_patch16_224", "vit_base_patch16_224"
ALL_ARMS = ["none", "dropkey 0.3", "token 0.5, constant", "dropout 0.3"]


def correctness(record: Record) -> None:
    """Check the covering list."""
    run_cases(record, "correctness", sampled() if record.is_dry else cases(), num_workers(record.is_dry))


def features(record: Record) -> None:
    """Check what lies around the kernels, each in a process of its own."""
    listed = [{"label": name} for name in FEATURES]
    run_cases(record, "features", listed, num_workers(record.is_dry), fresh=not record.is_dry)


def time(record: Record) -> None:
    """Measure size after size; a contender that breaks the process is left out when the size is begun again."""
    sizes = [TINY] if record.is_dry else SIZES
    listed: list[dict[str, Any]] = [{"label": "a large product"}, *(size_case(*size) for size in sizes)]
    if not record.is_dry:
        listed[8:8] = [size_case(*size, only=[FLEX, "sdpa flash"]) for size in FLEX_SIZES]
    besides = [{**size_case(*size), "kind": "beside"} for size in sizes[:2]]
    for case in besides:
        case["label"] = f"beside the product, {case['label']}"
    listed[4:4] = besides
    record.plan(case["label"] for case in listed)
    workers, peak = {kind: Worker(kind, record.is_dry) for kind in ("timing", "beside")}, None
    for case in listed:
        if record.left < 4:
            break
        worker = workers[case.get("kind", "timing")]
        facts = asked(worker, record, {**case, "peak": peak}, FLEX_LIMIT if case.get("only") else None)
        if case.get("only") and facts["state"] == "fail":
            facts.update(state="not run", reason=facts["error"])
        peak = facts.get("tflops", peak)
        record.add(case["label"], **facts)
        if worker is workers["beside"]:
            worker.close()
    workers["timing"].close()


def size_case(tokens: int, heads: int, dim: int, only: list[str] | None = None) -> dict[str, Any]:
    """Return a size as plain data."""
    batch = 1 if tokens < 30 else max(1, min(MOST_BATCH, round(TOKENS_IN_ALL / tokens)))
    label = f"B {batch} H {heads} N {tokens} D {dim}" + (f", {only[0]}" if only else "")
    return {"label": label, "batch": batch, "heads": heads, "tokens": tokens, "dim": dim, "only": only}


def tune(record: Record) -> None:
    """Compile all tiles side by side, then time them in one process, alone on the GPU."""
    sizes = ((17, 1, 2, 16),) if record.is_dry else TUNED
    timed = [tile_case(size, kernel) for size in sizes for kernel in KERNELS]
    record.plan(case["label"] for case in timed)
    if not record.is_dry:
        # Two sizes of one head dimension need the same kernels.
        first = [case for case in timed if case["size"] in (TUNED[0], TUNED[2])]
        compiled = [
            {**case, "label": f"compile {case['label']}, tile {i}", "index": i}
            for case in first
            for i in range(MOST_TILES)
        ]
        run_cases(record, "tune", compiled, num_workers(False), reserve=max(5.0, 0.45 * record.left), quiet=True)
    worker = Worker("tune", record.is_dry)
    for case in timed:
        if record.left < 4:
            break
        record.add(case["label"], **asked(worker, record, case))
    worker.close()


def tile_case(size: tuple[int, int, int, int], kernel: str) -> dict[str, Any]:
    """Return a kernel and a size as plain data."""
    tokens, batch, heads, dim = size
    return {"label": f"{kernel}, D {dim}, N {tokens}, B {batch} H {heads}", "size": size, "kernel": kernel}


def first_call(record: Record) -> None:
    """Ask fresh processes, one after the other, that share a cache of their own."""
    backends = ["triton"] if record.is_dry else ["auto", "triton"]
    states = ["empty"] if record.is_dry else ["empty", "full"]
    record.plan(f"{backend}, {state} cache" for backend in backends for state in states)
    for backend in backends:
        with tempfile.TemporaryDirectory(dir=record.work) as folder:
            for state in states:
                if record.left < 3:
                    return
                case = {"label": f"{backend}, {state} cache", "backend": backend}
                worker = Worker("first_call", record.is_dry, {"TRITON_CACHE_DIR": folder})
                record.add(case["label"], **asked(worker, record, case))
                worker.close()


def step(record: Record) -> None:
    """Measure a training step of model after model."""
    listed = [
        {"label": f"{SMALL}, eager", "model": SMALL, "arms": ALL_ARMS, "compiled": False},
        {"label": f"{BASE}, eager", "model": BASE, "arms": ALL_ARMS, "compiled": False},
        {"label": f"{SMALL}, compiled", "model": SMALL, "arms": ALL_ARMS[:2], "compiled": True},
        {"label": f"{BASE}, compiled", "model": BASE, "arms": ALL_ARMS[:2], "compiled": True},
    ]
    listed = listed[:1] if record.is_dry else listed
    record.plan(case["label"] for case in listed)
    for case in listed:
        if record.left < 4:
            break
        worker = Worker("step", record.is_dry)
        record.add(case["label"], **asked(worker, record, case))
        worker.close()
