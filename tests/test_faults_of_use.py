"""What broke in ordinary use of models: assignments, patched modules, grids, threads, tracers. Kind by kind."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from conftest import DRAWN, tiny_vit
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import dropkey
from dropkey.adapters import filling
from dropkey.adapters.listeners import recording
from dropkey.adapters.site import site_of
from dropkey.adapters.slots import SLOTS
from dropkey.patterns import PATTERNS

REGULARIZERS = [dropkey.DropKey(0.3, schedule="constant"), dropkey.AttentionDropout(0.3), dropkey.ReAttention()]
every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: type(r).__name__)


@dropkey.register
class Attend(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def one_line(error):
    return "\n" not in str(error.value)


# Assignments that would do nothing.


def test_ratios_are_read_as_a_tuple(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    assert handle.drop_ratios == (0.3, 0.15, 0.0)
    with pytest.raises(TypeError):
        handle.drop_ratios[1] = 0.5


@pytest.mark.parametrize("ratios", [0.5, "0.5", None, np.float64(0.5)])
def test_one_ratio_is_no_list_of_ratios(vit, ratios):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    with pytest.raises(dropkey.ArgumentError, match=r"one ratio a site, got .*\] \* 3") as error:
        handle.drop_ratios = ratios
    assert one_line(error)
    assert handle.drop_ratios == (0.3, 0.15, 0.0)


def test_ratios_may_come_as_anything_iterable(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    for ratios in (
        np.array([0.1, 0.2, 0.5]),
        (r for r in (0.1, 0.2, 0.5)),
        torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64),
    ):
        handle.drop_ratios = [0.0] * 3
        handle.drop_ratios = ratios
        assert handle.drop_ratios == (0.1, 0.2, 0.5)


@pytest.mark.parametrize("regularizer", REGULARIZERS[:1])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("drop_ratio", "did you mean 'drop_ratios'"),
        ("dropratios", "did you mean 'drop_ratios'"),
        ("enabled", r"disable\(\)"),
        ("regularizer", r"remove\(\)"),
        ("sites", "where="),
        ("backend", r"help\(handle\)"),
        ("unknown", r"help\(handle\)"),
    ],
)
def test_nothing_else_can_be_assigned(vit, regularizer, name, remedy):
    handle = dropkey.apply(vit, regularizer)
    with pytest.raises(dropkey.ArgumentError, match=f"{name!r} to assign: .*{remedy}") as error:
        setattr(handle, name, 0.5)
    assert one_line(error)
    assert not hasattr(handle, "drop_ratio")


# A class or a forward that was changed after apply.


class Another(nn.Module):
    def forward(self, x, **options):
        return x


def around(module):
    """What accelerate and others do: a forward on the instance that calls the one before."""
    before = module.forward
    module.forward = lambda *args, **kwargs: before(*args, **kwargs)


@every_regularizer
@pytest.mark.parametrize("place", [0, 1])
def test_another_class_is_noticed(images, regularizer, place):
    model = tiny_vit(depth=2)
    handle = dropkey.apply(model, regularizer)
    model.blocks[place].attn.__class__ = Another
    assert not handle.enabled
    assert "NOT AT ALL SITES" in str(handle)
    assert f"Changed since apply, see whether it still acts with handle.verify: blocks.{place}.attn" in str(handle)
    with pytest.raises(dropkey.SiteError, match=rf"blocks\.{place}\.attn .* no longer asks .* Another") as error:
        handle.verify(images)
    assert one_line(error)


@every_regularizer
def test_a_forward_that_runs_around_ours_is_noticed(images, regularizer):
    model = tiny_vit(depth=2)
    handle = dropkey.apply(model, regularizer)
    model.blocks[0].attn.forward = lambda x, **options: x
    assert "blocks.0.attn (Attention): a forward was set on the instance" in str(handle)
    with pytest.raises(dropkey.SiteError, match=r"blocks\.0\.attn .*not reached"):
        handle.verify(images)


@every_regularizer
def test_a_forward_around_ours_changes_nothing_and_outlives_removal(images, regularizer):
    plain, model = tiny_vit(depth=2), tiny_vit(depth=2)
    handle = dropkey.apply(model, regularizer)
    for block in model.blocks:
        around(block.attn)
    handle.verify(images)
    assert handle.enabled
    handle.remove()
    for mode in (True, False):
        assert torch.equal(model.train(mode)(images), plain.train(mode)(images))
    again = tiny_vit(depth=2)
    again.load_state_dict(model.state_dict())


def test_subclasses_of_ours_still_ask(images):
    """As FSDP makes them."""
    model = tiny_vit(depth=2)
    handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant"))
    attn = model.blocks[0].attn
    attn.__class__ = type("Sharded", (type(attn),), {})
    assert handle.enabled
    handle.verify(images)


# Apply: all or nothing.


class Registry(nn.Module):
    def __init_subclass__(cls, *, name, **rest):
        super().__init_subclass__(**rest)

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Fixed(type):
    def __new__(mcs, name, bases, members):
        if bases != (nn.Module,):
            raise TypeError(f"{name} would be a subclass of a final class")
        return super().__new__(mcs, name, bases, members)


class Final(nn.Module, metaclass=Fixed):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Frozen(nn.Module):
    """An instance that does not let its class be changed."""

    def __setattr__(self, name, value):
        if name == "__class__":
            raise AttributeError("frozen")
        super().__setattr__(name, value)

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


for unwilling in (Registry, Final, Frozen):
    dropkey.register(unwilling)


def untouched(model, plain, images):
    assert dropkey.handles(model) == []
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert all(site_of(m) is None for m in model.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model.train()(images), plain.train()(images))


@pytest.mark.parametrize("cls", [Registry, Final, Frozen])
def test_a_class_that_cannot_be_subclassed_leaves_nothing_behind(images, cls):
    model, plain = tiny_vit(depth=2, attn_drop_rate=0.0), tiny_vit(depth=2)
    both = nn.ModuleDict({"vit": model, "mine": cls()})
    for regularizer in REGULARIZERS[:2]:
        with pytest.raises((dropkey.SiteError, AttributeError), match=r"frozen|mine \(\w+\) cannot become a site"):
            dropkey.apply(both, regularizer)
        untouched(model, plain, images)
    chosen = dropkey.apply(both, REGULARIZERS[0], where=lambda f: f.name != "mine")
    assert len(chosen.sites) == 2


@every_regularizer
@pytest.mark.parametrize("step", ["swap_in", "settle", "put_in"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_half_way_leaves_nothing_behind(images, regularizer, step, error, monkeypatch):
    model, plain = tiny_vit(depth=3, attn_drop_rate=0.25), tiny_vit(depth=3, attn_drop_rate=0.25)
    holder = {"swap_in": filling, "settle": filling.own_dropout, "put_in": SLOTS[type(regularizer)]}[step]
    real, calls = getattr(holder, step), []

    def fails_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error("half way")
        return real(*args)

    monkeypatch.setattr(holder, step, fails_second)
    with pytest.raises(error, match="half way"):
        dropkey.apply(model, regularizer)
    monkeypatch.undo()
    assert [block.attn.attn_drop.p for block in model.blocks] == [0.25] * 3
    torch.manual_seed(0)
    out = model.train()(images)
    torch.manual_seed(0)
    assert torch.equal(out, plain.train()(images))
    assert dropkey.handles(model) == []
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert model.state_dict().keys() == plain.state_dict().keys()
    dropkey.apply(model, regularizer).verify(images)


@every_regularizer
def test_apply_and_change_in_inference_mode(images, regularizer):
    model = tiny_vit(depth=2)
    with torch.inference_mode():
        handle = dropkey.apply(model, regularizer)
        handle.disable()
        handle.enable()
        if not isinstance(regularizer, dropkey.ReAttention):
            handle.drop_ratios = [0.2, 0.2]
        model(images)
    model.train()(images).sum().backward()
    if not isinstance(regularizer, dropkey.ReAttention):
        handle.drop_ratios = [0.1, 0.1]
    handle.verify(images)
    assert all(p.grad is not None for name, p in model.named_parameters() if "attn" in name)


# Symbols of torch.fx, which feature extractors trace with.


def swin():
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 16, [2, 2], [2, 2], [2, 2], stochastic_depth_prob=0.0, num_classes=5)


TRACED = {"timm": lambda: tiny_vit(depth=2), "torchvision": swin}


@every_regularizer
@pytest.mark.parametrize("build", TRACED.values(), ids=TRACED)
def test_a_feature_extractor_drops_as_its_model_does(images, regularizer, build):
    if build is swin and isinstance(regularizer, dropkey.ReAttention):
        pytest.skip("windows are not mixed")
    model = build()
    handle = dropkey.apply(model, regularizer)
    train, evaluation = get_graph_node_names(model)
    assert train == evaluation
    assert [n for n in train if n in {site.name for site in handle.sites}] == [site.name for site in handle.sites]
    last = train[-2]
    features = create_feature_extractor(model, [last])
    assert len(dropkey.handle(features).sites) == len(handle.sites)
    for mode in (True, False):
        model.train(mode)
        features.train(mode)
        heads = []
        hook = model.head.register_forward_pre_hook(lambda m, inputs, kept=heads: kept.append(inputs[0]))
        torch.manual_seed(3)
        model(images)
        hook.remove()
        torch.manual_seed(3)
        assert torch.equal(features(images)[last], heads[0])
    handle.disable()
    assert len(get_graph_node_names(model)[0]) > len(train)


# Monte Carlo in one thread.


def test_another_thread_evaluates_as_ever(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant"))
    vit.eval()
    expected = vit(images).detach()
    seen, go, done = [], threading.Event(), threading.Event()

    def evaluate():
        go.wait(20)
        with torch.no_grad():
            seen.append(vit(images))
        done.set()

    def between(module, inputs, out):
        if threading.current_thread() is not thread and not go.is_set():
            go.set()
            assert done.wait(20)

    thread = threading.Thread(target=evaluate)
    thread.start()
    hook = vit.patch_embed.register_forward_hook(between)
    std = dropkey.monte_carlo(vit, images, samples=3).std
    hook.remove()
    thread.join(20)
    assert (std > 0).all()
    assert torch.equal(seen[0], expected)


def test_monte_carlo_in_two_threads_at_once(images):
    vit = tiny_vit(drop_rate=0.9)
    dropkey.apply(vit, dropkey.DropKey(1e-4, schedule="constant", pattern="token"))  # no key of 65 goes
    vit.train()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(dropkey.monte_carlo(vit, images, samples=8))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    assert all(result.std.max() == 0 for result in results)  # no other dropout either
    assert all(module.training for module in vit.modules())


def test_monte_carlo_does_not_follow_into_threads(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    parallel = nn.DataParallel(vit)
    parallel.device_ids = [0, 1]
    with pytest.raises(dropkey.SiteError, match=r"\.module"):
        dropkey.monte_carlo(parallel, images)


# The patch grid of each pass.

every_grid_pattern = pytest.mark.parametrize("pattern", [name for name, cls in PATTERNS.items() if cls.needs_grid])
SIZES = [(32, 32), (16, 64), (64, 16), (16, 32), (48, 20)]


def with_grid(model, pattern, **options):
    return dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant", pattern=pattern), **options)


def grids_drawn(model, *inputs, **options):
    """The grids on which the sites of a model draw in one training pass."""
    modules = [module for module in model.modules() if site_of(module) is not None]
    with recording(modules) as records:
        model.train()(*inputs, **options)
    return {record.call.draw.grid_size for heard in records for record in heard}


def random_images(height, width, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height))


@every_grid_pattern
def test_windows_follow_a_new_input_size(pattern):
    model = tiny_vit(depth=2)
    handle = with_grid(model, pattern)
    for size in SIZES:
        model.set_input_size(img_size=size)
        handle.verify(random_images(*size))
        assert grids_drawn(model, random_images(*size)) == {(size[0] // 4, size[1] // 4)}


@every_grid_pattern
@pytest.mark.parametrize(
    "through", [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_windows_follow_every_input(pattern, through):
    original = tiny_vit(depth=2, dynamic_img_size=True)
    with_grid(original, pattern)
    model = through(original)
    for size in SIZES:
        dropkey.handle(model).verify(random_images(*size))
        assert grids_drawn(model, random_images(*size)) == {(size[0] // 4, size[1] // 4)}
    if model is not original:
        assert {site.grid_size for site in map(site_of, original.modules()) if site} == {(8, 8)}


@every_grid_pattern
def test_crops_of_several_sizes_in_one_step(pattern):
    model = tiny_vit(depth=2, dynamic_img_size=True)
    with_grid(model, pattern, backend="cpu" if pattern in DRAWN["cpu"] else "auto")
    crops = [random_images(*size) for size in SIZES]

    def gradients(*batches):
        model.zero_grad()
        torch.manual_seed(1)
        sum(model.train()(batch).square().sum() for batch in batches).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    def one_by_one():
        model.zero_grad()
        torch.manual_seed(1)
        for batch in crops:
            model.train()(batch).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradients(*crops), one_by_one(), rtol=1e-4, atol=1e-4)


@every_grid_pattern
def test_crops_under_checkpoints_are_right_or_refused(pattern):
    model = tiny_vit(depth=2, dynamic_img_size=True)
    with_grid(model, pattern)
    model.set_grad_checkpointing()
    loss = sum(model.train()(random_images(*size)).square().sum() for size in SIZES[:2])
    with pytest.raises(dropkey.SiteError, match=r"recomputed in a backward pass with .* on grid") as error:
        loss.backward()
    assert one_line(error)
    for size in SIZES:
        model(random_images(*size)).sum().backward()


@every_grid_pattern
def test_windows_follow_the_inputs_of_transformers(pattern):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=4
    )
    model = transformers.ViTModel(config, add_pooling_layer=False)
    handle = with_grid(model, pattern)
    for size in SIZES:
        images = random_images(*size)
        handle.verify(images, interpolate_pos_encoding=True)
        grids = grids_drawn(model, images, interpolate_pos_encoding=True)
        assert grids == {(size[0] // 4, size[1] // 4)}


@every_grid_pattern
def test_windows_follow_a_compiled_model(pattern):
    model = tiny_vit(depth=1, dynamic_img_size=True)
    with_grid(model, pattern)
    compiled = torch.compile(model.train(), backend="eager")
    for size in SIZES[:3]:
        torch.manual_seed(4)
        expected = model(random_images(*size))
        torch.manual_seed(4)
        torch.testing.assert_close(compiled(random_images(*size)), expected)


@every_grid_pattern
def test_a_grid_that_is_given_is_kept_and_what_is_followed_is_undone(pattern):
    model = tiny_vit(depth=2, dynamic_img_size=True)
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    handle = with_grid(model, pattern, grid_size=(4, 16))
    assert grids_drawn(model, random_images(32, 32)) == {(4, 16)}
    handle.remove()
    mixing = dropkey.apply(model, dropkey.ReAttention())
    handle = with_grid(model, pattern, grid_size=(4, 16))
    assert grids_drawn(model, random_images(32, 32)) == {(4, 16)}
    handle.remove()
    handle = with_grid(model, pattern)
    mixing.remove()
    assert grids_drawn(model, random_images(16, 64)) == {(4, 16)}
    handle.remove()
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before


@every_grid_pattern
@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa", "cpu"])
def test_tokens_that_left_the_grid_are_refused(images, pattern, backend):
    model = tiny_vit(depth=2, patch_drop_rate=0.25)
    handle = with_grid(model, pattern, backend=backend)
    for call in (lambda: model.train()(images), lambda: handle.verify(images)):
        with pytest.raises(dropkey.SiteError, match=r"blocks\.0\.attn .*49 keys.*left out or merged") as error:
            call()
        assert one_line(error)
    model.eval()(images)
