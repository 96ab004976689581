"""A published index, searched in Milvus as a folder is searched here.

A collection has the columns of the segments as fields, those that the user
joined with ``m_`` before their names, and one field of vectors a space,
``v_style``. Which models made them and what else ``index.json`` says is kept
beside as a property of the collection.

Authors
 * The esr_lobes contributors
"""

import json
from numbers import Integral

import numpy as np

from esr_lobes.index.base import Store
from esr_lobes.index.filters import Filter
from esr_lobes.index.milvus_address import MilvusError, read_address
from esr_lobes.index.milvus_client import Connection
from esr_lobes.index.milvus_nearest import (
    ORDER,
    Nearest,
    place,
)
from esr_lobes.index.segments import COLUMNS, Segment
from esr_lobes.index.vectors import as_rows
from esr_lobes.pages import did_you_mean

FORMAT = 1
INFO = "esr_lobes.info"
"""The property of a collection that holds what is said of the index."""


def field_of(column, number):
    """Returns the name of a column's field in Milvus.

    Arguments
    ---------
    column : str
        A column of the segments, or one that the user joined.
    number : int
        Its place among the columns; stands for a name that Milvus refuses.

    Returns
    -------
    str
        What no other column has, and no word of Milvus' language is.

    Example
    -------
    >>> field_of("path", 1), field_of("emotion", 7), field_of("größe", 8)
    ('path', 'm_emotion', 'm_8')
    """
    if column in COLUMNS:
        return column
    return f"m_{column if column.isascii() else number}"


def is_published(connection, collection):
    """Returns whether a collection holds an index.

    Arguments
    ---------
    connection : Connection
        To the server.
    collection : str
        An existing one.

    Returns
    -------
    bool
        False for what others keep there.
    """
    return INFO in _properties(connection, collection)


def published_info(connection, collection):
    """Returns what a collection says of its index.

    Arguments
    ---------
    connection : Connection
        To the server.
    collection : str
        One that holds an index.

    Returns
    -------
    dict
        As :class:`MilvusStore` has it.

    Raises
    ------
    MilvusError
        If another version of this package has published it.
    """
    try:
        info = json.loads(_properties(connection, collection)[INFO])
    except ValueError:
        info = None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise MilvusError(
            f"{collection} was published by another version of esr_lobes: "
            "publish it again with --replace"
        )
    return info


def _properties(connection, collection):
    described = connection.ask("describe_collection", collection)
    return described.get("properties") or {}


