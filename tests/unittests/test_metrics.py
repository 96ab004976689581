"""Figures of rankings, against paper, plain loops and scikit-learn.

Authors
 * The esr_lobes contributors
"""

from itertools import permutations

import numpy as np
import pytest
import torch

from esr_lobes import bootstrap
from esr_lobes.bootstrap import bootstrap_ranking, bootstrap_recall
from esr_lobes.metrics import (
    METRICS,
    chance_metrics,
    chance_recall,
    mean_average_precision,
    rank_styles,
    ranking_metrics,
    recall_by_duration,
    relevant_positions,
    score_clips,
    unit_rows,
)


def slow_metrics(scores, is_relevant):
    """The figures of one ranking, counted place by place."""
    ranking = sorted(
        zip(scores, is_relevant, strict=True), key=lambda x: (-x[0], x[1])
    )
    hits = [bool(hit) for _, hit in ranking]
    n_relevant = sum(hits)
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    gain = sum(hit / np.log2(i + 2) for i, hit in enumerate(hits[:10]))
    best = sum(1 / np.log2(i + 2) for i in range(min(10, n_relevant)))
    return {
        "AP": sum(p for p, hit in zip(precisions, hits, strict=True) if hit)
        / n_relevant,
        "R-precision": sum(hits[:n_relevant]) / n_relevant,
        "P@10": sum(hits[:10]) / 10,
        "nDCG@10": gain / best,
    }


def test_figures_worked_out_by_hand():
    # Relevant at places 1, 3 and 4 of five.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    is_relevant = np.array([1, 0, 1, 1, 0], dtype=bool)
    positions = relevant_positions(scores, is_relevant)
    assert positions.tolist() == [1, 3, 4]
    found = ranking_metrics(positions)
    assert found["AP"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["R-precision"] == pytest.approx(2 / 3)
    assert found["P@10"] == pytest.approx(0.3)
    gain = 1 + 1 / 2 + 1 / np.log2(5)
    assert found["nDCG@10"] == pytest.approx(gain / (1.5 + 1 / np.log2(3)))


@pytest.mark.parametrize("n_levels", [3, 1000])
@pytest.mark.parametrize("n_clips, n_relevant", [(7, 1), (40, 13), (9, 9)])
def test_figures_are_those_of_a_plain_loop(n_levels, n_clips, n_relevant):
    rng = np.random.default_rng(n_clips)
    is_relevant = rng.permutation(n_clips) < n_relevant
    queries = rng.integers(0, n_levels, (20, n_clips)) / n_levels
    found = ranking_metrics(relevant_positions(queries, is_relevant))
    for i, scores in enumerate(queries):
        slow = slow_metrics(scores, is_relevant)
        for name in METRICS:
            assert found[name][i] == pytest.approx(slow[name]), name


def test_figures_are_those_of_scikit_learn_without_ties():
    from sklearn.metrics import average_precision_score, ndcg_score

    rng = np.random.default_rng(0)
    is_relevant = rng.random(60) < 0.3
    scores = rng.permutation(60) / 60
    found = ranking_metrics(relevant_positions(scores, is_relevant))
    assert found["AP"] == pytest.approx(
        average_precision_score(is_relevant, scores)
    )
    assert found["nDCG@10"] == pytest.approx(
        ndcg_score([is_relevant], [scores], k=10)
    )


def test_ties_put_the_irrelevant_first():
    is_relevant = np.array([True, True, False, False])
    positions = relevant_positions(np.zeros(4), is_relevant)
    assert positions.tolist() == [3, 4]
    assert ranking_metrics(positions)["AP"] == pytest.approx(
        (1 / 3 + 1 / 2) / 2
    )


def test_ranking_of_styles_leaves_out_those_without_clips():
    styles = ["sad", "happy", "sad"]
    scores = {"sad": [0.3, 0.2, 0.1], "awe": [1.0, 2.0, 3.0]}
    found = rank_styles(scores, styles)
    assert list(found) == ["sad"]
    assert found["sad"]["AP"] == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match=r"styles asked for \(awe\)"):
        rank_styles({"awe": [1.0, 2.0, 3.0]}, styles)
    with pytest.raises(ValueError, match="number 1 for 'sad'"):
        rank_styles({"sad": [0.0, np.inf, 0.0]}, styles)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        rank_styles({"sad": [0.0, 1.0]}, styles)


