"""Conditions on columns, read into trees of comparisons.

Authors
 * The esr_lobes contributors
"""

import ast
import datetime
import math
import re
import textwrap
import unicodedata
from numbers import Real

import numpy as np

from esr_lobes.errors import MendableError
from esr_lobes.pages import did_you_mean

MOST_CHARACTERS = 10_000
HELP = (
    "write for example: actor == 3 and emotion in ['sad', 'calm'] and "
    "duration > 2"
)
SYMBOLS = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",  # codespell:ignore notin
}
OPPOSITE = {
    "==": "!=",
    "<": ">=",
    "<=": ">",
    "in": "not in",
    "has": "has not",
    "and": "or",
}
OPPOSITE |= {there: here for here, there in OPPOSITE.items()}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
EXAMPLES = {
    "text": "'text'",
    "true and false": "True",
    "times": "'2024-12-31'",
    "numbers": "3",
}
# A string, which is passed over, or a column's name in backticks.
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`""")


class FilterError(MendableError):
    """A condition that cannot be read, or asks for what is not there."""


class Reader:
    """Reads conditions on some columns into trees.

    A tree is ``("and", parts)``, ``("or", parts)``, or ``(symbol, column,
    value)`` with a symbol of Python, or ``has`` and ``has not`` for a part of
    a text.

    Arguments
    ---------
    columns : dict
        Column to its Arrow type as text.

    Example
    -------
    >>> Reader({"actor": "int64"}).text("not 1 < actor")
    ('<=', 'actor', 1)
    """

    def __init__(self, columns):
        self.columns = columns
        self.quoted = []

    def text(self, text):
        """Returns the tree of a condition that is written as in Python."""
        if len(text) > MOST_CHARACTERS:
            raise FilterError(
                f"a condition has at most {MOST_CHARACTERS} characters"
            )
        try:
            # In brackets a condition may go over several lines.
            code = f"({_QUOTED.sub(self._hide, text)}\n)"
            body = ast.parse(code, mode="eval").body
            if (body.lineno, body.col_offset) == (1, 0):
                raise ValueError("it closes a bracket that it did not open")
            return self._tree(body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, FilterError):
                raise
            shown = textwrap.shorten(text, 60)
            raise FilterError(
                f"cannot read {shown!r}; {_hint(text)}"
            ) from error

    def mapping(self, wanted):
        """Returns the tree of column to value, or to those allowed."""
        parts = []
        for column, value in wanted.items():
            is_many = isinstance(value, (list, tuple, set, frozenset))
            if isinstance(value, np.ndarray):
                is_many, value = True, value.tolist()
            symbol = "in" if is_many else "=="
            value = [_plain(v) for v in value] if is_many else _plain(value)
            parts.append(self._leaf(symbol, str(column), value))
        if not parts:
            raise FilterError(f"an empty dict says nothing; {HELP}")
        return parts[0] if len(parts) == 1 else ("and", tuple(parts))

    def again(self, tree):
        """Returns a tree that was read for an index, checked for this one."""
        symbol, *rest = tree
        if symbol in ("and", "or"):
            return symbol, tuple(self.again(part) for part in rest[0])
        return self._leaf(symbol, *rest)

    def _hide(self, match):
        """Puts a Python name in the place of a column in backticks."""
        if match[1] is None:
            return match[0]
        self.quoted.append(match[1])
        return f" __column_{len(self.quoted) - 1} "

    def _tree(self, node):
        if isinstance(node, ast.BoolOp):
            symbol = "and" if isinstance(node.op, ast.And) else "or"
            return symbol, tuple(self._tree(part) for part in node.values)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _opposite(self._tree(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = tuple(
                self._comparison(left, type(op), right)
                for left, op, right in zip(
                    sides, node.ops, sides[1:], strict=False
                )
            )
            return parts[0] if len(parts) == 1 else ("and", parts)
        if isinstance(node, ast.Name):  # a column of true and false
            return self._leaf("==", self._column(node), True)
        raise FilterError(f"{_source(node)} is no comparison; {HELP}")

    def _comparison(self, left, op, right):
        if op not in SYMBOLS:
            raise FilterError("write == None or != None, not is")
        symbol = SYMBOLS[op]
        if isinstance(left, ast.Name) and isinstance(right, ast.Name):
            self._column(left)
            self._column(right, is_value=True)
            raise FilterError(
                f"{_source(left)} and {_source(right)} are both columns: "
                "compare a column with a value"
            )
        if isinstance(left, ast.Name):
            return self._leaf(symbol, self._column(left), _value(right))
        if not isinstance(right, ast.Name):
            raise FilterError(f"{_source(right)} is no column; {HELP}")
        if symbol in ("in", "not in"):
            symbol = "has" if symbol == "in" else "has not"
        symbol = MIRRORED.get(symbol, symbol)
        return self._leaf(symbol, self._column(right), _value(left))

    def _column(self, node, is_value=False):
        match = re.fullmatch(r"__column_(\d+)", node.id)
        if match and int(match[1]) < len(self.quoted):
            return self.quoted[int(match[1])]
        if node.id not in self.columns:
            hint = did_you_mean(node.id, self.columns)
            if is_value:
                hint = f"text stands in quotes: '{node.id}'"
            raise FilterError(f"no column {node.id!r}; {hint}")
        return node.id

    def _leaf(self, symbol, column, value):
        """Returns one comparison, once its value fits its column."""
        if column not in self.columns:
            # As Python does with names that stand in no backticks.
            column = unicodedata.normalize("NFKC", column)
        if column not in self.columns:
            hint = did_you_mean(column, self.columns)
            raise FilterError(f"no column {column!r}; {hint}")
        kind = kind_of(self.columns[column])
        if symbol in ("in", "not in"):
            if not isinstance(value, (list, tuple)):
                raise FilterError(
                    f"{column} in {value!r}: give a list, as {column} in [1, 2]"
                )
            values = [v for v in value if v is not None]
            for each in values:
                self._check(column, each)
            leaf = (symbol, column, tuple(dict.fromkeys(values)))
            if len(values) < len(value) and symbol == "in":
                return "or", (leaf, ("==", column, None))
            return leaf
        if isinstance(value, (list, tuple)):
            raise FilterError(
                f"{column} {symbol} a list: write {column} in [...]"
            )
        if symbol in ("has", "has not"):
            if kind not in ("text", "anything") or not isinstance(value, str):
                raise FilterError(
                    f"{value!r} in {column}: only text can be in text"
                )
        elif value is None:
            if symbol not in ("==", "!="):
                raise FilterError(f"{column} {symbol} None: nothing is")
        else:
            self._check(column, value)
            if isinstance(value, bool) and symbol not in ("==", "!="):
                raise FilterError(f"{column} {symbol} {value}: write == or !=")
        return symbol, column, value

    def _check(self, column, value):
        """Raises a FilterError if a value is of another kind than a column."""
        kind = kind_of(self.columns[column])
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if kind == "numbers" and is_number:
            if not math.isfinite(value) or abs(value) >= 2**63:
                raise FilterError(f"{column}: {value} is too large a number")
        elif kind == "times" and isinstance(value, str):
            as_moment(value, self.columns[column])
        elif kind != "anything" and not (
            (kind == "text" and isinstance(value, str))
            or (kind == "true and false" and isinstance(value, bool))
        ):
            raise FilterError(
                f"{column} holds {kind}, but {value!r} is none: write it as "
                f"{EXAMPLES[kind]}"
            )


def _plain(value):
    """Returns the Python number of NumPy's."""
    return value.item() if isinstance(value, np.generic) else value


def _hint(text):
    """Returns what is likely wrong with a text that is no Python."""
    bare = _QUOTED.sub("''", text)
    if not text.strip():
        return HELP
    if re.search(r"(?<![=!<>])=(?!=)", bare):
        return "write == to compare"
    if re.search(r"\b(AND|OR|NOT|IN)\b", bare):
        return "and, or, not, in are written small"
    if "&&" in bare or "||" in bare:
        return "write and, or"
    return HELP


def _source(node):
    """Returns the text of a node, shortened."""
    text = ast.unparse(node)
    return text if len(text) <= 40 else text[:37] + "..."


def _value(node):
    """Returns the number, text, list or constant that is written."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(part) for part in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        if isinstance(value, Real) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.Constant) and (
        node.value is None or isinstance(node.value, (str, int, float))
    ):
        return node.value
    if isinstance(node, ast.Name):
        raise FilterError(f"text stands in quotes: '{node.id}'")
    raise FilterError(f"{_source(node)} is no number and no text; {HELP}")


def _opposite(tree):
    """Returns the tree that says not; empty cells meet neither."""
    symbol, *rest = tree
    if symbol in ("and", "or"):
        return OPPOSITE[symbol], tuple(_opposite(part) for part in rest[0])
    return OPPOSITE[symbol], *rest


def kind_of(arrow_type):
    """Returns what a column holds.

    Arguments
    ---------
    arrow_type : str
        Its Arrow type as text.

    Returns
    -------
    str
        ``text``, ``numbers``, ``true and false``, ``times``, or ``anything``
        where no row has a value.

    Example
    -------
    >>> kind_of("int16"), kind_of("date32[day]"), kind_of("string")
    ('numbers', 'times', 'text')
    """
    if "string" in arrow_type:
        return "text"
    if arrow_type == "null":
        return "anything"  # no row has a value
    if arrow_type == "bool":
        return "true and false"
    if arrow_type.startswith(("date", "time")):
        return "times"
    return "numbers"


def as_moment(text, arrow_type):
    """Returns the date, the time or both that a text says.

    Arguments
    ---------
    text : str
        As ISO 8601 has it.
    arrow_type : str
        Of the column, as text; its times of day are UTC if it has a zone and
        the text has none.

    Returns
    -------
    datetime.date, datetime.time or datetime.datetime
        As the column has it.

    Raises
    ------
    FilterError
        If it is none.

    Example
    -------
    >>> as_moment("2024-12-31", "date32[day]")
    datetime.date(2024, 12, 31)
    """
    cls = datetime.time if arrow_type.startswith("time") else datetime.date
    cls = datetime.datetime if arrow_type.startswith("timestamp") else cls
    try:
        moment = cls.fromisoformat(text)
    except ValueError as error:
        raise FilterError(
            f"{text!r} is no {cls.__name__}: write it like "
            + {
                datetime.date: "'2024-12-31'",
                datetime.time: "'23:59:59'",
                datetime.datetime: "'2024-12-31 23:59:59'",
            }[cls]
        ) from error
    if "tz=" in arrow_type and moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment
