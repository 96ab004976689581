"""Where the segments of an index lie, in two dimensions.

Authors
 * The esr_lobes contributors
"""

import threading

import numpy as np

MAX_POINTS = 2000
METHODS = ("PCA", "t-SNE")
N_NEAREST = 3


class CorpusMap:
    """An even sample of an index, laid flat once and then kept.

    Arguments
    ---------
    store : object
        The index, as :class:`esr_lobes.index.local.LocalStore`.
    space : str
        Which vectors.
    most : int
        Segments in the sample.
    """

    def __init__(self, store, space, most=MAX_POINTS):
        self.store = store
        self.space = space
        keys = store.sample(most)
        self.segments = store.segments(keys)
        self.vectors = np.asarray(store.take(space, keys), np.float32)
        self._numbers = {s.id: i for i, s in enumerate(self.segments)}
        self._lock = threading.Lock()
        self._places = {}
        self._pca = None

    def __len__(self):
        return len(self.segments)

    def places(self, method="PCA"):
        """Returns where the sample lies.

        Arguments
        ---------
        method : str
            ``PCA`` (principal components, fast, keeps far things far) or
            ``t-SNE`` (slow, shows groups).

        Returns
        -------
        numpy.ndarray
            Of shape [segments, 2].
        """
        if method not in METHODS:
            raise ValueError(f"one of {', '.join(METHODS)}, not {method!r}")
        with self._lock:
            if method not in self._places:
                flatten = self._by_pca if method == "PCA" else self._by_tsne
                self._places[method] = flatten()
            return self._places[method]

    def _by_pca(self):
        from sklearn.decomposition import PCA

        places = np.zeros((len(self), 2))
        if len(self) > 2:
            self._pca = PCA(2, random_state=0).fit(self.vectors)
            places = self._pca.transform(self.vectors)
        return places

    def _by_tsne(self):
        from sklearn.manifold import TSNE

        if len(self) < 8:
            return self._by_pca()
        perplexity = min(30.0, (len(self) - 1) / 4)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
        return tsne.fit_transform(self.vectors)

    def place(self, segments, method="PCA"):
        """Returns where segments lie, whether they are in the sample or not.

        One that is not is projected by the same principal components; t-SNE
        projects nothing, so there it is placed amid its nearest neighbours.

        Arguments
        ---------
        segments : list of Segment
            Of the index; one that was joined of several has the id of the
            best of them, and lies where that one does.
        method : str
            See :meth:`places`.

        Returns
        -------
        numpy.ndarray
            Of shape [segments, 2].
        """
        places = self.places(method)
        found = np.zeros((len(segments), 2))
        for i, segment in enumerate(segments):
            number = self._numbers.get(segment.id)
            if number is not None:
                found[i] = places[number]
                continue
            vector = self._vector(segment)
            if method == "PCA" and self._pca is not None:
                found[i] = self._pca.transform(vector[None])[0]
            else:
                nearest = np.argsort(-(self.vectors @ vector))[:N_NEAREST]
                found[i] = places[nearest].mean(axis=0)
        return found

    def _vector(self, segment):
        """Returns the vector of a segment of the index."""
        keys = self.store.find(segment.path, segment.start, segment.stop)
        (key,) = (
            key
            for key, other in zip(keys, self.store.segments(keys), strict=True)
            if other.id == segment.id
        )
        return np.asarray(self.store.take(self.space, [key]))[0]


def place_of_query(places, scores):
    """Returns where a query stands among its hits.

    A description and what sounds like it are near in angle, yet texts and
    speech may fill two regions of the space: laid flat as the segments are,
    the query's own vector could fall beside all of them. So it is placed at
    the mean of its hits, a better hit counting more.

    Arguments
    ---------
    places : array
        Of the hits, of shape [hits, 2].
    scores : list of float
        In standard deviations of the background, or any scale.

    Returns
    -------
    numpy.ndarray
        Of shape [2].

    Example
    -------
    >>> place_of_query([[0.0, 0.0], [2.0, 4.0]], [1.5, 1.5]).tolist()
    [1.0, 2.0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    weights = np.exp(scores - scores.max())
    return weights @ np.asarray(places, np.float64) / weights.sum()
