"""Recall of contexts and questions, on tables worked out by hand.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest
import torch

from esr_lobes.content_metrics import (
    best_ranks,
    content_recalls,
    merge_clips,
    pair_recalls,
    recalls,
)

# Rows are questions, columns the clips of a, b, c; questions 0 and 3 are
# about a, 1 about b, 2 about c.
SCORES = np.array(
    [
        [0.9, 0.2, 0.1],  # a first
        [0.6, 0.5, 0.4],  # b second
        [0.3, 0.3, 0.3],  # c ties with two: third
        [0.1, 0.8, 0.7],  # a third
    ]
)
ASKED = ["a", "b", "c", "a"]
CLIPS = ["a", "b", "c"]


def plain_ranks(scores, is_right):
    """The same slowly: sort, wrong ones first among equals."""
    ranks = []
    for row, right in zip(scores, is_right, strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], right[j]))
        ranks.append(1 + min(i for i, j in enumerate(order) if right[j]))
    return ranks


def test_by_hand():
    figures = content_recalls(SCORES, ASKED, CLIPS)
    assert figures["Q-C R@1"] == 25.0 and figures["Q-C R@5"] == 100.0
    # a: question 0 is first. b: question 3 leads, 1 is second. c: question 3
    # .7, question 1 .4, question 2 .3: third.
    assert figures["C-Q R@1"] == pytest.approx(100 / 3)
    assert figures["C-Q R@5"] == figures["C-Q R@10"] == 100.0
    assert list(figures) == [
        f"{way} R@{k}" for way in ("Q-C", "C-Q") for k in (1, 5, 10)
    ]


def test_pairs_count_each_copy_of_a_context():
    figures = pair_recalls(SCORES, ASKED, CLIPS)
    # Question 0 ties with the copy of a that is question 3's.
    assert figures["Q-C R@1"] == 0.0
    assert figures["C-Q R@1"] == 25.0


def test_where_each_context_has_one_question_both_agree():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((30, 30))
    names = [str(i) for i in range(30)]
    for asked in names, names[:20]:
        scores = scores[: len(asked)]  # of ten nobody asks
        assert content_recalls(scores, asked, names) == pair_recalls(
            scores, asked, names
        )


def test_ranks_are_those_of_sorting():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (50, 9)) / 4.0  # many ties
    is_right = rng.random((50, 9)) < 0.2
    is_right[:, 4] = True
    assert best_ranks(scores, is_right).tolist() == plain_ranks(
        scores, is_right
    )
    assert best_ranks(torch.tensor(scores), is_right).min() >= 1


def test_equal_scores_find_nothing():
    names = [str(i) for i in range(20)]
    figures = content_recalls(np.zeros((20, 20)), names, names)
    assert set(figures.values()) == {0.0}


def test_a_context_is_as_good_as_its_best_clip():
    merged, contexts = merge_clips([[0.1, 0.4, 0.3, 0.2]], list("abab"))
    assert contexts == ["a", "b"] and merged.tolist() == [[0.3, 0.4]]


def test_a_context_that_nobody_asks_about_is_in_the_way():
    scores = np.array([[0.5, 0.9]])
    figures = content_recalls(scores, ["a"], ["a", "unasked"])
    assert figures["Q-C R@1"] == 0.0 and figures["C-Q R@1"] == 100.0


def test_pairs_have_it_in_the_way_too():
    """Left out, pairs were 100 where contexts are 0."""
    figures = pair_recalls([[0.1, 0.9]], ["x"], ["x", "y"])
    assert figures["Q-C R@1"] == 0.0 and figures["Q-C R@5"] == 100.0
    assert figures["C-Q R@1"] == 100.0


def test_pairs_are_a_lower_bound_but_of_contexts_that_look_further():
    rng = np.random.default_rng(2)
    for _ in range(50):
        scores = rng.integers(0, 6, (15, 9)) / 6.0
        asked = [str(i) for i in rng.integers(0, 6, 15)]
        contexts = [str(i) for i in range(9)]
        scores += 0.4 * (np.array(asked)[:, None] == np.array(contexts))
        by_pair = pair_recalls(scores, asked, contexts)
        by_context = content_recalls(scores, asked, contexts)
        for name in by_pair:
            if name.startswith("Q-C") or name == "C-Q R@1":
                assert by_pair[name] <= by_context[name]
    # x has its ten questions first, y has its one question last.
    scores = [[1.0 - i / 20, 1.0] for i in range(10)] + [[0.0, 0.0]]
    asked = ["x"] * 10 + ["y"]
    by_pair = pair_recalls(scores, asked, ["x", "y"])
    assert by_pair["C-Q R@10"] == pytest.approx(1000 / 11)
    assert content_recalls(scores, asked, ["x", "y"])["C-Q R@10"] == 50.0


def test_recalls_are_shares_of_the_queries():
    assert recalls([1, 2, 2, 40], (1, 2)) == {"R@1": 25.0, "R@2": 75.0}


@pytest.mark.parametrize(
    "scores, asked, clips, message",
    [
        ([[0.1]], ["b"], ["a"], "number 0 has no right answer"),
        ([[np.nan]], ["a"], ["a"], "not finite"),
    ],
)
def test_what_cannot_be_judged(scores, asked, clips, message):
    with pytest.raises(ValueError, match=message):
        content_recalls(scores, asked, clips)
    with pytest.raises(ValueError):
        pair_recalls(scores, asked, clips)
