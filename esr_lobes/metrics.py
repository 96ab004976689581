"""Figures of retrieval: rankings of a whole corpus, recall, chance.

A query asks for a style; every clip of that style is relevant. All figures
follow from the positions at which the relevant clips come out. Clips with
equal scores are ordered against the truth: the irrelevant ones first.

Authors
 * The esr_lobes contributors
"""

import numpy as np

METRICS = ("AP", "R-precision", "P@10", "nDCG@10")
DURATION_EDGES = (4.0, 6.0, 8.0, 10.0)
CUTOFF = 10
_MAX_CELLS = 10_000_000  # cells of a working table


def as_array(values):
    """Returns a numpy array in double precision, of a tensor too.

    Arguments
    ---------
    values : array or torch.Tensor
        Numbers of any shape, on any device.

    Returns
    -------
    array
        float64 of the same shape.

    Example
    -------
    >>> as_array([1, 2]).tolist()
    [1.0, 2.0]
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def unit_rows(vectors, what, names=None):
    """Returns rows of length 1 in double precision.

    Arguments
    ---------
    vectors : array or torch.Tensor
        Rows of shape [row, dimension].
    what : str
        What a row is, for the message of an error.
    names : list of str
        Names of the rows, for the same.

    Returns
    -------
    array
        float64 of shape [row, dimension].

    Raises
    ------
    ValueError
        If there are no rows, or a row is zero or not finite.

    Example
    -------
    >>> unit_rows([[3.0, 4.0]], "clip").tolist()
    [[0.6, 0.8]]
    """
    vectors = as_array(vectors)
    if vectors.ndim != 2 or len(vectors) == 0 or vectors.shape[1] == 0:
        raise ValueError(
            f"embeddings of a {what} must be rows, not {vectors.shape}"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if is_bad.any():
        place = int(np.flatnonzero(is_bad)[0])
        name = names[place] if names else f"number {place}"
        raise ValueError(
            f"embedding of {what} {name!r} is zero or not finite "
            f"({is_bad.sum()} such in {len(vectors)})"
        )
    return vectors / norms


def score_clips(clips, query):
    """Returns the products of clips with one query or several.

    They are summed in double and given in single precision, so that equal
    clips have equal scores and count as ties.

    Arguments
    ---------
    clips : array
        Unit rows of shape [clip, dimension].
    query : array or torch.Tensor
        Of shape [dimension] or [query, dimension].

    Returns
    -------
    array
        float32 of shape [clip] or [clip, query].

    Example
    -------
    >>> score_clips(np.array([[0.6, 0.8], [1.0, 0.0]]), [1.0, 0.5])
    array([1., 1.], dtype=float32)
    """
    return (clips @ as_array(query).T).astype(np.float32)


def relevant_positions(scores, is_relevant):
    """Returns where the relevant clips stand in each ranking.

    Arguments
    ---------
    scores : array
        Scores of shape [clip] or [query, clip]; more is better.
    is_relevant : array
        Booleans of shape [clip], the same for all queries.

    Returns
    -------
    array
        Positions from 1, increasing, int64 of shape [relevant] or
        [query, relevant].

    Example
    -------
    >>> is_relevant = np.array([True, False, True, False])
    >>> relevant_positions(np.array([0.9, 0.5, 0.5, 0.1]), is_relevant)
    array([1, 3])
    """
    scores = np.asarray(scores)
    is_relevant = np.asarray(is_relevant, dtype=bool)
    queries = np.atleast_2d(scores)
    # The place of a relevant clip: its place among the relevant, and all
    # irrelevant clips that score as much or more before it.
    own = -np.sort(-queries[:, is_relevant], axis=1)
    others = np.sort(queries[:, ~is_relevant], axis=1)
    positions = np.empty(own.shape, dtype=np.int64)
    for query, (of_own, of_others) in enumerate(zip(own, others, strict=True)):
        below = np.searchsorted(of_others, of_own, side="left")
        positions[query] = len(of_others) - below
    positions += np.arange(1, own.shape[1] + 1)
    return positions if scores.ndim == 2 else positions[0]


def ranking_metrics(positions):
    """Returns the figures of rankings from the relevant clips' positions.

    Average precision, precision among the first R for R relevant clips
    (R-precision), precision among the first 10 and the discounted gain of
    the first 10 relative to the best possible.

    Arguments
    ---------
    positions : array
        Positions from 1, increasing, of shape [..., relevant].

    Returns
    -------
    dict
        A name of `METRICS` to an array of shape [...].

    Example
    -------
    >>> found = ranking_metrics(np.array([1, 4]))
    >>> [round(float(found[name]), 3) for name in METRICS]
    [0.75, 0.5, 0.2, 0.877]
    """
    positions = np.asarray(positions)
    n_relevant = positions.shape[-1]
    counted = np.arange(1, n_relevant + 1)
    ideal = (1 / np.log2(1 + counted[:CUTOFF])).sum()
    first = positions[..., :CUTOFF]
    gains = np.where(first <= CUTOFF, 1 / np.log2(1 + first), 0.0)
    return {
        "AP": (counted / positions).mean(axis=-1),
        "R-precision": (positions <= n_relevant).mean(axis=-1),
        "P@10": (first <= CUTOFF).sum(axis=-1) / CUTOFF,
        "nDCG@10": gains.sum(axis=-1) / ideal,
    }


def rank_styles(scores, clip_styles):
    """Returns the figures of one query a style over all clips.

    Arguments
    ---------
    scores : dict
        Style to the score of each clip, of shape [clip].
    clip_styles : list of str
        The style of each clip.

    Returns
    -------
    dict
        Style to a dict from the names of `METRICS` to floats. Styles
        without a clip are left out.

    Raises
    ------
    ValueError
        If a score is not finite or no style has a clip.

    Example
    -------
    >>> scores = {"sad": [0.9, 0.5, 0.1]}
    >>> rank_styles(scores, ["sad", "happy", "sad"])["sad"]["R-precision"]
    0.5
    """
    of_clip = np.array(clip_styles, dtype=object)
    found = {}
    for style in sorted(scores):
        is_relevant = of_clip == style
        if is_relevant.any():
            of_style = finite_scores(scores[style], len(of_clip), style)
            positions = relevant_positions(of_style, is_relevant)
            figures = ranking_metrics(positions)
            found[style] = {name: float(figures[name]) for name in METRICS}
    if not found:
        raise ValueError(
            "no clip has one of the styles asked for "
            f"({', '.join(sorted(scores)) or 'none'})"
        )
    return found


def mean_over_styles(per_style):
    """Returns the plain mean over styles of each figure.

    Arguments
    ---------
    per_style : dict
        Style to a dict from names to floats.

    Returns
    -------
    dict
        The same names to floats.

    Example
    -------
    >>> mean_over_styles({"sad": {"AP": 0.5}, "happy": {"AP": 1.0}})
    {'AP': 0.75}
    """
    rows = list(per_style.values())
    return {
        name: float(np.mean([row[name] for row in rows])) for name in rows[0]
    }


def mean_average_precision(clip_embeddings, clip_styles, style_queries):
    """Returns the mean over styles of the average precision over all clips.

    Fast enough for a validation after every epoch.

    Arguments
    ---------
    clip_embeddings : array or torch.Tensor
        Embeddings of shape [clip, dimension].
    clip_styles : list of str
        The style of each clip.
    style_queries : dict
        Style to a query of shape [dimension], for instance the mean of the
        unit vectors of its prompts. Styles without a clip do not count.

    Returns
    -------
    float
        From 0 to 1.

    Example
    -------
    >>> queries = {"sad": [1.0, 0.0], "happy": [0.0, 1.0]}
    >>> mean_average_precision(
    ...     [[1.0, 0.1], [0.1, 1.0]], ["sad", "happy"], queries
    ... )
    1.0
    """
    clips = unit_rows(clip_embeddings, "clip")
    scores = {
        style: score_clips(clips, query)
        for style, query in style_queries.items()
    }
    return mean_over_styles(rank_styles(scores, clip_styles))["AP"]


def recall_by_duration(
    ranks, targets, clip_seconds, edges=DURATION_EDGES, ks=(1, 5)
):
    """Returns Recall@k of short and long targets, all styles together.

    Arguments
    ---------
    ranks : dict
        Style to ranks of the targets, from 1, of shape [trial].
    targets : dict
        Style to which clip each trial searches for, of shape [trial].
    clip_seconds : array
        Duration of each clip in seconds, of shape [clip].
    edges : tuple of float
        Where a new bin begins, in seconds, increasing; a clip on an edge
        belongs to the bin above.
    ks : tuple of int
        Ranks that still count as found.

    Returns
    -------
    list of dict
        One a bin that has trials: `from` and `to` in seconds (`to` is None
        in the last bin), `clips`, `trials`, and `R@k` for each k.

    Example
    -------
    >>> bins = recall_by_duration(
    ...     {"sad": [1, 9]}, {"sad": [0, 1]}, [2.0, 7.5], ks=(1,)
    ... )
    >>> [(each["from"], each["to"], each["R@1"]) for each in bins]
    [(0.0, 4.0, 1.0), (6.0, 8.0, 0.0)]
    """
    edges = [float(edge) for edge in edges]
    if edges != sorted(set(edges)) or (edges and edges[0] <= 0):
        raise ValueError(
            f"edges of durations must increase from above 0: {edges}"
        )
    all_ranks = np.concatenate([ranks[style] for style in sorted(ranks)])
    clips = np.concatenate([targets[style] for style in sorted(ranks)])
    seconds = np.asarray(clip_seconds, dtype=float)[clips]
    of_trial = np.searchsorted(edges, seconds, side="right")
    bins = []
    for number, (low, high) in enumerate(
        zip([0.0, *edges], [*edges, None], strict=True)
    ):
        is_inside = of_trial == number
        if is_inside.any():
            inside = {
                "from": low,
                "to": high,
                "clips": len(np.unique(clips[is_inside])),
                "trials": int(is_inside.sum()),
            }
            for k in ks:
                inside[f"R@{k}"] = float(np.mean(all_ranks[is_inside] <= k))
            bins.append(inside)
    return bins


def chance_recall(n_candidates, k):
    """Returns Recall@k expected of random scores.

    Arguments
    ---------
    n_candidates : int
        Clips in a trial, the target included.
    k : int
        Rank that still counts as found.

    Returns
    -------
    float
        The expected share of trials.

    Example
    -------
    >>> chance_recall(401, 1) == 1 / 401, chance_recall(3, 5)
    (True, 1.0)
    """
    return min(k, n_candidates) / n_candidates


def chance_metrics(n_relevant, n_clips):
    """Returns the figures of `ranking_metrics` expected of a random order.

    Arguments
    ---------
    n_relevant : int
        Relevant clips, at least 1.
    n_clips : int
        All clips.

    Returns
    -------
    dict
        A name of `METRICS` to a float.

    Example
    -------
    >>> chance_metrics(1, 2)["AP"]  # first or second: (1 + 1/2) / 2
    0.75
    """
    share = n_relevant / n_clips
    # A clip at place i is relevant with this chance, and a clip before it,
    # given that, with the other; AP adds them up over the places.
    before = (n_relevant - 1) / (n_clips - 1) if n_clips > 1 else 1.0
    harmonic = (1 / np.arange(1, n_clips + 1)).sum()
    gains = 1 / np.log2(1 + np.arange(1, min(CUTOFF, n_clips) + 1))
    return {
        "AP": float(before + harmonic / n_clips * (1 - before)),
        "R-precision": share,
        "P@10": share * min(CUTOFF, n_clips) / CUTOFF,
        "nDCG@10": float(share * gains.sum() / gains[:n_relevant].sum()),
    }


def finite_scores(scores, n_clips, style):
    """Scores as an array, refused if not one finite number a clip."""
    scores = np.asarray(scores)
    if scores.shape != (n_clips,):
        raise ValueError(
            f"scores of {style!r} have shape {scores.shape}; there are "
            f"{n_clips} clips"
        )
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(
            f"score of clip number {bad} for {style!r} is not finite"
        )
    return scores
