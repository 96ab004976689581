"""What the preparations of all corpora on content do: check the clips that
voice contexts, and write the manifests.

Authors
 * The esr_lobes contributors
"""

import hashlib
import os
import re
from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes import corpora, preparation
from esr_lobes.clsr.vocabulary import normalize_text
from esr_lobes.content_manifests import (
    CLIP_COLUMNS,
    questions_file,
    questions_text,
)
from esr_lobes.content_parts import select

logger = get_logger(__name__)

TRAIN = "train"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def prepare_content(
    data_folder,
    save_folder,
    parts,
    settings,
    one_question=False,
    unasked_in_training=False,
    questions_in_training=False,
    min_seconds=0.1,
    max_seconds=None,
    progress=True,
):
    """Writes the manifests of a corpus, and lists the clips it left out.

    A clip is left out if it is missing, broken, silent, too short or too
    long, or if its transcript has no word; with it go the questions that then
    nothing answers, which are counted, as are questions without a word. Where
    the questions of a split are spoken, those go that no file says; if none
    is left, all are only written. A second call on the same files does
    nothing.

    Arguments
    ---------
    data_folder : str or Path
        The folder of the corpus; files below it are named from there.
    save_folder : str or Path
        Where the manifests go.
    parts : dict
        A Part by the name of its split.
    settings : dict
        What else the manifests depend on, as JSON can hold it.
    one_question : bool
        See :func:`esr_lobes.content_parts.select`.
    unasked_in_training : bool
        Whether ``train`` has contexts without a question, too: they teach to
        recognise speech.
    questions_in_training : bool
        Likewise its spoken questions, as further clips.
    min_seconds, max_seconds : float
        Of a clip; no maximum: any.
    progress : bool
        Whether to show a bar while files are checked.
    """
    paths = [path for part in parts.values() for path in _files(part)]
    settings = {
        **settings,
        "one_question": one_question,
        "unasked_in_training": unasked_in_training,
        "questions_in_training": questions_in_training,
        "seconds": (min_seconds, max_seconds),
        "clips": len(paths),
        "files": preparation.fingerprint(
            [path for path in paths if os.path.lexists(path)], data_folder
        ),
    }
    if preparation.is_prepared(save_folder, settings):
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return
    used, silent = {}, []
    for split, part in parts.items():
        keeps_unasked = unasked_in_training and split == TRAIN
        used[split], others = _use(split, part, one_question, keeps_unasked)
        silent += others
    infos, skips = _check(used, min_seconds, max_seconds, progress)
    skips += silent
    splits, tables = {}, {}
    for split, part in used.items():
        rows, questions = _rows(part, infos, data_folder)
        if split == TRAIN and questions_in_training:
            rows += [_as_clip(row) for row in questions if "wav" in row]
        name = questions_file(split)
        splits[split] = rows
        tables[name] = questions_text(name, questions)
        _log(split, rows, questions, part)
    preparation.write_splits(
        save_folder, splits, skips, settings, CLIP_COLUMNS, tables
    )
    corpora.log_skips(save_folder, skips)


def _files(part):
    """Returns the files of a part, those of spoken questions last."""
    asked = (part.spoken.get(question.id) for question in part.questions)
    return [*(clip.path for clip in part.clips), *filter(None, asked)]


def _use(split, part, one_question, keeps_unasked):
    """Returns what of a part is used, and the files that say no word."""
    asked = [q for q in part.questions if normalize_text(q.text)]
    skips = [
        preparation.Skip(
            os.fspath(part.spoken[question.id]),
            "no words",
            plain(question.text),
        )
        for question in part.questions
        if question.id in part.spoken and not normalize_text(question.text)
    ]
    if len(asked) < len(part.questions):
        n_lost = len(part.questions) - len(asked)
        logger.warning(f"{split}: left out {n_lost} questions without a word")
    part = part._replace(questions=asked)
    part = select(split, part, one_question, keeps_unasked)
    texts = {context.id: context.text for context in part.contexts}
    clips = []
    for clip in part.clips:
        text = texts[clip.context_id]
        if normalize_text(text):
            clips.append(clip)
        else:
            path = os.fspath(clip.path)
            skips.append(preparation.Skip(path, "no words", plain(text)))
    return part._replace(clips=clips), skips


