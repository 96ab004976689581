"""The folder of an index: what is committed, and how a commit is made.

``index.json`` is the commit. The files it names are written whole before it
is replaced, and never changed afterwards, so that a reader sees one commit or
the next, whenever the writer is stopped. Files of older commits are deleted
at the end; who has mapped them reads on.

Authors
 * The esr_lobes contributors
"""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import filelock
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esr_lobes import __version__
from esr_lobes.errors import MendableError
from esr_lobes.files import replacing
from esr_lobes.index.segments import COLUMNS, SCHEMA
from esr_lobes.index.state import (
    COMMIT,
    FORMAT,
    LAST_GENERATION,
    UNFINISHED,
    IndexFolderError,
    check_info,
    is_of_segments,
    open_table,
    read_info,
    read_skips,
    read_table,
)
from esr_lobes.index.vectors import FlatVectors
from esr_lobes.manifests import csv_text

__all__ = [
    "COMMIT",
    "FORMAT",
    "LOCK",
    "UNFINISHED",
    "IndexBusyError",
    "IndexFolderError",
    "commit",
    "open_table",
    "read_info",
    "read_skips",
    "read_table",
    "replace_info",
    "whole_file",
    "write_lock",
]

LOCK = "index.lock"

# A hit costs reading one group, 1 ms of a core; a filter reads all groups,
# for a million rows in 80 ms. Larger ones cost more for the one and little
# less for the other.
ROWS_IN_GROUP = 4096

# What commits write: a user may keep tables of hits in the same folder.
_OURS = re.compile(
    r"(segments\.(?P<table>\d{6,10})\.parquet"
    r"|skipped\.(?P<list>\d{6,10})\.csv"
    r"|[a-z][a-z0-9_]*\.(?P<vectors>\d{6,10})\.(ivf\.)?faiss)"
)
# What they were writing when they were killed.
_BEGUN = re.compile(r"\.(.+)\.\d+\.tmp")


class IndexBusyError(MendableError):
    """Another process is writing the index."""


