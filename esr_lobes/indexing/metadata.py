"""What the user knows of the files, joined to their segments from a CSV.

The CSV has one row a file. Its column ``path`` (or ``file``) names the file:
by its absolute path, relative to the CSV's folder or to a root of the index,
or by a file name (with or without its ending) that only one file has. All
other columns can be shown and filtered by in a search.

Authors
 * The esr_lobes contributors
"""

import keyword
import os
from collections import Counter
from unicodedata import normalize

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from esr_lobes.errors import MendableError
from esr_lobes.index.segments import COLUMNS

KEYS = ("path", "file")
"""Columns that may name the file; the first that is there does."""

# What a hit is said to have besides, in tables and exports.
RESERVED = frozenset(
    {*COLUMNS, *"file rank score z percentile play clip".split()}
)

# Numbers of this kind are names, such as 007: as numbers, others would be the
# same, and a filter would not find them by what stands in the CSV.
_IS_NAME = r"^\s*[+-]?(0[0-9]|[0-9]{19,}\s*$)"
MAX_PROBLEMS = 5


class MetadataError(MendableError):
    """A CSV that cannot be joined, and what to change in it."""


def read_metadata(path, files, roots=()):
    """Reads a CSV and finds out which file each row is about.

    Numbers and booleans are recognised; dates stay text, which sorts as they
    do, and so does a column with a number such as 007 or one of more than 18
    digits. An empty cell is no value.

    Arguments
    ---------
    path : str
        The CSV, in UTF-8, cells separated by commas.
    files : iterable of str
        Absolute paths of all files that there are.
    roots : iterable of str
        Folders that the paths may be relative to, besides the CSV's own.

    Returns
    -------
    table : pyarrow.Table
        One row for each file that was named: ``path`` as in ``files``, then
        the other columns.
    n_unmatched : int
        Rows that name none of the files.

    Raises
    ------
    MetadataError
        If it is no such CSV, two rows are about one file, a name fits
        several files, or no row fits any.

    Example
    -------
    >>> path = getfixture("tmp_path") / "actors.csv"
    >>> path.write_text("file,actor\\n1.wav,3\\n2,4\\nother.wav,5\\n")
    35
    >>> table, n_unmatched = read_metadata(path, ["/a/1.wav", "/a/2.wav"])
    >>> table.to_pylist()
    [{'path': '/a/1.wav', 'actor': 3}, {'path': '/a/2.wav', 'actor': 4}]
    >>> n_unmatched
    1
    """
    path = os.path.abspath(path)
    table, key = _read_csv(path)
    find = _Finder(files, [os.path.dirname(path), *roots])
    rows, matched, problems, taken = [], [], [], {}
    for row, name in enumerate(table[key].to_pylist()):
        # Line 1 is the header.
        line = row + 2
        fits = find(name or "")
        if len(fits) > 1:
            problems.append(
                f"line {line}: {name!r} is the name of {len(fits)} files, "
                f"such as {fits[0]} and {fits[1]}: give its path"
            )
        elif fits and fits[0] in taken:
            problems.append(
                f"lines {taken[fits[0]]} and {line} are both about {fits[0]}: "
                "leave one"
            )
        elif fits:
            taken[fits[0]] = line
            rows.append(row)
            matched.append(fits[0])
    if problems:
        more = len(problems) - MAX_PROBLEMS
        text = "; ".join(problems[:MAX_PROBLEMS])
        raise MetadataError(
            f"{path}: {text}{f'; and {more} more' if more > 0 else ''}"
        )
    if not matched:
        example = next(iter(find.files), "(no file at all)")
        raise MetadataError(
            f"{path}: no row names a file of the index, such as {example}: "
            f"put paths or file names into the column {key!r}"
        )
    others = table.drop_columns([key]).take(pa.array(rows, pa.int64()))
    columns = [pa.array(matched, pa.string()), *others.columns]
    names = ["path", *others.column_names]
    return pa.table(columns, names=names), len(table) - len(rows)


class _Finder:
    """Which files a name may mean."""

    def __init__(self, files, folders):
        self.files = dict.fromkeys(files)
        self.folders = list(dict.fromkeys(folders))
        self.names = {}
        for file in self.files:
            name = os.path.basename(file)
            for short in {name, os.path.splitext(name)[0]}:
                self.names.setdefault(short, []).append(file)

    def __call__(self, name):
        for folder in self.folders:
            # An absolute name stands for itself here.
            path = os.path.normpath(os.path.join(folder, name))
            if path in self.files:
                return [path]
        return self.names.get(name, [])


