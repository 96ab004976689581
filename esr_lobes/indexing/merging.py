"""Segments from several places become one table, and their vectors follow.

Authors
 * The esr_lobes contributors
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.index.state import (
    COMMIT,
    IndexFolderError,
    read_info,
    read_skips,
    read_table,
)
from esr_lobes.index.store import replace_info
from esr_lobes.index.vectors import FlatVectors
from esr_lobes.indexing.metadata import of_files
from esr_lobes.indexing.plan import Known

BLOCK_ROWS = 8192
ORDER = [(name, "ascending") for name in ("path", "channel", "start", "stop")]


@dataclass(frozen=True)
class Piece:
    """Segments that lie somewhere with their vectors.

    Arguments
    ---------
    table : pyarrow.Table
        The segments, with the columns of SCHEMA.
    rows : array
        Of each, the row of its vector where it lies.
    take : callable
        Space and rows to vectors, float32 of shape [rows, dimension].
    """

    table: pa.Table
    rows: np.ndarray
    take: callable


def rows_of(table, paths):
    """Returns the numbers of the rows of some files.

    Arguments
    ---------
    table : pyarrow.Table
        Segments, with ``path``.
    paths : iterable of str
        The files.

    Returns
    -------
    array
        Int64, rising.

    Example
    -------
    >>> rows_of(pa.table({"path": ["a", "b", "a"]}), ["a"]).tolist()
    [0, 2]
    """
    is_one = pc.is_in(table["path"], pa.array(sorted(paths), pa.string()))
    return np.flatnonzero(is_one.to_numpy(zero_copy_only=False))


def merge(pieces, spaces):
    """Puts segments from several places into the order of an index.

    Arguments
    ---------
    pieces : list of Piece
        In any order.
    spaces : dict
        Space to the length of its vectors.

    Returns
    -------
    table : pyarrow.Table
        Sorted by path, channel (the mix first), start and stop.
    vectors : dict
        Space to an iterator over blocks of vectors in that order.

    Example
    -------
    >>> def piece(path, value):
    ...     row = dict(id="", path=path, start=0, stop=1, duration=1, digest="")
    ...     table = pa.Table.from_pylist([row], SCHEMA)
    ...     vector = np.array([[value]], np.float32)
    ...     return Piece(table, np.array([0]), lambda space, rows: vector)
    >>> table, vectors = merge([piece("b", 2), piece("a", 1)], {"style": 1})
    >>> table["path"].to_pylist(), next(vectors["style"]).tolist()
    (['a', 'b'], [[1.0], [2.0]])
    """
    tables = [piece.table.select(SCHEMA.names) for piece in pieces]
    tables = [SCHEMA.empty_table(), *(t.cast(SCHEMA) for t in tables)]
    table = pa.concat_tables(tables).combine_chunks()
    channels = pc.fill_null(table["channel"], -1)
    keys = table.set_column(SCHEMA.names.index("channel"), "channel", channels)
    order = pc.sort_indices(keys, ORDER)
    vectors = {
        space: _blocks(pieces, order.to_numpy(), space, dimension)
        for space, dimension in spaces.items()
    }
    return table.take(order), vectors


def _blocks(pieces, order, space, dimension):
    """Yields vectors in an order of the pieces' segments."""
    stops = np.cumsum([len(piece.rows) for piece in pieces])
    for i in range(0, len(order), BLOCK_ROWS):
        places = order[i : i + BLOCK_ROWS].astype(np.int64)
        owners = np.searchsorted(stops, places, side="right")
        block = np.empty((len(places), dimension), np.float32)
        for owner in np.unique(owners):
            piece, is_its = pieces[owner], owners == owner
            first = stops[owner] - len(piece.rows)
            rows = piece.rows[places[is_its] - first]
            block[is_its] = piece.take(space, rows)
        yield block


