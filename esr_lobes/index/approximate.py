"""Searching a part of the rows that is likely to hold the best.

Authors
 * The esr_lobes contributors
"""

import math
import os

import faiss
import numpy as np
from tqdm import tqdm

from esr_lobes.index.faiss_files import HEADER, beginning, read_faiss
from esr_lobes.index.state import IndexFolderError
from esr_lobes.index.vectors import NARROW, as_rows, blank, selector

# Candidates for one place in the answer. SQ8 confuses near neighbours; their
# exact scores put them right. Of 200,000 x 256 the best ten were .983 there
# by SQ8, and all among the best forty.
OVER_FETCH = 4

# Rows of the sample that a centre is the mean of, and FAISS's own minimum.
ROWS_A_LIST = 39


class Approximate:
    """A FAISS ``IVF,SQ8`` file: rows in lists by their nearest centre.

    A search looks into the lists of a few centres, in bytes instead of
    floats, and scores what it finds there exactly.

    Arguments
    ---------
    path : str or Path
        A file from :meth:`write`.
    flat : FlatVectors
        The same rows, exactly.
    nprobe : int
        Into how many lists to look.

    Raises
    ------
    IndexFolderError
        If the file is missing, or is not of these rows.
    """

    def __init__(self, path, flat, nprobe):
        self.flat = flat
        self.nprobe = nprobe
        n_lists = _check_header(path, len(flat), flat.dimension)
        try:
            self._index = read_faiss(path, faiss.IndexIVFScalarQuantizer)
        except IndexFolderError as error:
            raise _damaged(path, "FAISS cannot read it") from error
        self._check(path, n_lists)

    def _check(self, path, n_lists):
        """Refuses lists that are not those of the header."""
        index, flat = self._index, self.flat
        quantizer = faiss.downcast_index(index.quantizer)
        lists = faiss.downcast_InvertedLists(index.invlists)
        is_right = (
            isinstance(quantizer, faiss.IndexFlatIP)
            # Other lists lie in a file that this one names.
            and isinstance(lists, faiss.ArrayInvertedLists)
            and index.nlist == quantizer.ntotal == n_lists
            and lists.nlist == n_lists
            and quantizer.d == flat.dimension
            and index.sq.qtype == faiss.ScalarQuantizer.QT_8bit
            and index.code_size == lists.code_size == flat.dimension
            and lists.compute_ntotal() == len(flat)
        )
        if not is_right:
            raise _damaged(path, "its lists do not fit its header")
        self._path = path

    @property
    def n_lists(self):
        """How many lists there are."""
        return self._index.nlist

    def _lists_for(self, count):
        """Into how many lists to look, without a filter.

        A long answer needs more: twice the candidates should be there.
        """
        rows_in_list = len(self.flat) / self.n_lists
        return max(self.nprobe, 2 * OVER_FETCH * count / rows_in_list)

    @staticmethod
    def write(path, flat, n_lists, progress=True):
        """Writes the file for some vectors.

        Arguments
        ---------
        path : str or Path
            The file.
        flat : FlatVectors
            The vectors.
        n_lists : int
            How many lists.
        progress : bool
            Show a bar.
        """
        dimension, metric = flat.dimension, faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension),
            dimension,
            n_lists,
            faiss.ScalarQuantizer.QT_8bit,
            metric,
        )
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1
        n_sample = min(len(flat), ROWS_A_LIST * n_lists)
        # Anywhere in the table, because its order is that of the files.
        rng = np.random.default_rng(0)
        sample = rng.choice(len(flat), n_sample, replace=False)
        index.train(flat.take(np.sort(sample)))
        bar = tqdm(
            total=len(flat), desc="sorting", unit="row", disable=not progress
        )
        with bar:
            for block in flat.blocks():
                index.add(block)
                bar.update(len(block))
        faiss.write_index(index, str(path))

    def nearest(self, queries, count, mask=None):
        """Returns rows that are likely to score highest.

        A filter makes it look into as many more lists as it leaves out
        rows; where few rows are left, all of them are looked at.

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
            Float32 of the same shape, exact; minus infinity behind the last.
        """
        n_rows = len(self.flat)
        allowed = n_rows if mask is None else int(np.count_nonzero(mask))
        if allowed <= NARROW * n_rows:
            return self.flat.nearest(queries, count, mask)
        nprobe = self._lists_for(count) * n_rows / allowed
        if nprobe >= self.n_lists:
            return self.flat.nearest(queries, count, mask)
        queries = as_rows(queries, self.flat.dimension)
        params = faiss.SearchParametersIVF(nprobe=math.ceil(nprobe))
        if mask is not None:
            params.sel = selector(mask)
        reach = OVER_FETCH * count
        found = self._index.search(queries, reach, params=params)[1]
        if found.max(initial=-1) >= n_rows:
            raise _damaged(self._path, "it names rows that are not there")
        rows, scores = blank(len(queries), count)
        for i, candidates in enumerate(found):
            candidates = np.unique(candidates[candidates >= 0])
            if len(candidates) < count:  # the lists were nearly empty
                exact = self.flat.nearest(queries[i : i + 1], count, mask)
                rows[i], scores[i] = exact[0][0], exact[1][0]
            else:
                best = self.flat.rank(queries[i], candidates, count)
                rows[i], scores[i] = best[:2]
        return rows, scores


def _check_header(path, rows, dimension):
    """Returns the number of lists, if the header is of these rows."""
    there, size = beginning(path, HEADER.size)
    if len(there) == HEADER.size:
        name, d, n, _, _, is_trained, metric, n_lists = HEADER.unpack(there)
        n_bytes = size - rows * (dimension + 8)
        is_right = (
            (name, d, n) == (b"IwSq", dimension, rows)
            and is_trained
            and metric == faiss.METRIC_INNER_PRODUCT
            and 1 <= n_lists <= rows
            and 4 * dimension * n_lists <= n_bytes
            and n_bytes <= (4 * dimension + 64) * (n_lists + 4) + 4096
        )
        if is_right:
            return n_lists
    raise _damaged(path, f"not the lists of {rows} rows")


def _damaged(path, what):
    return IndexFolderError(
        f"{path} is damaged ({what}); search without it after: esr optimize "
        f"{os.path.dirname(path)} --drop"
    )
