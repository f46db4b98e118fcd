"""Monte Carlo over drawn masks."""

import pytest
import torch
from conftest import tiny_vit

import dropkey


def test_mean_and_std_over_the_passes(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant"))
    torch.manual_seed(5)
    mean, std = dropkey.monte_carlo(vit, images, samples=4)
    torch.manual_seed(5)
    vit.eval()
    for module in vit.modules():
        site = getattr(module, "_dropkey_site", None)
        if site:
            site.slots[0].sampling = True
    with torch.no_grad():
        passes = torch.stack([vit(images).softmax(-1) for _ in range(4)])
    torch.testing.assert_close(mean, passes.mean(0))
    torch.testing.assert_close(std, passes.std(0))
    torch.testing.assert_close(mean.sum(-1), torch.ones(2))
    assert (std > 0).all()


def test_only_dropkey_is_active(images):
    """Dropout, drop path and the model's own attention dropout stay off: where no key of 65 goes all passes agree."""
    model = tiny_vit(drop_rate=0.5, proj_drop_rate=0.5, drop_path_rate=0.5, attn_drop_rate=0.5)
    handle = dropkey.apply(model, dropkey.DropKey(0.5, pattern="token"))
    handle.drop_ratios = [1e-4, 0.0, 0.0]
    mean, std = dropkey.monte_carlo(model, images, samples=3)
    assert std.max() == 0
    torch.testing.assert_close(mean, model.eval()(images).softmax(-1).detach())


def test_modes_are_restored_and_sampling_ends(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    vit.train()
    vit.blocks[0].eval()
    modes = [module.training for module in vit.modules()]
    dropkey.monte_carlo(vit, images, samples=2)
    assert [module.training for module in vit.modules()] == modes
    vit.eval()
    assert torch.equal(vit(images), vit(images))
    with pytest.raises(AssertionError, match="Input height"):
        dropkey.monte_carlo(vit, torch.zeros(2, 3, 5, 5), samples=2)
    assert torch.equal(vit(images), vit(images))


def test_the_mean_approaches_the_expectation(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3))
    torch.manual_seed(0)
    few, many = (dropkey.monte_carlo(vit, images, samples=count) for count in (2, 64))
    again = dropkey.monte_carlo(vit, images, samples=64)
    assert (many.mean - again.mean).abs().max() < 6 * many.std.max() / 8
    assert few.mean.shape == many.mean.shape == (2, 5)


@pytest.mark.parametrize("ratios", [None, [0.0, 0.0, 0.0]])
def test_nothing_to_sample_is_said(vit, images, ratios):
    if ratios is not None:
        dropkey.apply(vit, dropkey.DropKey(0.5)).drop_ratios = ratios
    with pytest.raises(dropkey.SiteError, match="needs a model with DropKey"):
        dropkey.monte_carlo(vit, images)


def test_one_sample_has_no_deviation(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    with pytest.raises(dropkey.ArgumentError, match="2 or more"):
        dropkey.monte_carlo(vit, images, samples=1)


class Wrapped(torch.nn.Module):
    """A model whose output is something else than logits (B, classes)."""

    def __init__(self, model, wrap):
        super().__init__()
        self.model, self.wrap = model, wrap

    def forward(self, images):
        return self.wrap(self.model(images))


class Output:
    """As the outputs of transformers."""

    def __init__(self, logits):
        self.logits = logits


def means(vit, images, wrap):
    torch.manual_seed(3)
    return dropkey.monte_carlo(Wrapped(vit, wrap), images, samples=3).mean


@pytest.mark.parametrize("wrap", [Output, lambda x: {"logits": x, "hidden": 0}], ids=["object", "dict"])
def test_logits_are_found(vit, images, wrap):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    assert torch.equal(means(vit, images, wrap), means(vit, images, lambda x: x))


def test_the_classes_of_a_segmentation_are_its_second_axis(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    maps = means(vit, images, lambda x: x[:, :, None, None].expand(-1, -1, 2, 3))
    torch.testing.assert_close(maps.sum(1), torch.ones(2, 2, 3))
    torch.testing.assert_close(maps[:, :, 1, 2], means(vit, images, lambda x: x))


@pytest.mark.parametrize(
    ("wrap", "what"),
    [
        (lambda x: (x, x), "a tuple"),
        (lambda x: {"scores": x}, "a dict"),
        (lambda x: x[:, None], r"a tensor of shape \(2, 1, 5\)"),
        (lambda x: None, "a NoneType"),
    ],
)
def test_other_outputs_are_named(vit, images, wrap, what):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    with pytest.raises(dropkey.ArgumentError, match=f"this model returns {what}: wrap it in a module"):
        dropkey.monte_carlo(Wrapped(vit, wrap), images)
