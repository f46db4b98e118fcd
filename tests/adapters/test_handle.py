"""The life of a handle: apply, change, disable, copy, pickle, wrap, remove; and what it says when it cannot."""

import copy
import io
import pickle

import pytest
import torch
from conftest import tiny_vit
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

import dropkey


@dropkey.register
class PlainAttention(nn.Module):
    """A user's own attention, known through register."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return (
            F.scaled_dot_product_attention(q, k, v, dropout_p=0.5 if self.training else 0.0).transpose(1, 2).flatten(2)
        )


class Blind(nn.Module):
    """Named like attention, but it never calls torch's."""

    def forward(self, x):
        return x


class BlindAttention(Blind):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def own_model():
    torch.manual_seed(0)
    return nn.Sequential(PlainAttention(), PlainAttention())


@pytest.fixture
def tokens():
    return torch.randn(3, 11, 8, generator=torch.Generator().manual_seed(1))


def test_registered_class(tokens):
    model = own_model()
    handle = dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
    handle.verify(tokens)
    outs = [model(tokens) for _ in range(2)]
    assert not torch.equal(*outs)
    assert isinstance(model[0], PlainAttention)


def test_its_own_dropout_p_is_not_used_while_dropkey_acts(tokens):
    """Kept weights sum to 1: torch's 1 / (1 - p) would show."""
    model = own_model()
    model[0].qkv.weight.data[16:] = 0
    model[0].qkv.bias.data[16:] = 1
    dropkey.apply(model, dropkey.DropKey(0.5))
    torch.testing.assert_close(model[0](tokens), torch.ones(3, 11, 8))


def test_subclasses_of_a_registered_class_are_found():
    class Special(PlainAttention):
        pass

    assert len(dropkey.apply(nn.Sequential(Special()), dropkey.DropKey(0.5)).sites) == 1


def test_register_takes_classes_of_modules():
    for wrong in (own_model(), int, "Attention"):
        with pytest.raises(dropkey.ArgumentError, match=r"subclass of torch\.nn\.Module"):
            dropkey.register(wrong)


def test_a_registered_class_that_does_not_call_attention_raises(tokens):
    @dropkey.register
    class Unfit(Blind):
        pass

    model = nn.Sequential(Unfit())
    dropkey.apply(model, dropkey.DropKey(0.5))
    with pytest.raises(RuntimeError, match=r"0 \(Unfit\) ran without calling scaled_dot_product_attention"):
        model(tokens)
    model.eval()(tokens)