@contextmanager
def write_lock(folder):
    """Keeps other writers away; readers are free.

    Arguments
    ---------
    folder : str or Path
        Of an index, made if need be. The lock ends with the process, however
        that ends.

    Yields
    ------
    None
        While it is held.

    Raises
    ------
    IndexBusyError
        If somebody is writing.
    IndexFolderError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise IndexBusyError(
            f"another process is writing {folder}: wait until it has ended "
            "(searching is possible meanwhile)"
        ) from error
    except OSError as error:
        raise IndexFolderError(
            f"{folder} cannot be written to ({error.strerror}): give another "
            "folder, or ask for the permission"
        ) from error
    try:
        yield
    finally:
        lock.release()


def commit(folder, info, table, vectors, skips):
    """Makes a new state of the index the one that readers see.

    Stopped before the end, it leaves the state before. To be called under
    :func:`write_lock`.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    info : dict
        What only the builder knows: "spaces" (of each its "dimension",
        "fingerprint", "source"), "preprocessing", "roots".
    table : pyarrow.Table
        The segments in their order, with the columns of
        ``esr_lobes.index.segments.SCHEMA`` and those of the user behind.
    vectors : dict
        Space to unit-length rows in the same order: an array, or an iterable
        of float32 blocks, which need not fit into memory together. Blocks may
        come from the vectors of the state before.
    skips : list of tuple
        What gave nothing: ``esr_lobes.preparation.Skip`` and the digest of
        the file.

    Returns
    -------
    dict
        The new info, as :func:`read_info` gives it. It has no approximate
        index, because that does not know the new rows.

    Raises
    ------
    ValueError
        If columns, spaces or rows do not fit together.
    """
    folder = Path(folder)
    names = table.schema.names
    if not is_of_segments(table.schema):
        raise ValueError(f"a table of segments begins with {SCHEMA}")
    if set(vectors) != set(info["spaces"]):
        raise ValueError(f"vectors of {set(vectors)}, not {info['spaces']}")
    generation = _next_generation(folder)
    info = {
        "format": FORMAT,
        "version": __version__,
        "generation": generation,
        "rows": table.num_rows,
        "files": pc.count_distinct(table["path"]).as_py(),
        "seconds": pc.sum(table["duration"], min_count=0).as_py() or 0.0,
        "spaces": {
            name: {
                **{k: space[k] for k in ("dimension", "fingerprint")},
                "source": space.get("source"),
                "vectors": f"{name}.{generation:06d}.faiss",
                "approximate": None,
            }
            for name, space in info["spaces"].items()
        },
        "preprocessing": info["preprocessing"],
        "segments": f"segments.{generation:06d}.parquet",
        "skipped": f"skipped.{generation:06d}.csv",
        "roots": [str(root) for root in info["roots"]],
        "columns": names[len(COLUMNS) :],
    }
    check_info(folder / COMMIT, info)
    try:
        _write(folder, info, table, vectors, skips)
    except BaseException:
        _delete(folder, lambda name: _number(name) == generation)
        raise
    return _publish(folder, info)


def _write(folder, info, table, vectors, skips):
    """Writes the files that an info names."""
    for name, space in info["spaces"].items():
        with whole_file(folder / space["vectors"]) as temporary:
            rows, dimension = info["rows"], space["dimension"]
            FlatVectors.write(temporary, vectors[name], rows, dimension)
    with whole_file(folder / info["segments"]) as temporary:
        pq.write_table(
            table.replace_schema_metadata(None),
            temporary,
            row_group_size=ROWS_IN_GROUP,
            compression="zstd",
            use_dictionary=[n for n in table.schema.names if n != "id"],
        )
    lines = sorted((s.path, s.reason, s.detail, digest) for s, digest in skips)
    with whole_file(folder / info["skipped"]) as temporary:
        text = csv_text(("path", "reason", "detail", "digest"), lines)
        temporary.write_text(text, encoding="utf-8", newline="")


def replace_info(folder, info):
    """Replaces index.json and deletes what the new one does not name.

    To be called under :func:`write_lock`, when all that it names is there.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    info : dict
        What :func:`read_info` gave, changed; it becomes a generation later.

    Returns
    -------
    dict
        The new info.
    """
    return _publish(folder, {**info, "generation": info["generation"] + 1})


def _publish(folder, info):
    """Makes an info the one that counts."""
    folder = Path(folder)
    check_info(folder / COMMIT, info)
    with whole_file(folder / COMMIT) as temporary:
        text = json.dumps(info, indent=1, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    _sweep(folder, info)
    return info


def _next_generation(folder):
    """A number that no file has, also if index.json is lost or damaged."""
    numbers = [_number(name) or 0 for name in os.listdir(folder)]
    try:
        numbers.append(read_info(folder)["generation"])
    except IndexFolderError:
        pass  # Built anew: nothing of what was there is counted on.
    return max(numbers, default=0) + 1


def _number(name):
    """Returns the generation that a file is of; None if it is not ours."""
    match = _OURS.fullmatch(name)
    if match is None:
        return None
    number = int(match["table"] or match["list"] or match["vectors"])
    # No commit has a number that another one could not follow.
    return number if number < LAST_GENERATION else None


@contextmanager
def whole_file(path):
    """Gives a name to write to; on the disk and in its place at the end.

    Synced, because a machine that loses power might otherwise keep the new
    index.json and lose what it names.

    Arguments
    ---------
    path : Path
        The file to be made or replaced.

    Yields
    ------
    pathlib.Path
        Where to write.
    """
    with replacing(path) as temporary:
        yield temporary
        _sync(temporary)
    _sync(path.parent)


def _sync(path):
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sweep(folder, info):
    """Deletes files of commits that are no more, and leaves all others."""
    named = {COMMIT, info["segments"], info["skipped"]}
    for space in info["spaces"].values():
        named.add(space["vectors"])
        if space["approximate"]:
            named.add(space["approximate"]["file"])

    def is_old(name):
        begun = _BEGUN.fullmatch(name)
        if begun is not None:
            return begun[1] == COMMIT or _number(begun[1]) is not None
        return name not in named and _number(name) is not None

    _delete(folder, is_old)


def _delete(folder, is_meant):
    """Deletes the files in a folder whose names are meant."""
    for path in folder.iterdir():
        if is_meant(path.name):
            path.unlink()
