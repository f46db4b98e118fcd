"""A process of its own in which Triton interprets kernels: the variable that says so is read when Triton is imported.

Run as a script it serves calls that come pickled on its standard input; ``Interpreter`` is the other end. ``Gpu`` calls
the same functions in its own process, with the tensors on the GPU.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[3] / "src"
DEVICE = "cpu"


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


class Gpu:
    """Calls the functions of this file with tensors on the GPU and gives tensors on the CPU back."""

    def __call__(self, function: str, *args: Any, **options: Any) -> Any:
        global DEVICE
        DEVICE = "cuda"
        _trust_kernels()
        return moved(globals()[function](*moved(args, DEVICE), **moved(options, DEVICE)), "cpu")

    def close(self) -> None:
        pass


def _trust_kernels() -> None:
    """Run the kernels themselves, planted faults too: nothing stands in for one that fails its own test."""
    from dropkey.ops.triton import backend, operators

    backend.IS_TESTING = operators.IS_TESTING = False


def moved(value: Any, device: str) -> Any:
    """Return tensors, wherever they are in tuples, lists and dicts, on a device, with their strides."""
    import torch

    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            size = value.untyped_storage().nbytes() // value.element_size()
            memory = value.detach().as_strided((size,), (1,), 0).to(device)
            return memory.as_strided(value.shape, value.stride(), value.storage_offset())
    if isinstance(value, dict):
        return {name: moved(item, device) for name, item in value.items()}
    return type(value)(moved(item, device) for item in value) if isinstance(value, tuple | list) else value


def attend(query, key, value, grad_out, *, design="inline", ratio_in_memory=False, **options):
    """Return output and gradients of query, key and value.

    With ``ratio_in_memory`` the kernels read the ratio themselves, as they do where it is on the GPU.
    """
    import dropkey
    from dropkey.ops.dispatch import BACKENDS
    from dropkey.ops.triton import launch

    threshold_of, BACKENDS["triton"].design = launch.threshold_of, design
    if ratio_in_memory:
        launch.threshold_of = lambda ratio: ratio.to(DEVICE)
    try:
        return _attend(dropkey, query, key, value, grad_out, **options)
    finally:
        launch.threshold_of, BACKENDS["triton"].design = threshold_of, "inline"


def _attend(dropkey, query, key, value, grad_out, backend="triton", **options):
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    out = dropkey.attention(*leaves, backend=backend, **options)
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


def kept_tokens(batch, heads, keys, drop_ratio, seed):
    """Return which keys the pattern "token" keeps, (B, Nk)."""
    import torch

    from dropkey.ops.triton import operators

    ratio, seed = torch.tensor(drop_ratio, dtype=torch.float64), torch.tensor(seed, device=DEVICE)
    return operators.kept_tokens(ratio, seed, batch, heads, keys)


def kept_rows(batch, heads, keys, drop_ratio, seed):
    """Return the rows of the tokens that the pattern "token" keeps, as the backend lists them."""
    import torch

    import dropkey
    from dropkey.ops.call import Draw
    from dropkey.ops.triton import Triton
    from dropkey.patterns import Geometry

    draw = Draw.of(dropkey.Token(), drop_ratio, seed, torch.device(DEVICE))
    return Triton().kept_tokens(draw, Geometry(batch, heads, 1, keys))


def tile(*sizes):
    """Set the tile that every kernel uses; without sizes, the default again."""
    from dropkey.ops.triton import launch
    from dropkey.ops.triton.tiles import INTERPRETED, Tile

    launch.INTERPRETED = Tile(*sizes) if sizes else INTERPRETED
    launch._forced.clear()
    if sizes:
        launch._forced.update(dict.fromkeys(launch._KERNELS, Tile(*sizes)))


def load(folder):
    """Take the kernels from another folder."""
    import dropkey.ops.triton

    for name in (
        "philox",
        "logits",
        "tokens",
        "forward",
        "backward",
        "windows",
        "single_pass",
        "launch",
        "mask_test",
        "written_out",
        "self_test",
    ):
        sys.modules.pop(f"dropkey.ops.triton.{name}", None)
        vars(dropkey.ops.triton).pop(name, None)
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
    args = [arg.to(DEVICE) if isinstance(arg, torch.Tensor) else arg for arg in args]
    return torch.library.opcheck(getattr(torch.ops.dropkey, name).default, args)


def far_apart(row_stride):
    """Return how far output and gradients differ where rows lie so far apart from those where they lie side by side.

    The memory between the rows is never touched.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    small = [torch.randn(1, 1, 40, 16, generator=generator).to(DEVICE) for _ in range(4)]
    far = []
    for tensor in small:
        memory = torch.empty(40 * row_stride, dtype=torch.float32, device=DEVICE)
        view = memory.as_strided((1, 1, 40, 16), (row_stride, row_stride, row_stride, 1))
        far.append(view.copy_(tensor))
    got, want = (attend(*tensors, drop_ratio=0.3, seed=5) for tensors in (far, small))
    return max(float((a - b).abs().max()) for a, b in zip(got, want, strict=True))


