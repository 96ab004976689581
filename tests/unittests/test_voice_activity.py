"""Voice activity: side by side is as one by one, in time, and not in noise.

Authors
 * The esr_lobes contributors
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from babble import babble, talk
from silero_vad import load_silero_vad

from esr_lobes import audio
from esr_lobes.indexing.voice_activity import (
    FRAME,
    RUN_UP,
    STRIP,
    VoiceActivity,
    speech_spans,
)


@pytest.fixture(scope="module")
def voice():
    return VoiceActivity()


@torch.no_grad()
def one_by_one(wave):
    """The model's own way, from the first frame to the last."""
    wave = torch.nn.functional.pad(wave, (0, max(0, FRAME - len(wave))))
    return load_silero_vad().audio_forward(wave[None], 16000)[0]


def test_short_tracks_are_exact(voice):
    lengths = (1, FRAME, 20000, 5 * FRAME, STRIP)
    waves = [
        torch.from_numpy(babble(11.0, seed=i))[:n]
        for i, n in enumerate(lengths)
    ]
    rows = voice([(wave, 0) for wave in waves])
    for wave, row in zip(waves, rows, strict=True):
        assert row.shape == (-(-len(wave) // FRAME),)
        torch.testing.assert_close(row, one_by_one(wave), atol=1e-5, rtol=0)


def test_long_track_in_strips(voice):
    wave = torch.from_numpy(talk([3.0, -1.5, 5.0, -0.8] * 2))
    assert len(wave) > 2 * STRIP
    expected = one_by_one(wave)
    row = voice([(wave, 0)])[0]
    assert row.shape == expected.shape
    n_exact = STRIP // FRAME
    assert (row - expected)[:n_exact].abs().max() < 1e-4
    assert ((row > 0.3) != (expected > 0.3)).float().mean() < 0.05


def test_run_up_is_heard_but_not_told(voice):
    wave = torch.from_numpy(talk([-0.5, 4.0, -0.5]))
    whole = voice([(wave, 0)])[0]
    row = voice([(wave[10 * FRAME :], RUN_UP)])[0]
    assert len(row) == len(whole) - 10 - RUN_UP // FRAME
    assert ((row > 0.3) == (whole[-len(row) :] > 0.3)).float().mean() > 0.97


def test_no_tracks_and_no_samples(voice):
    assert voice([]) == []
    assert voice([(torch.zeros(0), 0)])[0].shape == (0,)


def test_times(voice):
    wave = torch.from_numpy(talk([-2.0, 3.0, -2.0, 4.0, -1.0]))
    spans = speech_spans(voice([(wave, 0)])[0], len(wave), 8.0, 0.3)
    voiced = torch.zeros(len(wave))
    for start, stop in spans:
        voiced[start:stop] = 1
    # seconds of each part that count as voice; 0.1 s around are wanted
    parts = voiced.split([32000, 48000, 32000, 64000, 16000])
    found = [float(part.sum()) / 16000 for part in parts]
    assert found == pytest.approx([0.1, 2.8, 0.25, 4.0, 0.15], abs=0.15)


def test_noise_and_tones_are_no_voice(voice):
    random = np.random.default_rng(0)
    time = np.arange(160000) / 16000
    waves = [
        0.1 * random.standard_normal(160000),
        0.3 * np.sin(2 * np.pi * 440 * time),
        0.2 * random.standard_normal(160000) * (time * 1.3 % 1 < 0.4),
    ]
    rows = voice([(torch.from_numpy(w.astype(np.float32)), 0) for w in waves])
    assert [speech_spans(row, 160000, 8.0, 0.2) for row in rows] == [[]] * 3


def test_long_speech_is_parted_and_nothing_lost(voice):
    wave = torch.from_numpy(babble(20.0))
    spans = speech_spans(voice([(wave, 0)])[0], len(wave), 4.0, 0.3)
    assert max(stop - start for start, stop in spans) <= 4.0 * 16000
    assert sum(stop - start for start, stop in spans) > 0.9 * len(wave)


def test_several_threads_at_once(voice):
    tracks = [[(torch.from_numpy(babble(3.0, seed=i)), 0)] for i in range(8)]
    expected = [voice(t)[0] for t in tracks]
    with ThreadPoolExecutor(4) as pool:
        rows = [rows[0] for rows in pool.map(voice, tracks)]
    for row, right in zip(rows, expected, strict=True):
        assert torch.equal(row, right)


def test_torch_keeps_its_threads():
    """Importing silero-vad sets torch to one thread, for everybody."""
    code = (
        "import torch; torch.set_num_threads(3); "
        "from esr_lobes.indexing.voice_activity import VoiceActivity; "
        "VoiceActivity(); print(torch.get_num_threads())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["3"]


def test_real_clips(voice, shared_data):
    paths = sorted((shared_data / "ravdess" / "Actor_01").glob("*.flac"))[::2]
    waves = [audio.read(path) for path in paths]
    rows = voice([(wave, 0) for wave in waves])
    found = [
        speech_spans(row, len(wave), 8.0, 0.3)
        for row, wave in zip(rows, waves, strict=True)
    ]
    # an angry or a fearful scream may be taken for noise
    assert sum(map(bool, found)) >= len(paths) - 1
    # eight of them as one recording: strips hardly change what is found
    whole = torch.cat(waves[:8])
    row = voice([(whole, 0)])[0]
    is_other = (row > 0.3) != (one_by_one(whole) > 0.3)
    assert is_other.float().mean() < 0.02
