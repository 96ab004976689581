"""Neighbours become one hit, and a recording has a few only.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest

from esr_lobes.errors import MendableError
from esr_lobes.index import Hit, Segment
from esr_lobes.index.picking import check_picking, pick


def hits(*places):
    """Hits in order of rank; a place is (path, start, stop[, channel])."""
    return [
        Hit(Segment(*place, id=str(rank)), 1 - rank / 100, rank, 5.0 - rank)
        for rank, place in enumerate(places)
    ]


def places(picked):
    return [(h.segment.path, h.segment.start, h.segment.stop) for h in picked]


def test_nothing_asked_changes_nothing():
    given = hits(("a", 0, 1), ("a", 1, 2), ("b", 0, 1))
    assert pick(given, 10) == given
    assert pick(given, 2) == given[:2]
    assert pick([], 3, merge=1, per_file=1) == []


def test_the_best_of_those_joined_stands():
    given = hits(("a", 4, 5), ("b", 0, 1), ("a", 2, 3.5), ("a", 5, 6))
    picked = pick(given, 10, merge=0.5, is_whole=True)
    assert places(picked) == [("a", 2, 6), ("b", 0, 1)]
    best = picked[0]
    assert (best.score, best.z, best.segment.id) == (1.0, 5.0, "0")
    assert [h.rank for h in picked] == [0, 1]


@pytest.mark.parametrize("gap, n", [(0.0, 2), (0.5, 1), (0.499, 2)])
def test_the_gap_is_counted_from_end_to_start(gap, n):
    given = hits(("a", 0, 1), ("a", 1.5, 2))
    assert len(pick(given, 10, merge=gap, is_whole=True)) == n


def test_overlapping_windows_join_without_a_gap():
    given = hits(("a", 4, 12), ("a", 0, 8))
    assert places(pick(given, 9, merge=0, is_whole=True)) == [("a", 0, 12)]


def test_times_that_a_table_has_rounded_still_touch():
    given = hits(("a", 0, 0.1 + 0.2), ("a", 0.3, 1))
    assert len(pick(given, 9, merge=0, is_whole=True)) == 1
    given = hits(("a", 0.3, 1), ("a", 0, 0.2999999))
    assert len(pick(given, 9, merge=0, is_whole=True)) == 1


def test_one_between_two_makes_all_three_one():
    given = hits(("a", 0, 1), ("a", 4, 5), ("a", 2, 3))
    assert places(pick(given, 9, merge=1, is_whole=True)) == [("a", 0, 5)]


def test_another_channel_or_recording_is_no_neighbour():
    given = hits(("a", 0, 1, 0), ("a", 1, 2, 1), ("b", 1, 2, 0))
    assert len(pick(given, 9, merge=5, is_whole=True)) == 3


def test_a_recording_whose_segments_all_touch_is_not_one_hit():
    """Taking in every segment would join all of it."""
    order = np.random.default_rng(0).permutation(30)
    given = hits(*(("a", float(i), i + 1.0) for i in order))
    picked = pick(given, 10, merge=0)
    assert len(picked) >= 5
    assert len(pick(given, 10, merge=0, is_whole=True)) == 1
    assert pick(given, 3, merge=0)[0].segment.start <= order[0]


def test_more_hits_than_needed_change_nothing():
    order = np.random.default_rng(1).permutation(200)
    given = hits(*(("abcd"[i % 4], float(i), i + 2.0) for i in order))
    few = pick(given[:60], 8, merge=2, per_file=3)
    assert len(few) == 8
    assert pick(given, 8, merge=2, per_file=3) == few


def test_a_few_of_each_recording_the_best():
    given = hits(("a", 0, 1), ("a", 5, 6), ("b", 0, 1), ("a", 9, 10))
    assert places(pick(given, 9, per_file=1)) == [("a", 0, 1), ("b", 0, 1)]
    picked = pick(given, 9, per_file=2)
    assert places(picked) == [("a", 0, 1), ("a", 5, 6), ("b", 0, 1)]


def test_joined_hits_count_as_one_of_a_recording():
    given = hits(("a", 0, 1), ("a", 1, 2), ("a", 5, 6), ("a", 9, 10))
    picked = pick(given, 9, merge=0, per_file=2, is_whole=True)
    assert places(picked) == [("a", 0, 2), ("a", 5, 6)]


def test_joining_against_a_plain_loop():
    """Any two that are near are one, until no two are."""
    rng = np.random.default_rng(2)
    for _ in range(30):
        given = hits(
            *(
                ("ab"[rng.integers(2)], start, start + rng.uniform(0.2, 3))
                for start in rng.uniform(0, 40, 25)
            )
        )
        slow = [(h.segment, h.rank) for h in given]
        while pair := next(
            (
                (i, j)
                for i, (s, _) in enumerate(slow)
                for j, (t, _) in enumerate(slow[:i])
                if s.path == t.path
                and s.start - t.stop <= 0.7
                and t.start - s.stop <= 0.7
            ),
            None,
        ):
            (s, a), (t, b) = (slow.pop(i) for i in pair)
            start, stop = min(s.start, t.start), max(s.stop, t.stop)
            slow.append((Segment(s.path, start, stop), min(a, b)))
        slow.sort(key=lambda each: each[1])
        picked = pick(given, 99, merge=0.7, is_whole=True)
        assert [h.segment for h in picked] == [s for s, _ in slow]
        assert [h.segment.id for h in picked] == [str(r) for _, r in slow]


@pytest.mark.parametrize(
    "numbers, message",
    [
        ((0, None, None), "k is a whole number from 1, not 0"),
        ((2.5, None, None), "k is a whole number"),
        ((None, None, None), "k is a whole number"),
        ((1, float("nan"), None), "merge is a number of seconds"),
        ((1, float("inf"), None), "merge is a number of seconds"),
        ((1, "1", None), "merge is a number of seconds"),
        ((1, None, 1.0), "per_file is a whole number"),
    ],
)
def test_numbers_that_are_none(numbers, message):
    with pytest.raises(MendableError, match=message):
        check_picking(*numbers)
    check_picking(np.int64(3), 0, np.int32(1))
