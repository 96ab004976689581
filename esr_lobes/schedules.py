"""Learning rates as a function of how far the training is.

They keep no state, so that a resumed run goes on where it stopped.

Authors
 * The esr_lobes contributors
"""

import math


class WarmCosine:
    """Rises in a line, then falls along a half cosine towards zero.

    Arguments
    ---------
    warmup : float
        Share of the training in which the rate rises.

    Example
    -------
    >>> schedule = WarmCosine(warmup=0.5)
    >>> [round(schedule(p), 2) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, warmup=0.1):
        self.warmup = warmup

    def __call__(self, progress):
        """Returns the factor of the learning rate, in [0, 1].

        Arguments
        ---------
        progress : float
            Share of the steps done, in [0, 1].

        Returns
        -------
        float
            The factor.
        """
        if progress < self.warmup:
            return progress / self.warmup
        fall = (progress - self.warmup) / (1.0 - self.warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0)))


def constant(progress):
    """Returns 1 whatever the progress, as in the paper.

    Example
    -------
    >>> constant(0.3)
    1.0
    """
    return 1.0
