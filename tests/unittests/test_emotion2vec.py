"""Tests of the emotion2vec lobe; the true answers are FunASR's.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from esr_lobes.encoders.emotion2vec import Emotion2vec, Emotion2vecConfig
from esr_lobes.encoders.emotion2vec_layers import dropout, flat_conv
from esr_lobes.pooling import length_to_mask

FIXTURE = Path(__file__).parents[1] / "fixtures/emotion2vec_parity.safetensors"
SMALL = Emotion2vecConfig(
    embed_dim=24,
    depth=2,
    prenet_depth=2,
    conv_layers=((8, 10, 5), (8, 3, 2), (8, 2, 2)),
    conv_pos_groups=4,
)


@pytest.fixture(scope="module")
def parity():
    """What FunASR answered: its encoder here, and tensors by name."""
    with safe_open(FIXTURE, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    encoder = Emotion2vec.from_config(Emotion2vecConfig(**config)).eval()
    encoder.load_state_dict(
        {
            name.removeprefix("weights."): tensors.pop(name)
            for name in list(tensors)
            if name.startswith("weights.")
        }
    )
    return encoder, tensors


def wav(n_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(n_samples, generator=generator) + 0.02


def padded(clips):
    """Returns a batch with its relative lengths."""
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    return wavs, lengths / wavs.shape[1]


def small(**options):
    """Returns an encoder whose random weights all count."""
    torch.manual_seed(0)
    encoder = Emotion2vec.from_config(SMALL, **options)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    return encoder


@pytest.mark.parametrize("clip", range(4))
def test_answers_are_those_of_funasr(parity, clip):
    encoder, tensors = parity
    batch = padded([tensors[f"{clip}.wav"]])
    with torch.no_grad():
        x, lengths = encoder.frames(*batch)
        layers, _ = encoder.layers(*batch)
    expected = tensors[f"{clip}.frames"]
    assert x.shape[1] == len(expected) and lengths.tolist() == [1.0]
    assert (x[0] - expected).abs().max() < 1e-4
    assert (torch.cat(layers) - tensors[f"{clip}.layers"]).abs().max() < 1e-4
    pooled = encoder(*batch)
    assert torch.allclose(pooled[0], expected.mean(dim=0), atol=1e-4)


def test_raw_waveforms_are_those_of_funasr_too(parity):
    encoder, tensors = parity
    raw = Emotion2vec.from_config(encoder.config, normalize_wav=False).eval()
    raw.load_state_dict(encoder.state_dict())
    for clip in range(4):
        with torch.no_grad():
            x, _ = raw.frames(*padded([tensors[f"{clip}.wav"]]))
        assert (x[0] - tensors[f"{clip}.raw"]).abs().max() < 1e-4
    assert (tensors["3.raw"] - tensors["3.frames"]).abs().max() > 0.1


def test_the_fixture_tells_mistakes_from_the_truth(parity):
    """Some heads have a scale below 0, and one clip is truly quiet."""
    encoder, tensors = parity
    scale = encoder.modality_encoders["AUDIO"].alibi_scale
    assert (scale < 0).any() and (scale > 0.5).any()
    assert tensors["3.wav"].var() < 1e-4


@pytest.mark.parametrize(
    "lengths", [(16000, 8000, 400), (640, 400, 719, 720), (9000, 9000, 8990)]
)
def test_a_clip_alone_equals_the_clip_in_any_batch(parity, lengths):
    encoder, _ = parity
    clips = [wav(n, i) for i, n in enumerate(lengths)]
    wavs, relative = padded(clips)
    behind = ~length_to_mask(relative, wavs.shape[1])
    with torch.no_grad():
        x, out = encoder.frames(wavs.masked_fill(behind, 9.0), relative)
        layers, _ = encoder.layers(wavs, relative)
        pooled = encoder(wavs, relative)
    mask = length_to_mask(out, x.shape[1])
    assert mask.sum(dim=1).tolist() == [(n - 80) // 320 for n in lengths]
    assert x[~mask].abs().sum() == 0
    for i, clip in enumerate(clips):
        with torch.no_grad():
            alone, _ = encoder.frames(*padded([clip]))
            alone_layers, _ = encoder.layers(*padded([clip]))
        assert (x[i][mask[i]] - alone[0]).abs().max() < 1e-4
        assert (pooled[i] - alone[0].mean(dim=0)).abs().max() < 1e-4
        for layer, other in zip(layers, alone_layers, strict=True):
            assert (layer[i][mask[i]] - other[0]).abs().max() < 1e-4
            assert layer[i][~mask[i]].abs().sum() == 0


def test_columns_that_no_row_fills_change_nothing(parity):
    encoder, _ = parity
    wavs, lengths = padded([wav(5000), wav(3000, 1)])
    wider = F.pad(wavs, (0, 4000))
    with torch.no_grad():
        once = encoder(wavs, lengths)
        again = encoder(wider, lengths * 5000 / 9000)
    assert (once - again).abs().max() < 1e-4


def test_training_in_a_padded_batch_learns_what_single_clips_teach():
    encoder = small(dropout=0.0, layerdrop=0.0).train()
    clips = [wav(2000), wav(300, 1)]
    encoder(*padded(clips)).square().sum().backward()
    together = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    for clip in clips:
        encoder(*padded([clip])).square().sum().backward()
    for grad, weight in zip(together, encoder.parameters(), strict=True):
        assert (grad - weight.grad).abs().max() < 1e-3 * (1 + grad.abs().max())


@pytest.mark.parametrize("normalize_wav", [False, True])
def test_a_clip_shorter_than_a_frame_is_heard_with_silence(normalize_wav):
    base_like = Emotion2vecConfig(embed_dim=24, conv_pos_groups=4, depth=1)
    encoder = Emotion2vec.from_config(base_like, normalize_wav=normalize_wav)
    encoder.eval()
    short = wav(300)
    with torch.no_grad():
        alone = encoder(*padded([short]))
        beside = encoder(*padded([wav(16000), short]))[1]
        assert (alone[0] - beside).abs().max() < 1e-5
        if not normalize_wav:
            longer = encoder(
                *padded([torch.nn.functional.pad(short, (0, 100))])
            )
            assert (alone - longer).abs().max() < 1e-5
        frames, lengths = encoder.frames(*padded([short]))
    assert frames.shape[1] == 1 and lengths.tolist() == [1.0]


def test_base_has_the_published_size():
    with torch.device("meta"):
        encoder = Emotion2vec()
    assert sum(p.numel() for p in encoder.parameters()) == 93_171_212
    assert len(encoder.state_dict()) == 183
    assert encoder.width == 768
    config = encoder.config
    for n in (400, 719, 720, 16000, 48000, 128000, 127999, 640000):
        assert config.n_frames(n) == (n - 80) // 320
    assert config.n_frames(399) == 0 and config.min_samples == 400


@pytest.mark.parametrize("kernel, stride", [(10, 5), (3, 2), (2, 2), (7, 3)])
@pytest.mark.parametrize("channels", [1, 4])
def test_flat_conv_is_a_convolution(kernel, stride, channels):
    x, weight = torch.randn(30, channels), torch.randn(6, channels, kernel)
    expected = F.conv1d(x.T[None], weight, stride=stride)[0].T
    y = flat_conv(x, weight, stride)
    assert y.shape == (30 // stride, 6)
    assert torch.allclose(y[: len(expected)], expected, atol=1e-5)


def test_frozen_stays_frozen_after_train():
    encoder = small(is_frozen=True)
    torch.nn.ModuleDict({"speech_encoder": encoder}).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    batch = padded([wav(1000).requires_grad_()])
    once = encoder(*batch)
    assert torch.equal(once, encoder(*batch)) and not once.requires_grad
    assert not encoder.layers(*batch)[0][0].requires_grad


@pytest.mark.parametrize("lengths", [(1000, 1000), (1000, 400)])
def test_checkpointing_changes_memory_only(lengths):
    batch = padded([wav(n, i) for i, n in enumerate(lengths)])
    results, kept = [], []
    for is_on in (False, True):
        encoder = small(gradient_checkpointing=is_on, layerdrop=0.3).train()
        torch.manual_seed(5)
        n_saved = []

        def pack(tensor, n_saved=n_saved):
            n_saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = encoder(*batch).square().sum()
        loss.backward()
        grads = [p.grad for p in encoder.parameters() if p.grad is not None]
        results.append([loss.detach(), *grads])
        kept.append(sum(n_saved))
    assert kept[1] < kept[0] / 2
    assert len(results[0]) == len(results[1])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.allclose(plain, checkpointed, atol=1e-6)


def test_layerdrop_leaves_blocks_out_in_training_only():
    batch = padded([wav(1000)])
    encoder = small(dropout=0.0, layerdrop=0.5)
    counts = set()
    encoder.train()
    for seed in range(8):
        torch.manual_seed(seed)
        counts.add(len(encoder.layers(*batch)[0]))
    assert {0, 1, 2} == counts
    torch.manual_seed(3)
    once = encoder(*batch)
    torch.manual_seed(3)
    assert torch.equal(once, encoder(*batch))
    encoder.eval()
    assert torch.equal(encoder(*batch), encoder(*batch))
    assert len(encoder.layers(*batch)[0]) == 2


def test_every_weight_gets_a_gradient():
    encoder = small(layerdrop=0.0).train()
    encoder(*padded([wav(2000), wav(700, 1)])).square().sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad.isfinite().all()
        assert weight.grad.abs().sum() > 0, name


def test_dropout_blanks_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(101, 1001, requires_grad=True)
    y = dropout(x, 0.1, training=True)
    assert abs((y == 0).float().mean() - 0.1) < 0.005
    assert abs(y.mean() - 1) < 0.005
    # Each value is drawn for itself: pairs go together by chance only.
    gone = y == 0
    for step in (1, 2, 3, 4):
        pairs = (gone[:, step:] & gone[:, :-step]).float().mean()
        assert abs(pairs - 0.01) < 0.002
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert dropout(x, 0.1, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_attention_with_dropout_is_the_same_in_the_mean():
    """What computes it on the CPU in training is not what computes it else."""
    encoder = small(layerdrop=0.0)
    block = encoder.blocks[0].eval()
    x, bias = torch.randn(2, 9, 24), torch.randn(1, 12, 9, 9)
    torch.manual_seed(0)
    with torch.no_grad():
        exact = block.attn(x, bias)
        block.train()
        rows = [block.attn(x, bias) for _ in range(2000)]
    spread = torch.stack(rows).std(dim=0) / len(rows) ** 0.5
    assert ((torch.stack(rows).mean(dim=0) - exact) / spread).abs().max() < 5


@pytest.mark.parametrize("is_training", [False, True])
def test_bfloat16_is_near_full_precision(parity, is_training):
    encoder, _ = parity
    encoder = Emotion2vec.from_config(encoder.config, dropout=0, layerdrop=0)
    encoder.load_state_dict(parity[0].state_dict())
    encoder.train(is_training)
    batch = padded([wav(6000), wav(2000, 1)])
    norms = []
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm) and module.bias.numel() == 24:
            module.register_forward_hook(
                lambda _, args, y: norms.append((args[0].dtype, y.dtype))
            )
    full = encoder(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        norms.clear()
        half = encoder(*batch)
        half.sum().backward()
    assert set(norms) == {(torch.float32, torch.float32)}
    assert half.dtype == torch.float32
    assert F.cosine_similarity(full, half).min() > 0.999
    assert (full - half).abs().max() > 0  # autocast did something