def is_mask_right(pattern, spoiled=False):
    """Return what the self-test says of a mask in memory, of which a kernel has written one bit wrong if spoiled."""
    import torch

    from dropkey.ops.triton import mask_test

    fills = ("fill_kept_tokens", "fill_element_bits", "fill_window_bits")
    own = {name: getattr(mask_test, name) for name in fills}

    def spoil(name):
        def fill(kept, *args):
            own[name](kept, *args)
            kept.view(torch.uint8)[..., -1, 0] ^= 1

        return fill

    ratio, seed = torch.tensor(0.4, dtype=torch.float64), torch.tensor(5, device=DEVICE)
    try:
        for name in fills if spoiled else ():
            setattr(mask_test, name, spoil(name))
        return mask_test.written_mask(pattern, 2, 24, 40, ratio, seed)[1]
    finally:
        vars(mask_test).update(own)


def self_tested(pattern, fault=None, **options):
    """Attend through dispatch with the self-test on; return output, gradients, warnings and what ``backends`` says."""
    import warnings

    import torch

    import dropkey
    from dropkey.ops.triton import backend, launch, mask_test, operators, self_test

    state_of = torch.get_rng_state if DEVICE == "cpu" else torch.cuda.get_rng_state
    torch.manual_seed(1)
    tensors = [torch.randn(1, 2, 40, 16, device=DEVICE) for _ in range(4)]
    state = state_of()
    launch_backward, kernels = launch.launch_backward, dict(launch._KERNELS)
    if DEVICE == "cpu":
        self_test._LENGTH = 48  # two of the interpreter's tiles
    _plant(fault, launch, self_test)
    backend.IS_TESTING = operators.IS_TESTING = True
    self_test.forget()
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            answers = _attend_with(dropkey, tensors, pattern, options)
        unmoved = bool(torch.equal(state_of(), state))
        return answers, [str(w.message) for w in seen], dropkey.backends()["triton"], unmoved, tensors
    finally:
        backend.IS_TESTING = operators.IS_TESTING = False
        launch._KERNELS.update(kernels)
        launch.launch_backward = self_test.launch_backward = launch_backward
        self_test.written_mask = mask_test.written_mask
        self_test.forget()


def _attend_with(dropkey, tensors, pattern, options):
    """Attend twice: by dispatch, which asks before it calls, and by the operator alone, as a compiled graph does."""

    from dropkey.ops.call import AttentionCall, Draw
    from dropkey.ops.dispatch import BACKENDS

    answers = []
    for by_dispatch in (True, False):
        query, key, value = (tensor.detach().requires_grad_() for tensor in tensors[:3])
        if by_dispatch:
            out = dropkey.attention(query, key, value, pattern=pattern, drop_ratio=0.4, seed=3, **options)
        else:
            draw = Draw.of(dropkey.patterns.named_pattern(pattern), 0.4, 3, query.device, options.get("grid_size"))
            call = AttentionCall(query, key, value, options.get("attn_bias"), False, 0.25, draw)
            out = BACKENDS["triton"].attend(call)
        out.backward(tensors[3])
        answers.append([out.detach(), query.grad, key.grad, value.grad])
    return answers


def _plant(fault, launch, self_test):
    class Broken:
        def __getitem__(self, grid):
            raise RuntimeError("ptxas fatal: no such instruction\nand more lines")

    def wrong(launched, *tensors):
        launch_backward(launched, *tensors)
        tensors[-1][..., 3, :] += 0.5

    launch_backward = launch.launch_backward
    if fault == "wrong mask":
        written_mask = self_test.written_mask

        def written(pattern, *args):
            kept, _ = written_mask(pattern, *args)
            kept[..., -1, 0] = not kept[..., -1, 0].any()
            return kept, False

        self_test.written_mask = written
    if fault == "compile error":
        launch._KERNELS["query"] = Broken()
    if fault == "wrong gradient":
        launch.launch_backward = self_test.launch_backward = wrong


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
