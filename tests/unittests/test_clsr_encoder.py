"""Tests of SAN-M and its encoder against plain sums, heads and steps.

Authors
 * The esr_lobes contributors
"""

import math

import pytest
import torch
import torch.nn.functional as F

from esr_lobes.clsr.encoder import SANMEncoder
from esr_lobes.clsr.sanm import (
    CrossAttention,
    FeedForward,
    Memory,
    SelfAttention,
    key_bias,
    layer_norm,
    positions,
    real_steps,
)


def encoder(**options):
    torch.manual_seed(0)
    sizes = {"width": 16, "n_heads": 2, "ffn": 24, "n_layers": 3, "kernel": 5}
    model = SANMEncoder(12, **sizes | options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model


def test_positions_are_the_formula():
    found = positions(7, 10)
    for place in range(1, 8):
        for k in range(5):
            angle = place * math.exp(-k * math.log(10000) / 4)
            sine, cosine = found[place - 1, k], found[place - 1, 5 + k]
            assert sine.item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert cosine.item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 4, 11])
def test_memory_is_a_sum_over_neighbours(kernel):
    torch.manual_seed(0)
    memory = Memory(3, kernel)
    x, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    real = real_steps(lengths, 6).unsqueeze(2).float()
    weight = memory.fsmn_block.weight[:, 0]
    expected = torch.zeros_like(x)
    for row, n in enumerate(lengths.tolist()):
        for step in range(n):
            expected[row, step] = x[row, step]
            for k in range(kernel):
                other = step + k - (kernel - 1) // 2
                if 0 <= other < n:
                    expected[row, step] += weight[:, k] * x[row, other]
    torch.testing.assert_close(memory(x, real), expected)


def test_self_attention_is_heads_beside_a_memory():
    torch.manual_seed(0)
    layer = SelfAttention(5, 8, 2, 3, 0.0)
    x = torch.randn(1, 4, 5)
    q, k, v = layer.linear_q_k_v(x)[0].split(8, dim=1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[:, head] @ k[:, head].t() / 2).softmax(dim=1)
        heads.append(weights @ v[:, head])
    real = torch.ones(1, 4, 1)
    expected = layer.linear_out(torch.cat(heads, dim=1))
    expected = expected + Memory.forward(layer, v[None], real)[0]
    found = layer(x, real, key_bias(torch.tensor([4]), 4))
    torch.testing.assert_close(found[0], expected)


def test_cross_attention_is_heads_over_real_steps():
    torch.manual_seed(0)
    layer = CrossAttention(8, 2, 0.0)
    x, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    k, v = layer.linear_k_v(memory)[0, :4].split(8, dim=1)
    q = layer.linear_q(x)[0]
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[:, head] @ k[:, head].t() / 2).softmax(dim=1)
        heads.append(weights @ v[:, head])
    expected = layer.linear_out(torch.cat(heads, dim=1))
    found = layer(x, memory, key_bias(torch.tensor([4]), 5))
    torch.testing.assert_close(found[0], expected)


def test_linear_layers_have_a_norm_between_where_asked():
    torch.manual_seed(0)
    plain, normed = FeedForward(3, 8, 2), FeedForward(3, 8, 2, is_normed=True)
    x = torch.randn(1, 4, 3)
    hidden = plain.w_1(x).relu()
    torch.testing.assert_close(plain(x), plain.w_2(hidden))
    hidden = normed.w_1(x).relu()
    hidden = hidden - hidden.mean(-1, keepdim=True)
    hidden = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    torch.testing.assert_close(normed(x), hidden @ normed.w_2.weight.t())
    assert normed.w_2.bias is None and plain.w_2.bias is not None


def test_norms_leave_quiet_steps_loud():
    """An epsilon of 1e-5, as torch has it, would blank this step."""
    x = torch.tensor([1e-4, -1e-4])
    assert layer_norm(2)(x).tolist() == pytest.approx([1.0, -1.0], abs=1e-3)