class MilvusStore(Store):
    """What a folder's store is, of an index published to Milvus.

    Keys are the segments' ids. A store goes on with the collection that it
    was opened with; one that was published anew with another model is seen
    by opening it again.

    Arguments
    ---------
    where : str
        An address such as ``milvus://localhost:19530/talks``, see
        :mod:`esr_lobes.index.milvus_address`.

    Raises
    ------
    MilvusError
        If there is no such index.
    """

    def __init__(self, where):
        address = read_address(where)
        self._connection = Connection(address)
        try:
            self._open(address.collection)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, name):
        self._collection = self._connection.resolve(name)
        where = self._connection.address.text
        is_there = self._connection.ask("has_collection", self._collection)
        if not (is_there and is_published(self._connection, self._collection)):
            names = sorted(self._connection.ask("list_aliases")["aliases"])
            raise MilvusError(
                f"{where}: no index is published there (but: "
                f"{', '.join(names) or 'none'}); publish one with: esr "
                f"publish INDEX --to {where}"
            )
        info = published_info(self._connection, self._collection)
        if not info["is_complete"]:
            raise MilvusError(
                f"{where}: publishing has not come to its end; run the same "
                "esr publish again to go on"
            )
        self.info = info
        self._fields = {
            column: field_of(column, i)
            for i, column in enumerate(info["types"])
        }
        self._connection.ask("load_collection", self._collection)
        self._ranking = Nearest(
            self._connection, self._collection, info["rows"], info["index"]
        )

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
        return dict(self.info["types"])

    def _field(self, space):
        if space not in self.info["spaces"]:
            spaces = list(self.info["spaces"])
            raise ValueError(
                f"there is no space {space!r}, {did_you_mean(space, spaces)}"
            )
        return f"v_{space}"

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
            Look at all; where the collection has an approximate index, all
            vectors travel here, which takes its time.

        Returns
        -------
        keys : array
            Text of shape [batch, at most count], best first; empty behind the
            last.
        scores : array
            Float32 of the same shape; minus infinity behind the last.

        Raises
        ------
        ValueError
            If the space is unknown, a shape does not fit or the count is no
            positive whole number.
        """
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"count must be positive and whole, not {count!r}")
        field = self._field(space)
        queries = as_rows(queries, self.spaces[space])
        count = min(int(count), len(self))
        condition = "" if where is None else where.milvus(self._fields)
        best = self._ranking.best(field, queries, count, condition, exact)
        keys = np.full((len(queries), count), "", dtype="U32")
        scores = np.full((len(queries), count), -np.inf, np.float32)
        for i, ranked in enumerate(best):
            for j, (key, score) in enumerate(ranked):
                keys[i, j], scores[i, j] = key, score
        return keys, scores

    def scores(self, space, query, keys):
        """Returns the scores of some segments.

        Arguments
        ---------
        space : str
            Which vectors.
        query : array
            Of shape [dimension].
        keys : array
            Ids of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch].
        """
        query = as_rows([query], self.spaces[space])[0].astype(np.float64)
        vectors = self.take(space, keys).astype(np.float64)
        return (vectors @ query).astype(np.float32)

    def take(self, space, keys):
        """Returns the vectors of some segments.

        Arguments
        ---------
        space : str
            Which vectors.
        keys : array
            Ids of shape [batch].

        Returns
        -------
        array
            Float32 of shape [batch, dimension].
        """
        field, dimension = self._field(space), self.spaces[space]
        rows = self._get(keys, [field])
        vectors = [row[field] for row in rows]
        return np.array(vectors, np.float32).reshape(-1, dimension)

    def _get(self, keys, fields):
        """Returns the rows of some keys, in their order."""
        keys = [str(key) for key in np.asarray(keys).reshape(-1)]
        distinct, found = list(dict.fromkeys(keys)), {}
        for i in range(0, len(distinct), 1000):
            rows = self._connection.ask(
                "get",
                self._collection,
                ids=distinct[i : i + 1000],
                output_fields=list(dict.fromkeys(["id", *fields])),
            )
            found.update((row["id"], row) for row in rows)
        gone = [key for key in distinct if key not in found]
        if gone:
            raise MilvusError(
                f"{self._connection.address.text} has no segment {gone[0]!r} "
                "any more: it was published anew meanwhile, open it again"
            )
        return [found[key] for key in keys]

    def segments(self, keys):
        """Returns segments with their ids and what the user joined.

        Arguments
        ---------
        keys : array
            Ids of shape [batch].

        Returns
        -------
        list of Segment
            In the order of the keys.
        """
        own = "path", "start", "stop", "channel", "id"
        joined = {c: f for c, f in self._fields.items() if c not in COLUMNS}
        return [
            Segment(
                *(row[name] for name in own),
                {column: row[field] for column, field in joined.items()},
            )
            for row in self._get(keys, [*own, *joined.values()])
        ]

    def sample(self, count):
        """Returns the keys of segments that stand for all.

        Arguments
        ---------
        count : int
            At most so many; there are no more than were marked.

        Returns
        -------
        array
            Ids of shape [at most count], the same every time.
        """
        rows = [
            row
            for some in self._connection.rows(
                self._collection, ["id", *ORDER], "is_background == true"
            )
            for row in some
        ]
        rows.sort(key=place)
        count = min(count, len(rows))
        chosen = np.arange(count) * len(rows) // max(count, 1)
        return np.array([rows[i]["id"] for i in chosen], "U32")

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
            Ids of shape [segments], in the order of their times.
        """
        wanted = Filter.parse({"path": str(path)}, self.columns)
        rows = [
            row
            for some in self._connection.rows(
                self._collection, ["id", *ORDER], wanted.milvus(self._fields)
            )
            for row in some
            if (start is None or row["stop"] > start)
            and (stop is None or row["start"] < stop)
        ]
        return np.array([row["id"] for row in sorted(rows, key=place)], "U32")

    def _values(self, column, most):
        """Returns what stands in a column that is there."""
        known = self.info["values"].get(column)
        if known is None:
            field = self._fields[column]
            known = {
                row[field]
                for rows in self._connection.rows(self._collection, [field])
                for row in rows
            }
            known = sorted(known - {None})
        return known[:most]

    def close(self):
        """Ends the connection; the store answers no more."""
        self._connection.close()
