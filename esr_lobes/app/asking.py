"""From the fields of a form to a search.

Authors
 * The esr_lobes contributors
"""

from esr_lobes.errors import MendableError
from esr_lobes.index.filters import Filter
from esr_lobes.index.segments import COLUMNS

MOST_CHOICES = 24
MOST_DROPDOWNS = 8


class AskError(MendableError):
    """A form that says nothing to search for."""


def ask(
    index,
    text="",
    content="",
    minus="",
    example=None,
    fusion="rank",
    where=None,
    k=10,
    threshold=0,
    per_file=0,
    merge=0,
):
    """Returns the hits of a form; empty fields count for nothing.

    Arguments
    ---------
    index : esr_lobes.index.search.SearchIndex
        Where to search.
    text : str
        How it should sound.
    content : str
        What should be said, where the index has such a space.
    minus : str
        How it should not sound.
    example : Segment or str, optional
        What it should sound like: a segment, or an audio file.
    fusion : str
        How style and content are joined: ``rank`` or ``score``.
    where : Filter, optional
        Which segments count.
    k : int
        At most so many.
    threshold : float
        Lowest z that counts; 0 for any.
    per_file : int
        At most so many of one recording; 0 for any number.
    merge : float
        Neighbours with a gap of at most so many seconds become one; 0 for
        never.

    Returns
    -------
    list of Hit
        Best first.

    Raises
    ------
    AskError
        If there is nothing to search for.
    """
    text, content, minus = (
        (value or "").strip() for value in (text, content, minus)
    )
    if not (text or content or example):
        raise AskError(
            "describe how it should sound, or choose an example"
            + (" (a minus alone says too little)" if minus else "")
        )
    return index.search(
        text or None,
        int(k),
        minus=minus or None,
        clip=example,
        content=content or None,
        fusion=fusion,
        where=where,
        threshold=threshold or None,
        scale="z",
        merge=merge or None,
        per_file=int(per_file or 0) or None,
    )


def condition(columns, where="", choices=None, shortest=None, longest=None):
    """Returns the filter that all fields together mean.

    Arguments
    ---------
    columns : dict
        Column to its Arrow type as text.
    where : str
        A condition, see :meth:`esr_lobes.index.filters.Filter.parse`.
    choices : dict, optional
        Column to the values that are allowed; an empty list allows any.
    shortest : float, optional
        Least duration in seconds.
    longest : float, optional
        Greatest duration in seconds.

    Returns
    -------
    Filter or None
        None if every segment counts.

    Raises
    ------
    FilterError
        If the condition cannot be read.

    Example
    -------
    >>> condition({"actor": "int64"}, "actor > 2", {"actor": []}, 1.5).tree
    ('and', (('>', 'actor', 2), ('>=', 'duration', 1.5)))
    >>> condition({"actor": "int64"}) is None
    True
    """
    parts = []
    if where and where.strip():
        parts.append(where)
    for column, values in (choices or {}).items():
        if values:
            parts.append({column: values})
    if shortest:
        parts.append(f"duration >= {float(shortest)!r}")
    if longest:
        parts.append(f"duration <= {float(longest)!r}")
    if not parts:
        return None
    read = [Filter.parse(part, columns) for part in parts]
    if len(read) == 1:
        return read[0]
    return Filter(("and", tuple(f.tree for f in read)), read[0].columns)


def metadata_columns(columns):
    """Returns the columns that the user joined.

    Arguments
    ---------
    columns : dict
        Column to its Arrow type as text.

    Returns
    -------
    list of str
        In the order of the index.

    Example
    -------
    >>> metadata_columns({"path": "string", "sex": "string"})
    ['sex']
    """
    return [column for column in columns if column not in COLUMNS]


def few_values(store):
    """Returns the columns with so few values that one can choose.

    Arguments
    ---------
    store : object
        Of the index.

    Returns
    -------
    dict
        Column to its sorted values: text, whole numbers, true and false.
    """
    found = {}
    for column in metadata_columns(store.columns):
        values = store.values(column, MOST_CHOICES + 1)
        values = [value for value in values if value is not None]
        is_plain = all(isinstance(value, (str, int)) for value in values)
        if 2 <= len(values) <= MOST_CHOICES and is_plain:
            found[column] = values
        if len(found) == MOST_DROPDOWNS:
            break
    return found
