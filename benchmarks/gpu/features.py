"""Section ``features``: what lies around the kernels: compile, graphs, checkpointing, streams, memory, wide offsets."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import dropkey
from benchmarks.gpu import wide
from benchmarks.gpu.accuracy import reference, torchs, with_gradients
from benchmarks.gpu.kernels import device, need_gpu, need_kernels, with_outcomes
from benchmarks.gpu.record import NotHere

__all__ = ["check"]

OURS = {"drop_ratio": 0.3, "backend": "triton"}


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Check the feature that a case is named after; it raises AssertionError where it finds something wrong."""
    need_kernels()
    facts = FEATURES[case["label"]](is_dry) or {}
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return with_outcomes({"state": "pass", **facts})


def inputs(is_dry: bool, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Return query, key, value and the gradient of the output."""
    shape = (1, 2, 18, 16) if is_dry else (2, 3, 197, 64)
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator).to(device=device(), dtype=dtype) for _ in range(4)]


def attend(query: Tensor, key: Tensor, value: Tensor, seed: int | Tensor | None = 5, **options: Any) -> Tensor:
    return dropkey.attention(query, key, value, seed=seed, **{**OURS, **options})


def assert_same(got: list[Tensor], want: list[Tensor], what: str) -> None:
    """Assert that tensors are bit for bit the same."""
    for name, a, b in zip(("output", "d query", "d key", "d value"), got, want, strict=True):
        assert torch.equal(a, b), f"{what}: {name} differs by up to {(a.double() - b.double()).abs().max():.2e}"


def assert_differ(got: list[Tensor], want: list[Tensor], what: str) -> None:
    assert not torch.equal(got[0], want[0]), f"{what}: the outputs are the same"


def compile_backend(is_dry: bool) -> str:
    return "aot_eager" if is_dry else "inductor"


def self_test(is_dry: bool) -> dict[str, Any]:
    """Each kind passes the package's own test, quickly, and torch's generator does not move."""
    need_gpu()
    try:
        from dropkey.ops.triton.self_test import forget, outcomes
    except ImportError as error:
        raise NotHere(f"this version has no self-test: {error}") from None
    seconds, first = {}, {}
    for dtype in (torch.bfloat16, torch.float32):
        tensors = inputs(is_dry, dtype)
        for pattern in ("element", "column", "token", "block", "cross"):
            grid = {"grid_size": (14, 14), "num_prefix_tokens": 1} if pattern in ("block", "cross") else {}
            for causal in (False, True):
                label = f"{pattern} {dtype} {'causal' if causal else ''}".strip()
                before = torch.cuda.get_rng_state()
                for found in (first, seconds):  # the first time kernels are compiled, the second time they are there
                    forget()
                    torch.cuda.synchronize()
                    began = time.perf_counter()
                    attend(*tensors[:3], pattern=pattern, is_causal=causal, **grid)
                    torch.cuda.synchronize()
                    found[label] = round(time.perf_counter() - began, 3)
                assert torch.equal(before, torch.cuda.get_rng_state()), f"{label}: the generator has moved"
                bad = {kind: text for kind, text in outcomes().items() if text != "passed"}
                assert outcomes(), f"{label}: nothing was tested"
                assert not bad, str(bad)
    slow = {label: number for label, number in seconds.items() if number > 0.2}
    assert not slow, f"above 0.2 s with compiled kernels: {slow}"
    return {"seconds": seconds, "seconds_with_compilation": first}


def repeats_bit_for_bit(is_dry: bool) -> None:
    tensors = inputs(is_dry)
    first = with_gradients(attend, tensors)
    for _ in range(1 if is_dry else 5):
        assert_same(with_gradients(attend, tensors), first, "the same call again")


def implicit_seed(is_dry: bool) -> None:
    tensors, found = inputs(is_dry), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(with_gradients(lambda *qkv: attend(*qkv, seed=None), tensors))
    assert_same(found[1], found[0], "the same torch.manual_seed")
    assert_differ(found[2], found[0], "another torch.manual_seed")


def no_synchronization(is_dry: bool) -> None:
    need_gpu()
    tensors = inputs(is_dry)
    for pattern in ("element", "column", "token"):
        with_gradients(lambda *qkv: attend(*qkv, seed=None, pattern=pattern), tensors)  # noqa: B023
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with_gradients(lambda *qkv: attend(*qkv, seed=None, pattern=pattern), tensors)  # noqa: B023
        finally:
            torch.cuda.set_sync_debug_mode("default")


def compiled_equals_eager(is_dry: bool) -> None:
    tensors = inputs(is_dry)
    compiled = torch.compile(attend, fullgraph=True, backend=compile_backend(is_dry))
    assert_same(with_gradients(compiled, tensors), with_gradients(attend, tensors), "compiled and eager")


def ratio_without_recompiling(is_dry: bool) -> dict[str, Any]:
    from torch._dynamo.testing import CompileCounterWithBackend

    tensors, counts = inputs(is_dry), dict[str, list[int]]()
    for place in ["cpu", "cuda"][: 1 + torch.cuda.is_available()]:
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")

        def call(query: Tensor, key: Tensor, value: Tensor, ratio: Tensor) -> Tensor:
            return attend(query, key, value, drop_ratio=ratio)

        compiled = torch.compile(call, fullgraph=True, backend=counter)
        counts[place] = []
        for number in (0.1, 0.3, 0.5, 0.7):
            ratio = torch.tensor(number, dtype=torch.float64, device=place)
            got = with_gradients(lambda *qkv: compiled(*qkv, ratio), tensors)  # noqa: B023
            want = with_gradients(lambda *qkv: attend(*qkv, drop_ratio=number), tensors)  # noqa: B023
            assert_same(got, want, f"ratio {number}, a tensor on {place}")
            counts[place].append(counter.frame_count)
    assert all(len(set(frames)) == 1 for frames in counts.values()), f"compiled more than once: {counts}"
    return {"frames": counts}


def cuda_graph(is_dry: bool) -> None:
    need_gpu()
    tensors = inputs(is_dry)
    replay, found = captured(lambda *qkv: attend(*qkv), tensors)
    want = with_gradients(attend, tensors)
    for _ in range(2):
        replay()
        assert_same(found, want, "replayed and eager")
    fresh = inputs(is_dry)[::-1]
    for tensor, new in zip(tensors, fresh, strict=True):
        tensor.copy_(new)
    replay()
    assert_same(found, with_gradients(attend, tensors), "replayed on other numbers")


def cuda_graph_ratio(is_dry: bool) -> None:
    need_gpu()
    tensors = inputs(is_dry)
    ratio = torch.tensor(0.3, dtype=torch.float64, device="cuda")
    replay, found = captured(lambda *qkv: attend(*qkv, drop_ratio=ratio), tensors)
    for number in (0.3, 0.6, 0.1):
        ratio.fill_(number)
        replay()
        assert_same(found, with_gradients(lambda *qkv: attend(*qkv, drop_ratio=number), tensors), f"{number}")  # noqa: B023


def captured(function, tensors: list[Tensor]):
    """Return a function that replays forward and backward, and where the results then are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            with_gradients(function, tensors)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = with_gradients(function, tensors)
    for tensor in found:
        tensor.fill_(float("nan"))

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay, found


def checkpointing(is_dry: bool) -> None:
    tensors = inputs(is_dry)
    torch.manual_seed(7)
    want = with_gradients(lambda *qkv: attend(*qkv, seed=None), tensors)
    for use_reentrant in (False, True):
        torch.manual_seed(7)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors[:3]]
        out = checkpoint(lambda *qkv: attend(*qkv, seed=None), *leaves, use_reentrant=use_reentrant)
        out.backward(tensors[3])
        got = [out.detach(), *(leaf.grad for leaf in leaves)]
        assert_same(got, want, f"checkpointed, use_reentrant={use_reentrant}")


