"""Vectors of one space on disk, and the rows nearest to a query.

A file of FAISS, mapped into memory: opening it reads nothing, and what an
exact search has touched the system may drop again.

Authors
 * The esr_lobes contributors
"""

import os
import weakref

import faiss
import numpy as np

from esr_lobes.index.faiss_files import (
    HEADER,
    check_flat,
    flat_header,
    read_faiss,
)
from esr_lobes.index.state import damaged, unreadable

# Above so many queries FAISS multiplies matrices: ten times as fast for 64.
faiss.cvar.distance_compute_blas_threshold = 20

# Rows at a time: 16384 x 512 x 8 bytes are 64 MB.
BLOCK = 16384

# Of this share of the rows, or less, all are looked at, even where there is an
# approximate index: 20 ms of a core for 20,000 of a million, and the lists
# that the few rows lie in are nearly all.
NARROW = 0.02

# How many more rows than asked for are scored again in double precision.
# Single precision may swap neighbours whose scores are nearly the same.
SPARE = 16


class FlatVectors:
    """Unit-length vectors in the file of a FAISS ``IndexFlatIP``.

    A row has one score for a query, whichever way it was found: the inner
    product in double precision. Equal scores are ranked by row.

    Arguments
    ---------
    path : str or Path
        A file from :meth:`write`.
    rows : int
        How many vectors the index promises.
    dimension : int
        Their length.

    Raises
    ------
    IndexFolderError
        If the file is missing or is not what was promised.

    Example
    -------
    >>> path = getfixture("tmp_path") / "style.faiss"
    >>> FlatVectors.write(path, [[[1, 0], [0.6, 0.8]]], 2, 2)
    >>> rows, scores = FlatVectors(path, 2, 2).nearest([[0.0, 1.0]], 2)
    >>> rows.tolist(), scores.round(3).tolist()
    ([[1, 0]], [[0.800000011920929, 0.0]])
    """

    def __init__(self, path, rows, dimension):
        self.dimension = dimension
        check_flat(path, rows, dimension)
        self._index = read_faiss(path, faiss.IndexFlat)
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise unreadable(path, error) from error
        weakref.finalize(self, os.close, self._file)

    def __len__(self):
        return self._index.ntotal

    @staticmethod
    def write(path, blocks, rows, dimension):
        """Writes a file, holding one block in memory at a time.

        Arguments
        ---------
        path : str or Path
            The file.
        blocks : iterable of array
            Vectors of shape [any, dimension]; one array of all rows is
            taken, too.
        rows : int
            How many vectors they come to.
        dimension : int
            Their length.

        Raises
        ------
        ValueError
            If they come to another number of rows, a shape does not fit, or
            a row is not finite or not of unit length.
        """
        if isinstance(blocks, np.ndarray):
            blocks = np.array_split(blocks, max(1, len(blocks) // BLOCK))
        written = 0
        with open(path, "wb") as file:
            file.write(flat_header(rows, dimension))
            for block in blocks:
                block = as_rows(block, dimension)
                lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
                is_off = np.abs(lengths - 1) > 1e-3
                if is_off.any():
                    row = int(is_off.argmax())
                    raise ValueError(
                        f"vector {written + row} has length {lengths[row]:.4g}"
                        ", but vectors must be of unit length"
                    )
                file.write(block.astype("<f4", copy=False).data)
                written += len(block)
        if written != rows:
            raise ValueError(f"{written} vectors for {rows} segments")

    def nearest(self, queries, count, mask=None):
        """Returns the rows that score highest, found by looking at all.

        Arguments
        ---------
        queries : array
            Float32 of shape [batch, dimension].
        count : int
            How many rows of each.
        mask : array, optional
            Booleans of shape [rows]: which rows count.

        Returns
        -------
        rows : array
            Int64 of shape [batch, count], best first; -1 behind the last.
        scores : array
            Float32 of the same shape; minus infinity behind the last.
        """
        queries = as_rows(queries, self.dimension)
        allowed = len(self) if mask is None else int(np.count_nonzero(mask))
        rows, scores = blank(len(queries), count)
        pending, wanted = np.arange(len(queries)), min(count, allowed)
        reach = min(wanted + SPARE, allowed)
        while wanted and len(pending):
            found = self._candidates(queries[pending], reach, mask)
            still = []
            for i, candidates in zip(pending, found, strict=True):
                best, marks, lowest = self.rank(queries[i], candidates, wanted)
                rows[i, :wanted], scores[i, :wanted] = best, marks
                # A tie may go on behind the last candidate.
                if reach < allowed and marks[-1] - lowest < 1e-6:
                    still.append(i)
            pending, reach = np.array(still, int), min(4 * reach, allowed)
        return rows, scores

    def rank(self, query, candidates, count):
        """Returns the best of some rows.

        Arguments
        ---------
        query : array
            Of shape [dimension].
        candidates : array
            Rows, each once.
        count : int
            At most so many.

        Returns
        -------
        rows : array
            Best first, equal scores by row.
        scores : array
            Float32, one a row.
        lowest : float
            The lowest score among the candidates.
        """
        scores = self.scores(query, candidates)
        order = np.lexsort((candidates, -scores))
        best = order[:count]
        return candidates[best], scores[best], scores[order[-1]]

    def _candidates(self, queries, count, mask):
        """Returns int64 [batch, count]: the best by FAISS's own scores."""
        params = None
        if mask is not None:
            # Only these are compared; to take them first costs more.
            params = faiss.SearchParameters(sel=selector(mask))
        return self._index.search(queries, count, params=params)[1]

    def take(self, rows):
        """Returns the vectors of some rows.

        Arguments
        ---------
        rows : array
            Row numbers of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch, dimension].
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        is_off = (rows < 0) | (rows >= len(self))
        if is_off.any():
            raise IndexError(f"there is no row {rows[is_off][0]}")
        vectors = np.empty((len(rows), self.dimension), np.float32)
        # Read, not mapped: the system maps a megabyte around every row.
        for vector, row in zip(vectors, rows.tolist(), strict=True):
            self._fill(vector, row)
        return vectors

    def _fill(self, vectors, row):
        """Reads vectors that stand behind each other."""
        place = HEADER.size + 4 * self.dimension * row
        if os.preadv(self._file, [vectors], place) < vectors.nbytes:
            raise damaged(self._path, "cut while it was open")

    def blocks(self):
        """Yields all vectors in order, float32 of shape [some, dimension]."""
        for i in range(0, len(self), BLOCK):
            shape = min(BLOCK, len(self) - i), self.dimension
            vectors = np.empty(shape, np.float32)
            self._fill(vectors, i)
            yield vectors

    def scores(self, query, rows):
        """Returns the scores of some rows.

        Arguments
        ---------
        query : array
            Of shape [dimension].
        rows : array
            Row numbers of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch].
        """
        query = as_rows([query], self.dimension)[0].astype(np.float64)
        rows = np.asarray(rows, np.int64).reshape(-1)
        scores = np.empty(len(rows), np.float32)
        for i in range(0, len(rows), BLOCK):
            block = self.take(rows[i : i + BLOCK]).astype(np.float64)
            scores[i : i + BLOCK] = block @ query
        return scores


def as_rows(vectors, dimension):
    """Returns vectors as FAISS wants them.

    Arguments
    ---------
    vectors : array
        Of shape [batch, dimension].
    dimension : int
        What the second axis must have.

    Returns
    -------
    array
        The same in float32, one row behind the other.

    Raises
    ------
    ValueError
        If the shape is another or a number is not finite.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(
            f"need vectors of shape [batch, {dimension}], not "
            f"{list(vectors.shape)}"
        )
    if not np.isfinite(vectors).all():
        row = int(np.isfinite(vectors).all(axis=1).argmin())
        raise ValueError(f"vector {row} is not finite")
    return vectors


def blank(batch, count):
    """Returns an answer without hits yet.

    Arguments
    ---------
    batch : int
        How many queries.
    count : int
        How many places each.

    Returns
    -------
    rows : array
        Int64 of shape [batch, count], all -1.
    scores : array
        Float32 of the same shape, all minus infinity.
    """
    shape = batch, count
    return np.full(shape, -1), np.full(shape, -np.inf, np.float32)


def selector(mask):
    """Returns what makes FAISS look at some rows only.

    Arguments
    ---------
    mask : array
        Booleans, one a row.

    Returns
    -------
    faiss.IDSelector
        For the ``sel`` of search parameters.
    """
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
