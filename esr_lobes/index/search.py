"""Search: descriptions, clips and conditions in, ranked segments out.

Authors
 * The esr_lobes contributors
"""

from itertools import islice
from numbers import Real

import numpy as np

from esr_lobes.errors import MendableError
from esr_lobes.index.filters import Filter
from esr_lobes.index.fusion import METHODS
from esr_lobes.index.local import LocalStore
from esr_lobes.index.picking import check_picking, pick
from esr_lobes.index.queries import (
    QueryError,
    compose,
    embed_clip,
    encode,
    is_heard_in,
    read_clips,
    read_parts,
)
from esr_lobes.index.ranking import Fused, Single

SCALES = ("cosine", "z", "percentile")
FIRST_SPACE = "style"
# With a threshold, so many of the best are joined.
MOST_JOINED = 10_000


class ModelMismatchError(MendableError):
    """An index that was built with another model than it is opened with."""


class SearchIndex:
    """An index that answers descriptions with the segments that fit them.

    Arguments
    ---------
    store : object
        Vectors and segments: a ``LocalStore``, or anything with its methods.
        Rows of ``background`` belong to the same segments in every space.
    encoders : dict or object, optional
        Space to the model that its vectors are of, or the model of the only
        or first space. Without one, only embeddings can be searched for.

    Raises
    ------
    ModelMismatchError
        If the vectors were made by another model.

    Example
    -------
    From Python as from the command line::

        index = open_index("speeches")  # esr_lobes.searching
        hits = index.search("an exhausted, flat voice", minus="angry",
                            where="actor == 3 and duration > 2")

        esr search speeches "an exhausted, flat voice" --minus angry \\
            --where "actor == 3 and duration > 2"
    """

    def __init__(self, store, encoders=None):
        self.store = store
        self.first = (
            FIRST_SPACE
            if FIRST_SPACE in store.spaces
            else next(iter(store.spaces))
        )
        if encoders is None:
            encoders = {}
        elif not isinstance(encoders, dict):
            encoders = {self.first: encoders}
        for space, encoder in encoders.items():
            self._check_space(space)
            self._check_model(space, encoder)
        self.encoders = encoders
        self._vectors = {}

    @classmethod
    def open(cls, folder, encoders=None):
        """Returns the index of a folder.

        Arguments
        ---------
        folder : str or Path
            What ``esr index`` made.
        encoders : dict or object, optional
            As for the constructor; :func:`esr_lobes.searching.open_index`
            loads them, too.

        Returns
        -------
        SearchIndex
            Ready to search.

        Raises
        ------
        IndexFolderError
            If the folder holds no index, or a damaged one.
        ModelMismatchError
            If it was built with another model.
        """
        return cls(LocalStore(folder), encoders)

    def __len__(self):
        return len(self.store)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Lets go of the files; the index answers no more."""
        self.store.close()

    @property
    def info(self):
        """What the index is: its spaces, rows, files, preprocessing."""
        return self.store.info

    @property
    def columns(self):
        """Columns that conditions may ask for: dict of name to type."""
        return self.store.columns

    def search(
        self,
        query=None,
        k=10,
        *,
        minus=None,
        clip=None,
        style=None,
        content=None,
        fusion="rank",
        weights=None,
        where=None,
        threshold=None,
        scale="cosine",
        merge=None,
        per_file=None,
        exact=False,
    ):
        """Returns the segments that fit best.

        ``query``, ``minus`` and ``clip`` are put together to one vector in
        the first space, which is the style: the score is the weighted mean
        of the cosines, what is in ``minus`` counted negative. An example
        clip is not among its own answers, nor what overlaps it by half.

        Style and content together are fused, see
        :mod:`esr_lobes.index.fusion`: the best 1000 of each (or 10 k) are
        judged by both. ``z`` of a fused hit is the weighted mean of both
        z-scores, which with ``fusion="score"`` is the score, too.

        Arguments
        ---------
        query : str, list, dict, array or torch.Tensor
            A description, several that count alike, description to weight,
            or embeddings.
        k : int
            At most so many hits.
        minus : str, list or dict
            What the answers should not be like.
        clip : str, tuple, Segment or list of them
            What they should be like: a file, ``(file, start, stop)``, or the
            segment of a hit.
        style : str, list or dict
            Same as ``query``, where there is a space of that name.
        content : str, list or dict
            What is to be spoken of, where there is a space of that name.
        fusion : str
            ``rank`` (reciprocal ranks) or ``score`` (z-scores).
        weights : dict
            Of style and content in their fusion; 1 if not named.
        where : str, dict or Filter
            Which segments may answer, see
            :meth:`esr_lobes.index.filters.Filter.parse`.
        threshold : float
            Hits reach it.
        scale : str
            What ``threshold`` is on: ``cosine`` (the score), ``z`` or
            ``percentile``. Fused hits have a threshold with
            ``fusion="score"`` and ``scale="z"`` only.
        merge : float
            Neighbours in a recording with at most so many seconds between
            them become one hit; see :func:`esr_lobes.index.picking.pick`.
            With a threshold, all that reach it are joined (of the best
            10,000).
        per_file : int
            At most so many hits of one recording.
        exact : bool
            Look at all segments even if there is an approximate index.

        Returns
        -------
        list of Hit
            Best first; of equal scores, the first path and start first. ``z``
            is None where nothing can stand out, since all segments of the
            index score alike.

        Raises
        ------
        QueryError
            If the query is none, or no such space is there.
        FilterError
            If ``where`` cannot be read.
        MendableError
            If a number is none.
        AudioError
            If an example clip cannot be read.
        """
        check_picking(k, merge, per_file)
        where = None if where is None else Filter.parse(where, self.columns)
        clips = [] if clip is None else read_clips(clip)
        queries = self._queries(query, minus, clips, style, content)
        is_fused = len(queries) > 1
        _check_fusion(fusion, weights, is_fused)
        _check_threshold(threshold, scale, fusion if is_fused else None)
        if len(self) == 0:
            return []
        if is_fused:
            ranking = Fused(self, queries, where, exact, fusion, weights)
        else:
            ((space, vector),) = queries.items()
            ranking = Single(self, space, vector, where, exact)
        return self._picked(
            ranking, clips, k, threshold, scale, merge, per_file
        )

    def search_batch(self, queries, k=10, *, where=None, exact=False):
        """Returns the segments that fit best for each of many queries.

        Many queries cost much less together than one by one.

        Arguments
        ---------
        queries : list of str or array
            Descriptions, or their embeddings of shape [batch, dimension].
        k : int
            At most so many hits each.
        where : str, dict or Filter
            Which segments may answer.
        exact : bool
            Look at all segments even if there is an approximate index.

        Returns
        -------
        list of list of Hit
            What :meth:`search` gives for each.
        """
        check_picking(k, None, None)
        parts = [] if len(queries) == 0 else read_parts(queries)
        where = None if where is None else Filter.parse(where, self.columns)
        if len(self) == 0 or not parts:
            return [[] for _ in parts]
        space, dimension = self.first, self.store.spaces[self.first]
        encoder = self.encoders.get(space)
        texts = [part for part, _ in parts if isinstance(part, str)]
        rows = iter(encode(texts, encoder) if texts else ())
        parts = [next(rows) if isinstance(p, str) else p for p, _ in parts]
        vectors = [compose([(part, 1.0)], None, dimension) for part in parts]
        keys, scores = self.store.nearest(
            space, np.stack(vectors), k, where, exact
        )
        # All segments in one go, because reading them is what takes time.
        is_found = np.isfinite(scores)
        segments = iter(self.store.segments(keys[is_found]))
        answers = []
        for vector, row, is_hit in zip(vectors, scores, is_found, strict=True):
            own = list(islice(segments, int(is_hit.sum())))
            ranking = Single(self, space, vector)
            answers.append(ranking.hits(own, row[is_hit]))
        return answers

    def _queries(self, query, minus, clips, style, content):
        """Returns the vector that is searched for in each space."""
        asked = {"style": style, "content": content}
        asked = {name: q for name, q in asked.items() if q is not None}
        for space in asked:
            self._check_space(space)
        if query is not None and self.first in asked:
            raise QueryError(
                f"give either query or {self.first}: both are the same"
            )
        parts = {space: read_parts(q) for space, q in asked.items()}
        if query is not None or minus is not None or clips:
            first = parts.setdefault(self.first, [])
            first += [] if query is None else read_parts(query)
            first += [] if minus is None else read_parts(minus, sign=-1)
            for clip in clips:
                encoder = self.encoders.get(self.first)
                vector = embed_clip(clip, self.store, self.first, encoder)
                first.append((vector, 1.0))
        if not parts:
            raise QueryError(
                "what is searched for? give a description, such as 'an "
                "exhausted, flat voice', or an example clip"
            )
        return {
            space: compose(
                parts[space], self.encoders.get(space), self.store.spaces[space]
            )
            for space in sorted(parts, key=lambda space: space != self.first)
        }

    def _picked(self, ranking, clips, k, threshold, scale, merge, per_file):
        """Asks for more and more hits until k are left to be shown."""
        is_picking = bool(clips) or merge is not None or per_file is not None
        is_whole = merge is not None and threshold is not None
        count = k
        while True:
            hits, is_all = ranking.best(count)
            if threshold is not None:
                reached = [h for h in hits if _on(h, scale) >= threshold]
                is_all |= len(reached) < len(hits)
                hits = reached
            hits = [
                hit
                for hit in hits
                if not any(is_heard_in(hit.segment, clip) for clip in clips)
            ]
            hits = pick(hits, k, merge, per_file, is_whole)
            if is_whole:
                is_enough = count >= MOST_JOINED
            else:
                is_enough = len(hits) >= k or not is_picking
            if is_all or is_enough:
                return hits
            count *= 4

    def background(self, space):
        """Returns vectors of segments that stand for all.

        Arguments
        ---------
        space : str
            Which vectors.

        Returns
        -------
        array
            Of shape [segments, dimension].
        """
        if space not in self._vectors:
            self._vectors[space] = self.store.background(space)
        return self._vectors[space]

    def _check_space(self, space):
        if space not in self.store.spaces:
            spaces = ", ".join(self.store.spaces)
            raise QueryError(
                f"this index has no vectors of {space}: it has {spaces}; "
                "build one that has, or ask for less"
            )

    def _check_model(self, space, encoder):
        wanted = self.info["spaces"][space]
        if encoder.fingerprint() != wanted["fingerprint"]:
            source = wanted.get("source") or "a model whose place is not noted"
            raise ModelMismatchError(
                f"the {space} vectors of this index were made with another "
                f"model, {source}: open it with that one, or build the index "
                "again with yours (esr index --rebuild)"
            )


def _on(hit, scale):
    """Returns the number of a hit that a threshold is compared with."""
    if scale == "cosine":
        return hit.score
    number = hit.z if scale == "z" else hit.percentile
    if number is None:
        raise QueryError(
            "all segments of this index score alike for this query, so that "
            "no z-score tells them apart: give the threshold as a cosine"
        )
    return number


def _check_fusion(fusion, weights, is_fused):
    if fusion not in METHODS:
        raise MendableError(f"fusion is rank or score, not {fusion!r}")
    if weights is not None and not is_fused:
        raise MendableError(
            "weights are for style and content in their fusion: ask for both "
            "(descriptions have theirs in a dict)"
        )


def _check_threshold(threshold, scale, fusion):
    """Raises a MendableError if no score can be compared with a threshold."""
    if scale not in SCALES:
        scales = ", ".join(SCALES)
        raise MendableError(f"scale is one of {scales}, not {scale!r}")
    if threshold is None:
        return
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not np.isfinite(threshold):
        raise MendableError(f"threshold is a number, not {threshold!r}")
    if scale == "percentile" and not 0 <= threshold <= 100:
        raise MendableError(f"a percentile is 0 to 100, not {threshold!r}")
    if fusion is not None and (fusion, scale) != ("score", "z"):
        raise MendableError(
            "style and content together have a threshold with fusion score "
            "and scale z only"
        )
