"""How often rounding exceeds the accuracy rule on long random calls: ``python benchmarks/accuracy.py 1000``

The rule: the error of the output and of each gradient against float64 is at most twice that of torch's own attention
with the same mask, plus two eps of the largest value. Errors are maxima over a tensor, so now and then torch's is small
by luck. Calls are float32, 520 to 2,100 keys, up to 600 queries, any head dimension of the papers, ratios up to 0.999.
"""

import argparse
import random
import statistics

import torch
from torch import Tensor

import dropkey

EPS = torch.finfo(torch.float32).eps
TENSORS = ("out", "dq", "dk", "dv")


def main(calls: int, backend: str) -> None:
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in TENSORS}
    over = 0
    for number in range(calls):
        found = errors_of(number, backend)
        exceeding = {name: pair for name, pair in found.items() if pair[0] > 2 * pair[1] + 2}
        over += bool(exceeding)
        for name, (ours, torchs) in exceeding.items():
            print(f"call {number}, {name}: {ours:.2f} eps, torch's attention {torchs:.2f}", flush=True)
        for name, pair in found.items():
            errors[name].append(pair)
    for name, pairs in errors.items():
        ours, torchs = (statistics.mean(side) for side in zip(*pairs, strict=True))
        print(f"{name}: {ours:.2f} eps on average, torch's attention {torchs:.2f}")
    print(f"{over} of {calls} calls exceed the rule on backend {backend!r}")


def errors_of(number: int, backend: str) -> dict[str, tuple[float, float]]:
    """Return the largest errors of the backend and of torch's attention, in eps of the largest value."""
    draw = random.Random(number)
    keys, queries = draw.randint(520, 2100), draw.choice([draw.randint(1, 64), draw.randint(65, 600)])
    dim, value_dim = draw.choice([12, 33, 64, 64, 96]), draw.choice([12, 35, 64, 64])
    arguments = {
        "drop_ratio": draw.choice([0.01, 0.3, 0.7, 0.99, 0.999]),
        "pattern": draw.choice(["element", "element", "column", "token"]),
        "seed": number,
    }
    generator = torch.Generator().manual_seed(number)
    sizes = ((queries, dim), (keys, dim), (keys, value_dim), (queries, value_dim))
    inputs = [torch.randn(1, 2, *size, generator=generator) for size in sizes]
    results = [run(name, inputs, arguments) for name in (backend, "sdpa")]
    exact = run("reference", [tensor.double() for tensor in inputs], arguments)
    found = {}
    for name, ours, torchs, want in zip(TENSORS, *results, exact, strict=True):
        unit = EPS * want.abs().max()
        if unit == 0:  # a single key has been kept, and has no gradient but its value's
            continue
        found[name] = tuple(((got - want).abs().max() / unit).item() for got in (ours, torchs))
    return found


def run(backend: str, inputs: list[Tensor], arguments: dict) -> tuple[Tensor, ...]:
    *operands, grad_out = (tensor.clone().requires_grad_() for tensor in inputs)
    out = dropkey.attention(*operands, backend=backend, **arguments)
    return (out.detach(), *torch.autograd.grad(out, operands, grad_out.detach()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", type=int, nargs="?", default=1000)
    parser.add_argument("--backend", default="cpu", help="or reference: the textbook formula in float32")
    main(**vars(parser.parse_args()))
