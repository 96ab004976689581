"""Manifests: the one table that every preparation writes and every recipe
reads.

A manifest is a CSV file for SpeechBrain, one row a clip, sorted by ID:

========  ==========================================================
ID        unique name of the clip
duration  ``stop - start``, in seconds
wav       the file; ``$data_root/...`` if it lies in the corpus folder
start     where the clip begins in the file, in seconds
stop      where it ends, in seconds
channel   the channel that holds it, from 0; empty mixes all channels
speaker   who speaks; no speaker is in two splits where splits promise so
style     how it is spoken
========  ==========================================================

More columns may follow; they are kept as text. `read_manifest` gives typed
rows and checks them. SpeechBrain's own reader takes the file as well::

    DynamicItemDataset.from_csv("train.csv", {"data_root": data_folder})

Authors
 * The esr_lobes contributors
"""

import csv
import math
import os
import re
from collections import Counter
from numbers import Real
from types import SimpleNamespace

from esr_lobes.errors import MendableError
from esr_lobes.files import write_text

COLUMNS = (
    "ID",
    "duration",
    "wav",
    "start",
    "stop",
    "channel",
    "speaker",
    "style",
)
"""The columns of a manifest, in this order; others follow them."""

_NUMBERS = ("duration", "start", "stop", "channel")

DURATION_TOLERANCE = 0.002
"""Seconds by which duration and stop - start may differ."""

MAX_PROBLEMS = 10
"""An error message lists this many problems, and counts the others."""