def test_the_first_layer_has_no_sum_around_its_attention():
    model = encoder(n_layers=1).eval()
    first = model.encoders0[0]
    with torch.no_grad():
        first.self_attn.linear_q_k_v.weight.zero_()
        first.self_attn.linear_q_k_v.bias.zero_()
        first.self_attn.linear_out.bias.fill_(1.0)
        x = torch.ones(1, 3, 16)
        x = model.after_norm(x + first.feed_forward(first.norm2(x)))
        found = model(torch.randn(1, 3, 12), torch.tensor([3]))
    torch.testing.assert_close(found, x)


def test_input_is_scaled_and_gets_its_place():
    model = encoder(n_layers=1).eval()
    heard = []
    model.encoders0[0].register_forward_pre_hook(
        lambda _, args: heard.append(args[0])
    )
    feats = torch.randn(2, 5, 12)
    model(feats, torch.tensor([5, 2]))
    torch.testing.assert_close(heard[0], 4 * feats + positions(5, 12))


def test_keys_are_those_of_funasr():
    names = set(encoder(n_layers=2).state_dict())
    layer = {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"} | {
        "self_attn.linear_q_k_v.weight",
        "self_attn.linear_q_k_v.bias",
        "self_attn.linear_out.weight",
        "self_attn.linear_out.bias",
        "self_attn.fsmn_block.weight",
        "feed_forward.w_1.weight",
        "feed_forward.w_1.bias",
        "feed_forward.w_2.weight",
        "feed_forward.w_2.bias",
    }
    first = {f"encoders0.0.{name}" for name in layer}
    second = {f"encoders.0.{name}" for name in layer}
    assert names == first | second | {"after_norm.weight", "after_norm.bias"}
    shapes = {k: list(v.shape) for k, v in encoder().state_dict().items()}
    assert shapes["encoders0.0.self_attn.linear_q_k_v.weight"] == [48, 12]
    assert shapes["encoders.1.self_attn.linear_q_k_v.weight"] == [48, 16]
    assert shapes["encoders.1.self_attn.fsmn_block.weight"] == [16, 1, 5]


@pytest.mark.parametrize("lengths", [(9, 4, 1), (7, 7, 3), (2, 9, 8)])
def test_a_row_alone_equals_the_row_in_any_batch(lengths):
    model = encoder().eval()
    rows = [torch.randn(n, 12) for n in lengths]
    feats = torch.full((3, max(lengths), 12), 7.0)
    for i, row in enumerate(rows):
        feats[i, : len(row)] = row
    with torch.no_grad():
        together = model(feats, torch.tensor(lengths))
        for i, row in enumerate(rows):
            alone = model(row[None], torch.tensor([len(row)]))
            torch.testing.assert_close(together[i, : len(row)], alone[0])
            assert together[i, len(row) :].abs().sum() == 0


def test_gradients_of_a_padded_batch_are_those_of_single_rows():
    model = encoder(dropout=0.0).train()
    rows = [torch.randn(6, 12), torch.randn(3, 12)]
    feats = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    seen = torch.randn(2, 6, 16)
    (model(feats, torch.tensor([6, 3])) * seen).sum().backward()
    together = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for row, look in zip(rows, seen, strict=True):
        y = model(row[None], torch.tensor([len(row)]))
        (y[0] * look[: len(row)]).sum().backward()
    for found, p in zip(together, model.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, atol=1e-4, rtol=1e-4)


def test_half_precision_adds_up_in_full():
    model = encoder().eval()
    sums = []
    for layer in model.encoders:
        layer.register_forward_pre_hook(lambda _, args: sums.append(args[0]))
    feats, lengths = torch.randn(2, 9, 12), torch.tensor([9, 4])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(feats, lengths)
    assert {x.dtype for x in (*sums, half)} == {torch.float32}
    full = model(feats, lengths)
    assert 0 < (half - full).abs().max() < 0.1


def test_training_blanks_and_a_seed_repeats_it():
    model = encoder(dropout=0.5).train()
    feats, lengths = torch.randn(1, 5, 12), torch.tensor([5])
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(feats, lengths))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    with torch.no_grad():
        calm = model.eval()(feats, lengths)
        assert torch.equal(calm, model(feats, lengths))
    assert not F.mse_loss(calm, outputs[0]).item() < 1e-3
