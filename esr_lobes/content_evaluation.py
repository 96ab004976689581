"""How good a content retriever is, on contexts it has never heard.

Authors
 * The esr_lobes contributors
"""

import csv
import math
import time
from typing import NamedTuple

import torch

from esr_lobes.cascade.encoder import CascadeEncoder
from esr_lobes.clsr.vocabulary import word_error_rate
from esr_lobes.content_manifests import questions_file, read_content
from esr_lobes.content_metrics import content_recalls, pair_recalls
from esr_lobes.content_reports import (
    BOUND,
    CASCADE,
    LATE,
    QUESTIONS_WER,
    SPOKEN,
    ContentReport,
)
from esr_lobes.datasets import ClipReader
from esr_lobes.late_interaction import score_tokens

SYSTEM = "system"


class Reading(NamedTuple):
    """Clips or texts as a retriever has them: a vector each and, where it
    knows words, vectors of their tokens, the words, and how long it took."""

    vectors: torch.Tensor
    tokens: list | None = None
    texts: list | None = None
    seconds: float = 0.0


def is_content(manifest):
    """Whether a manifest is one of clips with contexts, by its columns.

    Arguments
    ---------
    manifest : str or Path
        A CSV file, or none.

    Returns
    -------
    bool
        False also if there is no such file, or nothing readable in it.
    """
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except (OSError, csv.Error, UnicodeDecodeError):
        return False
    return {"context_id", "transcript"} <= set(header)


def content_sets(run, data_root=None):
    """Returns clips and questions of the test sets of a training.

    Arguments
    ---------
    run : RunFolder
        Of a training on content.
    data_root : str, optional
        Where the corpus lies now, if it has been moved.

    Returns
    -------
    dict
        Pairs by name, the manifest's, such as ``test``; only sets that
        anything is asked about.

    Raises
    ------
    ManifestError
        If a table is broken, or the questions on clips with contexts are not
        there.
    """
    sets = {}
    for corpus, folder in run.corpora.items():
        manifests = run.manifests(corpus)
        for path in sorted(manifests.glob("test*.csv")):
            has_questions = (manifests / questions_file(path.stem)).is_file()
            if has_questions or is_content(path):
                root = data_root or folder
                rows = read_content(manifests, path.stem, root)
                name = f"{corpus}_{path.stem}" if corpus else path.stem
                sets |= {name: rows} if rows[1] else {}
    return sets


def hear_clips(retriever, clips, batch_size=16):
    """Returns what a retriever makes of clips.

    Arguments
    ---------
    retriever : EncoderRetriever
        Of content.
    clips : list of dict
        Rows of a manifest, or of spoken questions.
    batch_size : int
        Most clips a pass; those of like length go together.

    Returns
    -------
    Reading
        In the order of the clips. Reading files does not count in its
        seconds.
    """
    reader = ClipReader()
    order = sorted(range(len(clips)), key=lambda i: clips[i]["duration"])
    heard, seconds = [None] * len(clips), 0.0
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        waves = [
            reader(
                *(clips[i][key] for key in ("wav", "start", "stop", "channel"))
            )
            for i in places
        ]
        started = time.perf_counter()
        parts = _hear(retriever, waves)
        seconds += time.perf_counter() - started
        for i, *row in zip(places, *parts, strict=True):
            heard[i] = row
    vectors, *words = zip(*heard, strict=True)
    return Reading(torch.stack(vectors), *map(list, words))._replace(
        seconds=seconds
    )


def _hear(retriever, waves):
    """Returns vectors on the CPU and, where known, tokens and texts."""
    if not retriever.knows_words:
        return (retriever.encode_batch(waves).cpu(),)
    vectors, tokens, texts = retriever.hear_words(waves)
    return vectors.cpu(), tokens, texts


def read_texts(retriever, texts):
    """Returns what a retriever makes of texts.

    Arguments
    ---------
    retriever : EncoderRetriever
        Of content.
    texts : list of str
        Questions, transcripts or recognised words; an empty one is read as
        a full stop.

    Returns
    -------
    Reading
        With tokens if the retriever knows words.
    """
    texts = [text if text.strip() else "." for text in texts]
    tokens = None
    if retriever.knows_words:
        tokens = retriever.encode_text_tokens(texts)
    return Reading(retriever.encode_text(texts).cpu(), tokens, texts)


def evaluate_content(retriever, clips, questions, name=SYSTEM):
    """Returns how well questions and contexts find each other.

    Beside any retriever stands its own text tower on the true words, the
    upper bound. Beside one that knows words stand a cascade, which is the
    text tower on the words that it recognised (unless it is one itself), and
    late interaction of all of them. Where questions are spoken, too, they
    are asked both ways.

    Arguments
    ---------
    retriever : EncoderRetriever
        Of content.
    clips : list of dict
        Rows of a manifest, from
        :func:`esr_lobes.content_manifests.read_content`.
    questions : list of dict
        Likewise.
    name : str
        What the retriever is called.

    Returns
    -------
    ContentReport
        Percentages: recalls, and a word error rate where words are known. By
        pair only where a context has several questions.
    """
    asked = [row["context_id"] for row in questions]
    contexts = [clip["context_id"] for clip in clips]
    references = [clip["transcript"] for clip in clips]
    written = [row["question"] for row in questions]
    typed, heard = read_texts(retriever, written), hear_clips(retriever, clips)
    compared, cascade, said = {name: (typed, heard)}, None, None
    is_cascade = isinstance(retriever.mods.speech_encoder, CascadeEncoder)
    if heard.texts is not None and not is_cascade:
        cascade = read_texts(retriever, heard.texts)
        compared[CASCADE] = typed, cascade
    compared[BOUND] = typed, read_texts(retriever, references)
    if questions and all(row.get("wav") for row in questions):
        said = hear_clips(retriever, questions)
        compared[name + SPOKEN] = said, heard
        if cascade is not None:
            texts = read_texts(retriever, said.texts)
            compared[CASCADE + SPOKEN] = texts, cascade
    systems, by_pair = {}, {}
    is_shared = len(set(asked)) < len(asked)
    for system, scores in _scored(compared, retriever.device):
        figures = content_recalls(scores, asked, contexts)
        if is_shared:
            by_pair[system] = pair_recalls(scores, asked, contexts)
        if heard.texts is not None and not system.startswith(BOUND):
            figures |= _errors("WER", references, heard.texts)
            if SPOKEN in system:
                figures |= _errors(QUESTIONS_WER, written, said.texts)
        systems[system] = figures
    seconds = sum(clip["duration"] for clip in clips)
    settings = {
        "clips": len(clips),
        "contexts": len(set(contexts)),
        "questions": len(questions),
        "seconds of speech": round(seconds, 1),
        "seconds of encoding": round(heard.seconds, 2),
        "real-time factor": round(heard.seconds / seconds, 5),
        "device": str(retriever.device),
    }
    return ContentReport(settings, systems, by_pair)


def _errors(name, references, hypotheses):
    """Returns the word error rate by its name; none of texts without a word."""
    rate = word_error_rate(references, hypotheses)
    return {} if math.isnan(rate) else {name: rate}


def _scored(compared, device):
    """Yields names of systems and scores of shape [question, clip]."""
    for name, (questions, passages) in compared.items():
        yield name, questions.vectors @ passages.vectors.t()
        if passages.tokens is not None:
            scores = score_tokens(questions.tokens, passages.tokens, device)
            yield name + LATE, scores
