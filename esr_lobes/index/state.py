"""What is committed in the folder of an index, read with care.

A folder may come from a stranger: names of files must be plain, numbers
numbers, and the table must be the one that index.json promises.

Authors
 * The esr_lobes contributors
"""

import csv
import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esr_lobes.errors import MendableError
from esr_lobes.index.segments import COLUMNS, SCHEMA
from esr_lobes.preparation import Skip

FORMAT = 1
COMMIT = "index.json"
UNFINISHED = "unfinished"

# More than any index.json has, unless somebody means to fill the memory.
MAX_BYTES = 16 << 20

LAST_GENERATION = 2**31 - 1

_SPACE = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")

# What a column may hold; lists or bytes have no place in a table of hits.
_KINDS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_null,
)


class IndexFolderError(MendableError):
    """A folder that is no index, or a damaged one, and what to do."""


def unreadable(path, error):
    """Returns what to say of a file that cannot be read.

    Arguments
    ---------
    path : str or Path
        The file.
    error : Exception
        What reading it gave.

    Returns
    -------
    IndexFolderError
        To be raised.
    """
    words = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return IndexFolderError(
        f"{path} cannot be read ({words}); copy the index again, or build it "
        "anew"
    )


def damaged(path, what):
    """Returns what to say of a file that is not what it should be.

    Arguments
    ---------
    path : str or Path
        The file.
    what : str
        What is wrong with it.

    Returns
    -------
    IndexFolderError
        To be raised.
    """
    return IndexFolderError(
        f"{path} is damaged ({what}); copy the index again, or build it anew"
    )


def read_info(folder):
    """Gives what is committed.

    Arguments
    ---------
    folder : str or Path
        Of an index, also of one that somebody else made.

    Returns
    -------
    dict
        What index.json says, checked: names of files are plain, and numbers
        are numbers.

    Raises
    ------
    IndexFolderError
        If there is no index, none yet, or one that cannot be read.
    """
    path = Path(folder) / COMMIT
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES)
        info = json.loads(text)
    except FileNotFoundError as error:
        raise IndexFolderError(_what_instead(Path(folder))) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, "no JSON") from error
    number = info.get("format") if isinstance(info, dict) else None
    if number != FORMAT:
        raise IndexFolderError(
            f"{path} has format {str(number)[:20]}, not {FORMAT}: open it with "
            "the version of esr_lobes that wrote it, or build the index anew"
        )
    check_info(path, info)
    return info


def _what_instead(folder):
    """Says what is where an index should be."""
    if (folder / UNFINISHED).is_dir():
        return (
            f"{folder} has nothing committed yet, its first build did not end:"
            " run the same esr index again to go on"
        )
    what = "no index" if folder.is_dir() else "no such folder"
    return (
        f"{folder}: {what}; make one with: esr index AUDIO --source RETRIEVER "
        f"--out {folder}"
    )


def check_info(path, info):
    """Refuses what no commit has written.

    Arguments
    ---------
    path : Path
        Of index.json, for the message.
    info : dict
        What is in it.

    Raises
    ------
    IndexFolderError
        If a value is of the wrong kind or a name leads elsewhere.
    """

    def check(is_right, what):
        if not is_right:
            raise damaged(path, what)

    for key in ("generation", "rows", "files"):
        check(_is_whole(info.get(key), 0), key)
    seconds = info.get("seconds")
    check(type(seconds) in (int, float) and 0 <= seconds < math.inf, "seconds")
    for key in ("roots", "columns"):
        is_list = isinstance(info.get(key), list)
        check(is_list and all(type(each) is str for each in info[key]), key)
    check(isinstance(info.get("preprocessing"), dict), "preprocessing")
    check(_is_plain(info.get("segments")), "segments")
    check(_is_plain(info.get("skipped")), "skipped")
    spaces = info.get("spaces")
    check(isinstance(spaces, dict) and spaces, "spaces")
    for name, space in spaces.items():
        is_named = _SPACE.fullmatch(name) and isinstance(space, dict)
        check(is_named, "the name of a space")
        check(_is_whole(space.get("dimension"), 1), f"dimension of {name}")
        check(type(space.get("fingerprint")) is str, f"fingerprint of {name}")
        is_source = isinstance(space.get("source"), (str, type(None)))
        check(is_source, f"source of {name}")
        check(_is_plain(space.get("vectors")), f"vectors of {name}")
        fast = space.get("approximate")
        is_fast = isinstance(fast, dict) and (
            _is_plain(fast.get("file")) and _is_whole(fast.get("nprobe"), 1)
        )
        check(fast is None or is_fast, f"approximate index of {name}")


def _is_whole(value, lowest):
    """Whether it is a number that fits the header of a file."""
    return type(value) is int and lowest <= value < 1 << 31


def _is_plain(name):
    """Whether it names a file right in the folder."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def read_table(folder, info, columns=None):
    """Gives the segments of a commit.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    info : dict
        Of :func:`read_info`.
    columns : list of str, optional
        Which; None for all.

    Returns
    -------
    pyarrow.Table
        In the order of the vectors.

    Raises
    ------
    IndexFolderError
        If the file is missing, damaged or another than promised.
    """
    path = Path(folder) / info["segments"]
    try:
        with open_table(path, info) as file:
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def open_table(path, info):
    """Opens a Parquet file of segments and checks that it is the one.

    Arguments
    ---------
    path : str or Path
        The file.
    info : dict
        Of :func:`read_info`.

    Returns
    -------
    pyarrow.parquet.ParquetFile
        Mapped into memory; nothing but its footer has been read.

    Raises
    ------
    IndexFolderError
        If the file is missing, damaged or another than promised.
    """
    try:
        file = pq.ParquetFile(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    schema = file.schema_arrow
    is_right = (
        is_of_segments(schema)
        and schema.names[len(COLUMNS) :] == info["columns"]
        and file.metadata.num_rows == info["rows"]
    )
    if not is_right:
        raise damaged(path, f"not the {info['rows']} segments of {COMMIT}")
    return file


def is_of_segments(schema):
    """Whether a table begins with the columns that all have.

    Those behind them hold text, numbers, true and false, or times.

    Arguments
    ---------
    schema : pyarrow.Schema
        Of the table.

    Returns
    -------
    bool
        Also False if two columns have one name.
    """
    n_own = len(SCHEMA)
    return (
        schema.names[:n_own] == SCHEMA.names
        and schema.types[:n_own] == SCHEMA.types
        and len(set(schema.names)) == len(schema)
        and all(any(is_kind(t) for is_kind in _KINDS) for t in schema.types)
    )


def read_skips(folder, info):
    """Gives what a commit says of files that gave nothing.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    info : dict
        Of :func:`read_info`.

    Returns
    -------
    list of tuple
        ``esr_lobes.preparation.Skip`` and the digest of the file, sorted.

    Raises
    ------
    IndexFolderError
        If the file is missing or damaged.
    """
    path = Path(folder) / info["skipped"]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        return [_skip(**line) for line in lines]
    except OSError as error:
        raise unreadable(path, error) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(path, "no list of skipped files") from error


def _skip(digest, **skip):
    return Skip(**skip), digest
