"""Arguments of a wrong kind, at every public function: one line that names the argument, and nothing is done.

What is wrong here is never out of range by a little: it is another kind of thing, as a notebook or a config gives it.
"""

import copy
import io

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from torch import nn

import dropkey
from dropkey.adapters.site import site_of

Q = torch.randn(1, 2, 4, 8)
BACKENDS = ["auto", *(name for name, state in dropkey.backends().items() if state.startswith("available"))]
DROPKEY = dropkey.DropKey(0.3, schedule="constant")


class Wordy:
    """Something whose repr takes many lines, as that of a model does."""

    def __repr__(self):
        return "a\nb"


WRONG_RATIO = ["0.3", None, [0.3], 1j, "", Wordy()]
WRONG_COUNT = [-1, 1.5, "1", None, True, [1], torch.tensor(1.0), Wordy()]
WRONG_FLAG = ["no", "False", 0, 1, None, torch.tensor(True), Wordy()]
WRONG_GRID = [5, (4,), (4, 4, 4), "44", (4.0, 4.0), (0, 16), (-4, -4), ("4", "4"), (True, 16), Wordy()]
WRONG_SCALE = ["0.5", 1j, [0.5], torch.tensor([0.5, 1.0]), torch.tensor(1j)]
WRONG_NAME = [None, 3, ["cpu"], {"name": "block"}, dropkey.Block, "blok"]
WRONG_MODEL = [5, None, tiny_vit, [tiny_vit()], {}, DROPKEY, Wordy()]
WRONG_WHERE = ["blocks.0", ["blocks.0.attn"], 0, True]
WRONG_SCHEDULE = [0.3, None, 1, torch.tensor(0.3)]


def refused(name, call, *args, **kwargs):
    with pytest.raises(dropkey.ArgumentError, match=name) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def attention(**options):
    return dropkey.attention(Q, Q, Q, **{"drop_ratio": 0.3, "seed": 1, **options})


