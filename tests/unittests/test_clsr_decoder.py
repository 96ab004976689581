"""Tests of Paraformer's decoder.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch

from esr_lobes.clsr.decoder import SANMDecoder
from esr_lobes.clsr.sanm import key_bias


def decoder(**options):
    torch.manual_seed(0)
    sizes = {"width": 16, "n_heads": 2, "ffn": 24, "n_layers": 2, "kernel": 5}
    model = SANMDecoder(11, **sizes | options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model


def test_a_layer_is_one_sum_over_both_and_one_over_attention():
    model = decoder(n_layers=1).eval()
    layer, last = model.decoders[0], model.decoders3[0]
    x, memory = torch.randn(1, 4, 16), torch.randn(1, 7, 16)
    real = torch.ones(1, 4, 1)
    bias = key_bias(torch.tensor([7]), 7)
    y = x + layer.self_attn(
        layer.norm2(layer.feed_forward(layer.norm1(x))), real
    )
    y = y + layer.src_attn(layer.norm3(y), memory, bias)
    y = last["feed_forward"](last["norm1"](y))  # and nothing is added
    expected = model.output_layer(model.after_norm(y))
    found = model(x, torch.tensor([4]), memory, torch.tensor([7]))
    torch.testing.assert_close(found, expected)


def test_keys_are_those_of_funasr():
    names = set(decoder(n_layers=1, share_embedding=False).state_dict())
    linear = {"feed_forward.w_1.weight", "feed_forward.w_1.bias"} | {
        "feed_forward.norm.weight",
        "feed_forward.norm.bias",
        "feed_forward.w_2.weight",
        "norm1.weight",
        "norm1.bias",
    }
    layer = (
        linear
        | {"norm2.weight", "norm2.bias", "norm3.weight"}
        | {
            "norm3.bias",
            "self_attn.fsmn_block.weight",
            "src_attn.linear_q.weight",
            "src_attn.linear_q.bias",
            "src_attn.linear_k_v.weight",
            "src_attn.linear_k_v.bias",
            "src_attn.linear_out.weight",
            "src_attn.linear_out.bias",
        }
    )
    assert names == {f"decoders.0.{name}" for name in layer} | {
        f"decoders3.0.{name}" for name in linear
    } | {
        "embed.0.weight",
        "after_norm.weight",
        "after_norm.bias",
        "output_layer.weight",
        "output_layer.bias",
    }


def test_embeddings_are_shared_or_not():
    ids = torch.tensor([[3, 0, 10]])
    shared, own = decoder(), decoder(share_embedding=False)
    rows = shared.output_layer.weight[ids]
    assert torch.equal(shared.embed_tokens(ids), rows)
    assert torch.equal(own.embed_tokens(ids), own.embed[0].weight[ids])
    assert "embed.0.weight" not in shared.state_dict()
    shared.embed_tokens(ids).sum().backward()
    taught = shared.output_layer.weight.grad.abs().sum(dim=1).nonzero()
    assert taught.flatten().tolist() == [0, 3, 10]


@pytest.mark.parametrize(
    "counts, lengths", [((5, 3), (4, 8)), ((1, 6), (8, 1))]
)
def test_a_row_alone_equals_the_row_in_any_batch(counts, lengths):
    model = decoder().eval()
    acoustic = torch.full((2, max(counts), 16), 5.0)
    memory = torch.full((2, max(lengths), 16), 5.0)
    rows = [
        (torch.randn(n, 16), torch.randn(t, 16))
        for n, t in zip(counts, lengths, strict=True)
    ]
    for i, (x, h) in enumerate(rows):
        acoustic[i, : len(x)], memory[i, : len(h)] = x, h
    with torch.no_grad():
        numbers = torch.tensor(counts), torch.tensor(lengths)
        together = model(acoustic, numbers[0], memory, numbers[1])
        for i, (x, h) in enumerate(rows):
            n, t = numbers[0][i : i + 1], numbers[1][i : i + 1]
            alone = model(x[None], n, h[None], t)
            torch.testing.assert_close(together[i, : len(x)], alone[0])


def test_a_row_without_tokens_harms_nobody():
    model = decoder()
    acoustic = torch.randn(2, 3, 16)
    logits = model(
        acoustic,
        torch.tensor([3, 0]),
        torch.randn(2, 4, 16),
        torch.tensor([4, 2]),
    )
    logits[0].sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_tokens_have_no_place_but_neighbours():
    """Without its memory the decoder would not know the order."""
    model = decoder().eval()
    x, memory = torch.randn(1, 4, 16), torch.randn(1, 6, 16)
    numbers = torch.tensor([4]), torch.tensor([6])
    with torch.no_grad():
        forth = model(x, numbers[0], memory, numbers[1])
        back = model(x.flip(1), numbers[0], memory, numbers[1]).flip(1)
        assert (forth - back).abs().max() > 1e-3
        for layer in model.decoders:
            layer.self_attn.fsmn_block.weight.zero_()
        forth = model(x, numbers[0], memory, numbers[1])
        back = model(x.flip(1), numbers[0], memory, numbers[1]).flip(1)
    torch.testing.assert_close(forth, back)
