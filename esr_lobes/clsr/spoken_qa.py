"""Questions and what they are about, from files as SQuAD's.

Spoken-SQuAD and DRCD are such files. Their paragraphs are read whole, or by
sentences: then what a question is about is the sentence that its answer
begins in. CLSR's figures for the sets it marks with a star are for sentences,
of the first question each: of the 5,351 questions of Spoken-SQuAD's test set
this leaves its 3,884.

Authors
 * The esr_lobes contributors
"""

import bisect
import json
import re
from collections import Counter
from typing import NamedTuple

from speechbrain.utils.logger import get_logger

from esr_lobes.errors import MendableError

logger = get_logger(__name__)

UNITS = ("paragraph", "sentence")
# A full stop ends a sentence before a blank (not in 3.5), those of Chinese
# anywhere; closing quotation marks still belong to it.
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)|[。！？]+[」』”’）]*")


class QuestionFileError(MendableError):
    """A file of questions that is not as SQuAD's are."""


class Context(NamedTuple):
    """What questions are about.

    The id is made of places counted from 0, ``article_paragraph`` or
    ``article_paragraph_sentence``; the latter are the names of
    Spoken-SQuAD's WAV files.
    """

    id: str
    article: str
    text: str


class Question(NamedTuple):
    """A question, the context that answers it, and its answers."""

    id: str
    text: str
    context_id: str
    answers: tuple


def split_sentences(text):
    """Returns the sentences of a transcript, and where each begins.

    Arguments
    ---------
    text : str
        Transcripts as Spoken-SQuAD's, where full stops stand between
        sentences only, or Chinese. (``U.S. law`` would be two.)

    Returns
    -------
    starts : list of int
        Place of each sentence's first mark.
    sentences : list of str
        The sentences; blanks around them are left out.

    Example
    -------
    >>> split_sentences("newton won. it was 3.5 to one.")
    ([0, 12], ['newton won.', 'it was 3.5 to one.'])
    >>> split_sentences("他說：「對。」梵語很古老。")
    ([0, 7], ['他說：「對。」', '梵語很古老。'])
    """
    starts, sentences, begin = [], [], 0
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    for end in [*ends, len(text)]:
        piece = text[begin:end]
        if piece.strip():
            starts.append(begin + len(piece) - len(piece.lstrip()))
            sentences.append(piece.strip())
        begin = end
    return starts, sentences


def read_questions(path, unit="paragraph"):
    """Returns the contexts of a file and the questions about them.

    Arguments
    ---------
    path : str
        JSON in the layout of SQuAD 1.1: ``data``, of articles with
        ``paragraphs``, of which each has a ``context`` and ``qas``.
    unit : str
        What a context is, ``paragraph`` or ``sentence``. A question whose
        answers differ is about the sentence of the first one.

    Returns
    -------
    contexts : list of Context
        All, whether or not a question is about them.
    questions : list of Question
        Those that have an answer; others are counted in the log.

    Raises
    ------
    ValueError
        If there is no such unit.
    QuestionFileError
        If the file is no such JSON, or an answer lies outside its paragraph.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is one of {UNITS}, not {unit!r}")
    contexts, questions, n_unanswered = [], [], 0
    for name, article, paragraph, qas in _paragraphs(path):
        starts, texts = [0], [paragraph]
        ids = [name]
        if unit == "sentence":
            starts, texts = split_sentences(paragraph)
            ids = [f"{name}_{i}" for i in range(len(texts))]
        contexts += [
            Context(i, article, text)
            for i, text in zip(ids, texts, strict=True)
        ]
        for qa in qas:
            if not qa["answers"]:
                n_unanswered += 1
                continue
            start = qa["answers"][0]["answer_start"]
            if not starts or not starts[0] <= start < len(paragraph):
                raise QuestionFileError(
                    f"{path}: the answer to question {qa['id']} begins at "
                    f"{start}, outside its paragraph of {len(paragraph)} "
                    "marks; download the file again"
                )
            place = bisect.bisect_right(starts, start) - 1
            answers = tuple(answer["text"] for answer in qa["answers"])
            questions.append(
                Question(qa["id"], qa["question"], ids[place], answers)
            )
    if n_unanswered:
        logger.warning(f"{path}: left out {n_unanswered} without an answer")
    return contexts, questions


def _paragraphs(path):
    """Yields place, title, text and questions of each paragraph."""
    try:
        with open(path, encoding="utf-8") as file:
            articles = json.load(file)["data"]
        for i, article in enumerate(articles):
            for j, paragraph in enumerate(article["paragraphs"]):
                qas = [
                    {
                        "id": _text(str(qa["id"]).strip() or None),
                        "question": _text(qa["question"]),
                        "answers": [
                            {
                                "text": _text(answer["text"]),
                                "answer_start": int(answer["answer_start"]),
                            }
                            for answer in qa["answers"]
                        ],
                    }
                    for qa in paragraph["qas"]
                ]
                title = _text(article.get("title") or str(i))
                yield f"{i}_{j}", title, _text(paragraph["context"]), qas
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuestionFileError(
            f"{path} is not in the layout of SQuAD 1.1 "
            f"({type(error).__name__}: {error}); download it again"
        ) from error


def _text(value):
    """Returns a value that is text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def refuse_same_ids(path, questions):
    """Raises a QuestionFileError if two questions of a file have one id.

    Arguments
    ---------
    path : str or Path
        The file, for the message.
    questions : list of Question
        From :func:`read_questions`.
    """
    counts = Counter(question.id for question in questions)
    again = [name for name, n in counts.items() if n > 1]
    if again:
        raise QuestionFileError(
            f"{path}: {len(again)} ids of questions come more than once, such "
            f"as {again[0]!r}; download it again"
        )


def one_question_a_context(contexts, questions):
    """Returns contexts that are asked about, with their first question each.

    Arguments
    ---------
    contexts : list of Context
        From :func:`read_questions`.
    questions : list of Question
        Likewise.

    Returns
    -------
    contexts : list of Context
        Those that some question is about, in their order.
    questions : list of Question
        As many, in the same order.

    Example
    -------
    >>> contexts = [Context("0_0", "Sanskrit", "It is old.")]
    >>> questions = [Question(i, "Why?", "0_0", ("So.",)) for i in "ab"]
    >>> kept, asked = one_question_a_context(contexts, questions)
    >>> [question.id for question in asked]
    ['a']
    """
    first = {}
    for question in questions:
        first.setdefault(question.context_id, question)
    kept = [context for context in contexts if context.id in first]
    return kept, [first[context.id] for context in kept]


def count_questions(contexts, questions):
    """Returns how many there are, and what the filter would leave.

    Arguments
    ---------
    contexts : list of Context
        From :func:`read_questions`.
    questions : list of Question
        Likewise.

    Returns
    -------
    dict
        Numbers of ``contexts``, of ``questions``, and of ``asked`` contexts,
        which is what :func:`one_question_a_context` keeps of either.

    Example
    -------
    >>> contexts = [Context("0_0", "", "a"), Context("0_1", "", "b")]
    >>> questions = [Question(i, "Why?", "0_0", ("So.",)) for i in "ab"]
    >>> count_questions(contexts, questions)
    {'contexts': 2, 'questions': 2, 'asked': 1}
    """
    asked = {question.context_id for question in questions}
    return {
        "contexts": len(contexts),
        "questions": len(questions),
        "asked": len(asked),
    }
