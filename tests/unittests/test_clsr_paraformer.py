"""Tests of the whole Paraformer; the true answers are FunASR's.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from esr_lobes.clsr.losses import label_smoothed_cross_entropy, quantity_loss
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.paraformer_config import ParaformerConfig

FIXTURE = Path(__file__).parents[1] / "fixtures/paraformer_parity.safetensors"
SMALL = ParaformerConfig(
    vocab=12,
    n_mels=8,
    width=16,
    encoder_heads=2,
    encoder_ffn=32,
    encoder_layers=2,
    decoder_heads=2,
    decoder_ffn=32,
    decoder_layers=1,
    share_embedding=True,
)


@pytest.fixture(scope="module")
def parity():
    """What FunASR answered: its model here, tensors by name, token numbers."""
    with safe_open(FIXTURE, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    config = ParaformerConfig(**json.loads(about["config"]))
    model = Paraformer.from_config(config).eval()
    model.load_state_dict(
        {
            name.removeprefix("weights."): tensors.pop(name)
            for name in list(tensors)
            if name.startswith("weights.")
        }
    )
    return model, tensors, json.loads(about["n_tokens"])


def padded(clips):
    """Returns a batch with its relative lengths."""
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    return wavs, lengths / wavs.shape[1]


def wav(n_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(n_samples, generator=generator)


def small(**options):
    """Returns a Paraformer whose random weights all count."""
    torch.manual_seed(0)
    config = dict(SMALL.__dict__) | options
    model = Paraformer.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model


def difference(x, y):
    assert x.shape == y.shape
    return (x - y).abs().max().item() if x.numel() else 0.0


@pytest.mark.parametrize("clip", range(3))
def test_answers_are_those_of_funasr(parity, clip):
    model, tensors, _ = parity
    expected = {
        name.partition(".")[2]: value
        for name, value in tensors.items()
        if name.startswith(f"{clip}.")
    }
    batch = padded([expected["wav"]])
    with torch.no_grad():
        feats, lengths = model.frontend(*batch)
        memory, _ = model.encode(*batch)
        acoustic, counts, alphas, n_hat = model.predictor(memory, lengths)
        output = model(*batch)
    assert lengths.tolist() == [len(expected["feats"])]
    assert difference(feats[0], expected["feats"]) < 1e-4
    assert difference(memory[0], expected["memory"]) < 1e-4
    assert difference(alphas[0], expected["alphas"]) < 1e-4
    assert difference(acoustic[0], expected["acoustic"]) < 1e-4
    logs = output.logits.log_softmax(dim=2)[0]
    assert difference(logs, expected["logs"]) < 1e-4
    assert counts.tolist() == output.counts.tolist() == [len(logs)]
    assert n_hat.item() == pytest.approx(expected["alphas"].sum().item(), 1e-5)
    said = [i for i in logs.argmax(dim=1).tolist() if i > 2]
    assert model.recognise(*batch) == [said]


@pytest.mark.parametrize("clip", range(3))
def test_answers_in_training_are_those_of_funasr(parity, clip):
    """Told the number of tokens, here with the end of sentence."""
    model, tensors, n_tokens = parity
    targets = torch.full((1, n_tokens[clip] - 1), 5)
    lengths = torch.tensor([n_tokens[clip] - 1])
    batch = padded([tensors[f"{clip}.wav"]])
    with torch.no_grad():
        output = model(*batch, targets, lengths)
        memory, steps = model.encode(*batch)
        told = torch.tensor([n_tokens[clip]])
        acoustic, *_ = model.predictor(memory, steps, told)
    expected = tensors[f"{clip}.taught_acoustic"]
    assert difference(acoustic[0], expected) < 1e-4
    logs = output.logits.log_softmax(dim=2)[0]
    assert difference(logs, tensors[f"{clip}.taught_logs"]) < 1e-4
    assert output.targets[0].tolist() == [5] * len(targets[0]) + [2]


@pytest.mark.parametrize(
    "vocab, share_embedding, millions",
    [(8404, False, 220.08), (10020, False, 221.74), (30522, True, 227.13)],
)
def test_the_large_one_has_the_size_of_the_released(
    vocab, share_embedding, millions
):
    config = ParaformerConfig(vocab=vocab, share_embedding=share_embedding)
    model = Paraformer.from_config(config, device="meta")
    size = sum(p.numel() for p in model.parameters())
    assert round(size / 1e6, 2) == millions
    names = [k for k in model.state_dict() if not k.startswith("frontend.")]
    assert len(names) == 956 - share_embedding


def test_the_fixture_tells_mistakes_from_the_truth(parity):
    """Weights differ from what an empty layer does, and clips say something."""
    model, tensors, n_tokens = parity
    for name, weight in model.named_parameters():
        assert weight.numel() == 1 or weight.std() > 0.01, name
    heard = [len(tensors[f"{clip}.logs"]) for clip in range(3)]
    assert min(heard) >= 1 and max(heard) > 5 and heard != n_tokens


@pytest.mark.parametrize(
    "lengths", [(16000, 8000, 4000), (5000, 399, 16001), (9000, 9000, 8990)]
)
def test_a_clip_alone_equals_the_clip_in_any_batch(parity, lengths):
    model, _, _ = parity
    clips = [wav(n, i) for i, n in enumerate(lengths)]
    wavs, relative = padded(clips)
    for i, n in enumerate(lengths):
        wavs[i, n:] = 9.0  # what is behind the end is not heard
    with torch.no_grad():
        together = model(wavs, relative)
        memory, steps = model.encode(wavs, relative)
    said = model.recognise(wavs, relative)
    for i, clip in enumerate(clips):
        with torch.no_grad():
            alone = model(*padded([clip]))
            own_memory, own_steps = model.encode(*padded([clip]))
        n_steps, n = own_steps.item(), alone.counts.item()
        assert steps[i] == n_steps and together.counts[i] == n
        assert difference(memory[i, :n_steps], own_memory[0]) < 1e-4
        assert memory[i, n_steps:].abs().sum() == 0
        assert difference(together.alphas[i, :n_steps], alone.alphas[0]) < 1e-5
        assert together.alphas[i, n_steps:].abs().sum() == 0
        assert difference(together.n_hat[i], alone.n_hat[0]) < 1e-4
        logits = together.logits[i, :n]
        assert difference(logits, alone.logits[0, :n]) < 1e-3
        assert said[i] == model.recognise(*padded([clip]))[0]


def test_a_batch_teaches_what_single_clips_teach():
    model = small(encoder_dropout=0.0, decoder_dropout=0.0, sampling_ratio=0.0)
    model.augment = None
    clips = [wav(16000), wav(4000, 1)]
    targets, lengths = torch.tensor([[7, 8, 9], [5, 0, 0]]), (3, 1)

    def gradients(batch, rows, n):
        model.zero_grad()
        output = model(*batch, targets[rows], torch.tensor(n))
        loss = label_smoothed_cross_entropy(
            output.logits, output.targets, output.counts
        ) * sum(output.counts)
        missed = quantity_loss(output.n_hat, output.counts, False)
        (loss + missed * len(n)).backward()
        return {k: p.grad.clone() for k, p in model.named_parameters()}

    found = gradients(padded(clips), slice(0, 2), lengths)
    alone = [
        gradients(padded([clip]), slice(i, i + 1), lengths[i : i + 1])
        for i, clip in enumerate(clips)
    ]
    for name, gradient in found.items():
        expected = alone[0][name] + alone[1][name]
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)


def test_targets_get_an_end_of_sentence_and_any_padding_is_ignored():
    model = small().eval()
    wavs, lens = padded([wav(8000), wav(6000, 1)])
    targets = torch.tensor([[7, 8, 9, -1, -1], [5, -1, -1, -1, -1]])
    output = model(wavs, lens, targets, torch.tensor([3, 1]))
    assert output.targets.tolist() == [[7, 8, 9, 2], [5, 2, 0, 0]]
    assert output.counts.tolist() == [4, 2]
    assert output.logits.shape == (2, 4, 12)
    wrong = (output.logits.argmax(2) != output.targets).int()
    expected = [wrong[0].sum().item(), wrong[1, :2].sum().item()]
    assert output.errors.tolist() == expected


@pytest.mark.parametrize("bias", [0, 1])
def test_targets_may_be_none_but_not_fewer_than_said(bias):
    model = small(predictor_bias=bias).train()
    batch = padded([wav(8000), wav(6000, 1)])
    targets, lengths = torch.tensor([[7], [8]]), torch.tensor([0, 0])
    output = model(*batch, targets, lengths)
    assert output.counts.tolist() == [bias, bias]
    assert output.targets.tolist() == [[2 * bias]] * 2  # the end alone
    assert output.logits.shape == (2, 1, 12)
    with pytest.raises(ValueError, match="has 2, but targets have only 1"):
        model(*batch, targets, torch.tensor([1, 2]))


def test_without_an_end_of_sentence_special_tokens_are_never_said():
    model = small(predictor_bias=0, masked_ids=(4,)).eval()
    with torch.no_grad():
        model.decoder.output_layer.bias[:5] += 100.0
        wavs, lens = padded([wav(16000), wav(6000, 1)])
        output = model(wavs, lens)
        taught = model(
            wavs, lens, torch.tensor([[7], [8]]), torch.ones(2).long()
        )
    masked = output.logits.isinf().all(dim=(0, 1)).nonzero().flatten()
    assert masked.tolist() == [0, 1, 2, 4]
    assert set(sum(model.recognise(wavs, lens), [])) == {3}
    assert taught.targets.tolist() == [[7], [8]]
    assert taught.logits.isfinite().all()
    own = small(predictor_bias=0, sos_id=None, eos_id=None, blank_id=None)
    assert not own.is_masked.any() and not own.dropped_ids


def test_ends_of_sentences_are_left_out_and_silence_says_nothing():
    model = small().eval()
    with torch.no_grad():
        model.decoder.output_layer.bias[2] += 100.0
        model.predictor.cif_output.bias.fill_(0.0)
    wavs, lens = padded([wav(16000), wav(6000, 1)])
    assert (model(wavs, lens).counts > 0).all()
    assert model.recognise(wavs, lens) == [[], []]
    with torch.no_grad():
        model.decoder.output_layer.bias[2] -= 200.0
        model.predictor.cif_output.bias.fill_(-100.0)  # no step weighs at all
        output = model(wavs, lens)
    assert output.counts.tolist() == [0, 0]
    assert output.logits.isfinite().all()
    assert model.recognise(wavs, lens) == [[], []]


def test_the_second_pass_sees_true_tokens_and_teaches_their_embeddings():
    model = small(encoder_dropout=0.0, decoder_dropout=0.0, sampling_ratio=1.0)
    model.augment = None
    batch = padded([wav(16000)])
    targets, lengths = torch.tensor([[7, 8, 9, 10, 11]]), torch.tensor([5])
    with torch.no_grad():  # so that all of the first pass is wrong
        model.decoder.output_layer.bias[3] += 100.0
    output = model.train()(*batch, targets, lengths)
    assert output.errors.tolist() == [6]
    memory, steps = model.encode(*batch)
    truth = model.decoder.embed_tokens(output.targets)
    logits = model.decoder(truth, output.counts, memory, steps)
    assert difference(output.logits, logits) < 1e-5
    # All vectors were replaced, so nothing of the loss teaches the predictor.
    output.logits.logsumexp(2).sum().backward()
    assert model.predictor.cif_conv1d.weight.grad.abs().sum() == 0
    assert model.decoder.output_layer.weight.grad[7].abs().sum() > 0
    one_pass = model.eval()(*batch, targets, lengths)
    assert difference(one_pass.logits, output.logits) > 1e-3


def test_the_same_seed_trains_the_same():
    model = small().train()
    batch = padded([wav(16000), wav(8000, 1)])
    targets, lengths = (
        torch.tensor([[7, 8, 9], [5, 6, 0]]),
        torch.tensor([3, 2]),
    )
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(model(*batch, targets, lengths).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert difference(outputs[0], outputs[2]) > 1e-3


def test_half_precision_leaves_the_predictor_in_full(parity):
    model, _, _ = parity
    batch = padded([wav(16000), wav(12000, 1)])
    with torch.no_grad():
        full = model(*batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(*batch)
    assert half.alphas.dtype == half.n_hat.dtype == torch.float32
    assert half.logits.dtype == torch.bfloat16
    assert half.counts.tolist() == full.counts.tolist()
    assert difference(half.alphas, full.alphas) < 0.05
    assert difference(half.logits.float(), full.logits) < 0.5
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch, torch.full((2, 4), 7), torch.tensor([4, 2]))
    model.eval()
    output.logits.float().sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(grads) > 50 and all(g.isfinite().all() for g in grads)
    model.zero_grad()


def test_it_learns_two_clips_by_heart():
    model = small(encoder_dropout=0.0, decoder_dropout=0.0)
    model.augment = None
    batch = padded([wav(16000), wav(9000, 1)])
    targets, lengths = (
        torch.tensor([[7, 8, 9], [5, 6, 0]]),
        torch.tensor([3, 2]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    for _ in range(100):
        output = model.train()(*batch, targets, lengths)
        loss = label_smoothed_cross_entropy(
            output.logits, output.targets, output.counts
        ) + quantity_loss(output.n_hat, output.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval().recognise(*batch) == [[7, 8, 9], [5, 6]]
