"""A process of its own in which Triton interprets kernels: the variable that says so is read when Triton is imported.

Run as a script it serves calls that come pickled on its standard input; ``Interpreter`` is the other end.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[3] / "src"


class Interpreter:
    """Calls the functions of this file by name in the interpreting process."""

    def __init__(self) -> None:
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning:dropkey", __file__],
            env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, function: str, *args: Any, **options: Any) -> Any:
        pickle.dump((function, args, options), self.process.stdin)
        self.process.stdin.flush()
        is_ok, answer = pickle.load(self.process.stdout)
        assert is_ok, answer
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def attend(query, key, value, grad_out, **options):
    """Return output and gradients of query, key and value."""
    import dropkey

    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    out = dropkey.attention(*leaves, backend="triton", **options)
    out.backward(grad_out)
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def output(query, key, value, **options):
    """Return the output alone."""
    import dropkey

    return dropkey.attention(query, key, value, backend="triton", **options)


def strides(query, key, value, **options):
    """Return the strides of the output."""
    import dropkey

    return dropkey.attention(query, key, value, backend="triton", **options).stride()


def tile(*sizes):
    """Set the tile that the interpreter uses."""
    from dropkey.ops.triton import launch
    from dropkey.ops.triton.tiles import Tile

    launch.INTERPRETED = Tile(*sizes)


def load(folder):
    """Take the kernels from another folder."""
    import dropkey.ops.triton

    for name in ("philox", "logits", "forward", "backward", "windows", "launch"):
        sys.modules.pop(f"dropkey.ops.triton.{name}", None)
    dropkey.ops.triton.__path__ = [folder]


def recompiles(query, key, value, ratios, seed):
    """Return how often a compiled call is compiled after its first run, and the outputs and query gradients."""
    import torch
    import torch._dynamo.testing

    import dropkey

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def call(query, ratio):
        return dropkey.attention(query, key, value, drop_ratio=ratio, seed=seed, backend="triton")

    compiled, answers = torch.compile(call, fullgraph=True, backend=counter), []
    counts = []
    for ratio in ratios:
        leaf = query.detach().requires_grad_()
        out = compiled(leaf, torch.tensor(ratio, dtype=torch.float64))
        out.square().sum().backward()
        answers.append((out.detach(), leaf.grad))
        counts.append(counter.frame_count)
    return counts[-1] - counts[0], answers


def opcheck(name, *args):
    """Let torch check an operator's schema, fake kernel and autograd registration."""
    import torch

    from dropkey.ops.triton import operators

    assert operators.forward is not None  # registered
    return torch.library.opcheck(getattr(torch.ops.dropkey, name).default, args)


def autotuned(query, key, value, grad_out, **options):
    """Return output and gradients through the autotuner, which has one tile to choose from and measures nothing."""
    from dropkey.ops.triton import launch

    kept = launch.IS_INTERPRETING, launch.candidate_tiles, launch.current_gpu
    launch.IS_INTERPRETING, launch.candidate_tiles = False, lambda *_: [launch.INTERPRETED]
    launch.current_gpu = lambda: "ampere"
    try:
        return attend(query, key, value, grad_out, **options)
    finally:
        launch.IS_INTERPRETING, launch.candidate_tiles, launch.current_gpu = kept


def serve() -> None:
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            function, args, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, globals()[function](*args, **options)
        except Exception:
            import traceback

            answer = False, traceback.format_exc()
        pickle.dump(answer, out)
        out.flush()


if __name__ == "__main__":
    serve()
