"""From SLUE-SQA-5 as downloaded to train, valid, test and test_verified.

SLUE-SQA-5 (Shon et al., 2023, arXiv 2212.10525) has questions of five text
corpora, read by people, and documents of some 40 seconds, cut out of Spoken
Wikipedia. A table a split, ``slue-sqa5_dev.tsv``, stands beside a folder of
the same name::

    slue-sqa5_dev.tsv
    dev/question/<question_id>.wav
    dev/document/<document_id>.wav

Cells are parted by tabs, and quotation marks are part of the text. Of the
columns these are read: ``question_id``, ``normalized_question_text``,
``document_id`` and ``normalized_document_text``.

Authors
 * The esr_lobes contributors
"""

import csv
from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes import corpora, preparation
from esr_lobes.clsr.spoken_qa import Context, Question, QuestionFileError
from esr_lobes.content_parts import Clip, Part, path_below, with_prefix
from esr_lobes.content_preparation import digest, prepare_content

logger = get_logger(__name__)

# What splits are called in the release.
NAMES = {
    "train": "fine-tune",
    "valid": "dev",
    "test": "test",
    "test_verified": "verified-test",
}
NEEDED = ("train", "valid", "test")
QUESTIONS = {"train": 46186, "valid": 1939, "test": 2382}
COLUMNS = (
    "question_id",
    "normalized_question_text",
    "document_id",
    "normalized_document_text",
)
TABLE = "slue-sqa5_{}.tsv"


def prepare_slue_sqa5(
    data_folder,
    save_folder,
    one_question=False,
    questions_in_training=False,
    min_seconds=0.3,
    max_seconds=120.0,
    skip_prep=False,
    progress=True,
):
    """Writes the manifests of the official splits, their questions spoken.

    ``test_verified``, a part of the test that people have checked, is left
    out if it is not there. Clips that cannot be used are listed in
    skipped.csv; the questions that go with them are counted. A second call on
    the same files does nothing.

    Arguments
    ---------
    data_folder : str or Path
        The folder that holds the tables.
    save_folder : str or Path
        Where the manifests go.
    one_question : bool
        Whether only the first question about a document is kept.
    questions_in_training : bool
        Whether the spoken questions are further clips of ``train``, from
        which a recogniser learns.
    min_seconds, max_seconds : float
        Of a clip.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If a table is not there.
    QuestionFileError
        If a table lacks a column or a cell.
    """
    if skip_prep:
        return
    data_folder = Path(data_folder)
    parts, tables = {}, {}
    for split, name in NAMES.items():
        table = data_folder / TABLE.format(name)
        if table.is_file():
            tables[split] = table
            parts[split] = read_part(split, table, data_folder / name)
        elif split in NEEDED:
            raise preparation.PreparationError(
                f"{table} is not there; let data_folder be the folder of the "
                "unpacked slue-sqa5.zip that holds the tables"
            )
    counts = {split: len(parts[split].questions) for split in QUESTIONS}
    corpora.warn_differences(counts, QUESTIONS, "questions")
    _warn_of_shared(parts)
    settings = {
        "corpus": "SLUE-SQA-5",
        "tables": digest(tables.values()),
    }
    prepare_content(
        data_folder,
        save_folder,
        parts,
        settings,
        one_question,
        questions_in_training=questions_in_training,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        progress=progress,
    )


def read_part(split, table, folder):
    """Returns the documents of a split, and the spoken questions on them.

    Arguments
    ---------
    split : str
        Comes before each document's id.
    table : str or Path
        Its table.
    folder : str or Path
        Holds ``question`` and ``document``.

    Returns
    -------
    Part
        Also of files that are not there.

    Raises
    ------
    PreparationError
        If an id cannot name a file.
    QuestionFileError
        If the table lacks a column, or a line has other cells.
    """
    folder, contexts, questions, spoken = Path(folder), {}, {}, {}
    n_again = 0
    for row in _rows(table):
        question, document = row["question_id"], row["document_id"]
        if question in questions:
            n_again += 1
            continue
        contexts.setdefault(
            document, Context(document, document, row[COLUMNS[3]])
        )
        questions[question] = Question(question, row[COLUMNS[1]], document, ())
        spoken[question] = _wav(folder / "question", question)
    if n_again:
        logger.warning(f"{table}: left out {n_again} lines of a question again")
    named, asked = with_prefix(split, contexts.values(), questions.values())
    clips = [
        Clip(new.id, _wav(folder / "document", old), new.id)
        for old, new in zip(contexts, named, strict=True)
    ]
    return Part(named, clips, asked, spoken)


def _wav(folder, name):
    """Returns the file of an id."""
    return str(path_below(folder, f"{name}.wav"))


def _rows(table):
    """Yields the rows of a table, checked."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE
            )
            lacking = set(COLUMNS) - set(reader.fieldnames or [])
            if lacking:
                raise QuestionFileError(
                    f"{table} has no column {', '.join(sorted(lacking))}; "
                    "download it again"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise QuestionFileError(
                        f"{table}: line {reader.line_num} has other cells than "
                        "its header; download it again"
                    )
                yield {key: row[key].strip() for key in COLUMNS}
    except (csv.Error, UnicodeDecodeError) as error:
        raise QuestionFileError(
            f"{table} is not a table in UTF-8 ({error}); download it again"
        ) from error


def _warn_of_shared(parts):
    """Warns if documents that are tested on are trained on, too."""
    trained = {context.text for context in parts["train"].contexts}
    for split, part in parts.items():
        if split == "train":
            continue
        shared = sum(context.text in trained for context in part.contexts)
        if shared:
            logger.warning(
                f"{split}: {shared} of {len(part.contexts)} documents are "
                "those of training"
            )
