"""Tests of the compact speech encoder.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch

from esr_lobes.encoders.compact import CompactEncoder, LogMel

SMALL = {"channels": [8, 16], "frame_strides": [1, 2], "n_mels": 40}


def speech_like(seconds, seed=0):
    """Returns noise whose loudness goes up and down, [time]."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = round(16000 * seconds)
    noise = torch.randn(n_samples, generator=generator)
    time = torch.arange(n_samples) / 16000
    return 0.1 * noise * (1.1 + torch.sin(2 * torch.pi * 3 * time))


def padded(clips):
    """Returns a batch with its relative lengths."""
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    return wavs, lengths / wavs.shape[1]


@pytest.fixture(scope="module")
def encoder():
    """A default encoder whose running statistics are not those of birth."""
    torch.manual_seed(0)
    encoder = CompactEncoder()
    encoder.train()
    for seed in range(3):
        encoder(*padded([speech_like(0.8, seed), speech_like(0.5, seed + 9)]))
    return encoder.eval()


def test_a_clip_alone_equals_the_clip_in_any_batch(encoder):
    clips = [speech_like(s, i) for i, s in enumerate((0.31, 0.9, 2.03, 0.01))]
    with torch.no_grad():
        together = encoder(*padded(clips))
        turned = encoder(*padded(clips[::-1])).flip(0)
        alone = torch.cat([encoder(*padded([clip])) for clip in clips])
        again = encoder(*padded(clips))
    assert (together - alone).abs().max() < 1e-4
    assert (together - turned).abs().max() < 1e-4
    assert torch.equal(together, again)


def test_what_stands_in_the_padding_does_not_matter(encoder):
    wavs, lengths = padded([speech_like(1.0), speech_like(0.4, 1)])
    dirty = wavs.clone()
    dirty[1, 6400:] = 1.0
    with torch.no_grad():
        assert torch.equal(encoder(wavs, lengths), encoder(dirty, lengths))


@pytest.mark.parametrize(
    "wav",
    [torch.zeros(16000), torch.zeros(160), torch.ones(1), speech_like(0.01)],
)
def test_silent_and_very_short_clips_are_finite(encoder, wav):
    with torch.no_grad():
        assert torch.isfinite(encoder(*padded([wav]))).all()
    x, lengths = encoder.frames(*padded([wav]))
    assert x.shape[0] == 1 and 0 < lengths.item() <= 1


def test_silence_around_a_clip_changes_nothing(encoder):
    clip = speech_like(0.8)
    # Whole frames of silence, so that the frames of the clip fall alike.
    around = torch.cat([torch.zeros(3200), clip, torch.zeros(4800)])
    with torch.no_grad():
        difference = encoder(*padded([clip])) - encoder(*padded([around]))
    assert difference.abs().max() < 0.1


def test_trimming_keeps_what_is_within_the_range():
    loud, soft = speech_like(0.5), 0.001 * speech_like(0.5, 1)  # 60 dB down
    wavs, lengths = padded([torch.cat([soft, loud]), torch.cat([loud, soft])])
    _, counts = LogMel(n_mels=40, trim_db=30.0)(wavs, lengths)
    assert all(50 <= count <= 56 for count in counts.tolist())
    _, counts = LogMel(n_mels=40, trim_db=90.0)(wavs, lengths)
    assert counts.tolist() == [101, 101]
    _, counts = LogMel(n_mels=40, trim_db=0.0)(wavs, torch.tensor([1.0, 0.5]))
    assert counts.tolist() == [101, 51]


def test_padded_frames_are_zero_and_lengths_are_exact(encoder):
    wavs, lengths = padded([speech_like(2.0), speech_like(0.5, 1)])
    with torch.no_grad():
        x, relative = encoder.frames(wavs, lengths)
    counts = (relative * x.shape[1]).round().int().tolist()
    _, frames = encoder.features(wavs, lengths)
    stride = 8
    assert counts == [-(-n // stride) for n in frames.tolist()]
    assert x[1, counts[1] :].abs().max() == 0
    assert x[1, : counts[1]].abs().sum(dim=-1).min() > 0
    assert encoder(wavs, lengths).shape == (2, encoder.width)
    assert x.shape[2] * 2 == encoder.width


def test_level_is_heard_and_so_is_each_clip_alone(encoder):
    clip = speech_like(0.7)
    with torch.no_grad():
        loud, soft = encoder(*padded([clip, 0.1 * clip]))
    assert (loud - soft).abs().max() > 0.05


def test_size_is_compact():
    count = sum(p.numel() for p in CompactEncoder().parameters())
    assert 500_000 <= count <= 5_000_000


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    encoder = CompactEncoder(**SMALL)
    encoder(*padded([speech_like(0.5, i) for i in range(4)])).square().sum(
        dim=0
    )[::3].sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all()
        # A constant added before the softmax over time cancels out.
        if name != "pool.attend.2.bias":
            assert weight.grad.abs().sum() > 0, name


def test_augmentation_is_for_training_and_follows_the_seed():
    torch.manual_seed(0)
    encoder = CompactEncoder(**SMALL, dropout=0.0, crop_frames=40)
    batch = padded([speech_like(1.0), speech_like(0.8, 1)])
    encoder.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(encoder.frames(*batch)[0].detach())
    assert draws[0].shape[1] == 64 // 4  # 40 frames, filled up to 64
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    encoder.eval()
    with torch.no_grad():
        assert encoder.frames(*batch)[0].shape[1] == 128 // 4


def test_bfloat16_is_near_full_precision(encoder):
    batch = padded([speech_like(1.0), speech_like(0.6, 1)])
    with torch.no_grad():
        full = encoder(*batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = encoder(*batch)
    assert (
        torch.nn.functional.cosine_similarity(full, half.float()).min() > 0.99
    )


def test_blocks_and_strides_must_agree():
    with pytest.raises(ValueError, match="one of each a block"):
        CompactEncoder(channels=[8, 8], frame_strides=[1])


@pytest.mark.parametrize("channels", [[4, 8], [8, 8], [12, 12]])
def test_few_channels_learn(channels):
    """With the memory laid out channels-last, torch 2.11 broke its heap."""
    torch.manual_seed(0)
    encoder = CompactEncoder(channels=channels, frame_strides=[1, 2]).train()
    for _ in range(3):
        wavs = 0.1 * torch.randn(8, 32000)
        encoder(wavs, torch.rand(8) / 2 + 0.5).pow(2).sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
