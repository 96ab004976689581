"""What every preparation of a corpus does: check audio, write splits, and
know afterwards that it was done.

Authors
 * The esr_lobes contributors
"""

import csv
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass
from functools import partial

from tqdm import tqdm

from esr_lobes import audio
from esr_lobes.errors import MendableError
from esr_lobes.files import write_text
from esr_lobes.manifests import COLUMNS, csv_text, manifest_text, refuse

SKIPS_FILE = "skipped.csv"
RECORD_FILE = "prepared.json"


class PreparationError(MendableError):
    """A corpus, or a way to split it, that cannot be prepared."""


@dataclass(frozen=True)
class Skip:
    """A file that was left out: path, reason (one or two words), detail."""

    path: str
    reason: str
    detail: str = ""


def write_skips(path, skips):
    """Writes the list of files that were left out, sorted by path.

    Arguments
    ---------
    path : str or Path
        The CSV file, columns path, reason, detail.
    skips : list of Skip
        What was left out; may be empty.
    """
    lines = sorted(map(astuple, skips))
    write_text(path, csv_text(("path", "reason", "detail"), lines))


def read_skips(path):
    """Gives the list of files that were left out.

    Arguments
    ---------
    path : str or Path
        A file from `write_skips`.

    Returns
    -------
    list of Skip
        Sorted by path.
    """
    with open(
        path, newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        return [Skip(**row) for row in csv.DictReader(file)]


def check_clips(paths, min_seconds=0.1, n_workers=None, progress=True):
    """Decodes all files, several at a time, and parts the good from the bad.

    Arguments
    ---------
    paths : list of str
        The files.
    min_seconds : float
        Shorter ones are bad.
    n_workers : int, optional
        How many are decoded at a time; by default the number of cores.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    dict
        From the path of each good file to its `audio.AudioInfo`, in the
        order of `paths`.
    list of Skip
        The others, with the reasons `audio.check` gave, in that order.

    Example
    -------
    >>> check_clips(["nowhere.wav"], progress=False)[1][0].reason
    'missing'
    """
    paths = [os.fspath(path) for path in paths]
    infos, skips = {}, []
    # Threads are enough: decoding runs outside the interpreter lock.
    # An interrupt closes the results, which calls off what is waiting.
    with (
        ThreadPoolExecutor(n_workers or os.cpu_count()) as pool,
        closing(
            pool.map(partial(_checked, min_seconds=min_seconds), paths)
        ) as results,
    ):
        for result in tqdm(
            results,
            total=len(paths),
            desc="checking audio",
            unit="clip",
            disable=not progress,
        ):
            if isinstance(result, Skip):
                skips.append(result)
            else:
                infos[result.path] = result
    return infos, skips


def _checked(path, min_seconds):
    try:
        return audio.check(path, min_seconds)
    except audio.AudioError as error:
        return Skip(error.path, error.reason, error.detail)


def fingerprint(paths, root):
    """Gives a digest of names, sizes and times of files, to tell a change.

    Arguments
    ---------
    paths : list of str
        The files, in any order.
    root : str or Path
        The folder their names are taken relative to.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    lines = []
    for path in paths:
        # A dangling link has no target to ask; check_clips will list it.
        stat = os.stat(path) if os.path.exists(path) else os.lstat(path)
        name = os.path.relpath(path, root)
        lines.append(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n")
    text = "".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def is_prepared(save_folder, settings):
    """Tells whether `write_splits` has run here with the same settings.

    Arguments
    ---------
    save_folder : str or Path
        The folder of the manifests.
    settings : dict
        What the manifests depend on: the arguments of the preparation and
        the `fingerprint` of the corpus. Anything JSON can hold.

    Returns
    -------
    bool
        True if all files are there and were made with these settings.
    """
    try:
        with open(
            os.path.join(save_folder, RECORD_FILE), encoding="utf-8"
        ) as file:
            record = json.load(file)
        return record["settings"] == _plain(settings) and all(
            os.path.isfile(os.path.join(save_folder, name))
            for name in record["files"]
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False  # never prepared, or by something else: prepare again


def write_splits(
    save_folder, splits, skips=(), settings=None, columns=COLUMNS, tables=()
):
    """Writes the manifests of a corpus, what was left out, and a record.

    Gives ``<split>.csv`` for each split (only the header if it has no
    rows), ``skipped.csv``, and ``prepared.json``, by which `is_prepared`
    knows them. The record goes first and comes last, so that a run that
    was broken off is done again.

    Arguments
    ---------
    save_folder : str or Path
        Where to; made if need be.
    splits : dict
        From the name of a split to its rows, as `write_manifest` takes them.
    skips : list of Skip
        The files left out.
    settings : dict, optional
        See `is_prepared`.
    columns : sequence of str
        What every row has, see `write_manifest`.
    tables : dict, optional
        Texts of further files that belong to the manifests, by name.

    Raises
    ------
    ManifestError
        If rows are wrong, or a clip is in two splits.
    """
    seen, problems = {}, []
    for split, rows in splits.items():
        for row in rows:
            if seen.setdefault(row["ID"], split) != split:
                problems.append(f"{row['ID']} is in {seen[row['ID']]} too")
        refuse(problems, split, "a clip belongs to one split")
    texts = {}
    for split, rows in splits.items():
        path = os.path.join(save_folder, f"{split}.csv")
        texts[path] = manifest_text(path, rows, columns)
    for name, text in dict(tables).items():
        texts[os.path.join(save_folder, name)] = text
    record = os.path.join(save_folder, RECORD_FILE)
    if os.path.exists(record):
        os.remove(record)
    for path, text in texts.items():
        write_text(path, text)
    write_skips(os.path.join(save_folder, SKIPS_FILE), skips)
    content = {
        "settings": _plain(settings or {}),
        "files": [*map(os.path.basename, texts), SKIPS_FILE],
    }
    write_text(record, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _plain(settings):
    """The settings as they come back from JSON (tuples as lists)."""
    return json.loads(json.dumps(settings))
