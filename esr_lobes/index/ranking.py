"""Rankings of an index, as far down as one asks.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.index.background import Background
from esr_lobes.index.fusion import (
    check_weights,
    reciprocal_ranks,
    weighted_scores,
)
from esr_lobes.index.segments import Hit

# Of each ranking, so many of the best are candidates when they are fused.
FEWEST_CANDIDATES = 1000


class Single:
    """The ranking of one vector in one space.

    Arguments
    ---------
    index : SearchIndex
        Whose segments are ranked.
    space : str
        Which vectors.
    vector : array
        What is searched for, of shape [dimension].
    where : Filter, optional
        Which segments count.
    exact : bool
        Look at all, even if there is an approximate index.
    """

    def __init__(self, index, space, vector, where=None, exact=False):
        self.store, self.space, self.vector = index.store, space, vector
        self.where, self.exact = where, exact
        self.background = Background(index.background(space) @ vector)

    def nearest(self, count):
        """Returns the keys of the best.

        Arguments
        ---------
        count : int
            At most so many.

        Returns
        -------
        keys : array
            Best first.
        scores : array
            One a key.
        is_all : bool
            Whether there are no more.
        """
        keys, scores = self.store.nearest(
            self.space, self.vector[None], count, self.where, self.exact
        )
        is_found = np.isfinite(scores[0])
        n_found = int(is_found.sum())
        is_all = n_found < count or n_found == len(self.store)
        return keys[0][is_found], scores[0][is_found], is_all

    def best(self, count):
        """Returns the best hits.

        Arguments
        ---------
        count : int
            At most so many.

        Returns
        -------
        hits : list of Hit
            Best first, calibrated.
        is_all : bool
            Whether there are no more.
        """
        keys, scores, is_all = self.nearest(count)
        return self.hits(self.store.segments(keys), scores), is_all

    def hits(self, segments, scores):
        """Returns segments whose scores are known as hits.

        Arguments
        ---------
        segments : list of Segment
            In any order.
        scores : array
            One a segment.

        Returns
        -------
        list of Hit
            Best first, calibrated.
        """
        return _hits(
            segments,
            scores,
            self.background.z(scores),
            self.background.percentile(scores),
        )


class Fused:
    """The ranking of several vectors, one a space, fused to one.

    Candidates are the best of each ranking; all of them are scored in every
    space, so that none lacks a rank where it is no candidate itself.

    Arguments
    ---------
    index : SearchIndex
        Whose segments are ranked.
    queries : dict
        Space to what is searched for there, of shape [dimension].
    where : Filter or None
        Which segments count.
    exact : bool
        Look at all, even if there is an approximate index.
    fusion : str
        ``rank`` or ``score``.
    weights : dict or None
        Of the spaces; 1 if not named.
    """

    def __init__(self, index, queries, where, exact, fusion, weights):
        self.store, self.fusion = index.store, fusion
        self.parts = [
            Single(index, space, vector, where, exact)
            for space, vector in queries.items()
        ]
        self.weights = check_weights(weights, list(queries))
        chance = [p.background.z(p.background.scores) for p in self.parts]
        self.background = Background(weighted_scores(chance, self.weights))

    def best(self, count):
        """Returns the best hits.

        Arguments
        ---------
        count : int
            At most so many.

        Returns
        -------
        hits : list of Hit
            Best first; ``z`` is the weighted mean of the z-scores.
        is_all : bool
            Whether there are no more.
        """
        n_wanted = max(FEWEST_CANDIDATES, 10 * count)
        found = [part.nearest(n_wanted) for part in self.parts]
        keys = np.unique(np.concatenate([keys for keys, _, _ in found]))
        scores = [
            self.store.scores(part.space, part.vector, keys)
            for part in self.parts
        ]
        z = weighted_scores(
            [
                part.background.z(row)
                for part, row in zip(self.parts, scores, strict=True)
            ],
            self.weights,
        )
        fused = z
        if self.fusion == "rank":
            fused = reciprocal_ranks(scores, self.weights)
        order = np.lexsort((keys, -fused))[:count]
        hits = _hits(
            self.store.segments(keys[order]),
            fused[order],
            z[order],
            self.background.percentile(z[order]),
        )
        is_all = len(keys) <= count and all(is_all for _, _, is_all in found)
        return hits, is_all


def _hits(segments, scores, z, percentiles):
    """Returns hits in order, equal scores by path and time."""

    def place(row):
        segment = row[0]
        channel = -1 if segment.channel is None else segment.channel
        return -row[1], segment.path, channel, segment.start

    rows = zip(segments, scores, z, percentiles, strict=True)
    return [
        Hit(segment, float(score), rank, _or_none(z), _or_none(percentile))
        for rank, (segment, score, z, percentile) in enumerate(
            sorted(rows, key=place)
        )
    ]


def _or_none(number):
    return None if np.isnan(number) else float(number)