def two_streams(is_dry: bool) -> None:
    need_gpu()
    tensors = inputs(is_dry)
    want = [with_gradients(lambda *qkv: attend(*qkv, seed=seed), tensors) for seed in (1, 2)]  # noqa: B023
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    found: list[list[list[Tensor]]] = [[], []]
    for _ in range(8):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[i].append(with_gradients(lambda *qkv: attend(*qkv, seed=i + 1), tensors))  # noqa: B023
    torch.cuda.synchronize()
    for i in range(2):
        for got in found[i]:
            assert_same(got, want[i], f"on stream {i}")


def timm_model(is_dry: bool) -> dict[str, Any]:
    try:
        import timm
    except ImportError as error:
        raise NotHere(f"timm is not installed: {error}") from None
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 2, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **(small if is_dry else {"depth": 3})).to(device())
    size = 32 if is_dry else 224
    images = torch.randn(2, 3, size, size, device=device())
    model.train()
    with dropkey.apply(model, dropkey.DropKey(0.3), backend="triton") as handle:
        verified = str(handle.verify(images))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        compiled = torch.compile(model, backend=compile_backend(is_dry))
        losses = []
        for _ in range(2 if is_dry else 6):
            with torch.autocast(device(), torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(
                    compiled(images).float(), torch.tensor([0, 1], device=device())
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(round(loss.item(), 4))
    assert all(loss == loss for loss in losses), f"NaN: {losses}"
    assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
    return {"losses": losses, "verify": verified.splitlines()[:3]}


def handle_in_a_graph(is_dry: bool) -> dict[str, Any]:
    """A captured graph of a model drops at the ratios that its handle has when it is replayed."""
    need_gpu()
    import timm

    changes = {}
    for pattern in ("element", "column", dropkey.Block(3)):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10).train().to("cuda", torch.bfloat16)
        images = torch.randn(2, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
        plain = model(images).float()
        handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant", pattern=pattern))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(3):
                model(images)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            out = model(images)
        found = []
        for ratio in (0.3, 2**-15, 0.9):
            handle.drop_ratios = [ratio] * 2
            graph.replay()
            torch.cuda.synchronize()
            found.append(round((out.float() - plain).norm().item(), 4))
        changes[str(pattern)] = found
        assert found[1] < 0.5 * found[0] < 0.5 * found[2], f"{pattern}: the output moves by {found}"
    return {"moved_by": changes}


def linear_memory(is_dry: bool) -> dict[str, Any]:
    need_gpu()
    found = {}
    for tokens in (4096, 8192):
        tensors = [torch.randn(1, 4, tokens, 64, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
        with_gradients(attend, tensors)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with_gradients(attend, tensors)
        torch.cuda.synchronize()
        found[tokens] = torch.cuda.max_memory_allocated() - before
    inputs_bytes = 4 * 4 * 8192 * 64 * 2
    facts = {"peak_bytes": found, "inputs_bytes": inputs_bytes}
    assert found[8192] <= 4 * inputs_bytes, f"more than four times the tensors: {facts}"
    assert found[8192] <= 2.5 * found[4096], f"not linear in the tokens: {facts}"
    return facts


def block_at_a_changing_ratio(is_dry: bool) -> None:
    tensors = inputs(is_dry)
    grid = {"grid_size": (1, 17) if is_dry else (14, 14), "num_prefix_tokens": 1}
    for number in (0.2, 0.5):
        draw = {"drop_ratio": number, "seed": 5, "pattern": "block", **grid}
        keep = dropkey.keep_mask(*tensors[0].shape[:3], tensors[1].shape[2], **draw).to(device())
        got = with_gradients(lambda *qkv: attend(*qkv, **draw), tensors)  # noqa: B023
        want, own = reference(tensors, keep, None, False), torchs(tensors, None, **draw)
        for a, b, c in zip(got, want, own, strict=True):
            allowed = 2 * (c.double() - b).abs().max() + 2 * torch.finfo(a.dtype).eps * b.abs().max()
            assert (a.double() - b).abs().max() <= allowed, f"ratio {number}"


FEATURES = {
    function.__name__: function
    for function in (
        self_test, implicit_seed, repeats_bit_for_bit, no_synchronization, compiled_equals_eager,
        ratio_without_recompiling,
        cuda_graph, cuda_graph_ratio, handle_in_a_graph, checkpointing, two_streams, timm_model, linear_memory,
        wide.wide_strides, wide.many_elements, block_at_a_changing_ratio,
    )
}  # fmt: skip
