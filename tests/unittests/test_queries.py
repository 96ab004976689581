"""Descriptions and clips become one vector, each part as it weighs.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest
import torch

from esr_lobes.index import Segment
from esr_lobes.index.queries import (
    QueryError,
    compose,
    is_heard_in,
    read_clips,
    read_parts,
)

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_parts_and_their_weights():
    assert read_parts("sad") == [("sad", 1.0)]
    assert read_parts(["sad", "slow"]) == [("sad", 1.0), ("slow", 1.0)]
    assert read_parts(("sad",), sign=-1) == [("sad", -1.0)]
    assert read_parts({"sad": 2, "slow": -0.5}) == [
        ("sad", 2.0),
        ("slow", -0.5),
    ]
    mixed = read_parts(["sad", torch.tensor([1.0, 0.0])])
    assert mixed[0] == ("sad", 1.0)
    assert mixed[1][0].tolist() == [1.0, 0.0]


def test_embeddings_one_or_many():
    for one in EAST, torch.tensor([1.0, 0.0], requires_grad=True):
        ((vector, weight),) = read_parts(one)
        assert vector.tolist() == [1.0, 0.0] and weight == 1.0
    assert len(read_parts(np.stack([EAST, NORTH, EAST]))) == 3
    assert len(read_parts(torch.ones(2, 2))) == 2


def test_a_query_is_the_sum_over_the_sum_of_weights():
    parts = [(EAST, 3.0), (NORTH, -1.0), (EAST, 1.0)]
    vector = compose(parts, None, 2)
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx([4 / 5, -1 / 5])


@pytest.mark.parametrize(
    "parts, message",
    [
        ([(EAST, 0.0)], "all weights are 0"),
        ([(EAST, 1.0), (EAST, -1.0)], "cancel out"),
        ([(EAST, 1.0), (EAST + 1e-6 * NORTH, -1.0)], "cancel out"),
        ([(np.ones(3), 1.0)], "2 finite numbers, not shape \\[3\\]"),
        ([(np.array([1.0, np.inf]), 1.0)], "2 finite numbers"),
        ([("sad", 1.0)], "without a model"),
    ],
)
def test_a_query_that_points_nowhere(parts, message):
    with pytest.raises(QueryError, match=message):
        compose(parts, None, 2)


@pytest.mark.parametrize(
    "query",
    ["", " \t", [], {}, None, 3, [["sad"]], {"": 1}, "\udcff", [EAST, None]]
    + [np.array(["sad"]), np.zeros((1, 2, 2))],
)
def test_what_is_no_query(query):
    with pytest.raises(QueryError):
        read_parts(query)


def test_clips_are_files_parts_and_segments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segment = Segment("/b.wav", 1.0, 2.0, channel=1)
    clips = read_clips(["a.wav", ("/c.wav", 1, 2.5), segment])
    assert clips[0] == Segment(str(tmp_path / "a.wav"), 0.0, None)
    assert clips[1] == Segment("/c.wav", 1.0, 2.5)
    assert clips[2] is segment
    assert read_clips(tmp_path / "a.wav") == clips[:1]


@pytest.mark.parametrize(
    "clip",
    [3, [], ("/a.wav", 1), ("/a.wav", 2, 1), ("/a.wav", -1, 1), (1, 2, 3)]
    + [("/a.wav", "0", "1"), ("/a.wav", 0, float("nan")), [None]],
)
def test_what_is_no_clip(clip):
    with pytest.raises(QueryError):
        read_clips(clip)


@pytest.mark.parametrize(
    "start, stop, is_same",
    [(4, 8, True), (0, 8, True), (5, 6, True), (0, 6, True)]
    + [(0, 5.9, False), (8, 9, False), (0, 4, False), (6, 10, True)],
)
def test_what_overlaps_by_half_is_the_same_speech(start, stop, is_same):
    clip = Segment("/a.wav", 4.0, 8.0)
    assert is_heard_in(Segment("/a.wav", start, stop), clip) == is_same
    assert is_heard_in(Segment("/a.wav", start, stop, 1), clip) == is_same
    assert not is_heard_in(Segment("/b.wav", start, stop), clip)


def test_a_whole_file_is_heard_in_all_of_it():
    clip = Segment("/a.wav", 0.0, None)
    assert is_heard_in(Segment("/a.wav", 3590.0, 3600.0), clip)


def test_a_file_is_the_same_through_a_link(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    here, there = (
        Segment(str(tmp_path / name), 0.0, 2.0)
        for name in ("a.wav", "link.wav")
    )
    assert is_heard_in(here, there) and is_heard_in(there, here)
    assert not is_heard_in(here, Segment(str(tmp_path / "b.wav"), 0.0, 2.0))
    assert not is_heard_in(here, Segment("a\0b", 0.0, 2.0))
