"""Sections that check a list of cases side by side; nothing here imports torch."""

from benchmarks.gpu.cases import cases, sampled
from benchmarks.gpu.record import Record
from benchmarks.gpu.workers import num_workers, run_cases

__all__ = ["FEATURES", "correctness", "features"]

# Names of functions of ``features``, most important first.
FEATURES = (
    "implicit_seed",
    "repeats_bit_for_bit",
    "no_synchronization",
    "compiled_equals_eager",
    "ratio_without_recompiling",
    "cuda_graph",
    "cuda_graph_ratio",
    "checkpointing",
    "two_streams",
    "timm_model",
    "linear_memory",
    "wide_strides",
    "many_elements",
    "block_at_a_changing_ratio",
)


def correctness(record: Record) -> None:
    """Check the covering list."""
    run_cases(record, "correctness", sampled() if record.is_dry else cases(), num_workers(record.is_dry))


def features(record: Record) -> None:
    """Check what lies around the kernels, each in a process of its own."""
    listed = [{"label": name} for name in FEATURES]
    run_cases(record, "features", listed, num_workers(record.is_dry), fresh=not record.is_dry)
