"""Parts of transformers' speech models: faster, and the same.

Authors
 * The esr_lobes contributors
"""

import copy

import pytest
import torch
from tiny_backbones import make_tiny_speech
from transformers import AutoModel, WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from esr_lobes.encoders.huggingface_layers import (
    Attention,
    Dropout,
    convolve,
    make_faster,
)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_convolutions_of_padded_clips_are_those_of_each_alone(norm, tmp_path):
    make_tiny_speech(tmp_path, "wavlm", norm)
    front = AutoModel.from_pretrained(tmp_path).feature_extractor
    for layer in front.conv_layers:
        if hasattr(layer, "layer_norm"):  # not the ones that do nothing
            torch.nn.init.uniform_(layer.layer_norm.weight)
            torch.nn.init.uniform_(layer.layer_norm.bias)
    torch.manual_seed(0)
    # Quiet ones, where the norm's epsilon counts, and one off zero.
    clips = [
        0.1 * torch.randn(1600),
        1e-3 * torch.randn(1003),
        0.5 + 0.01 * torch.randn(777),
    ]
    counts = torch.tensor([len(clip) for clip in clips])
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    found = convolve(front.conv_layers, wavs, counts)
    exact = copy.deepcopy(front).double()  # float32 is lost on the one off zero
    expected = [exact(clip.double()[None])[0].t() for clip in clips]
    assert found.shape[1] == len(expected[0])
    kept = [row[: len(x)] for row, x in zip(found, expected, strict=True)]
    for row, alone in zip(kept, expected, strict=True):
        torch.testing.assert_close(row, alone.float(), atol=1e-5, rtol=1e-4)

    gradients = [
        torch.autograd.grad(
            sum(x.square().sum() for x in rows),
            module.conv_layers[0].conv.weight,
        )[0].float()
        for rows, module in ((kept, front), (expected, exact))
    ]
    scale = gradients[1].abs().max()
    torch.testing.assert_close(
        gradients[0] / scale, gradients[1] / scale, atol=1e-5, rtol=0
    )


def test_checkpointed_convolutions_have_the_same_gradients(tmp_path):
    make_tiny_speech(tmp_path, "wavlm", "group")
    layers = AutoModel.from_pretrained(tmp_path).feature_extractor.conv_layers
    wavs, counts = torch.randn(2, 800), torch.tensor([800, 500])
    weights = [layer.conv.weight for layer in layers]
    plain, checkpointed = (
        torch.autograd.grad(
            convolve(layers, wavs, counts, is_checkpointed).sum(), weights
        )
        for is_checkpointed in (False, True)
    )
    for one, other in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_is_that_of_transformers():
    torch.manual_seed(0)
    theirs = WavLMAttention(16, 2, num_buckets=8, max_distance=6)
    torch.nn.init.normal_(theirs.gru_rel_pos_const)
    ours = Attention(16, 2, num_buckets=8, max_distance=6)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 9, 16)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    expected, _, _ = theirs(x, mask)
    found, weights, bias = ours(x, mask)
    torch.testing.assert_close(found[0], expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        found[1, :5], expected[1, :5], atol=1e-6, rtol=1e-5
    )
    assert weights is None and bias.shape == (2, 9, 9)  # of all rows
    torch.testing.assert_close(ours(x, mask, bias)[0], found)


def test_attention_without_a_mask_is_that_of_full_rows():
    torch.manual_seed(0)
    attention = Attention(16, 2)
    x = torch.randn(2, 5, 16)
    full = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(attention(x)[0], attention(x, full)[0])


def test_dropout_of_attention_is_right_on_average():
    torch.manual_seed(0)
    attention = Attention(16, 2, dropout=0.3).eval()
    x = torch.randn(1, 6, 16)
    with torch.no_grad():
        expected = attention(x)[0]
        attention.train()
        drawn = attention(x.expand(4000, -1, -1))[0]
    assert not torch.equal(drawn[0], drawn[1])
    error = (drawn.mean(dim=0) - expected[0]).abs().max()
    assert error < 0.1 * drawn.std(dim=0).max()


def test_made_faster_with_the_same_weights_and_names(tmp_path):
    make_tiny_speech(tmp_path, "wavlm", "group")
    model = AutoModel.from_pretrained(tmp_path)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    make_faster(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    kinds = [type(module) for module in model.modules()]
    layers = model.config.num_hidden_layers
    assert kinds.count(Attention) == layers and WavLMAttention not in kinds
    assert Dropout in kinds and torch.nn.Dropout not in kinds
    assert type(model) is WavLMModel