def _read_csv(path):
    """Returns the table, checked, and which column names the file."""
    if not os.path.isfile(path):
        raise MetadataError(f"{path}: no such file")
    table = _parse(path)
    # As filters are read: Python takes names for equal that look so.
    names = [normalize("NFKC", name) for name in table.column_names]
    key = next((name for name in KEYS if name in names), None)
    if key is None:
        raise MetadataError(
            f"{path} has the columns {', '.join(map(repr, names))}, but one "
            "must be called path (or file) and name the audio file of its row"
        )
    problems = [
        f"{name!r} stands twice"
        for name, count in Counter(names).items()
        if count > 1
    ]
    for name in names:
        if name != key and name in RESERVED:
            problems.append(f"{name!r} is a column of the index itself")
        elif not name.isidentifier() or keyword.iskeyword(name):
            problems.append(
                f"{name!r} cannot stand in a filter (letters, digits and _)"
            )
    if problems:
        raise MetadataError(f"{path}: rename columns: {'; '.join(problems)}")
    if len(names) == 1:
        raise MetadataError(f"{path}: there is no column besides {key!r}")
    # Read again with the text that it is.
    text = _parse(path, dict.fromkeys(table.column_names, pa.string()))
    columns = [
        as_text if name == key or _is_text(column, as_text) else column
        for name, column, as_text in zip(
            names, table.columns, text.columns, strict=True
        )
    ]
    return _with_nulls(pa.table(columns, names=names)), key


def _is_text(column, as_text):
    """Whether a column is better left as it was written."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        is_name = pc.match_substring_regex(as_text, _IS_NAME)
        return pc.any(is_name).as_py() or False
    return pa.types.is_temporal(column.type)


def _parse(path, types=None):
    """Returns the table as pyarrow reads it."""
    options = pa.csv.ConvertOptions(column_types=types or {})
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    why = "another encoding"
    try:
        table = pa.csv.read_csv(
            path, parse_options=parsing, convert_options=options
        )
        # What is no UTF-8 becomes bytes.
        if table.column_names and pa.binary() not in table.schema.types:
            return table
    except OSError as error:
        why = error.strerror or str(error)
        raise MetadataError(f"{path} cannot be read ({why})") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        why = error
    raise MetadataError(f"{path} is no CSV in UTF-8, one row a file: {why}")


def _with_nulls(table):
    """Returns the table with no value where a text is empty."""
    columns = []
    for column in table.columns:
        if pa.types.is_null(column.type):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            is_empty = pc.equal(column, "")
            column = pc.if_else(is_empty, pa.scalar(None, pa.string()), column)
        columns.append(column)
    return pa.table(columns, names=table.column_names)


def join(table, metadata):
    """Returns a table of segments with the columns of their files' rows.

    Arguments
    ---------
    table : pyarrow.Table
        Segments, with a column ``path``.
    metadata : pyarrow.Table
        One row a file: ``path`` and what is to be joined.

    Returns
    -------
    pyarrow.Table
        The segments in the same order; no values for files without a row.

    Example
    -------
    >>> segments = pa.table({"path": ["b", "a", "b", "c"]})
    >>> metadata = pa.table({"path": ["a", "b"], "actor": [1, 2]})
    >>> join(segments, metadata)["actor"].to_pylist()
    [2, 1, 2, None]
    """
    rows = pc.index_in(table["path"], metadata["path"].combine_chunks())
    for name in metadata.column_names:
        if name != "path":
            column = metadata[name].take(rows)
            table = table.append_column(metadata.schema.field(name), column)
    return table


def of_files(table, columns):
    """Returns the metadata that segments carry, as one row a file.

    Arguments
    ---------
    table : pyarrow.Table
        Segments, with ``path`` and the columns.
    columns : list of str
        Those that the user joined.

    Returns
    -------
    pyarrow.Table
        ``path`` and the columns, one row a file.

    Example
    -------
    >>> table = pa.table({"path": ["a", "a", "b"], "actor": [1, 1, 2]})
    >>> of_files(table, ["actor"]).to_pylist()
    [{'path': 'a', 'actor': 1}, {'path': 'b', 'actor': 2}]
    """
    numbers = pa.array(range(len(table)), pa.int64())
    rows = pa.table({"path": table["path"], "row": numbers})
    first = rows.group_by("path").aggregate([("row", "min")])
    order = pc.sort_indices(first["row_min"])
    return table.select(["path", *columns]).take(first["row_min"].take(order))
