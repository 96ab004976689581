"""Tests of the frontend; the true frames are torchaudio's.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch
import torch.nn.functional as F
from torchaudio.compliance import kaldi

from esr_lobes.clsr.frontend import (
    Frontend,
    KaldiFbank,
    LfrMask,
    mel_banks,
    read_cmvn,
    stack_frames,
)
from esr_lobes.weights import WeightsError


def wav(n_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(n_samples, generator=generator) + 0.05


def reference(clip, n_mels=80):
    """Kaldi's frames as torchaudio computes them, of one clip alone."""
    return kaldi.fbank(
        clip[None] * 32768,
        num_mel_bins=n_mels,
        dither=0.0,
        energy_floor=0.0,
        window_type="hamming",
        sample_frequency=16000,
    )


@pytest.mark.parametrize("n_mels", [23, 80])
def test_mel_banks_are_kaldi_s(n_mels):
    banks, _ = kaldi.get_mel_banks(
        n_mels, 512, 16000.0, 20.0, 0.0, 100.0, -500.0, 1.0
    )
    found = mel_banks(n_mels)
    torch.testing.assert_close(found[:256], banks.t(), atol=1e-6, rtol=0)
    assert found[256].abs().sum() == 0


@pytest.mark.parametrize("lengths", [(16000, 401, 8000), (559, 560, 400)])
def test_frames_are_kaldi_s_whatever_stands_behind_a_clip(lengths):
    clips = [wav(n, i) * 10.0**-i for i, n in enumerate(lengths)]
    wavs = torch.full((len(clips), max(lengths) + 200), 0.7)
    for row, clip in zip(wavs, clips, strict=True):
        row[: len(clip)] = clip
    x, counts = KaldiFbank()(wavs, torch.tensor(lengths))
    for i, clip in enumerate(clips):
        expected = reference(clip)
        assert counts[i] == len(expected)
        assert (x[i, : counts[i]] - expected).abs().max() < 1e-4


def test_digital_silence_is_finite_and_short_clips_get_silence_behind():
    fbank = KaldiFbank()
    x, counts = fbank(torch.zeros(1, 500), torch.tensor([500]))
    assert counts.tolist() == [1] and torch.equal(
        x[0], reference(x.new_zeros(500))
    )
    clip = wav(150)
    x, counts = fbank(clip[None], torch.tensor([150]))
    assert counts.tolist() == [1]
    assert (x[0] - reference(F.pad(clip, (0, 250)))).abs().max() < 1e-4
    beside, counts = fbank(
        torch.stack([F.pad(clip, (0, 850), value=9.0), wav(1000)]),
        torch.tensor([150, 1000]),
    )
    assert counts.tolist() == [1, 4]
    torch.testing.assert_close(beside[0, :1], x[0])


def test_dither_is_for_training_only():
    fbank = KaldiFbank(dither=1.0)
    batch = wav(800)[None] / 100, torch.tensor([800])
    torch.manual_seed(0)
    first, _ = fbank.train()(*batch)
    second, _ = fbank(*batch)
    assert (first - second).abs().max() > 1e-3
    calm, _ = fbank.eval()(*batch)
    assert torch.equal(calm, KaldiFbank()(*batch)[0])


