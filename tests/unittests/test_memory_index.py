"""Search among unit vectors, on numbers that can be checked by head.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest
import torch

from esr_lobes.index import Hit, MemoryIndex, Segment
from esr_lobes.index import memory as index_module


def segments(n, name="clip"):
    return [Segment(f"{name}{i}", 0.0, 1.0) for i in range(n)]


def unit_rows(n, dimension, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


def paths(hits):
    return [hit.segment.path for hit in hits]


def test_ranking_by_hand():
    index = MemoryIndex(2)
    index.add([[1, 0], [0, 1], [0.6, 0.8]], segments(3))
    hits = index.search([0.0, 1.0])
    assert paths(hits) == ["clip1", "clip2", "clip0"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8, 0.0])
    assert [hit.rank for hit in hits] == [0, 1, 2]
    assert hits[0] == Hit(Segment("clip1", 0.0, 1.0, None), 1.0, 0)


def test_k_and_threshold():
    index = MemoryIndex(2)
    index.add([[1, 0], [0, 1], [0.6, 0.8]], segments(3))
    assert paths(index.search([0, 1], k=1)) == ["clip1"]
    assert len(index.search([0, 1], k=100)) == 3
    assert paths(index.search([0, 1], threshold=0.75)) == ["clip1", "clip2"]
    assert index.search([0, 1], threshold=1.5) == []
    assert len(index.search([0, 1], k=np.int64(2))) == 2
    for k in 0, -1, 2.0, "2", None, True:
        with pytest.raises(ValueError, match="k must be positive and whole"):
            index.search([0, 1], k=k)
    for threshold in "a", [0.5], float("nan"):
        with pytest.raises(ValueError, match="threshold must be a number"):
            index.search([0, 1], threshold=threshold)


def test_mean_of_queries_scores_by_the_mean_of_cosines():
    index = MemoryIndex(2)
    index.add([[1, 0]], segments(1))
    (hit,) = index.search(np.mean([[1, 0], [0, 1]], axis=0))
    assert hit.score == 0.5


@pytest.mark.parametrize("k", [1, 3, 10, 200])
def test_equal_to_a_slow_search(k, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK", 64)
    vectors, queries = unit_rows(150, 8), unit_rows(5, 8, seed=1)
    index = MemoryIndex(8)
    for i in range(0, 150, 37):  # in portions, so that it grows
        index.add(vectors[i : i + 37], segments(150)[i : i + 37])
    many = index.search(torch.from_numpy(queries), k=k)
    for query, hits in zip(queries, many, strict=True):
        slow = sorted(
            range(150),
            key=lambda i: (
                -sum(
                    float(a) * float(b)
                    for a, b in zip(query, vectors[i], strict=True)
                )
            ),
        )
        assert paths(hits) == [f"clip{i}" for i in slow[:k]]
        assert index.search(query, k=k) == hits


def test_ties_are_ranked_in_the_order_of_adding():
    """Also where the cut at k goes through them."""
    row = unit_rows(1, 33)
    index = MemoryIndex(33)
    index.add(np.repeat(row, 101, axis=0), segments(101))
    for k in 1, 7, 100, 101, 500:
        expected = [f"clip{i}" for i in range(min(k, 101))]
        assert paths(index.search(unit_rows(1, 33, seed=2)[0], k)) == expected


def test_a_segment_added_again_gets_the_new_vector():
    index = MemoryIndex(2)
    index.add([[1, 0], [0, 1]], segments(2))
    index.add([[0, 1], [1, 0]], [segments(1)[0], Segment("clip0", 1.0, 2.0)])
    assert len(index) == 3
    assert index.vectors.tolist() == [[0, 1], [0, 1], [1, 0]]
    assert paths(index.search([0, 1], k=2)) == ["clip0", "clip1"]


def test_empty_index():
    index = MemoryIndex(2)
    assert len(index) == 0
    assert index.search([0.0, 1.0]) == []
    assert index.search([[0.0, 1.0], [1.0, 0.0]]) == [[], []]
    index.add(torch.zeros(0, 2), [])
    assert len(index) == 0


@pytest.mark.parametrize(
    "vectors, n, message",
    [
        ([[1, 0, 0]], 1, "dimension 2, not \\[1, 3\\]"),
        ([1, 0], 1, "not \\[2\\]"),
        ([[1, 0]], 2, "1 vectors for 2 segments"),
        ([[1, 0], [float("nan"), 0]], 2, "row 1 is not finite"),
        ([[1, 0], [float("inf"), 0]], 2, "row 1 is not finite"),
        ([[1, 0], [3, 4]], 2, "row 1 .*clip1.* length 5"),
        ([[1, 0], [0, 0]], 2, "row 1 .* length 0"),
    ],
)
def test_bad_vectors_are_refused_whole(vectors, n, message):
    index = MemoryIndex(2)
    with pytest.raises(ValueError, match=message):
        index.add(vectors, segments(n))
    assert len(index) == 0


@pytest.mark.parametrize(
    "query, message",
    [
        ([1.0, 0.0, 0.0], "dimension 2"),
        ([[1.0], [0.0]], "dimension 2"),
        ([[1.0, 0.0], [0.0, float("nan")]], "row 1 is not finite"),
        ([float("nan"), 0.0], "row 0 is not finite"),
    ],
)
def test_bad_queries(query, message):
    index = MemoryIndex(2)
    index.add([[1, 0]], segments(1))
    with pytest.raises(ValueError, match=message):
        index.search(query)


def test_dimension_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        MemoryIndex(0)