class Committed:
    """The index as it is before a build; empty if there is none yet.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    rebuild : bool
        Whether nothing but roots, settings and metadata of it shall count,
        as far as it can be read.

    Raises
    ------
    IndexFolderError
        If it cannot be read and is not to be rebuilt.
    """

    def __init__(self, folder, rebuild=False):
        self.folder, self.info = Path(folder), None
        self.table, self.known = SCHEMA.empty_table(), Known()
        if not os.path.lexists(self.folder / COMMIT):
            return
        try:
            info = read_info(folder)
            table, skips = read_table(folder, info), read_skips(folder, info)
        except IndexFolderError:
            if not rebuild:
                raise
            return
        self.info, self.table = info, table
        self.known.roots = info["roots"]
        if not rebuild:
            files = table.group_by(["path", "digest"]).aggregate([])
            self.known.skips = skips
            self.known.files = dict(
                zip(
                    files["path"].to_pylist(),
                    files["digest"].to_pylist(),
                    strict=True,
                )
            )

    def pieces(self, plan):
        """Returns the segments that need not be made again.

        Arguments
        ---------
        plan : Plan
            What is kept and moved.

        Returns
        -------
        list of Piece
            Kept and moved segments, their vectors in the old index.
        """
        table = self.table.select(SCHEMA.names)
        rows = rows_of(table, plan.kept)
        pieces = [Piece(table.take(rows), rows, self._take)]
        if plan.moved:
            pieces.append(self._moved(table, plan))
        return pieces

    def _moved(self, table, plan):
        """Returns the segments of moved files, under their new names."""
        rows = rows_of(table, plan.moved.values())
        rows_at = {}
        for row, path in zip(
            rows.tolist(), table["path"].take(rows).to_pylist(), strict=True
        ):
            rows_at.setdefault(path, []).append(row)
        moved = [
            (row, new)
            for new, old in sorted(plan.moved.items())
            for row in rows_at[old]
        ]
        rows = np.array([row for row, _ in moved], np.int64)
        lines = table.take(rows).to_pylist()
        for line, (_, path) in zip(lines, moved, strict=True):
            line["path"] = path
            line["id"] = segment_id(
                *(line[n] for n in ("path", "start", "stop", "channel")),
                line["digest"],
            )
        return Piece(pa.Table.from_pylist(lines, SCHEMA), rows, self._take)

    def _take(self, space, rows):
        """Returns old vectors; mapped anew, so that memory is given back."""
        about = self.info["spaces"][space]
        path = self.folder / about["vectors"]
        vectors = FlatVectors(path, self.info["rows"], about["dimension"])
        return vectors.take(rows)

    def metadata(self, plan):
        """Returns what the user had joined, for files that stay.

        Arguments
        ---------
        plan : Plan
            What has moved takes its metadata along.

        Returns
        -------
        pyarrow.Table
            ``path`` and the user's columns, one row a file.
        """
        columns = self.info["columns"] if self.info else []
        files = of_files(self.table, columns)
        names = pa.array(plan.moved.keys(), pa.string())
        olds = pa.array(plan.moved.values(), pa.string())
        # Taken first: an old name may be the new one of another file.
        rows = pc.index_in(olds, files["path"].combine_chunks())
        moved = files.take(rows).set_column(0, files.schema.field(0), names)
        stays = pc.invert(pc.is_in(files["path"], names))
        return pa.concat_tables([files.filter(stays), moved])

    def differs(self, plan, skips):
        """Returns whether a build gives other segments or skips.

        Arguments
        ---------
        plan : Plan
            What becomes of each file.
        skips : list of (Skip, str)
            All files that gave nothing, after the build.

        Returns
        -------
        bool
            Whether there is something to commit.
        """
        changes = plan.new, plan.changed, plan.moved, plan.dropped
        before = {(skip, digest) for skip, digest in self.known.skips}
        return self.info is None or any(changes) or before != set(skips)

    def renamed(self, info):
        """Notes other roots, and where the models are now; nothing else.

        Arguments
        ---------
        info : dict
            With ``roots`` and the ``source`` of each space.

        Returns
        -------
        dict
            What is committed then.
        """
        spaces = {
            name: {**space, "source": info["spaces"][name]["source"]}
            for name, space in self.info["spaces"].items()
        }
        new = {**self.info, "roots": info["roots"], "spaces": spaces}
        return self.info if new == self.info else replace_info(self.folder, new)

    def source(self, space):
        """Returns where the retriever of a space was.

        Arguments
        ---------
        space : str
            Its name.

        Returns
        -------
        str or None
            None if nobody knows.
        """
        spaces = self.info["spaces"] if self.info else {}
        return spaces.get(space, {}).get("source")

    @property
    def is_approximate(self):
        """Whether a space has an approximate index."""
        spaces = self.info["spaces"].values() if self.info else ()
        return any(space["approximate"] for space in spaces)
