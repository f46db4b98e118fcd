"""Run random calls and print what they showed: ``PYTHONPATH=tests python -m fuzz 10000 [--large 1000] [--files 200]``

Each call runs forward and backward on every backend that works here; masks, shapes, types and layouts must be right,
and nothing may crash. Errors are counted against the accuracy rule: at most twice torch's own attention (backend sdpa)
with the same mask, plus two eps of the largest value. They are maxima over a tensor, so where a tensor has few entries
torch's may be small by luck: calls with an axis below 8 are counted apart. So are logits of standard deviation 25 to
900.
"""

import argparse
import collections
import itertools
import statistics
import time
import warnings

import torch

from fuzz.calls import Call, random_call
from fuzz.files import JUDGES
from fuzz.judge import RUNNABLE, judge
from fuzz.modules import judge_module

ERRORS = collections.defaultdict(list)  # of every kind of call and backend, in eps, over out, dq, dk and dv


def main(calls: int, first: int, large: int, files: int) -> None:
    warnings.filterwarnings("ignore", message=".*use_reentrant.*")
    torch.set_num_threads(1)
    start, failures = time.perf_counter(), []
    counts = collections.defaultdict(collections.Counter)
    for number in range(first, first + calls + large):
        call = random_call(number, large=number >= first + calls)
        judged(call, number, counts[kind_of(call)], failures)
    for number in range(first, first + calls // 10):
        try:
            judge_module(number)
        except Exception as error:
            failures.append(f"module {number}: {type(error).__name__}: {error}")
    for number, judge_file in itertools.product(range(first, first + files), JUDGES):
        try:
            judge_file(number)
        except Exception as error:
            failures.append(f"{judge_file.__name__} {number}: {type(error).__name__}: {error}")
    report(counts, failures)
    modules, seconds = calls // 10, time.perf_counter() - start
    others = f"{modules} modules, and {files} images, configs and command lines"
    print(f"{calls + large} calls on {', '.join(RUNNABLE)}, {others}: {seconds:.0f} s")


def judged(call: Call, number: int, count: collections.Counter, failures: list[str]) -> None:
    count["calls"] += 1
    try:
        verdicts = judge(call, number, [name for name in RUNNABLE if name != "sdpa"])
    except Exception as error:
        failures.append(f"call {number}: {type(error).__name__}: {error}")
        return
    kind = kind_of(call)
    ERRORS[kind, "sdpa"] += [torchs for _, _, torchs in verdicts[0].errors[:4]]
    for verdict in verdicts:
        ERRORS[kind, verdict.backend] += [ours for _, ours, _ in verdict.errors[:4]]
        for factor in (2, 4):
            exceeding = verdict.beyond(factor)
            count[verdict.backend, factor] += bool(exceeding)
            if exceeding and factor == 4:
                worst = [(n, round(o, 1), round(t, 1)) for n, o, t in verdict.errors if n in exceeding]
                print(f"call {number} on {verdict.backend} is beyond 4 x torch's error + 4 eps: {worst}", flush=True)


def kind_of(call: Call) -> str:
    if call.spread > 10:
        return "large logits"
    tiny = min(*call.shape[2:], *(tensor.shape[3] for tensor in call.tensors)) < 8
    return "an axis below 8" if tiny else "usual"


def report(counts: dict[str, collections.Counter], failures: list[str]) -> None:
    for kind, count in counts.items():
        backends = sorted({key[0] for key in count if isinstance(key, tuple)})
        each = (f"{name} {count[name, 2]} and {count[name, 4]}" for name in backends)
        print(f"{kind}: {count['calls']} calls; beyond the rule, and beyond twice the rule: {', '.join(each)}")
        medians = (f"{name} {statistics.median(ERRORS[kind, name]):.2f}" for name in ("sdpa", *backends))
        print(f"  median error in eps of the largest value: {', '.join(medians)}")
    print(f"{len(failures)} failures", *failures[:20], sep="\n  ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--large", type=int, default=0, help="so many more calls with large logits")
    parser.add_argument("--files", type=int, default=200, help="so many images, config files and command lines each")
    main(**vars(parser.parse_args()))
