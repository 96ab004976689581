"""Which segments may answer: conditions on the columns of an index.

A condition is written as in Python, ``actor == 3 and emotion in ['sad',
'calm'] and duration > 2``, but nothing of it is run: it is read into a tree
of comparisons, which each engine gets in its own language.

Authors
 * The esr_lobes contributors
"""

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from esr_lobes.index.conditions import (
    HELP,
    FilterError,
    Reader,
    as_moment,
    kind_of,
)
from esr_lobes.index.segments import SCHEMA

__all__ = ["Filter", "FilterError"]

COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Filter:
    """A condition that has been read and fits the columns of an index.

    An empty cell equals None and nothing else: it meets no comparison with
    a value, neither ``!=`` nor ``not in`` nor ``not (...)``.

    Arguments
    ---------
    tree : tuple
        As :class:`esr_lobes.index.conditions.Reader` gives it; a "not" has
        been carried down to the comparisons.
    columns : dict
        Column to its Arrow type as text.
    """

    tree: tuple
    columns: dict

    @classmethod
    def parse(cls, condition, columns):
        """Returns the filter that a text or a dict means.

        Arguments
        ---------
        condition : str, dict or Filter
            Comparisons (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``
            and ``not in`` a list, ``'text' in column``) of a column with
            numbers, text, True, False or None, joined by ``and``, ``or``,
            ``not`` and brackets. A column that is no Python name stands in
            backticks. Or column to value, or to the list of those allowed.
        columns : dict
            Column to its Arrow type as text, as a store has it.

        Returns
        -------
        Filter
            To be handed to a store.

        Raises
        ------
        FilterError
            If it cannot be read, no such column is there, or a value is of
            another kind than its column.

        Example
        -------
        >>> columns = {"actor": "int64", "emotion": "string"}
        >>> Filter.parse("not (actor < 3 or emotion == 'sad')", columns).tree
        ('and', (('>=', 'actor', 3), ('!=', 'emotion', 'sad')))
        >>> Filter.parse({"actor": [3, 4]}, columns).tree
        ('in', 'actor', (3, 4))
        >>> Filter.parse("emotoin == 'sad'", columns)
        Traceback (most recent call last):
        esr_lobes.index.conditions.FilterError: no column 'emotoin'; did \
you mean 'emotion'?
        """
        own = {field.name: str(field.type) for field in SCHEMA}
        reader = Reader({**own, **columns})
        if isinstance(condition, str):
            tree = reader.text(condition)
        elif isinstance(condition, Mapping):
            tree = reader.mapping(condition)
        elif isinstance(condition, Filter):
            tree = reader.again(condition.tree)
        else:
            raise FilterError(
                f"a condition is a text or a dict, not {condition!r}; {HELP}"
            )
        return cls(tree, reader.columns)

    def arrow(self):
        """Returns the condition for Arrow.

        Returns
        -------
        pyarrow.compute.Expression
            True for the rows that meet it; null or false for others.

        Example
        -------
        >>> columns = {"actor": "int64"}
        >>> table = pa.table({"actor": [1, None, 3]})
        >>> table.filter(Filter.parse("actor != 1", columns).arrow())[0][0]
        <pyarrow.Int64Scalar: 3>
        """
        return _arrow(self.tree, self.columns)

    def milvus(self, names=None):
        """Returns the condition in the language of Milvus.

        Arguments
        ---------
        names : dict, optional
            Column to the name of its field; a column's own name if not
            given.

        Returns
        -------
        str
            The expression; text in it is quoted.

        Example
        -------
        >>> columns = {"emotion": "string"}
        >>> Filter.parse({"emotion": 'a "b"'}, columns).milvus()
        'emotion == "a \\\\"b\\\\""'
        """
        return _milvus(self.tree, self.columns, names or {})


def _arrow(tree, columns):
    symbol, *rest = tree
    if symbol in ("and", "or"):
        first, *others = [_arrow(part, columns) for part in rest[0]]
        for other in others:
            first = first & other if symbol == "and" else first | other
        return first
    column, value = rest
    field = pc.field(column)
    if value is None:
        return field.is_null() if symbol == "==" else field.is_valid()
    if kind_of(columns[column]) == "anything":
        return pc.scalar(False)
    if symbol in ("in", "not in"):
        found = pc.scalar(False)
        if value:
            values = [_as_arrow(v, columns[column]) for v in value]
            found = field.isin(pa.array(values))
        return found if symbol == "in" else ~found & field.is_valid()
    if symbol in ("has", "has not"):
        found = pc.match_substring(field.cast("string"), value)
        return found if symbol == "has" else ~found
    value = _as_arrow(value, columns[column])
    return COMPARE[symbol](field, pc.scalar(value))


def _as_arrow(value, arrow_type):
    """Returns a value that Arrow can compare with those of a column."""
    return (
        as_moment(value, arrow_type)
        if kind_of(arrow_type) == "times"
        else value
    )


def _milvus(tree, columns, names):
    symbol, *rest = tree
    if symbol in ("and", "or"):
        parts = [f"({_milvus(part, columns, names)})" for part in rest[0]]
        return f" {symbol} ".join(parts)
    column, value = rest
    field = names.get(column, column)
    if value is None:
        return f"{field} is null" if symbol == "==" else f"{field} is not null"
    if kind_of(columns[column]) == "times":
        # There they are text, written like this.
        is_many = isinstance(value, tuple)
        values = value if is_many else (value,)
        values = tuple(str(as_moment(v, columns[column])) for v in values)
        value = values if is_many else values[0]
    if symbol in ("in", "not in"):
        listed = ", ".join(map(_quoted, value))
        if symbol == "in":
            return f"{field} in [{listed}]"
        return f"{field} not in [{listed}] and {field} is not null"
    if symbol in ("has", "has not"):
        # % and _ stand for anything there
        pattern = re.sub(r"([\\%_])", r"\\\1", value)
        found = f"{field} like {_quoted(f'%{pattern}%')}"
        if symbol == "has":
            return found
        return f"not ({found}) and {field} is not null"
    return f"{field} {symbol} {_quoted(value)}"


def _quoted(value):
    """Returns a value in Milvus' language, which quotes text like JSON."""
    return json.dumps(value, ensure_ascii=False)
