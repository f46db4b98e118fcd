"""Random images, configs and command lines: a few in the default suite, many in the slow one."""

import pytest

from fuzz.files import JUDGES

every_judge = pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.__name__)


@every_judge
def test_some(judge):
    for number in range(120):
        judge(number)


@pytest.mark.slow
@every_judge
def test_many(judge):
    for number in range(1000, 6000):
        judge(number)
