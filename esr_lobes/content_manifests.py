"""Manifests of what is said: clips with transcripts, and questions on them.

A clip voices a *context*, which questions are about; a context may be voiced
by several clips. Clips stand in ``<split>.csv``, see
:mod:`esr_lobes.manifests`, with other columns at the end:

==========  ========================================================
context_id  what the clip voices; no context is in two splits
transcript  its words
==========  ========================================================

Questions stand in ``questions_<split>.csv``: ``ID``, ``question``,
``context_id``; where they are spoken, too, ``duration``, ``wav``, ``start``,
``stop`` and ``channel`` follow, as a clip has them.

Authors
 * The esr_lobes contributors
"""

import csv
from pathlib import Path

from esr_lobes.manifests import (
    ManifestError,
    csv_text,
    manifest_text,
    read_manifest,
    refuse,
)

CLIP_COLUMNS = (
    "ID",
    "duration",
    "wav",
    "start",
    "stop",
    "channel",
    "context_id",
    "transcript",
)
QUESTION_COLUMNS = ("ID", "question", "context_id")
SPOKEN_COLUMNS = (
    *QUESTION_COLUMNS,
    "duration",
    "wav",
    "start",
    "stop",
    "channel",
)


def questions_file(split):
    """Returns the name of the table of a split's questions.

    Arguments
    ---------
    split : str
        Such as ``train``.

    Returns
    -------
    str
        The file's name.

    Example
    -------
    >>> questions_file("test")
    'questions_test.csv'
    """
    return f"questions_{split}.csv"


def questions_text(path, rows):
    """Returns the text of a table of questions, or raises a ManifestError.

    Arguments
    ---------
    path : str
        For the message; nothing is written.
    rows : list of dict
        With the keys of ``QUESTION_COLUMNS``, all text, or all with those of
        ``SPOKEN_COLUMNS``, typed as :func:`esr_lobes.manifests.write_manifest`
        takes them.

    Returns
    -------
    str
        CSV, sorted by ID.

    Example
    -------
    >>> row = {"ID": "7", "question": "Why, though?", "context_id": "0_1"}
    >>> print(questions_text("questions_test.csv", [row]).strip())
    ID,question,context_id
    7,"Why, though?",0_1
    """
    if any("wav" in row for row in rows):
        return manifest_text(path, rows, SPOKEN_COLUMNS)
    lines = [[row[key] for key in QUESTION_COLUMNS] for row in rows]
    _refuse_questions(path, lines, "nothing was written")
    return csv_text(QUESTION_COLUMNS, sorted(lines))


def _refuse_questions(path, lines, advice):
    """Raises a ManifestError if IDs repeat, or cells are blank or too many."""
    problems, seen = [], set()
    for number, cells in enumerate(lines, start=2):
        if len(cells) > len(QUESTION_COLUMNS):
            problems.append(f"line {number}: more cells than columns: {cells}")
        if not all(cell.strip() for cell in cells):
            problems.append(f"line {number}: a cell is blank: {cells}")
        if cells[0] in seen:
            problems.append(f"line {number}: the ID {cells[0]} comes twice")
        seen.add(cells[0])
    refuse(problems, path, advice)


def read_questions_table(path, data_root=None, is_checked=True):
    """Returns the questions of a split.

    Arguments
    ---------
    path : str or Path
        ``questions_<split>.csv``.
    data_root : str
        What ``$data_root`` stands for, of spoken questions.
    is_checked : bool
        Whether their files must be there.

    Returns
    -------
    list of dict
        In the file's order; spoken ones with the keys of a clip.

    Raises
    ------
    ManifestError
        If it is not there, or is no such table.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such table of questions; run the preparation of the "
            "corpus"
        )
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, rows = reader.fieldnames or [], list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path}: not a CSV file in UTF-8 ({error}); prepare the corpus "
            "again"
        ) from error
    if tuple(header) == SPOKEN_COLUMNS:
        return read_manifest(
            path, data_root, is_checked=is_checked, columns=SPOKEN_COLUMNS
        )
    if tuple(header) != QUESTION_COLUMNS:
        raise ManifestError(
            f"{path}: line 1: the columns are '{','.join(header)}'; questions "
            f"have {','.join(QUESTION_COLUMNS)}, and spoken ones "
            f"{','.join(SPOKEN_COLUMNS)}"
        )
    lines = [
        [*(row[key] or "" for key in QUESTION_COLUMNS), *row.get(None, ())]
        for row in rows
    ]
    _refuse_questions(path, lines, "prepare the corpus again")
    return [dict(zip(QUESTION_COLUMNS, cells, strict=True)) for cells in lines]


def read_content(folder, split, data_root=None, is_checked=True):
    """Returns the clips of a split and the questions about them.

    Arguments
    ---------
    folder : str or Path
        Where the manifests are.
    split : str
        ``train``, ``valid``, or a test set.
    data_root : str
        What ``$data_root`` stands for.
    is_checked : bool
        Whether each file must be there.

    Returns
    -------
    clips : list of dict
        As :func:`esr_lobes.manifests.read_manifest` gives them.
    questions : list of dict
        With ``ID``, ``question``, ``context_id``, and, where they are spoken,
        ``duration``, ``wav``, ``start``, ``stop``, ``channel``.

    Raises
    ------
    ManifestError
        If a table is broken, or a question is about what no clip voices.
    """
    clips = read_manifest(
        Path(folder) / f"{split}.csv",
        data_root,
        is_checked=is_checked,
        columns=CLIP_COLUMNS,
    )
    path = Path(folder) / questions_file(split)
    questions = read_questions_table(path, data_root, is_checked)
    voiced = {clip["context_id"] for clip in clips}
    refuse(
        [
            f"question {row['ID']} is about {row['context_id']}, which no clip "
            f"of {split}.csv voices"
            for row in questions
            if row["context_id"] not in voiced
        ],
        path,
        "prepare the corpus again",
    )
    return clips, questions
