"""The ``triton`` backend: a fused kernel for CUDA and ROCm GPUs, forward and backward, with memory linear in N."""

from dropkey.ops.triton.backend import Triton

__all__ = ["Triton"]
