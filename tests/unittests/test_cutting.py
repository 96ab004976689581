"""Cutting: no length contradicts another, nothing said is lost, and chapters
do not show.

Authors
 * The esr_lobes contributors
"""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from esr_lobes.audio import cut_windows
from esr_lobes.indexing.cutting import (
    Cutting,
    CuttingError,
    VoiceCutter,
    WindowCutter,
    join_short,
    make_cutter,
    widen_short,
)
from esr_lobes.indexing.voice_activity import FRAME

RATE = 16000


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"kind": "sentences"}, "voice or windows"),
        ({"channels": "left"}, "mix or split"),
        ({"max_seconds": 0.5}, "at least 1.0"),
        ({"max_seconds": float("inf")}, "above 0"),
        ({"max_seconds": float("nan")}, "above 0"),
        ({"max_seconds": "8"}, "above 0"),
        ({"min_seconds": 9.0}, "between"),
        ({"min_seconds": 0.05}, "between"),
        ({"shortest": 0.0}, "above 0"),
        ({"shortest": True}, "above 0"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"kind": "windows", "hop_seconds": 9.0}, "fall between"),
        ({"kind": "windows", "max_seconds": 0.01}, "at least 0.1"),
    ],
)
def test_contradictions(fields, word):
    with pytest.raises(CuttingError, match=word):
        Cutting(**fields)


def test_as_dict_goes_through_json():
    cutting = Cutting("windows", hop_seconds=2.0, channels="split")
    assert Cutting(**json.loads(json.dumps(cutting.as_dict()))) == cutting
    # what the other kind does not use is not checked
    assert Cutting("windows", max_seconds=0.5, hop_seconds=0.5)
    assert Cutting(hop_seconds=20.0)


@pytest.mark.parametrize(
    "spans, joined",
    [
        ([(0, 10), (12, 13)], [(0, 13)]),  # to the left
        ([(0, 1), (3, 20)], [(0, 20)]),  # to the right
        ([(0, 10), (14, 15), (17, 30)], [(0, 10), (14, 30)]),  # to the nearer
        ([(0, 1), (3, 4), (6, 7)], [(0, 7)]),  # three short ones
        ([(0, 1), (9, 20)], [(0, 1), (9, 20)]),  # too far
        ([(0, 28), (30, 31)], [(0, 28), (30, 31)]),  # would get too long
        ([(0, 6), (7, 13)], [(0, 6), (7, 13)]),  # long enough, both
        ([], []),
    ],
)
def test_join_short(spans, joined):
    assert join_short(spans, shortest=5, longest=30, near=7) == joined


@pytest.mark.parametrize(
    "spans, wider",
    [
        ([(40, 44)], [(37, 47)]),
        ([(1, 5)], [(0, 10)]),  # no room before: more behind
        ([(96, 99)], [(90, 100)]),  # and the other way round
        ([(10, 14), (16, 20)], [(5, 15), (15, 25)]),  # a pause is shared
        ([(0, 40), (42, 44), (46, 90)], [(0, 40), (41, 45), (46, 90)]),
        ([(0, 100)], [(0, 100)]),
        ([], []),
    ],
)
def test_widen_short(spans, wider):
    assert widen_short(spans, shortest=10, n_samples=100) == wider


def test_short_file_is_widened_to_all_of_it():
    assert widen_short([(2, 3)], shortest=10, n_samples=6) == [(0, 6)]


def test_nothing_lost_nothing_doubled():
    random = np.random.default_rng(0)
    for _ in range(200):
        edges = np.sort(random.choice(1000, 2 * random.integers(1, 20), False))
        spans = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
        done = widen_short(join_short(spans, 30, 80, 20), 30, 1000)
        starts, stops = zip(*done, strict=True)
        assert starts[0] >= 0 and stops[-1] <= 1000
        assert all(a <= b for a, b in zip(stops, starts[1:], strict=False))
        for start, stop in spans:
            assert any(a <= start and stop <= b for a, b in done)
        longest = max(stop - start for start, stop in spans)
        assert max(b - a for a, b in done) <= max(80, longest)


