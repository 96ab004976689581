"""What a build has to do: which files are new, changed, moved or gone.

Files are told apart by their content: a digest of every file found is
compared with those of the index. What is unchanged, and what only changed its
name, is not listened to again.

Authors
 * The esr_lobes contributors
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from tqdm import tqdm

from esr_lobes.audio import AudioError, find_audio
from esr_lobes.errors import MendableError
from esr_lobes.indexing.digests import digest_of
from esr_lobes.indexing.worker import Unit
from esr_lobes.preparation import Skip

MAX_FILES = 32
"""Files of a unit, which is what is redone at most after a kill."""
MAX_BYTES = 64 << 20
"""Bytes of a unit's files; a bigger file is a unit of its own."""


class PlanError(MendableError):
    """Audio that cannot be compared with an index."""


@dataclass
class Known:
    """What the index holds before a build.

    Arguments
    ---------
    roots : list of str
        Folders and files that were asked for, absolute.
    files : dict
        Path to digest, of the files with segments.
    skips : list of (Skip, str)
        Files that gave nothing, and their digests ("" if unread).
    """

    roots: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    skips: list = field(default_factory=list)


@dataclass
class Plan:
    """What becomes of each file.

    Arguments
    ---------
    roots : list of str
        All roots of the index after the build.
    kept : list of str
        Unchanged, below other roots, or in ``unreadable``.
    moved : dict
        New path to the old one with the same content, whose vectors serve.
    new, changed : list of str
        To be listened to.
    dropped : list of str
        No longer there.
    standing : list of (Skip, str)
        Unchanged files that gave nothing before.
    unread : list of (Skip, str)
        Unknown files that cannot be read at all, with no digest ("").
    unreadable : list of Skip
        Files with segments that cannot be read now; the segments stay.
    digests : dict
        Path to digest, of the files in ``moved``, ``new`` and ``changed``.
    """

    roots: list
    kept: list = field(default_factory=list)
    moved: dict = field(default_factory=dict)
    new: list = field(default_factory=list)
    changed: list = field(default_factory=list)
    dropped: list = field(default_factory=list)
    standing: list = field(default_factory=list)
    unread: list = field(default_factory=list)
    unreadable: list = field(default_factory=list)
    digests: dict = field(default_factory=dict)

    @property
    def todo(self):
        """Path to digest, of the files that are to be listened to."""
        return {p: self.digests[p] for p in sorted(self.new + self.changed)}


def is_below(path, roots):
    """Returns whether a path is one of the roots or lies in one.

    Arguments
    ---------
    path : str
        Absolute.
    roots : iterable of str
        Absolute.

    Returns
    -------
    bool
        Whether it does.

    Example
    -------
    >>> is_below("/audio/a/1.wav", ["/audio/a"])
    True
    >>> is_below("/audio/ab/1.wav", ["/audio/a"])
    False
    """
    return any(
        path == root or path.startswith(root.rstrip(os.sep) + os.sep)
        for root in roots
    )


def find_files(audio, known, prune=False, rebuild=False):
    """Finds the files below the roots of a build.

    Arguments
    ---------
    audio : str or list of str or None
        Folders and files; None for all roots of the index.
    known : Known
        The index as it is.
    prune : bool
        Whether ``audio`` shall be all that the index holds.
    rebuild : bool
        Whether to search all other roots of the index, too.

    Returns
    -------
    paths : list of str
        Absolute, sorted, each once.
    scanned : list of str
        The roots that were searched; what is known below them and was not
        found is gone.
    roots : list of str
        All roots that the index has from now on.

    Raises
    ------
    PlanError
        If nothing is asked for, or a root cannot be found that holds files
        of the index: perhaps its drive is not mounted.
    AudioError
        If another root cannot be found or searched, or holds no audio.
    """
    if isinstance(audio, str | os.PathLike):
        audio = [audio]
    given = list(dict.fromkeys(map(os.path.abspath, audio or [])))
    if not given and not known.roots:
        raise PlanError("index what? give files, or folders with audio")
    if not given and prune:
        raise PlanError("prune down to what? give the AUDIO that is to stay")
    if prune:
        roots = scanned = given
    else:
        roots = list(dict.fromkeys([*known.roots, *given]))
        # Also roots within a given one: what they brought, such as a hidden
        # file, the search below the given one might pass over.
        searched = roots if rebuild or not given else given
        scanned = [root for root in roots if is_below(root, searched)]
    paths, gone = set(), set()
    for root in scanned:
        if root not in given and _is_deleted_file(root, known):
            gone.add(root)
            continue
        try:
            paths.update(find_audio(root))
        except AudioError as error:
            raise _lost(error, root, known) from error
    roots = sorted(r for r in roots if r not in gone)
    return sorted(paths), scanned, roots


def _is_deleted_file(root, known):
    """Whether a root was a file, is no more, and its folder is there."""
    was_file = root in known.files or any(
        skip.path == root for skip, _ in known.skips
    )
    folder = os.path.dirname(root)
    return (
        was_file
        and not os.path.lexists(root)
        and os.path.isdir(folder)
        and bool(os.listdir(folder))
    )


def _lost(error, root, known):
    """What to raise for a root that cannot be searched."""
    holds_some = any(is_below(path, [root]) for path in known.files)
    if not holds_some and root not in known.roots:
        return error
    about = "the index holds files of it" if holds_some else "it was indexed"
    return PlanError(
        f"{error.path}: {error.detail}, but {about}; nothing was dropped. "
        "Mount its drive or correct the path; if it is gone for good, name "
        "the AUDIO that stays and add --prune"
    )


