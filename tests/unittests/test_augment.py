"""Tests of the changes that training makes to clips and frames.

Authors
 * The esr_lobes contributors
"""

import math

import pytest
import torch

from esr_lobes.augment import (
    BandColour,
    Chain,
    PromptMix,
    RandomGain,
    RandomSpeed,
    SpecMask,
)


def tone(hertz, n_samples, sample_rate=16000):
    """Returns a sine, [time]."""
    time = torch.arange(n_samples) / sample_rate
    return torch.sin(2 * math.pi * hertz * time)


def test_speed_moves_length_and_pitch_of_the_real_part():
    wavs = torch.zeros(2, 16000)
    wavs[0], wavs[1, :8000] = tone(500, 16000), tone(500, 8000)
    out, lengths = RandomSpeed([1.25])(wavs, torch.tensor([1.0, 0.5]))
    assert out.shape == (2, 12800)
    assert lengths.tolist() == [1.0, 0.5]
    assert out[1, 6400:].abs().max() == 0
    # 500 Hz played 1.25 times as fast is 625 Hz: bin 625 of 12800 samples
    # at 16 kHz is 500.
    assert torch.fft.rfft(out[0]).abs().argmax() == 500


def test_speed_is_drawn_for_each_clip_and_follows_the_seed():
    wavs, lengths = torch.randn(16, 1600), torch.ones(16)
    change = RandomSpeed([0.8, 1.0])
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(change(wavs, lengths))
    assert set((draws[0][1] * draws[0][0].shape[1]).round().tolist()) == {
        1600.0,
        2000.0,
    }
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][1], draws[2][1])
    is_plain = (draws[0][1] < 0.9).tolist()
    assert torch.equal(draws[0][0][is_plain, :1600], wavs[is_plain])


@pytest.mark.parametrize("speeds", [[], [0.0], [1.0, -1.0]])
def test_speeds_must_be_above_zero(speeds):
    with pytest.raises(ValueError, match="above 0"):
        RandomSpeed(speeds)


def test_gain_scales_whole_clips_by_as_many_decibels_as_asked():
    torch.manual_seed(0)
    wavs, lengths = torch.ones(4000, 3), torch.ones(4000)
    out, _ = RandomGain(spread_db=6.0)(wavs, lengths)
    assert torch.equal(out[:, 0], out[:, 2])
    gains_db = 20 * out[:, 0].log10()
    assert abs(gains_db.mean()) < 0.4
    assert abs(gains_db.std() - 6.0) < 0.3


def test_a_chain_does_all_its_steps_in_training_only():
    chain = Chain(RandomSpeed([2.0]), RandomGain(6.0))
    wavs, lengths = torch.ones(1, 800), torch.ones(1)
    torch.manual_seed(0)
    out, _ = chain(wavs, lengths)
    assert out.shape == (1, 400) and out[0, 200] != 1.0
    assert torch.equal(chain.eval()(wavs, lengths)[0], wavs)


def test_masks_hide_spans_of_real_frames_with_the_mean():
    torch.manual_seed(0)
    counts = torch.tensor([50, 20])
    x = torch.rand(2, 50, 40)
    x[1, 20:] = 0.0
    out = SpecMask(1, 0.5, 1, 0.5)(x, counts)
    assert out[1, 20:].abs().max() == 0
    for row, count in enumerate(counts.tolist()):
        hidden = out[row, :count] != x[row, :count]
        mean = x[row, :count].mean()
        assert torch.allclose(out[row, :count][hidden], mean)
        frames = hidden.all(dim=1)
        bands = hidden.all(dim=0)
        # What is hidden is whole frames and whole bands, each in one piece.
        assert torch.equal(hidden, frames.unsqueeze(1) | bands.unsqueeze(0))
        for line, most in ((frames, count / 2), (bands, 20)):
            assert line.sum() <= most
            assert (line.int().diff() == 1).sum() <= 1


def test_spans_are_uniform_up_to_their_limit():
    torch.manual_seed(0)
    x = torch.ones(2000, 20, 10)
    x[:, :, 0] = 0.0
    counts = torch.full((2000,), 20)
    hidden = SpecMask(1, 0.5, 0, 0.0)(x, counts)[:, :, 0] != 0
    shares = hidden.sum(dim=1) / 20
    assert shares.max() <= 0.5
    # Widths 0 ... 9 are equally likely: 4.5 of 20 frames on average.
    assert abs(shares.mean() - 4.5 / 20) < 0.01


def test_colour_shifts_whole_clips_and_repeats_the_outermost_band():
    torch.manual_seed(0)
    ramp = torch.arange(6.0).expand(200, 3, 6).clone()
    ramp[:, 2] = 0.0
    counts = torch.full((200,), 2)
    out = BandColour(max_shift=2, spread=0.0)(ramp, counts)
    assert out[:, 2].abs().max() == 0
    assert torch.equal(out[:, 0], out[:, 1])
    seen = {tuple(row.tolist()) for row in out[:, 0]}
    assert seen == {
        (2, 3, 4, 5, 5, 5),
        (1, 2, 3, 4, 5, 5),
        (0, 1, 2, 3, 4, 5),
        (0, 0, 1, 2, 3, 4),
        (0, 0, 0, 1, 2, 3),
    }


def test_colour_adds_straight_lines_between_points():
    torch.manual_seed(0)
    x, counts = torch.zeros(3000, 1, 7), torch.ones(3000).long()
    out = BandColour(max_shift=0, spread=2.0, n_points=4)(x, counts)[:, 0]
    assert abs(out[:, [0, 2, 4, 6]].std() - 2.0) < 0.1
    middle = (out[:, [0, 2, 4]] + out[:, [2, 4, 6]]) / 2
    assert torch.allclose(out[:, [1, 3, 5]], middle, atol=1e-5)


def test_nothing_changes_in_evaluation_mode():
    wavs, lengths = torch.randn(3, 800), torch.tensor([1.0, 0.5, 0.2])
    for change in (RandomSpeed([2.0]), RandomGain(9.0)):
        out, out_lengths = change.eval()(wavs, lengths)
        assert torch.equal(out, wavs) and torch.equal(out_lengths, lengths)
    x = torch.randn(1, 9, 4)
    assert torch.equal(BandColour().eval()(x, torch.tensor([9])), x)
    assert torch.equal(SpecMask(9, 0.9).eval()(x, torch.tensor([9])), x)


def test_prompts_are_blended_within_their_span():
    torch.manual_seed(0)
    mix = PromptMix(n_prompts=3, noise=0.0, dropout=0.0)
    x = torch.eye(3).repeat(200, 1, 1)
    blends = mix(x)
    assert torch.allclose(blends.sum(dim=1), torch.ones(200), atol=1e-6)
    n_used = (blends > 0).sum(dim=1)
    assert sorted(set(n_used.tolist())) == [1, 2, 3]


def test_the_blur_is_as_long_as_asked():
    torch.manual_seed(0)
    x = 5.0 * torch.ones(400, 1, 64)
    blur = PromptMix(n_prompts=1, noise=0.5, dropout=0.0)(x) - x[:, 0]
    share = blur.norm(dim=-1) / x[:, 0].norm(dim=-1)
    assert abs(share.mean().item() - 0.5) < 0.02


def test_the_blend_follows_the_seed():
    x = torch.rand(4, 3, 8)
    torch.manual_seed(1)
    first = PromptMix(n_prompts=3)(x)
    torch.manual_seed(1)
    assert torch.equal(PromptMix(n_prompts=3)(x), first)
