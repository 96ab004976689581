"""From LibriSQA and LibriSpeech as downloaded to train, valid and test.

Part I of LibriSQA (Zhao et al., 2023, arXiv 2308.10390) has a question and a
free answer to each utterance of LibriSpeech's train-clean-360 and test-clean.
Its files are lists of objects with ``speech_path``, ``text``, ``question`` and
``answer``. What a path ends in is the utterance, ``61-70968-0000.wav``, which
LibriSpeech has as ``61/70968/61-70968-0000.flac``.

Authors
 * The esr_lobes contributors
"""

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from speechbrain.utils.logger import get_logger

from esr_lobes import corpora, preparation
from esr_lobes.clsr.spoken_qa import Context, Question, QuestionFileError
from esr_lobes.content_parts import Clip, Part, split_off
from esr_lobes.content_preparation import digest, prepare_content

logger = get_logger(__name__)

FOLDERS = {"train": "train-clean-360", "test": "test-clean"}
FILE = "LibriSQA-PartI-{split}.json"
QUESTIONS = {"train": 104014, "test": 2620}
UTTERANCE = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+")
FIELDS = ("speech_path", "text", "question")


def prepare_librisqa(
    data_folder,
    save_folder,
    librisqa_folder=None,
    one_question=False,
    valid_share=0.01,
    seed=1986,
    min_seconds=0.3,
    max_seconds=60.0,
    skip_prep=False,
    progress=True,
):
    """Writes train.csv, valid.csv and test.csv with their questions.

    Clips that cannot be used are listed in skipped.csv, those that are not
    there among them; the questions that go with them are counted. A second
    call on the same files does nothing.

    Arguments
    ---------
    data_folder : str or Path
        LibriSpeech: holds ``train-clean-360`` and ``test-clean``.
    save_folder : str or Path
        Where the manifests go.
    librisqa_folder : str or Path, optional
        Holds ``LibriSQA-PartI-train.json`` and ``LibriSQA-PartI-test.json``,
        or a folder that does; by default the ``data_folder``.
    one_question : bool
        Whether only the first question about an utterance is kept.
    valid_share : float
        Of the training questions, in whole speakers.
    seed : int
        Chooses the speakers of ``valid``.
    min_seconds, max_seconds : float
        Of a clip.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If a file or folder is not there.
    QuestionFileError
        If a JSON is not in LibriSQA's layout.
    """
    if skip_prep:
        return
    data_folder = Path(data_folder)
    folder = Path(librisqa_folder or data_folder)
    tables = {split: find_table(folder, split) for split in FOLDERS}
    settings = {
        "corpus": "LibriSQA",
        "json": digest(tables.values()),
        "valid": (valid_share, seed),
    }
    parts = {}
    for split, name in FOLDERS.items():
        if not (data_folder / name).is_dir():
            raise preparation.PreparationError(
                f"{data_folder / name} is not there; let data_folder be the "
                "folder of LibriSpeech that holds train-clean-360 and "
                "test-clean"
            )
        parts[split] = read_part(tables[split], data_folder / name)
    counts = {split: len(part.questions) for split, part in parts.items()}
    corpora.warn_differences(counts, QUESTIONS, "questions")
    train, valid = split_off(parts["train"], valid_share, seed)
    prepare_content(
        data_folder,
        save_folder,
        {"train": train, "valid": valid, "test": parts["test"]},
        settings,
        one_question,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        progress=progress,
    )


def find_table(folder, split):
    """Returns the file of a split, in a folder or one below it.

    Arguments
    ---------
    folder : Path
        Where to look.
    split : str
        ``train`` or ``test``.

    Returns
    -------
    Path
        The first by name.

    Raises
    ------
    PreparationError
        If there is none.
    """
    name = FILE.format(split=split)
    # No deeper: LibriSpeech's hundred thousand files may lie there, too.
    found = [*folder.glob(f"*{name}"), *folder.glob(f"*/*{name}")]
    if not found:
        raise preparation.PreparationError(
            f"no {name} in {folder} or in a folder LibriSQA-PartI there; say "
            "where LibriSQA was downloaded to: --librisqa_folder"
        )
    return min(found)


def read_part(table, folder):
    """Returns the utterances of a file, and the questions on them.

    Arguments
    ---------
    table : str or Path
        A JSON of LibriSQA.
    folder : str or Path
        LibriSpeech's folder of that split.

    Returns
    -------
    Part
        Also utterances that the folder lacks. The article of a context is
        its speaker.

    Raises
    ------
    QuestionFileError
        If the JSON is not in LibriSQA's layout.
    """
    contexts, clips, questions, numbers = {}, {}, [], Counter()
    for record in _records(table):
        name = PurePosixPath(record["speech_path"].replace("\\", "/")).stem
        match = UTTERANCE.fullmatch(name)
        if match is None:
            raise QuestionFileError(
                f"{table}: {record['speech_path']!r} does not end in an "
                "utterance of LibriSpeech, such as 61-70968-0000.wav; "
                "download the file again"
            )
        speaker, chapter = match["speaker"], match["chapter"]
        if name not in contexts:
            # in capitals, which tells a reader nothing
            text = record["text"].lower()
            contexts[name] = Context(name, speaker, text)
            path = Path(folder) / speaker / chapter / f"{name}.flac"
            clips[name] = Clip(name, str(path), name)
        numbers[name] += 1
        number = f"{name}_{numbers[name]}" if numbers[name] > 1 else name
        questions.append(Question(number, record["question"], name, ()))
    return Part(list(contexts.values()), list(clips.values()), questions)


def _records(table):
    """Yields the objects of a file, each with all fields."""
    try:
        with open(table, encoding="utf-8") as file:
            records = json.load(file)
        for record in records:
            yield {field: record[field].strip() for field in FIELDS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuestionFileError(
            f"{table} is not in the layout of LibriSQA, a list of objects "
            f"with {', '.join(FIELDS)} ({type(error).__name__}: {error}); "
            "download it again"
        ) from error