def files_after(paths, known, scanned, prune=False):
    """Returns all files that the index will know of.

    Arguments
    ---------
    paths : list of str
        Those that were found.
    known : Known
        The index as it is.
    scanned : list of str
        The roots that were searched.
    prune : bool
        Whether what lies below other roots goes.

    Returns
    -------
    list of str
        Sorted.

    Example
    -------
    >>> known = Known(["/a", "/b"], {"/a/1": "x", "/b/2": "y"})
    >>> files_after(["/a/3"], known, ["/a"])
    ['/a/3', '/b/2']
    """
    before = {*known.files, *(skip.path for skip, _ in known.skips)}
    stays = {p for p in before if not (prune or is_below(p, scanned))}
    return sorted(stays.union(paths))


def _read(path):
    """Returns (digest, size), or the Skip of a file that cannot be read."""
    try:
        path.encode()
    except UnicodeEncodeError:
        # No table could name it, not even the list of what was skipped.
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        return Skip(name, "odd name", "not in UTF-8")
    if os.path.exists(path) and not os.path.isfile(path):
        # Opening a pipe would wait for ever.
        return Skip(path, "missing", "a pipe or device, no regular file")
    try:
        return digest_of(path)
    except OSError as error:
        return Skip(path, "missing", error.strerror or str(error))


def read_digests(paths, n_workers=None, progress=False):
    """Reads all files once and tells their contents apart.

    Arguments
    ---------
    paths : list of str
        The files.
    n_workers : int, optional
        Files read at a time.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    found : dict
        Path to (digest, size in bytes).
    unread : list of Skip
        Files that cannot be read.
    """
    found, unread = {}, []
    # Threads are enough: reading and hashing run outside the interpreter
    # lock. An interrupt closes the results, which calls off what waits.
    with (
        ThreadPoolExecutor(n_workers or os.cpu_count()) as pool,
        closing(pool.map(_read, paths)) as results,
    ):
        bar = tqdm(
            zip(paths, results, strict=True),
            desc="comparing",
            total=len(paths),
            unit="file",
            disable=not progress,
        )
        for path, result in bar:
            if isinstance(result, Skip):
                unread.append(result)
            else:
                found[path] = result
    return found, unread


def make_plan(found, unread, known, scanned, roots, prune=False):
    """Compares what was found with what the index holds.

    Arguments
    ---------
    found : dict
        Path to (digest, size), of the files below ``scanned``.
    unread : list of Skip
        Files there that cannot be read.
    known : Known
        The index as it is.
    scanned : list of str
        The roots that were searched.
    roots : list of str
        All roots from now on.
    prune : bool
        Whether what lies below other roots goes, too.

    Returns
    -------
    Plan
        What becomes of each file.

    Example
    -------
    >>> known = Known(["/a"], {"/a/1": "x", "/a/2": "y"})
    >>> found = {"/a/1": ("x", 9), "/a/3": ("y", 9), "/a/4": ("z", 9)}
    >>> plan = make_plan(found, [], known, ["/a"], ["/a"])
    >>> plan.kept, plan.moved, plan.new, plan.dropped
    (['/a/1'], {'/a/3': '/a/2'}, ['/a/4'], ['/a/2'])
    """
    plan = Plan(roots)
    skipped = {skip.path: (skip, digest) for skip, digest in known.skips}
    source_of = {digest: path for path, digest in sorted(known.files.items())}
    for path, (digest, _) in sorted(found.items()):
        if known.files.get(path) == digest:
            plan.kept.append(path)
            continue
        if path in skipped and skipped[path][1] == digest:
            plan.standing.append(skipped[path])
            continue
        plan.digests[path] = digest
        if digest in source_of:
            plan.moved[path] = source_of[digest]
        elif path in known.files or skipped.get(path, (None, ""))[1]:
            plan.changed.append(path)
        else:
            plan.new.append(path)
    unread_paths = {skip.path for skip in unread}
    for path in sorted({*known.files, *skipped} - found.keys()):
        if not (prune or is_below(path, scanned)):
            if path in skipped:
                plan.standing.append(skipped[path])
            else:
                plan.kept.append(path)
        elif path not in unread_paths:
            plan.dropped.append(path)
    for skip in unread:
        if skip.path in known.files:
            # A permission or a drive may come back, and with it the file.
            plan.kept.append(skip.path)
            plan.unreadable.append(skip)
        elif skip.path in skipped:
            plan.standing.append(skipped[skip.path])
        else:
            plan.unread.append((skip, ""))
    return plan


def make_units(files, max_files=None, max_bytes=None):
    """Returns pieces of work, neither too small nor too big.

    Arguments
    ---------
    files : list of (str, str, int)
        Path, digest and size in bytes.
    max_files : int, optional
        Files of a unit, `MAX_FILES` if not given.
    max_bytes : int, optional
        Bytes of a unit, `MAX_BYTES` if not given; a bigger file stands
        alone.

    Returns
    -------
    list of Unit
        Sorted by path.

    Example
    -------
    >>> files = [("b", "", 5), ("a", "", 5), ("c", "", 99), ("d", "", 1)]
    >>> units = make_units(files, max_bytes=10)
    >>> [[path for path, digest in unit.files] for unit in units]
    [['a', 'b'], ['c'], ['d']]
    """
    max_files, max_bytes = max_files or MAX_FILES, max_bytes or MAX_BYTES
    units, size = [], 0
    for path, digest, n_bytes in sorted(files):
        is_full = not units or len(units[-1]) == max_files
        if is_full or size + n_bytes > max_bytes:
            units.append([])
            size = 0
        units[-1].append((path, digest))
        size += n_bytes
    return [Unit(tuple(unit)) for unit in units]
