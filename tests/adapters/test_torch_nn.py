"""torch.nn's attention: against itself with the dropped keys in its own mask, and its fast path left alone."""

import copy
import pickle

import pytest
import torch
from torch import nn

import dropkey
from dropkey.adapters.listeners import recording

RATIO = 0.4


def with_dropkey(module, ratio=RATIO):
    return dropkey.apply(module, dropkey.DropKey(ratio, schedule="constant"))


def inputs(batch_first=True, kdim=16, vdim=16, self_attention=False):
    generator = torch.Generator().manual_seed(1)
    if self_attention:
        query = torch.randn(3, 6, 16, generator=generator)
        tensors = (query, query, query)
    else:
        tensors = (
            torch.randn(3, 5, 16, generator=generator),
            torch.randn(3, 6, kdim, generator=generator),
            torch.randn(3, 6, vdim, generator=generator),
        )
    return tensors if batch_first else tuple(tensor.transpose(0, 1) for tensor in tensors)


PADDING = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] * 5 + [True]])
ATTN_MASK = torch.ones(5, 6, dtype=torch.bool).triu(2)  # True: may NOT be seen


def run(module, arguments, seed=0):
    torch.manual_seed(seed)
    return module(*arguments[0], **arguments[1])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("widths", [{}, {"kdim": 12, "vdim": 20}])
@pytest.mark.parametrize("weights", [{"need_weights": False}, {}, {"average_attn_weights": False}])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"key_padding_mask": PADDING},
        {"attn_mask": ATTN_MASK},
        {"key_padding_mask": PADDING, "attn_mask": ATTN_MASK},
    ],
)
def test_it_is_torchs_own_with_the_dropped_keys_masked(batch_first, widths, weights, masks):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 2, batch_first=batch_first, **widths)
    plain = copy.deepcopy(module)
    with_dropkey(module)
    arguments = (inputs(batch_first, **widths), {**masks, **weights})
    with recording([module]) as (records,):
        out, attn = run(module, arguments)
    (record,) = records
    keep = dropkey.keep_mask(*record.call.mask_shape, drop_ratio=RATIO, seed=record.call.draw.seed)
    # Dropped keys as a large negative number in torch's own mask, forbidden ones as -inf.
    mask = torch.where(keep, 0.0, -1e30)
    if "attn_mask" in masks:
        mask = mask.masked_fill(ATTN_MASK, -torch.inf)
    if "key_padding_mask" in masks:
        mask = mask.masked_fill(PADDING[:, None, None, :], -torch.inf)
    expected, expected_attn = plain(*arguments[0], attn_mask=mask.flatten(0, 1), **weights)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-6)
    assert (attn is None) == (expected_attn is None)
    if attn is not None:
        torch.testing.assert_close(attn, expected_attn, rtol=1e-4, atol=1e-6)


def test_forbidden_keys_get_no_weight():
    module = nn.MultiheadAttention(16, 2, batch_first=True)
    with_dropkey(module, 0.9)
    masks = {"key_padding_mask": PADDING, "attn_mask": ATTN_MASK}
    _, attn = run(module, (inputs(), {**masks, "average_attn_weights": False}))
    forbidden = (ATTN_MASK | PADDING[:, None, :])[:, None].expand_as(attn)
    assert not attn[forbidden].any()
    torch.testing.assert_close(attn.sum(-1), torch.ones(3, 2, 5))


def test_with_and_without_weights_drop_the_same_keys():
    module = nn.MultiheadAttention(16, 2, batch_first=True)
    with_dropkey(module)
    with_weights = run(module, (inputs(), {}))[0]
    without = run(module, (inputs(), {"need_weights": False}))[0]
    torch.testing.assert_close(with_weights, without)
    assert not torch.equal(without, run(module, (inputs(), {"need_weights": False}), seed=1)[0])


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"bias": False}])
def test_options(options):
    module = nn.MultiheadAttention(16, 2, **options)
    verification = with_dropkey(module).verify(*inputs(batch_first=False), key_padding_mask=PADDING)
    assert verification.checks[0].num_calls == 1


def test_unbatched():
    module = nn.MultiheadAttention(16, 2)
    query, key, value = (tensor[:, 0] for tensor in inputs(batch_first=False))
    with_dropkey(module).verify(query, key, value)
    assert module(query, key, value)[0].shape == (5, 16)