def mask(**options):
    sizes = {"batch": 1, "num_heads": 2, "num_queries": 4, "num_keys": 16, "drop_ratio": 0.3, "seed": 1}
    return dropkey.keep_mask(**{**sizes, **options})


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention(backend):
    for wrong in WRONG_RATIO:
        refused("drop_ratio", attention, backend=backend, drop_ratio=wrong)
    for wrong in WRONG_FLAG:
        for ratio in (0.0, 0.3):
            refused("is_causal", attention, backend=backend, is_causal=wrong, drop_ratio=ratio)
    for wrong in WRONG_SCALE:
        refused("scale", attention, backend=backend, scale=wrong)
    for pattern in ("element", "block"):
        for wrong in WRONG_GRID:
            refused("grid_size", attention, backend=backend, grid_size=wrong, pattern=pattern)
        for wrong in WRONG_COUNT:
            refused("num_prefix_tokens", attention, backend=backend, num_prefix_tokens=wrong, pattern=pattern)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_ratios_in_a_tensor_are_read_where_that_costs_nothing(backend, dtype):
    for wrong in (1.0, -1.0, 2.0, float("nan"), float("inf")):
        refused("drop_ratio", attention, backend=backend, drop_ratio=torch.tensor(wrong, dtype=dtype))
        refused("drop_ratio", mask, drop_ratio=torch.tensor(wrong, dtype=dtype))
    for right in (0.0, 0.3):
        attention(backend=backend, drop_ratio=torch.tensor(right, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
def test_types_that_no_logit_has(dtype):
    numbers = torch.ones(1, 2, 4, 8).to(dtype)
    refused(f"query .* floating type, got {dtype}", dropkey.attention, numbers, numbers, numbers, drop_ratio=0.3)


def test_names():
    for wrong in WRONG_NAME:
        refused("unknown pattern", attention, pattern=wrong)
        refused("unknown pattern", mask, pattern=wrong)
        refused("unknown pattern", dropkey.DropKey, 0.3, pattern=wrong)
        refused("unknown backend", attention, backend=wrong)
        refused("unknown backend", dropkey.apply, tiny_vit(), DROPKEY, backend=wrong)


def test_masks():
    for wrong in WRONG_COUNT:
        for name in ("batch", "num_heads", "num_queries", "num_keys"):
            for ratio in (0.0, 0.3):
                refused(name, mask, drop_ratio=ratio, **{name: wrong})
    for wrong in WRONG_GRID:
        refused("grid_size", mask, pattern="cross", grid_size=wrong)
    for wrong in WRONG_RATIO:
        refused("drop_ratio", mask, drop_ratio=wrong)


def test_numbers_of_numpy_are_numbers():
    assert torch.equal(
        mask(batch=np.int64(1), num_keys=np.int32(16), drop_ratio=np.float32(0.25)), mask(drop_ratio=0.25)
    )
    on_grid = mask(pattern="block", grid_size=(4, 4))
    assert torch.equal(mask(pattern=dropkey.Block(np.int64(3)), grid_size=np.array([4, 4])), on_grid)
    assert type(dropkey.Block(np.int64(3)).window_size) is int
    assert dropkey.ReAttention(last=np.int64(2), norm="batch") == dropkey.ReAttention(last=2)


def test_descriptions():
    for wrong in WRONG_RATIO:
        for cls in (dropkey.DropKey, dropkey.AttentionDropout):
            refused("drop_ratio", cls, wrong)
    for wrong in WRONG_SCHEDULE:
        refused("schedule must be", dropkey.DropKey, 0.3, schedule=wrong)
        refused("schedule must be", dropkey.apply, tiny_vit(), dropkey.DropKey(0.3, schedule=lambda r, d, w=wrong: w))
    for wrong in WRONG_FLAG:
        refused("renormalize", dropkey.AttentionDropout, 0.3, renormalize=wrong)
        refused("mask_diagonal", dropkey.LocalityAttention, mask_diagonal=wrong)
    for wrong in WRONG_COUNT:
        if wrong is not None:
            refused("last", dropkey.ReAttention, last=wrong)
            refused("blocks", dropkey.ReAttention, blocks=[wrong])
            refused("blocks", dropkey.ReAttention, blocks=wrong if wrong != [1] else 1)
        refused("window_size", dropkey.Block, wrong)
        refused("window_size", dropkey.Cross, wrong)


def test_apply_refuses_before_it_touches_the_model():
    model = tiny_vit(depth=2)
    classes = [type(module) for module in model.modules()]
    for wrong in WRONG_GRID:
        refused("grid_size", dropkey.apply, model, DROPKEY, grid_size=wrong)
    for wrong in WRONG_COUNT:
        if wrong is not None:
            refused("num_prefix_tokens", dropkey.apply, model, DROPKEY, num_prefix_tokens=wrong)
    for wrong in WRONG_WHERE:
        refused("where must be a function", dropkey.apply, model, DROPKEY, where=wrong)
    for wrong in (dropkey.DropKey, 0.3, None, model, "dropkey"):
        refused("apply takes DropKey", dropkey.apply, model, wrong)
    assert [type(module) for module in model.modules()] == classes
    assert all(site_of(module) is None for module in model.modules())


def test_everything_that_takes_a_model():
    for wrong in WRONG_MODEL:
        for call in (dropkey.handle, dropkey.handles, dropkey.audit):
            refused("torch.nn.Module, got", call, wrong)
        for call in (dropkey.monte_carlo, dropkey.diagnose):
            refused("torch.nn.Module, got", call, wrong, torch.zeros(1, 3, 32, 32))
        refused("torch.nn.Module, got", dropkey.apply, wrong, DROPKEY)
        refused("torch.nn.Module, got", dropkey.capture(wrong).__enter__)
    for wrong in WRONG_WHERE:
        refused("where must be a function", dropkey.capture(tiny_vit(), where=wrong).__enter__)
        refused("where must be a function", dropkey.diagnose, tiny_vit(), torch.zeros(1, 3, 32, 32), where=wrong)
    refused("register takes", dropkey.register, tiny_vit())


def test_samples():
    model = tiny_vit(depth=1)
    dropkey.apply(model, DROPKEY)
    for wrong in (*WRONG_COUNT, 0, 1):
        refused("samples", dropkey.monte_carlo, model, torch.zeros(1, 3, 32, 32), wrong)


def test_settings():
    handle = dropkey.apply(tiny_vit(depth=2), DROPKEY)
    state = handle.state_dict()
    wrong = [None, [], 5, "state", {**state, "enabled": "no"}, {**state, "enabled": None}]
    wrong += [{**state, "drop_ratios": dict.fromkeys(state["drop_ratios"], "0.3")}]
    handle.disable()
    for settings in wrong:
        refused("settings|enabled|drop_ratio", handle.load_state_dict, settings)
        if settings not in (None, [], 5, "state"):
            refused("enabled|drop_ratio", dropkey.apply, tiny_vit(depth=2), settings)
    assert handle.state_dict() == {**state, "enabled": False}


# A handle that has been removed.


def test_a_removed_handle_can_be_shown_and_left():
    model = tiny_vit(depth=2)
    with dropkey.apply(model, DROPKEY) as handle:
        handle.remove()
        assert repr(handle) == "<Handle removed from VisionTransformer, 0 sites>"
    for call in (handle.remove, handle.enable, handle.state_dict, lambda: str(handle), lambda: handle.drop_ratios):
        with pytest.raises(dropkey.SiteError, match="was removed"):
            call()


def test_an_error_after_removal_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError) as error, dropkey.apply(tiny_vit(depth=1), DROPKEY) as handle:  # noqa: PT012
        handle.remove()
        raise ZeroDivisionError
    assert error.value.__context__ is None


def test_copies_outlive_the_handle_that_they_were_made_under():
    model = tiny_vit(depth=2)
    handle = dropkey.apply(model, DROPKEY)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), torch.load(file, weights_only=False), nn.Sequential(copy.deepcopy(model))]
    handle.remove()
    assert [dropkey.handle(one).drop_ratios for one in copies] == [(0.3, 0.3)] * 3
    assert dropkey.handles(model) == []
