"""What a score is worth, measured against the index's own segments.

Cosines of one query cannot be compared with those of another: a long
description may reach 0.3 with anything. How far a score lies above those that
segments of this index get by chance can be.

Authors
 * The esr_lobes contributors
"""

import numpy as np

# Scores of one segment that were computed in two ways differ by less.
ROUNDING = 1e-6


class Background:
    """The scores that segments of an index get from one query.

    Arguments
    ---------
    scores : array
        Of segments that stand for all, of shape [segments].

    Example
    -------
    >>> background = Background([1.0, 0.0, -1.0, 0.0])
    >>> background.z([1.0, 0.0]).round(3).tolist()
    [1.414, 0.0]
    >>> background.percentile([1.0, 0.0]).tolist()
    [100.0, 75.0]
    """

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float64)
        self._sorted = np.sort(self.scores)
        self.mean = self.scores.mean() if len(self.scores) else 0.0
        self.deviation = self.scores.std() if len(self.scores) else 0.0

    @property
    def is_flat(self):
        """Whether all segments score alike, so that nothing can stand out."""
        return self.deviation < ROUNDING

    def z(self, scores):
        """Returns how many standard deviations scores lie above the mean.

        Arguments
        ---------
        scores : array
            Of shape [batch].

        Returns
        -------
        array
            Float64 of shape [batch]; NaN if the background is flat.
        """
        scores = np.asarray(scores, np.float64)
        if self.is_flat:
            return np.full(scores.shape, np.nan)
        return (scores - self.mean) / self.deviation

    def percentile(self, scores):
        """Returns which share of the background scores no more, in percent.

        The best segment of an index has 100.

        Arguments
        ---------
        scores : array
            Of shape [batch].

        Returns
        -------
        array
            Float64 from 0 to 100, of shape [batch]; NaN if there is no
            background at all.
        """
        scores = np.asarray(scores, np.float64)
        if len(self._sorted) == 0:
            return np.full(scores.shape, np.nan)
        passed = np.searchsorted(self._sorted, scores + ROUNDING, "right")
        return 100 * passed / len(self._sorted)
