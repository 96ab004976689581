"""An index in a folder, as readers see it.

Authors
 * The esr_lobes contributors
"""

from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from esr_lobes.index.approximate import Approximate
from esr_lobes.index.base import Store
from esr_lobes.index.segments import Segment
from esr_lobes.index.state import (
    IndexFolderError,
    damaged,
    open_table,
    read_info,
    unreadable,
)
from esr_lobes.index.vectors import FlatVectors, as_rows

# What a Segment holds, in its order; the other columns are for filters.
SHOWN = "path", "start", "stop", "channel", "id"


class LocalStore(Store):
    """Vectors and segments of one commit.

    Files are mapped into memory and columns read when they are asked for, so
    that opening takes no time and little memory however large the index is.
    What a writer commits later is seen by opening it again; this one goes on
    with the state that it was opened with.

    Arguments
    ---------
    folder : str or Path
        The index.

    Raises
    ------
    IndexFolderError
        If it is no index, or a damaged one.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._mask = None, None
        self.info = read_info(folder)
        while True:
            try:
                self._open()
                return
            except IndexFolderError:
                # A commit may have deleted what the one before it named.
                before, self.info = self.info, read_info(folder)
                if before["generation"] == self.info["generation"]:
                    raise

    def _open(self):
        info = self.info
        path = self.folder / info["segments"]
        self._table = open_table(path, info)
        footer = self._table.metadata
        groups = range(footer.num_row_groups)
        self._ends = np.cumsum([footer.row_group(i).num_rows for i in groups])
        try:
            mapped = pa.memory_map(str(path))
        except OSError as error:
            raise unreadable(path, error) from error
        self._fragment = pds.ParquetFileFormat().make_fragment(mapped)
        self._flat, self._fast = {}, {}
        for name, space in info["spaces"].items():
            flat = FlatVectors(
                self.folder / space["vectors"], len(self), space["dimension"]
            )
            self._flat[name] = flat
            if (fast := space["approximate"]) is not None:
                file = self.folder / fast["file"]
                self._fast[name] = Approximate(file, flat, fast["nprobe"])

    def __len__(self):
        return self.info["rows"]

    @property
    def spaces(self):
        """Spaces and the length of their vectors: dict of str to int."""
        spaces = self.info["spaces"]
        return {name: space["dimension"] for name, space in spaces.items()}

    @property
    def columns(self):
        """Columns of the segments and their types: dict of str to str."""
        schema = self._table.schema_arrow
        return dict(zip(schema.names, map(str, schema.types), strict=True))

    def nearest(self, space, queries, count, where=None, exact=False):
        """Returns the segments that score highest.

        Arguments
        ---------
        space : str
            Which vectors.
        queries : array
            Of shape [batch, dimension].
        count : int
            At most so many each.
        where : esr_lobes.index.filters.Filter, optional
            Which segments count.
        exact : bool
            Look at all, even if there is an approximate index.

        Returns
        -------
        keys : array
            Int64 of shape [batch, at most count], best first; -1 behind the
            last.
        scores : array
            Float32 of the same shape.

        Raises
        ------
        ValueError
            If the space is unknown, a shape does not fit or the count is no
            positive whole number.
        """
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"count must be positive and whole, not {count!r}")
        mask = None if where is None else self._rows_where(where.arrow())
        vectors = self._vectors(space)
        if not exact and space in self._fast:
            vectors = self._fast[space]
        queries = as_rows(queries, self.spaces[space])
        count = min(int(count), len(self))
        return vectors.nearest(queries, count, mask)

    def _vectors(self, space):
        if space not in self._flat:
            raise ValueError(
                f"there is no space {space!r}, but: {', '.join(self._flat)}"
            )
        return self._flat[space]

    def _rows_where(self, expression):
        """Returns booleans of shape [rows]: where an expression holds."""
        known, mask = self._mask
        if known is None or not known.equals(expression):
            scanner = self._fragment.scanner(columns={"is_kept": expression})
            with self._reading():
                table = scanner.to_table()
            mask = pc.fill_null(table["is_kept"], False).to_numpy()
            # Kept, because a search that merges hits asks more than once.
            self._mask = expression, mask
        return mask

    def scores(self, space, query, keys):
        """Returns the scores of some segments.

        Arguments
        ---------
        space : str
            Which vectors.
        query : array
            Of shape [dimension].
        keys : array
            Of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch].
        """
        return self._vectors(space).scores(query, keys)

    def take(self, space, keys):
        """Returns the vectors of some segments.

        Arguments
        ---------
        space : str
            Which vectors.
        keys : array
            Of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch, dimension].
        """
        return self._vectors(space).take(keys)

    def sample(self, count):
        """Returns the keys of segments that stand for all.

        Arguments
        ---------
        count : int
            At most so many.

        Returns
        -------
        array
            Int64 of shape [at most count]: evenly spaced rows, the same
            every time.
        """
        count = min(count, len(self))
        return np.arange(count) * len(self) // max(count, 1)

    def lines(self, count):
        """Yields the whole table in order, as it was when it was opened.

        Arguments
        ---------
        count : int
            How many lines at most in one list.

        Yields
        ------
        list of dict
            Column to value.
        """
        with self._reading():
            for batch in self._table.iter_batches(count):
                yield batch.to_pylist()

    def segments(self, keys):
        """Returns segments with their ids and what the user joined.

        Arguments
        ---------
        keys : array
            Of shape [batch].

        Returns
        -------
        list of Segment
            In the order of the keys.
        """
        rows = np.asarray(keys, np.int64).reshape(-1)
        if len(rows) == 0:
            return []
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"keys are 0 to {len(self) - 1}, not {keys}")
        segments, columns = {}, [*SHOWN, *self.info["columns"]]
        # Rows of a group are decoded together.
        groups = np.searchsorted(self._ends, rows, side="right")
        for group in np.unique(groups):
            with self._reading():
                table = self._table.read_row_group(
                    int(group), columns, use_threads=False
                )
            wanted = np.unique(rows[groups == group])
            first = self._ends[group] - table.num_rows
            lines = table.take(wanted - first).to_pylist()
            for row, line in zip(wanted.tolist(), lines, strict=True):
                segments[row] = self._segment(line)
        return [segments[row] for row in rows.tolist()]

    def _segment(self, line):
        """Makes a segment of a line of the table."""
        path, start, stop, channel, name = map(line.pop, SHOWN)
        is_right = (
            None not in (path, start, stop, name)
            and 0 <= start < stop < np.inf
            and (channel is None or channel >= 0)
            and "\0" not in path
        )
        if not is_right:
            file = self.folder / self.info["segments"]
            raise damaged(file, f"{path!r:.99} from {start} to {stop} s")
        return Segment(path, start, stop, channel, name, line)

    @contextmanager
    def _reading(self):
        """Says which file is damaged if reading it fails."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            path = self.folder / self.info["segments"]
            raise unreadable(path, error) from error

    def find(self, path, start=None, stop=None):
        """Returns the keys of a file's segments.

        Arguments
        ---------
        path : str
            The file, as the index names it.
        start : float, optional
            Only those that end after this second.
        stop : float, optional
            Only those that begin before this second.

        Returns
        -------
        array
            Int64 of shape [segments], in the order of the table.
        """
        wanted = pc.field("path") == str(path)
        if start is not None:
            wanted &= pc.field("stop") > start
        if stop is not None:
            wanted &= pc.field("start") < stop
        return np.flatnonzero(self._rows_where(wanted))

    def _values(self, column, most):
        """Returns what stands in a column that is there."""
        with self._reading():
            values = self._table.read([column])[column]
        values = pc.drop_null(pc.unique(values))
        return values.take(pc.sort_indices(values))[:most].to_pylist()

    def close(self):
        """Lets go of the files; the store answers no more."""
        self._flat, self._fast = {}, {}
        self._table.close(force=True)
