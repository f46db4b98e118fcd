"""Random calls against the float64 oracle: a few in the default suite, many in the slow one."""

import pytest
import torch

from fuzz.calls import random_call
from fuzz.judge import RUNNABLE, judge
from fuzz.modules import judge_module

OTHERS = [name for name in (*RUNNABLE, "auto") if name not in ("sdpa", "triton")]
pytestmark = pytest.mark.filterwarnings("ignore:.*use_reentrant.*")
FEW, MANY = range(250), range(1000, 6000)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # calls so small that a second costs more than it does
    yield
    torch.set_num_threads(before)


def check(numbers, dtype=torch.float32, small=True):
    """Nothing may be far off; how often rounding exceeds the accuracy rule is counted by ``python -m fuzz``."""
    for number in numbers:
        for verdict in judge(random_call(number, dtype=dtype, small=small), number, OTHERS):
            far = [error for error in verdict.errors if error[0] in verdict.beyond(16)]
            assert not far, (number, verdict.backend, far)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_calls(dtype):
    check(FEW, dtype)


def test_random_modules():
    for number in FEW:
        judge_module(number)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_random_calls(dtype):
    check(MANY, dtype, small=False)


@pytest.mark.slow
def test_many_random_modules():
    for number in MANY:
        judge_module(number)
