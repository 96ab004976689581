"""One ranking out of several, of style and of content say.

Authors
 * The esr_lobes contributors
"""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from esr_lobes.errors import MendableError

METHODS = ("rank", "score")
DAMPING = 60
"""The k of reciprocal rank fusion, as its authors chose it."""


def reciprocal_ranks(scores, weights):
    """Returns what reciprocal rank fusion gives each candidate.

    The weighted mean of 1 / (60 + rank), the best having rank 1; equal
    scores share the better rank. Scores of different models need not be
    comparable, and an outlier in one counts no more than a first rank. Cormack
    et al. (2009), "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods".

    Arguments
    ---------
    scores : array
        Of shape [rankings, candidates].
    weights : array
        Of shape [rankings].

    Returns
    -------
    array
        Float64 of shape [candidates].

    Example
    -------
    >>> fused = reciprocal_ranks([[0.9, 0.5, 0.1], [0.2, 0.3, 0.1]], [1, 1])
    >>> (1 / fused).round(3).tolist()
    [61.496, 61.496, 63.0]
    """
    scores = np.asarray(scores, np.float64)
    ranks = np.empty(scores.shape)
    for row, ranking in zip(scores, ranks, strict=True):
        ranking[:] = 1 + np.searchsorted(np.sort(-row), -row, side="left")
    return _mean(1 / (DAMPING + ranks), weights)


def weighted_scores(scores, weights):
    """Returns the weighted mean of calibrated scores.

    Arguments
    ---------
    scores : array
        Z-scores, of shape [rankings, candidates]. A ranking in which nothing
        stands out (NaN) counts as 0.
    weights : array
        Of shape [rankings].

    Returns
    -------
    array
        Float64 of shape [candidates].

    Example
    -------
    >>> weighted_scores([[3.0, 1.0], [0.0, 1.0]], [2, 1]).tolist()
    [2.0, 1.0]
    """
    return _mean(np.nan_to_num(scores, nan=0.0), weights)


def _mean(values, weights):
    weights = np.asarray(weights, np.float64)
    return weights @ np.asarray(values, np.float64) / weights.sum()


def check_weights(weights, spaces):
    """Returns one weight a space.

    Arguments
    ---------
    weights : dict, optional
        Space to weight; what is not named has 1.
    spaces : list of str
        Those that are fused.

    Returns
    -------
    list of float
        In the order of the spaces.

    Raises
    ------
    MendableError
        If a space is not fused, or the weights are none.

    Example
    -------
    >>> check_weights({"style": 2}, ["style", "content"])
    [2.0, 1.0]
    """
    weights = {} if weights is None else weights
    if not isinstance(weights, Mapping) or set(weights) - set(spaces):
        raise MendableError(
            f"weights are of {' and '.join(spaces)}, as in "
            f"{dict.fromkeys(spaces, 1)}; got {weights!r}"
        )
    values = [weights.get(space, 1.0) for space in spaces]
    is_good = all(
        isinstance(v, Real) and not isinstance(v, bool) and 0 <= v < np.inf
        for v in values
    )
    if not is_good or sum(values) == 0:
        raise MendableError(
            f"weights are numbers from 0, not all 0; got {weights!r}"
        )
    return [float(value) for value in values]