def slow_bootstrap(scores, styles, counts):
    """AP of each style with every clip as often as drawn."""
    drawn = np.repeat(np.arange(len(styles)), counts)
    return {
        style: slow_metrics(
            np.asarray(values)[drawn], [styles[i] == style for i in drawn]
        )["AP"]
        for style, values in scores.items()
    }


def test_bootstrap_is_that_of_a_plain_loop(monkeypatch):
    rng = np.random.default_rng(5)
    styles = ["sad"] * 6 + ["happy"] * 9
    scores = {s: rng.integers(0, 8, 15) / 8 for s in ("sad", "happy")}
    draws = []
    draw = bootstrap._draw_clips

    def remembered(*args):
        draws.append(draw(*args))
        return draws[-1]

    monkeypatch.setattr(bootstrap, "_draw_clips", remembered)
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 15 * 16)  # three blocks
    per_style, macro = bootstrap_ranking(scores, styles, 40, 0.9, seed=1)
    counts = np.concatenate(draws)
    assert [len(block) for block in draws] == [16, 16, 8]
    assert (counts[:, :6].sum(1) == 6).all()
    assert (counts[:, 6:].sum(1) == 9).all()
    slow = [slow_bootstrap(scores, styles, row) for row in counts]
    for style in scores:
        expected = np.percentile([each[style] for each in slow], [5, 95])
        assert per_style[style]["AP"] == pytest.approx(tuple(expected))
    means = [np.mean(list(each.values())) for each in slow]
    assert macro["AP"] == pytest.approx(tuple(np.percentile(means, [5, 95])))


def test_bootstrap_of_recall_draws_clips_not_trials():
    # One clip is always found and one never, 500 trials each: with two
    # clips anything from none to all is likely, however many trials.
    ranks = {"sad": np.repeat([1, 9], 500)}
    targets = {"sad": np.repeat([4, 7], 500)}
    per_style, macro = bootstrap_recall(ranks, targets, (1, 10), 400)
    assert per_style["sad"][1] == (0.0, 1.0)
    assert macro[10] == (1.0, 1.0)
    # Forty clips, half of them found: 0.5 +- 1.96 * sqrt(0.25 / 40).
    ranks = {"sad": np.tile([1, 9], 20)}
    _, macro = bootstrap_recall(ranks, {"sad": np.arange(40)}, (1,), 4000)
    assert macro[1] == pytest.approx((0.345, 0.655), abs=0.03)


def test_intervals_shrink_with_confidence_and_repeat_with_the_seed():
    rng = np.random.default_rng(2)
    styles = ["sad", "happy"] * 15
    scores = {"sad": rng.random(30), "happy": rng.random(30)}
    _, wide = bootstrap_ranking(scores, styles, 200, 0.95)
    _, narrow = bootstrap_ranking(scores, styles, 200, 0.5)
    assert wide["AP"][0] < narrow["AP"][0] < narrow["AP"][1] < wide["AP"][1]
    assert bootstrap_ranking(scores, styles, 200, 0.95)[1] == wide


