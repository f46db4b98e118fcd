"""How many bodies a second are drawn on one core, from random numbers to JPEG: ``python -m benchmarks.bodies``

The median of rounds in which the sizes take turns, after one round to warm up, and the slowest and the fastest.
"""

import statistics
import sys
import time

import torch

from dropkey.data.bodies.body_model import BodyModel
from dropkey.data.bodies.sampled import Painter
from dropkey.data.bodies.source import bodies_folder

SIZES = (128, 224)
COUNT = 200  # bodies in a round
ROUNDS = 7


def main() -> None:
    torch.set_num_threads(1)
    folder = bodies_folder()
    folder.mkdir(parents=True, exist_ok=True)
    print("anny may build its bodies first, once, which takes a minute", file=sys.stderr)
    model = BodyModel(folder)
    painters = {size: Painter(model, size, seed=0) for size in SIZES}
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(ROUNDS + 1):
        for size, painter in painters.items():
            rate = drawn_a_second(painter, turn * COUNT)
            if turn:
                rates[size].append(rate)
    for size, found in rates.items():
        print(f"{size} pixels: {statistics.median(found):.0f} a second ({min(found):.0f} to {max(found):.0f})")


def drawn_a_second(painter: Painter, first: int) -> float:
    start = time.perf_counter()
    painter.paint("benchmark", first, COUNT)
    return COUNT / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