_ROOT = re.compile(r"^(?:\{data_root\}|\$data_root|\$\{data_root\})(?=[/\\])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CHANNEL = re.compile(r"\d+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLACEHOLDER = re.compile(r"\$[\w.]+")  # what SpeechBrain would replace


class ManifestError(MendableError):
    """A manifest that cannot be used, with line numbers and what to do."""


def write_manifest(path, rows, columns=COLUMNS):
    """Writes a manifest; the file is either whole or not there.

    Arguments
    ---------
    path : str or Path
        The CSV file.
    rows : list of dict
        The clips, in any order, each with these columns as keys: numbers
        for duration, start and stop, an int or None for channel. ``wav``
        may begin with ``{data_root}/`` or ``$data_root/``. All rows have
        the same further keys, if any.
    columns : sequence of str
        What every row has, another kind of manifest (such as
        `content_manifests.CLIP_COLUMNS`) other columns.

    Raises
    ------
    ManifestError
        If rows are wrong in themselves or two have the same ID. Nothing is
        written then.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> row = dict(ID="a", duration=1.5, wav="{data_root}/a.wav", start=0.0,
    ...     stop=1.5, channel=None, speaker="ann", style="calm", take=1)
    >>> write_manifest(path, [row])
    >>> print(path.read_text().strip())
    ID,duration,wav,start,stop,channel,speaker,style,take
    a,1.5,$data_root/a.wav,0,1.5,,ann,calm,1
    """
    write_text(path, manifest_text(path, rows, columns))


def manifest_text(path, rows, columns=COLUMNS):
    """Returns the text of a manifest, or raises a ManifestError.

    Arguments
    ---------
    path : str
        For the message; nothing is written.
    rows : list of dict
        See :func:`write_manifest`.
    columns : sequence of str
        Likewise.

    Returns
    -------
    str
        CSV, sorted by ID.
    """
    extra = [key for key in rows[0] if key not in columns] if rows else []
    header = [*columns, *extra]
    problems, lines = [], []
    for number, row in enumerate(rows, start=1):
        where = f"row {number} ({row.get('ID', 'no ID')})"
        if set(row) != set(header):
            odd = ", ".join(sorted(set(row) ^ set(header)))
            problems.append(f"{where}: missing or additional: {odd}")
            continue
        cells = {key: _cell(key, row[key]) for key in header}
        problems += [f"{where}: {text}" for text in _typed(cells, columns)[1]]
        rest = _ROOT.sub("", cells["wav"])
        for cell in ({**cells, "wav": rest}).values():
            if _PLACEHOLDER.search(cell):
                problems.append(
                    f"{where}: SpeechBrain would take the $ in '{cell}' for "
                    "a placeholder; rename the file or leave the text out"
                )
        if rest != cells["wav"]:
            cells["wav"] = f"$data_root{rest}"
        lines.append([cells[key] for key in header])
    counts = Counter(line[0] for line in lines)
    problems += [f"the ID {i}: {n} rows" for i, n in counts.items() if n > 1]
    refuse(problems, path, "nothing was written")
    return csv_text(header, sorted(lines))


def read_manifest(
    path, data_root=None, styles=None, is_checked=True, columns=COLUMNS
):
    """Gives the rows of a manifest, typed and checked.

    Arguments
    ---------
    path : str or Path
        The CSV file.
    data_root : str or Path, optional
        The folder that ``$data_root`` (or ``{data_root}``) in the ``wav``
        column stands for.
    styles : collection of str, optional
        The allowed styles; None allows any.
    is_checked : bool
        Whether each ``wav`` must be there. Only its name is looked up;
        `check_clips` looks inside.
    columns : sequence of str
        What every row has.

    Returns
    -------
    list of dict
        One a clip, in the file's order: duration, start, stop are floats,
        channel an int or None, all else str.

    Raises
    ------
    ManifestError
        If anything is wrong: the header, a number, a time, an ID that comes
        twice, a control character, a style that is not allowed, a path that
        leaves data_root, a file that is not there. Lists the first problems
        with their lines.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> _ = path.write_text(
    ...     "ID,duration,wav,start,stop,channel,speaker,style\\n"
    ...     "a,1.5,$data_root/a.wav,0.5,2,1,ann,calm\\n")
    >>> row, = read_manifest(path, data_root="/corpus", is_checked=False)
    >>> row["wav"], row["start"], row["stop"], row["channel"]
    ('/corpus/a.wav', 0.5, 2.0, 1)
    """
    if not os.path.isfile(path):
        raise ManifestError(
            f"{path}: no such manifest; run the preparation of the corpus"
        )
    rows, problems, first_line, is_there = [], [], {}, {}
    for number, cells in _lines(path, columns):
        if None in cells or None in cells.values():
            problems.append(f"line {number}: more or fewer cells than columns")
            continue
        row, wrong = _typed(cells, columns)
        wrong += _unmet(row, data_root, styles, is_checked, is_there)
        first = first_line.setdefault(row["ID"], number)
        if first != number:
            wrong.append(f"the ID {row['ID']} is that of line {first} too")
        problems += [f"line {number}: {text}" for text in wrong]
        rows.append(row)
    refuse(problems, path, "correct these lines or prepare the corpus again")
    return rows


def _lines(path, columns):
    """Gives line number and cells by column for each row of a manifest."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = reader.fieldnames or []
            lines = [(reader.line_num, cells) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path}: not a CSV file in UTF-8 ({error}); prepare the corpus "
            "again"
        ) from error
    if not set(columns) <= set(header) or len(set(header)) < len(header):
        raise ManifestError(
            f"{path}: line 1: the columns are '{','.join(header)}'; a "
            f"manifest has {','.join(columns)} and others, each once"
        )
    return lines


def _unmet(row, data_root, styles, is_checked, is_there):
    """Resolves the wav of a row; gives what the reader's demands find."""
    wrong = []
    if styles is not None and row["style"] not in styles:
        wrong.append(
            f"unknown style '{row['style']}'; allowed: "
            + ", ".join(sorted(styles))
        )
    wav = row["wav"]
    if _ROOT.match(wav):
        if data_root is None:
            wrong.append(
                f"{wav} needs a data_root: give the folder of the corpus"
            )
            return wrong
        rest = _ROOT.sub("", wav)[1:]
        wav = row["wav"] = os.path.join(os.fspath(data_root), rest)
    if is_checked:
        if wav not in is_there:
            is_there[wav] = os.path.isfile(wav)
        if not is_there[wav]:
            wrong.append(f"no such file: {wav}; is data_root right?")
    return wrong


def _typed(cells, columns):
    """Gives a row with numbers for text, and a list of what is wrong."""
    row, wrong = dict(cells), []
    for key in (c for c in columns if c not in _NUMBERS):
        if not row[key]:
            wrong.append(f"no {key}")
        if _CONTROL.search(row[key]):
            wrong.append(f"{key} {row[key]!r} holds a control character")
        elif key != "wav" and row[key] != row[key].strip():
            wrong.append(f"{key} '{row[key]}' begins or ends with a blank")
    if _ROOT.match(row["wav"]) and _is_outside(_ROOT.sub("", row["wav"])[1:]):
        wrong.append(f"{row['wav']} leaves data_root; give the whole path")
    for key in ("duration", "start", "stop"):
        is_number = _NUMBER.fullmatch(row[key])
        row[key] = float(row[key]) if is_number else math.nan
        if not math.isfinite(row[key]):
            wrong.append(f"{key} '{cells[key]}' is not a number of seconds")
    row["channel"] = None
    if _CHANNEL.fullmatch(cells["channel"]):
        row["channel"] = int(cells["channel"])
    elif cells["channel"]:
        wrong.append(
            f"channel '{cells['channel']}' is neither empty nor 0, 1, ..."
        )
    start, stop, duration = row["start"], row["stop"], row["duration"]
    if start < 0 or start >= stop:
        wrong.append(f"start {start:g} and stop {stop:g} are not in order")
    elif abs(stop - start - duration) > DURATION_TOLERANCE:
        wrong.append(
            f"duration {duration:g} is not stop - start = {stop - start:g}"
        )
    return row, wrong


def _is_outside(path):
    """Whether a path, relative to some folder, leads out of it."""
    parts = os.path.normpath(path.replace("\\", "/")).split("/")
    return parts[0] in ("", "..")


def _cell(key, value):
    """A value as text: times with six decimals, None as nothing."""
    if value is None:
        return ""
    if key in ("duration", "start", "stop") and isinstance(value, Real):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def refuse(problems, path, advice):
    """Raises one ManifestError for all problems, if there are any.

    Arguments
    ---------
    problems : list of str
        What is wrong, a line each.
    path : str
        The manifest.
    advice : str
        What to do.
    """
    if not problems:
        return
    shown = [f"  {text}" for text in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"  and {len(problems) - MAX_PROBLEMS} more")
    raise ManifestError(
        f"{path}: {len(problems)} problem(s), {advice}:\n" + "\n".join(shown)
    )


def csv_text(header, lines):
    """Returns a table as CSV, given its header and its lines of cells."""
    text = []
    # A cell is put in quotes if it holds a character that ends lines: both
    # do, although only one is written.
    unix = SimpleNamespace(write=lambda line: text.append(line[:-2] + "\n"))
    writer = csv.writer(unix, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(lines)
    return "".join(text)