def test_recall_by_duration_counts_clips_and_trials():
    ranks = {"sad": np.array([1, 1, 6, 2]), "happy": np.array([3])}
    targets = {"sad": np.array([0, 0, 1, 2]), "happy": np.array([3])}
    seconds = [3.0, 4.0, 12.0, 5.9, 7.0]  # the last is in no trial
    assert recall_by_duration(ranks, targets, seconds) == [
        {"from": 0.0, "to": 4.0, "clips": 1, "trials": 2, "R@1": 1.0,
         "R@5": 1.0},
        {"from": 4.0, "to": 6.0, "clips": 2, "trials": 2, "R@1": 0.0,
         "R@5": 0.5},
        {"from": 10.0, "to": None, "clips": 1, "trials": 1, "R@1": 0.0,
         "R@5": 1.0},
    ]  # fmt: skip
    one = recall_by_duration(ranks, targets, seconds, edges=(), ks=(1,))
    assert one == [
        {"from": 0.0, "to": None, "clips": 4, "trials": 5, "R@1": 0.4}
    ]
    with pytest.raises(ValueError, match="increase"):
        recall_by_duration(ranks, targets, seconds, edges=(6, 4))


@pytest.mark.parametrize(
    "n_relevant, n_clips", [(1, 1), (2, 6), (3, 3), (1, 4)]
)
def test_chance_is_the_mean_over_all_orders(n_relevant, n_clips):
    is_relevant = np.arange(n_clips) < n_relevant
    orders = np.array(list(permutations(range(n_clips))))
    found = ranking_metrics(relevant_positions(orders, is_relevant))
    expected = chance_metrics(n_relevant, n_clips)
    for name in METRICS:
        assert expected[name] == pytest.approx(found[name].mean()), name


def test_chance_beyond_the_cutoff():
    rng = np.random.default_rng(0)
    scores = rng.random((4000, 60))
    found = ranking_metrics(relevant_positions(scores, np.arange(60) < 15))
    expected = chance_metrics(15, 60)
    for name in METRICS:
        assert expected[name] == pytest.approx(found[name].mean(), abs=0.01)
    assert chance_recall(401, 5) == pytest.approx(5 / 401)


def test_mean_average_precision_takes_tensors_and_skips_absent_styles():
    clips = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-0.1, 0.2]])
    queries = {
        "sad": torch.tensor([1.0, 0.0]),
        "happy": torch.tensor([0.0, 0.4]),
        "awe": torch.tensor([1.0, 1.0]),
    }
    # sad: its clips come first and last, (1 + 2/3) / 2; happy: first.
    styles = ["sad", "happy", "sad"]
    found = mean_average_precision(clips, styles, queries)
    assert found == pytest.approx((5 / 6 + 1) / 2)
    bfloat = {s: q.bfloat16() for s, q in queries.items()}
    again = mean_average_precision(clips.bfloat16(), styles, bfloat)
    assert again == pytest.approx(found)


@pytest.mark.parametrize("n_clips", [5, 13, 37, 301, 999])
@pytest.mark.parametrize("width", [7, 64, 257])
def test_collapsed_embeddings_get_the_worst_ranking(n_clips, width):
    """Equal clips tie whatever their place in the product's blocks.

    Story: a matrix product sums its last rows in another order than its
    first, so equal clips differed in the last bit of their scores.
    """
    rng = np.random.default_rng(0)
    clips = np.repeat(rng.standard_normal((1, width)), n_clips, axis=0)
    queries = rng.standard_normal((3, width))
    scores = score_clips(unit_rows(clips, "clip"), queries).T
    alone = score_clips(unit_rows(clips, "clip"), queries[0])
    for row in (*scores, alone):
        assert len(set(row.tolist())) == 1
    positions = relevant_positions(alone, np.arange(n_clips) < 1)
    assert positions.tolist() == [n_clips]


def test_bad_vectors_are_named():
    with pytest.raises(ValueError, match="clip 'b' is zero or not finite"):
        unit_rows([[1.0, 0.0], [0.0, 0.0]], "clip", ["a", "b"])
    with pytest.raises(ValueError, match=r"number 0.* \(1 such in 2\)"):
        unit_rows([[np.nan, 0.0], [0.0, 1.0]], "clip")
    with pytest.raises(ValueError, match=r"must be rows, not \(2,\)"):
        unit_rows([1.0, 2.0], "clip")