def pushed(cutter, wave, chapter, probabilities=None):
    """All segments of a track that comes in chapters, in samples."""
    segments = []
    for first in range(0, len(wave), chapter):
        part = wave[first : first + chapter]
        end = len(wave) / RATE if first + chapter >= len(wave) else None
        row = None
        if probabilities is not None:
            frames = slice(first // FRAME, -(-(first + len(part)) // FRAME))
            row = probabilities[frames]
        segments += cutter.push(part, end, row)
    for start, stop, heard in segments:
        expected = wave[round(start * RATE) : round(stop * RATE)]
        assert torch.equal(heard, expected)
    return [(start, stop) for start, stop, _ in segments]


@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0, 2.03, 3.0, 3.05, 9.9, 20])
@pytest.mark.parametrize("chapter", [0.7, 2.0, 5.0, 60.0])
def test_windows_are_those_of_the_whole(seconds, chapter):
    cutting = Cutting("windows", max_seconds=2.0, hop_seconds=0.5)
    wave = torch.rand(round(seconds * RATE))
    windows = pushed(WindowCutter(cutting), wave, round(chapter * RATE))
    assert windows == cut_windows(len(wave) / RATE, 2.0, 0.5, 0.1)


def speech(n_frames, longest_pause, seed=0):
    """Probabilities of someone who talks and pauses, at random."""
    random = np.random.default_rng(seed)
    row, is_voice = [], False
    while len(row) < n_frames:
        n = random.integers(5, 250 if is_voice else longest_pause)
        row += [random.uniform(0.6, 1.0) if is_voice else 0.02] * int(n)
        is_voice = not is_voice
    return torch.tensor(row[:n_frames])


@pytest.mark.parametrize("seed", range(5))
def test_chapters_do_not_show(seed):
    """Where speech has a pause of two seconds now and then, none at all."""
    row = speech(8000, longest_pause=150, seed=seed)
    wave = torch.rand(len(row) * FRAME - 100)
    whole = pushed(VoiceCutter(Cutting()), wave, len(wave), row)
    assert len(whole) > 20
    assert max(stop - start for start, stop in whole) <= 8.0
    assert pushed(VoiceCutter(Cutting()), wave, 625 * FRAME, row) == whole


def test_chapters_without_a_long_pause():
    """Someone who hardly pauses: a few spans differ, nothing is lost."""
    row = speech(8000, longest_pause=25)
    wave = torch.rand(len(row) * FRAME)
    whole = pushed(VoiceCutter(Cutting()), wave, len(wave), row)
    parts = pushed(VoiceCutter(Cutting()), wave, 625 * FRAME, row)
    assert len(set(parts) & set(whole)) > 0.8 * len(whole)
    assert all(a[1] <= b[0] for a, b in pairwise(parts))
    heard = torch.zeros(len(wave), dtype=torch.bool)
    for start, stop in parts:
        heard[round(start * RATE) : round(stop * RATE)] = True
    voiced = (row > 0.5).repeat_interleave(FRAME)
    assert (heard & voiced).sum() == voiced.sum()


def test_held_back_stays_short():
    """Hours of one voice, of one noise or of nothing: memory stays flat."""
    for level in (0.9, 0.25, 0.0):
        cutter = VoiceCutter(Cutting())
        for _ in range(40):
            cutter.push(
                torch.zeros(625 * FRAME), None, torch.full((625,), level)
            )
            assert len(cutter._wave) <= 625 * FRAME
            assert len(cutter._probabilities) == len(cutter._wave) // FRAME


def test_a_faint_clip_is_kept_whole_recordings_are_not():
    """A scream that voice activity doubts is what somebody cut it out for."""
    row = torch.zeros(100)
    row[20:80] = 0.2
    cutting = Cutting()
    wave = torch.rand(100 * FRAME)
    [(start, stop)] = pushed(make_cutter(cutting), wave, len(wave), row)
    assert start == pytest.approx(20 * FRAME / RATE - 0.1)
    assert stop == pytest.approx(80 * FRAME / RATE + 0.1)
    row = torch.cat([row, torch.zeros(400)])
    wave = torch.rand(500 * FRAME)
    assert pushed(make_cutter(cutting), wave, len(wave), row) == []


def test_split_of_a_long_span_keeps_all():
    row = torch.full((2000,), 0.9)
    wave = torch.rand(2000 * FRAME)
    for chapter in (len(wave), 625 * FRAME):
        times = pushed(VoiceCutter(Cutting(max_seconds=5)), wave, chapter, row)
        assert times[0][0] == 0.0 and times[-1][1] == len(wave) / RATE
        assert all(a[1] >= b[0] - 1e-9 for a, b in pairwise(times))
        assert max(stop - start for start, stop in times) <= 5.0
