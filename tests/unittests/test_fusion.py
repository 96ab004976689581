"""One ranking out of two, and what a score is worth.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest

from esr_lobes.errors import MendableError
from esr_lobes.index.background import Background
from esr_lobes.index.fusion import (
    check_weights,
    reciprocal_ranks,
    weighted_scores,
)


def test_reciprocal_ranks_by_hand():
    fused = reciprocal_ranks([[3.0, 2.0, 1.0], [10.0, 30.0, 20.0]], [1, 1])
    expected = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    assert fused == pytest.approx(np.array(expected) / 2)


def test_only_the_order_counts_for_ranks():
    scores = np.random.default_rng(0).standard_normal((2, 50))
    fused = reciprocal_ranks(scores, [1, 2])
    assert np.array_equal(fused, reciprocal_ranks(np.exp(scores), [1, 2]))


def test_equal_scores_share_the_better_rank():
    fused = reciprocal_ranks([[1.0, 1.0, 0.5, 1.0]], [1])
    assert (1 / fused).tolist() == pytest.approx([61, 61, 64, 61])


def test_a_weight_of_nought_leaves_a_ranking_out():
    scores = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    assert np.argmax(reciprocal_ranks(scores, [1, 0])) == 0
    assert np.argmax(weighted_scores(scores, [0, 5])) == 2


def test_weighted_scores_by_hand():
    fused = weighted_scores([[2.0, -1.0], [0.0, 4.0]], [1, 3])
    assert fused.tolist() == [0.5, 2.75]


def test_a_ranking_that_tells_nothing_counts_as_nought():
    flat = Background([0.5, 0.5, 0.5]).z([0.5, 0.5])
    assert np.isnan(flat).all()
    assert weighted_scores([flat, [1.0, 3.0]], [1, 1]).tolist() == [0.5, 1.5]


def test_weights_are_named_after_spaces():
    spaces = ["style", "content"]
    assert check_weights(None, spaces) == [1.0, 1.0]
    assert check_weights({"content": 0.5}, spaces) == [1.0, 0.5]
    for bad in {"text": 1}, {"style": "1"}, {"style": float("inf")}, [1, 2]:
        with pytest.raises(MendableError):
            check_weights(bad, spaces)


def test_background_by_hand():
    background = Background([0.0, 0.2, 0.4, 0.6])
    deviation = np.sqrt((0.09 + 0.01) / 2)
    assert background.z([0.8, 0.3]).tolist() == pytest.approx(
        [0.5 / deviation, 0]
    )
    assert background.percentile([0.8, 0.6, 0.5, 0, -1]).tolist() == [
        *(100, 100, 75, 25, 0)
    ]


def test_a_score_in_single_precision_is_itself():
    """0.1 in float32 is 0.10000000149, 0.7 is 0.69999999: no more, no less."""
    scores = np.array([0.1, 0.7], np.float64)
    background = Background(scores)
    found = background.percentile(scores.astype(np.float32))
    assert found.tolist() == [50, 100]


def test_one_segment_or_none_has_no_background():
    assert np.isnan(Background([0.3]).z([0.3])).all()
    assert np.isnan(Background([]).z([0.3])).all()
    assert np.isnan(Background([]).percentile([0.3])).all()
    assert Background([0.3]).percentile([0.2, 0.3]).tolist() == [0, 100]
