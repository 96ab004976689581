"""A few thousand vectors in memory, searched exactly.

Authors
 * The esr_lobes contributors
"""

from numbers import Integral, Real

import numpy as np

from esr_lobes.index.segments import Hit

# Vectors that are scored at once, in double precision: 65536 x 512 x 8 bytes.
BLOCK = 65536


class MemoryIndex:
    """Exact search by inner product among unit-length vectors.

    For what was embedded in this process; the index on disk is a
    :class:`esr_lobes.index.search.SearchIndex`. Equal vectors get equal
    scores wherever they stand, and equal scores are ranked in the order in
    which the segments were added.

    Arguments
    ---------
    dimension : int
        Length of a vector.

    Example
    -------
    >>> from esr_lobes.index import Segment
    >>> index = MemoryIndex(2)
    >>> segments = [Segment("a", 0, 1), Segment("b", 0, 1)]
    >>> index.add([[1, 0], [0.6, 0.8]], segments)
    >>> [(hit.segment.path, hit.score) for hit in index.search([0.0, 1.0])]
    [('b', 0.800000011920929), ('a', 0.0)]
    """

    def __init__(self, dimension):
        if dimension < 1:
            raise ValueError(f"dimension must be positive, not {dimension}")
        self.dimension = int(dimension)
        self.segments = []
        self._vectors = np.empty((0, self.dimension), np.float32)
        self._rows = {}

    def __len__(self):
        return len(self.segments)

    @property
    def vectors(self):
        """The vectors, float32 of shape [segments, dimension]."""
        return self._vectors[: len(self)]

    def add(self, vectors, segments):
        """Adds segments; one that is there already gets the new vector.

        Arguments
        ---------
        vectors : array or torch.Tensor
            Unit-length rows, of shape [batch, dimension].
        segments : list of Segment
            One a row.

        Raises
        ------
        ValueError
            If shapes do not fit, or a row is not finite or not of unit
            length; nothing is added then.
        """
        vectors = self._checked(vectors, 2)
        if len(vectors) != len(segments):
            raise ValueError(
                f"{len(vectors)} vectors for {len(segments)} segments"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        is_off = np.abs(lengths - 1) > 1e-3
        if is_off.any():
            row = int(is_off.argmax())
            raise ValueError(
                f"row {row} ({segments[row]}) has length {lengths[row]:.4g}, "
                "but vectors must be of unit length: normalise them first"
            )
        rows = [self._row_of(segment) for segment in segments]
        self._grow()
        self._vectors[rows] = vectors

    def _row_of(self, segment):
        if segment not in self._rows:
            self._rows[segment] = len(self.segments)
            self.segments.append(segment)
        return self._rows[segment]

    def _grow(self):
        """Makes room, at least doubling it, so that adding stays cheap."""
        room = len(self._vectors)
        if len(self) > room:
            larger = np.empty(
                (max(len(self), 2 * room), self.dimension), np.float32
            )
            larger[:room] = self._vectors
            self._vectors = larger

    def _checked(self, vectors, n_axes):
        """Returns float32 rows of a shape that fits, all finite."""
        if hasattr(vectors, "detach"):
            vectors = vectors.detach().cpu().float().numpy()
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != n_axes or vectors.shape[-1] != self.dimension:
            axes = ["dimension"] if n_axes == 1 else ["batch", "dimension"]
            raise ValueError(
                f"need shape [{', '.join(axes)}] with dimension "
                f"{self.dimension}, not {list(vectors.shape)}"
            )
        if not np.isfinite(vectors).all():
            rows = np.isfinite(vectors).reshape(-1, self.dimension).all(axis=1)
            raise ValueError(f"row {int(rows.argmin())} is not finite")
        return vectors

    def search(self, queries, k=10, threshold=None):
        """Returns the best segments for one query, or for each of many.

        Arguments
        ---------
        queries : array or torch.Tensor
            One query of shape [dimension], or [batch, dimension]. The mean
            of unit vectors, as it is, scores by the mean of the cosines.
        k : int
            At most so many; fewer if there are no more.
        threshold : float, optional
            Lowest score that counts.

        Returns
        -------
        list
            Of Hit, best first; for a batch one such list a query.

        Raises
        ------
        ValueError
            If shapes do not fit, k is no positive whole number, the
            threshold no number or a query not finite.
        """
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be positive and whole, not {k!r}")
        # Compared with itself, because no score reaches NaN.
        is_number = isinstance(threshold, Real) and threshold == threshold
        if threshold is not None and not is_number:
            raise ValueError(f"threshold must be a number, not {threshold!r}")
        n_axes = 1 if np.ndim(queries) == 1 else 2
        queries = self._checked(queries, n_axes)
        if n_axes == 1:
            return self._best(self._scores(queries[None])[0], k, threshold)
        return [self._best(row, k, threshold) for row in self._scores(queries)]

    def _scores(self, queries):
        """Returns inner products, float32 of shape [queries, segments]."""
        scores = np.empty((len(queries), len(self)), np.float32)
        queries = queries.astype(np.float64)
        # In single precision the score of a vector depends on its place in
        # the matrix, so that equal ones would be ranked by chance.
        for i in range(0, len(self), BLOCK):
            block = self.vectors[i : i + BLOCK].astype(np.float64)
            scores[:, i : i + BLOCK] = queries @ block.T
        return scores

    def _best(self, scores, k, threshold):
        """Returns the hits of one row of scores."""
        rows = np.arange(len(scores))
        if k < len(scores):
            # All that reach the kth score, so that ties are cut in order.
            kth = np.partition(scores, -k)[-k]
            rows = rows[scores >= kth]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:k]
        if threshold is not None:
            rows = rows[scores[rows] >= threshold]
        return [
            Hit(self.segments[row], float(scores[row]), rank)
            for rank, row in enumerate(rows)
        ]