def test_stacks_are_the_formula():
    """Frame j of stack i is frame 6i - 3 + j, or the nearest there is."""
    for n_frames in range(1, 60):
        x = torch.arange(float(n_frames)).view(1, -1, 1)
        stacks, counts = stack_frames(x, torch.tensor([n_frames]))
        expected = [
            [min(max(6 * i - 3 + j, 0), n_frames - 1) for j in range(7)]
            for i in range(-(-n_frames // 6))
        ]
        assert stacks[0].tolist() == expected
        assert counts.tolist() == [len(expected)]


def test_stacks_end_with_the_row_not_with_the_batch():
    x = torch.arange(20.0).view(1, 20, 1).repeat(2, 1, 1)
    stacks, counts = stack_frames(x, torch.tensor([20, 8]))
    assert counts.tolist() == [4, 2]
    assert stacks[1, 1].tolist() == [3, 4, 5, 6, 7, 7, 7]
    assert stacks[0, 1].tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_bands_of_a_frame_stay_together():
    x = torch.arange(12.0).view(1, 4, 3)
    stacks, _ = stack_frames(x, torch.tensor([4]), width=2, step=2)
    assert stacks[0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@pytest.mark.parametrize("seconds, steps", [(1, 17), (40, 667)])
def test_a_step_is_60_ms(seconds, steps):
    feats, lengths = Frontend()(torch.zeros(1, seconds * 16000), torch.ones(1))
    assert lengths.tolist() == [steps] and feats.shape == (1, steps, 560)


def test_a_clip_alone_equals_the_clip_in_any_batch():
    shift, scale = torch.randn(560), torch.rand(560)
    frontend = Frontend(cmvn=(shift, scale))
    lengths = (16000, 7000, 300)
    clips = [wav(n, i) for i, n in enumerate(lengths)]
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    feats, counts = frontend(wavs, torch.tensor(lengths) / 16000)
    for i, clip in enumerate(clips):
        alone, own = frontend(clip[None], torch.ones(1))
        assert counts[i] == own.item()
        torch.testing.assert_close(feats[i, : counts[i]], alone[0])
        assert feats[i, counts[i] :].abs().sum() == 0
    stacks, _ = stack_frames(reference(clips[0])[None], torch.tensor([98]))
    expected = (stacks[0] + shift) * scale
    torch.testing.assert_close(feats[0], expected, atol=1e-4, rtol=1e-5)


def test_autocast_does_not_reach_it():
    batch = wav(4000)[None], torch.ones(1)
    frontend = Frontend()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feats, _ = frontend(*batch)
    assert torch.equal(feats, frontend(*batch)[0])


def test_normalisation_must_fit_and_is_saved():
    with pytest.raises(ValueError, match=r"\[4\] and \[4\] values.*560"):
        Frontend(cmvn=(torch.ones(4), torch.ones(4)))
    names = set(Frontend().state_dict())
    assert names == {"shift", "scale"}


def test_masks_cover_bands_of_all_frames_and_a_stretch_of_steps():
    torch.manual_seed(0)
    mask = LfrMask(n_mels=80, max_bands=30, max_steps=12).train()
    lengths = torch.tensor([40, 10, 1] * 200)
    x = mask(torch.ones(600, 40, 560), lengths)
    bands_seen, steps_seen = set(), {40: set(), 10: set(), 1: set()}
    for row, n in zip(x, lengths.tolist(), strict=True):
        is_band = row.amax(dim=0) == 0
        # A band is the same in all seven frames of a stack.
        assert is_band.view(7, 80).unique(dim=0).shape[0] == 1
        bands = is_band[:80].nonzero().flatten()
        is_step = row.amax(dim=1) == 0
        steps = is_step.nonzero().flatten()
        for found in (bands, steps):
            assert len(found) == 0 or found[-1] - found[0] == len(found) - 1
        assert ((row == 0) == (is_band | is_step.unsqueeze(1))).all()
        assert not is_step[n:].any()
        bands_seen.add(len(bands))
        steps_seen[n].add(len(steps))
    assert bands_seen == set(range(31))
    assert steps_seen[40] == set(range(13))
    assert steps_seen[10] == set(range(6))  # half of the clip at most
    assert steps_seen[1] == {0}
    calm = torch.rand(2, 40, 560)
    assert torch.equal(mask.eval()(calm, torch.tensor([40, 9])), calm)


def test_masks_reach_both_ends():
    torch.manual_seed(0)
    mask = LfrMask(n_mels=4, max_bands=2, max_steps=2).train()
    x = mask(torch.ones(500, 5, 4), torch.full((500,), 5)) == 0
    assert (x.all(dim=1).sum(dim=0) > 20).all()
    assert (x.all(dim=2).sum(dim=0) > 20).all()


MVN = """<Nnet>
<Splice> 3 3
[ 0 ]
<AddShift> 3 3
<LearnRateCoef> 0 [ -8.5 -9.25 1e-2 ]
<Rescale> 3 3
<LearnRateCoef> 0 [ 0.5 0.25 0.125 ]
</Nnet>
"""


def test_cmvn_is_read_from_below_its_tags(tmp_path):
    path = tmp_path / "am.mvn"
    path.write_text(MVN)
    shift, scale = read_cmvn(path)
    assert shift.tolist() == pytest.approx([-8.5, -9.25, 0.01])
    assert scale.tolist() == [0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    "old, new",
    [
        ("<Rescale>", "<Other>"),
        ("0.125", "often"),
        ("0.125", "nan"),
        (" 0.125", ""),
        (MVN, ""),
        ("[ -8.5 -9.25 1e-2 ]", "[ ]"),
    ],
)
def test_a_damaged_cmvn_is_named(tmp_path, old, new):
    path = tmp_path / "am.mvn"
    path.write_text(MVN.replace(old, new))
    with pytest.raises(WeightsError, match="am.mvn.*Download"):
        read_cmvn(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="am.mvn.*Download"):
        read_cmvn(path)