def test_ratios_can_change(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    handle.drop_ratios = [0.1, 0.2, 0.5]
    assert handle.drop_ratios == (0.1, 0.2, 0.5)
    assert [site.drop_ratio for site in handle.sites] == [0.1, 0.2, 0.5]
    shares = [check.dropped_share for check in handle.verify(images).checks]
    assert shares == pytest.approx([0.1, 0.2, 0.5], abs=0.05)
    with pytest.raises(dropkey.ArgumentError, match="has 2 entries, but the model has 3 sites"):
        handle.drop_ratios = [0.1, 0.2]
    with pytest.raises(dropkey.ArgumentError, match="drop_ratio"):
        handle.drop_ratios = [0.1, 0.2, 1.0]
    assert handle.drop_ratios == (0.1, 0.2, 0.5)


def test_explicit_list_of_ratios(vit):
    assert dropkey.apply(vit, dropkey.DropKey(schedule=[0.1, 0.5, 0.2])).drop_ratios == (0.1, 0.5, 0.2)
    with pytest.raises(dropkey.ArgumentError, match="2 drop ratios, but the model has 3 blocks"):
        dropkey.apply(tiny_vit(), dropkey.DropKey(schedule=[0.1, 0.5]))


def test_context_manager_removes(vit, images):
    vit.eval()
    untouched = vit(images)
    with dropkey.apply(vit, dropkey.DropKey(0.3)) as handle:
        assert len(handle.sites) == 3
    with pytest.raises(dropkey.SiteError, match="removed"):
        handle.sites  # noqa: B018
    with pytest.raises(dropkey.SiteError, match="no regularizer was applied"):
        dropkey.handle(vit)
    assert torch.equal(vit(images), untouched)


def test_applying_twice_says_so(vit):
    dropkey.apply(vit, dropkey.DropKey(0.3))
    with pytest.raises(dropkey.SiteError, match="on this model already: remove it first"):
        dropkey.apply(vit, dropkey.DropKey(0.2))


def test_a_model_without_sites_says_so():
    with pytest.raises(RuntimeError, match="found no supported attention module in this Linear") as caught:
        dropkey.apply(nn.Linear(2, 2), dropkey.DropKey(0.3))
    assert isinstance(caught.value, dropkey.DropKeyError)
    with pytest.raises(dropkey.SiteError, match=r"it has 0 \(BlindAttention\).*dropkey\.register"):
        dropkey.apply(nn.Sequential(BlindAttention()), dropkey.DropKey(0.3))


def test_bad_arguments_leave_the_model_alone(vit):
    kinds = [type(module) for module in vit.modules()]
    for arguments, message in [
        ((0.3,), r"apply takes DropKey\(...\) or AttentionDropout"),
        ((dropkey.DropKey(schedule=[0.1]),), "1 drop ratios"),
    ]:
        with pytest.raises(ValueError, match=message):
            dropkey.apply(vit, *arguments)
    with pytest.raises(dropkey.ArgumentError, match="did you mean 'sdpa'"):
        dropkey.apply(vit, dropkey.DropKey(0.3), backend="sdp")
    assert [type(module) for module in vit.modules()] == kinds


def test_a_forward_set_on_the_instance_is_refused(vit):
    vit.blocks[1].attn.forward = lambda x, **_: x
    with pytest.raises(dropkey.SiteError, match=r"blocks\.1\.attn .* forward of its own"):
        dropkey.apply(vit, dropkey.DropKey(0.3))


def test_remove_refuses_when_someone_else_changed_the_class(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    attention = vit.blocks[1].attn

    class Wrapped(type(attention)):
        pass

    ours, attention.__class__ = type(attention), Wrapped
    with pytest.raises(dropkey.SiteError, match=r"blocks\.1\.attn is now a .*Wrapped"):
        handle.remove()
    attention.__class__ = ours
    handle.remove()


def test_two_regularizers_two_handles(vit, images):
    one = dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant"))
    other = dropkey.apply(vit, dropkey.AttentionDropout(0.2))
    with pytest.raises(dropkey.SiteError, match=r"several handles.*DropKey.*AttentionDropout"):
        dropkey.handle(vit)
    other.disable()
    one.verify(images)
    other.remove()
    assert dropkey.handle(vit).drop_ratios == one.drop_ratios
    one.verify(images)


def copies(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]


def test_copies_carry_their_own_handle(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern=dropkey.Block(3)))
    for other in copies(vit):
        theirs = dropkey.handle(other)
        assert theirs.drop_ratios == handle.drop_ratios
        assert theirs.regularizer == handle.regularizer
        theirs.verify(images)
        theirs.drop_ratios = [0.0] * 3
        assert handle.drop_ratios == (0.5,) * 3
        theirs.remove()
        assert not hasattr(other.blocks[0].attn, "_dropkey_site")
    handle.verify(images)


def test_applied_without_memory_for_tensors(images):
    """As libraries build models that they then load: the drop ratios are numbers all the same."""
    with torch.device("meta"):
        model = tiny_vit()
        handle = dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
    assert handle.drop_ratios == (0.5,) * 3
    model.to_empty(device="cpu").load_state_dict(tiny_vit().state_dict())
    handle.verify(images)


def test_averaged_model_carries_a_handle(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5))
    averaged = torch.optim.swa_utils.AveragedModel(vit)
    averaged.update_parameters(vit)
    dropkey.handle(averaged).verify(images)


def test_weights_load_with_it_on_off_or_removed(vit):
    plain = tiny_vit().state_dict()
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    vit.load_state_dict(plain)
    handle.disable()
    vit.load_state_dict(plain)
    tiny_vit().load_state_dict(vit.state_dict())
    handle.remove()
    vit.load_state_dict(plain)


def test_compiles_fullgraph_and_once_for_every_ratio(vit, images):
    torch._dynamo.reset()
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    counter = CompileCounter()
    compiled = torch.compile(vit, fullgraph=True, backend=counter)
    sums = []
    for tenth in range(10):
        handle.drop_ratios = [0.05 + tenth / 11] * 3
        sums.append(compiled(images).sum().item())
    assert counter.frame_count == 1
    assert len(set(sums)) == 10
    assert len(dropkey.handle(compiled).sites) == 3
    torch._dynamo.reset()


def test_gradient_checkpointing_gives_the_same_gradients(images):
    grads = []
    for checkpointing in (False, True):
        model = tiny_vit()
        model.set_grad_checkpointing(checkpointing)
        dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
        torch.manual_seed(4)
        model(images).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_table_of_the_token_pattern_shows_the_true_share(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, pattern="token"))
    assert "0.5 (33 of 65 keys: 0.5077)" in str(handle)


def test_repr_and_disabled_table(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3), backend="sdpa")
    assert repr(handle).startswith("<Handle of DropKey(drop_ratio=0.3")
    assert "3 sites, enabled" in str(handle)
    handle.disable()
    assert "3 sites, DISABLED" in str(handle)
    assert not handle.enabled
    assert {site.backend for site in handle.sites} == {"sdpa"}


@pytest.mark.parametrize("backend", ["reference", "sdpa", "cpu"])
def test_dropout_of_weights_takes_no_backend(vit, backend):
    """It runs on torch's own attention whatever is asked for, so it must not seem to follow."""
    with pytest.raises(dropkey.ArgumentError, match=f"AttentionDropout has no backends.*{backend}"):
        dropkey.apply(vit, dropkey.AttentionDropout(0.3), backend=backend)
    assert not dropkey.handles(vit)
