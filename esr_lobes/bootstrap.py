"""How far figures of retrieval would stray with other clips.

Confidence intervals are percentiles of a bootstrap over clips: clips are
drawn again, with replacement, within their style, and everything is counted
anew. Trials are not what is drawn: a thousand trials with the same thirty
clips are no better evidence than the thirty clips. Speakers and prompts are
taken as given. A relevant clip drawn twice lifts the average precision of a
small style a little, so its intervals lean upwards.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.metrics import METRICS, finite_scores, ranking_metrics

_MAX_CELLS = 10_000_000  # cells of a working table


def bootstrap_ranking(
    scores, clip_styles, n_resamples=1000, confidence=0.95, seed=0
):
    """Returns confidence intervals of the figures of `rank_styles`.

    Arguments
    ---------
    scores : dict
        Style to the score of each clip, of shape [clip].
    clip_styles : list of str
        The style of each clip.
    n_resamples : int
        How often the clips are drawn again.
    confidence : float
        Share of the resamples inside the interval.
    seed : int
        Start of the draws.

    Returns
    -------
    per_style : dict
        Style to a dict from the names of `METRICS` to (low, high).
    macro : dict
        The same for the means over styles, over the same draws.
    """
    of_clip = np.array(clip_styles, dtype=object)
    rng = np.random.Generator(np.random.PCG64(seed))
    sorted_by = {}
    for style in sorted(scores):
        is_relevant = of_clip == style
        if is_relevant.any():
            of_style = finite_scores(scores[style], len(of_clip), style)
            order = np.lexsort((is_relevant, -of_style))
            sorted_by[style] = order, is_relevant[order]
    blocks = {style: [] for style in sorted_by}
    at_once = max(1, _MAX_CELLS // len(of_clip))
    for start in range(0, n_resamples, at_once):
        n_draws = min(at_once, n_resamples - start)
        counts = _draw_clips(rng, of_clip, n_draws)
        for style, (order, is_hit) in sorted_by.items():
            hits = np.broadcast_to(is_hit, counts.shape).ravel()
            hits = np.repeat(hits, counts[:, order].ravel())
            places = np.flatnonzero(hits).reshape(n_draws, -1)
            positions = places % len(of_clip) + 1
            blocks[style].append(ranking_metrics(positions))
    drawn = {
        style: {
            name: np.concatenate([block[name] for block in parts])
            for name in METRICS
        }
        for style, parts in blocks.items()
    }
    return _intervals(drawn, METRICS, confidence)


def bootstrap_recall(
    ranks, targets, ks, n_resamples=1000, confidence=0.95, seed=0
):
    """Returns confidence intervals of Recall@k over the clips searched for.

    A clip drawn again brings all its trials along.

    Arguments
    ---------
    ranks : dict
        Style to ranks of the targets, from 1, of shape [trial].
    targets : dict
        Style to which clip each trial searches for, of shape [trial].
    ks : tuple of int
        Ranks that still count as found.
    n_resamples : int
        How often the clips are drawn again.
    confidence : float
        Share of the resamples inside the interval.
    seed : int
        Start of the draws.

    Returns
    -------
    per_style : dict
        Style to a dict from k to (low, high).
    macro : dict
        The same for the means over styles, over the same draws.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = {}
    for style in sorted(ranks):
        _, clip = np.unique(targets[style], return_inverse=True)
        n_trials = np.bincount(clip)
        counts = _draw_rows(rng, len(n_trials), n_resamples)
        drawn[style] = {}
        for k in ks:
            found = np.bincount(clip, weights=ranks[style] <= k)
            drawn[style][k] = counts @ found / (counts @ n_trials)
    return _intervals(drawn, ks, confidence)


def _draw_rows(rng, n, n_draws):
    """How often each of n things is drawn in n draws: [draw, thing]."""
    drawn = rng.integers(0, n, size=(n_draws, n))
    drawn += n * np.arange(n_draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * n_draws).reshape(-1, n)


def _draw_clips(rng, of_clip, n_draws):
    """How often each clip is drawn, within its style: [draw, clip]."""
    counts = np.empty((n_draws, len(of_clip)), dtype=np.int64)
    for style in sorted(set(of_clip)):
        own = np.flatnonzero(of_clip == style)
        counts[:, own] = _draw_rows(rng, len(own), n_draws)
    return counts


def _intervals(drawn, names, confidence):
    """Percentiles of each style's draws and of their mean over styles."""
    tail = 100 * (1 - confidence) / 2

    def interval(values):
        low, high = np.percentile(values, [tail, 100 - tail])
        return float(low), float(high)

    per_style = {
        style: {name: interval(figures[name]) for name in names}
        for style, figures in drawn.items()
    }
    macro = {
        name: interval(np.mean([f[name] for f in drawn.values()], axis=0))
        for name in names
    }
    return per_style, macro