def _check(parts, min_seconds, max_seconds, progress):
    """Returns what is in each good file, and the others."""
    paths = dict.fromkeys(
        os.fspath(path) for part in parts.values() for path in _files(part)
    )
    infos, skips = preparation.check_clips(
        paths, min_seconds, progress=progress
    )
    for path, info in list(infos.items()):
        if max_seconds is not None and info.seconds > max_seconds:
            detail = f"{info.seconds:.1f} s, at most {max_seconds:g} s wanted"
            skips.append(preparation.Skip(path, "too long", detail))
            del infos[path]
    return infos, skips


def _rows(part, infos, data_folder):
    """Returns the rows of clips and of questions."""
    texts = {context.id: plain(context.text) for context in part.contexts}
    rows = [
        {
            "ID": clip.id,
            **_place(infos[os.fspath(clip.path)], data_folder),
            "context_id": clip.context_id,
            "transcript": texts[clip.context_id].rstrip(".").strip(),
        }
        for clip in part.clips
        if os.fspath(clip.path) in infos
    ]
    voiced = {row["context_id"] for row in rows}
    said = {
        question.id: infos.get(os.fspath(part.spoken.get(question.id, "")))
        for question in part.questions
    }
    is_spoken, questions = any(said.values()), []
    for question in part.questions:
        row = {
            "ID": question.id,
            "question": plain(question.text),
            "context_id": question.context_id,
        }
        if is_spoken:
            if said[question.id] is None:
                continue
            row |= _place(said[question.id], data_folder)
        if question.context_id in voiced:
            questions.append(row)
    return rows, questions


def _place(info, data_folder):
    """Returns where a whole file is, as a manifest says it."""
    row = corpora.clip_row(info, data_folder, "", "")
    if (
        not Path(info.path)
        .resolve()
        .is_relative_to(Path(data_folder).resolve())
    ):
        row["wav"] = os.path.abspath(info.path)
    return {
        key: row[key] for key in ("duration", "wav", "start", "stop", "channel")
    }


def _as_clip(question):
    """Returns a spoken question as a clip that nobody asks about."""
    row = dict(question)
    row["transcript"] = row.pop("question")
    row["ID"] = row["context_id"] = f"question_{row['ID']}"
    return row


def _log(split, rows, questions, part):
    """Logs what became of a part."""
    n_contexts = len({row["context_id"] for row in rows})
    logger.info(
        f"{split}.csv: {n_contexts} contexts, {len(rows)} clips, "
        f"{corpora.hours(rows):.2f} h, {len(questions)} questions"
    )
    n_lost = len(part.questions) - len(questions)
    if n_lost:
        logger.warning(
            f"{split}: left out {n_lost} questions of whose context (or of "
            "themselves) no clip can be used"
        )
    if part.spoken and questions and "wav" not in questions[0]:
        logger.warning(
            f"{split}: no file of a spoken question can be used: its "
            "questions are only written"
        )


def digest(paths):
    """Returns a short name for what is in some files.

    Arguments
    ---------
    paths : iterable of str or Path
        The files, in an order that stays.

    Returns
    -------
    str
        Sixteen hexadecimal digits; when files were written does not count.
    """
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return whole.hexdigest()[:16]


def plain(text):
    """Returns a text that a manifest can hold.

    Arguments
    ---------
    text : str
        A transcript or question.

    Returns
    -------
    str
        Its words with one blank between each two, and one behind each dollar
        sign, which SpeechBrain would else take for a placeholder; a BERT
        reads the same.

    Example
    -------
    >>> plain(" It cost\\t$5.\\n")
    'It cost $ 5.'
    """
    return " ".join(CONTROL.sub(" ", text).replace("$", "$ ").split())
