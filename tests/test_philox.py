"""Random bits against published answers and against Python integers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import masks

from dropkey.philox import draw_seed, philox4x32, seed_tensor

CPU = torch.device("cpu")
U32 = st.integers(0, 2**32 - 1)


def run(counter, seed):
    words = philox4x32(tuple(torch.tensor(c, dtype=torch.int64) for c in counter), seed_tensor(seed, CPU))
    return [int(word) for word in words]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
        ),
    ],
)
def test_known_answers(counter, key, answer):
    """Published test vectors of Random123 for philox4x32 with 7 rounds."""
    assert run(counter, key[0] + (key[1] << 32)) == list(answer)


@given(st.tuples(U32, U32, U32, U32), st.integers(0, 2**64 - 1))
def test_equals_python_integers(counter, seed):
    assert run(counter, seed) == masks.philox(counter, seed)


def test_broadcasts_its_coordinates():
    rows, cols = torch.arange(3)[:, None], torch.arange(5)
    words = philox4x32((cols, rows, torch.tensor([7]), torch.tensor([1])), seed_tensor(11, CPU))
    assert [w.shape for w in words] == [(3, 5)] * 4
    assert [int(w[2, 4]) for w in words] == masks.philox((4, 2, 7, 1), 11)


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1, -1])
def test_seed_is_taken_modulo_2_to_64(seed):
    assert int(seed_tensor(seed, CPU)) % 2**64 == seed % 2**64
    assert int(seed_tensor(torch.tensor(7, dtype=torch.int32), CPU)) == 7


def test_drawn_seed_follows_torch_and_differs_each_time():
    torch.manual_seed(3)
    first = [int(draw_seed(CPU)) for _ in range(3)]
    torch.manual_seed(3)
    assert [int(draw_seed(CPU)) for _ in range(3)] == first
    assert len(set(first)) == 3


def test_ranks_seeded_alike_draw_differently(monkeypatch):
    seeds = set()
    for rank in range(4):
        monkeypatch.setattr("dropkey.philox._distributed_rank", lambda rank=rank: rank)
        torch.manual_seed(3)
        seeds.add(int(draw_seed(CPU)))
    assert len(seeds) == 4