def test_gradients_reach_all_parameters():
    module = nn.MultiheadAttention(16, 2, batch_first=True)
    with_dropkey(module)
    run(module, (inputs(), {"need_weights": False}))[0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_own_dropout_gives_way():
    module = nn.MultiheadAttention(16, 2, dropout=0.2)
    handle = with_dropkey(module)
    assert module.dropout == 0
    assert "dropout 0.2 set to 0" in str(handle)
    handle.remove()
    assert module.dropout == 0.2


def encoder(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def test_the_fast_path_is_taken_as_before(monkeypatch):
    calls = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    model, source = encoder().eval(), torch.randn(2, 6, 16)
    with torch.no_grad():
        untouched = model(source)
        assert len(calls) == 2
        handle = with_dropkey(model)
        assert torch.equal(model(source), untouched)
        assert len(calls) == 4
    handle.verify(source)
    handle.remove()
    with torch.no_grad():
        assert torch.equal(model(source), untouched)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_with_padding(norm_first):
    model = encoder(norm_first=norm_first, dropout=0.0)
    with_dropkey(model, 0.9)
    source, padding = torch.randn(3, 6, 16), PADDING
    out = run(model, ((source,), {"src_key_padding_mask": padding}))
    other = source.masked_fill(padding[..., None], 7.0)  # what is padded must not matter
    again = run(model, ((other,), {"src_key_padding_mask": padding}))
    torch.testing.assert_close(out[~padding], again[~padding])


def test_monte_carlo_does_not_run_around_it():
    model = nn.Sequential(encoder(), nn.Flatten(), nn.Linear(6 * 16, 3))
    with_dropkey(model)
    mean, std = dropkey.monte_carlo(model, torch.randn(2, 6, 16), samples=4)
    assert torch.backends.mha.get_fastpath_enabled()
    assert (std > 1e-4).all()
    torch.testing.assert_close(mean.sum(-1), torch.ones(2))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer():
    model = nn.Transformer(16, 2, 2, 2, 32, dropout=0.0)
    handle = with_dropkey(model)
    source, target = torch.randn(6, 2, 16), torch.randn(5, 2, 16)
    causal = model.generate_square_subsequent_mask(5)
    handle.verify(source, target, tgt_mask=causal, tgt_is_causal=True)
    model.train()
    out = run(model, ((source, target), {"tgt_mask": causal}))
    later = target.clone()
    later[3:] = 7.0  # a query must not see what comes after it
    again = run(model, ((source, later), {"tgt_mask": causal}))
    torch.testing.assert_close(out[:3], again[:3])


class DecoderLayer(nn.Module):
    """The original DETR's calling style: sequence first, keywords, positions added to query and key."""

    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(16, 2)
        self.multihead_attn = nn.MultiheadAttention(16, 2)

    def forward(self, target, memory, padding):
        query = key = target + 1
        target = target + self.self_attn(query, key, value=target, attn_mask=None, key_padding_mask=None)[0]
        seen = self.multihead_attn(
            query=target + 1, key=memory + 2, value=memory, attn_mask=None, key_padding_mask=padding
        )[0]
        return target + seen


def test_detrs_calling_style():
    torch.manual_seed(0)
    model = nn.ModuleDict({"layers": nn.ModuleList([DecoderLayer()])})["layers"][0]
    handle = with_dropkey(model, 0.9)
    assert [site.kind for site in handle.sites] == ["decoder self", "decoder cross"]
    target, memory = torch.randn(5, 3, 16), torch.randn(6, 3, 16)
    handle.verify(target, memory, PADDING)
    out = run(model, ((target, memory, PADDING), {}))
    padded = memory.masked_fill(PADDING.T[..., None], 7.0)
    torch.testing.assert_close(out, run(model, ((target, padded, PADDING), {})))


def test_where_chooses():
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0), 3)
    handle = dropkey.apply(model, dropkey.DropKey(0.4), where=lambda site: site.kind == "decoder cross")
    assert [site.name for site in handle.sites] == [f"layers.{i}.multihead_attn" for i in range(3)]
    assert handle.drop_ratios == pytest.approx([0.4, 0.2, 0.0])
    handle.verify(torch.randn(5, 2, 16), torch.randn(6, 2, 16))
    other = dropkey.apply(
        model, dropkey.DropKey(0.2), where=lambda site: site.kind == "decoder self" and site.block_index > 0
    )
    assert other.drop_ratios == pytest.approx([0.2, 0.0])
    with pytest.raises(dropkey.SiteError, match=r"chooses none of the 6 .* kinds: decoder cross, decoder self"):
        dropkey.apply(model, dropkey.DropKey(0.2), where=lambda site: site.kind == "cross")


def test_copies():
    model = encoder(dropout=0.0)
    with_dropkey(model)
    source = torch.randn(2, 6, 16)
    expected = run(model, ((source,), {}))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(other, ((source,), {})), expected)
        dropkey.handle(other).verify(source)


@pytest.mark.slow
def test_compiles_as_one_graph():
    model = encoder(dropout=0.0)
    with_dropkey(model)
    source = torch.randn(2, 6, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, ((source,), {})), run(model, ((source,), {})))


class Mixer(nn.Module):
    """Attention by neither name nor heads: known by the call that its forward makes."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]


def test_a_class_that_calls_attention_is_named():
    handle = with_dropkey(nn.Sequential(encoder(), Mixer()))
    assert handle.unknown == ["1 (Mixer)"]
