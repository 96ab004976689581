"""The splits of a corpus on content before its audio is looked at: which
contexts and questions there are, and which of them are used.

Authors
 * The esr_lobes contributors
"""

import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from speechbrain.utils.logger import get_logger

from esr_lobes.clsr.spoken_qa import count_questions, one_question_a_context
from esr_lobes.preparation import PreparationError

logger = get_logger(__name__)


class Clip(NamedTuple):
    """A file that voices a context."""

    id: str
    path: str
    context_id: str


class Part(NamedTuple):
    """A split before its audio is looked at: contexts, clips that voice them,
    questions about them, and the files of those that are spoken, by id."""

    contexts: list
    clips: list
    questions: list
    spoken: dict = {}


def path_below(folder, name):
    """Returns the path of a file that is named after an id.

    Arguments
    ---------
    folder : str or Path
        Where it lies.
    name : str
        Relative to the folder.

    Returns
    -------
    Path
        Below the folder.

    Raises
    ------
    PreparationError
        If it leads out of the folder, or can be no file's name.

    Example
    -------
    >>> path_below("test", "question/7.wav").as_posix()
    'test/question/7.wav'
    """
    path = Path(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise PreparationError(
            f"the id of {name!r} cannot name a file below {folder}: correct it"
        )
    return Path(folder) / path


def with_prefix(prefix, contexts, questions):
    """Returns contexts and questions whose ids differ from other files'.

    Arguments
    ---------
    prefix : str
        Such as the name of the official split.
    contexts, questions : list
        From :func:`esr_lobes.clsr.spoken_qa.read_questions`.

    Returns
    -------
    contexts, questions : list
        The same with ``prefix_`` before each context's id.
    """
    return (
        [c._replace(id=f"{prefix}_{c.id}") for c in contexts],
        [q._replace(context_id=f"{prefix}_{q.context_id}") for q in questions],
    )


def split_off(part, share, seed):
    """Returns a part without some of its articles, and those.

    Arguments
    ---------
    part : Part
        What is split.
    share : float
        Of its questions, which is reached or just exceeded; 0 takes none.
    seed : int
        Chooses the articles.

    Returns
    -------
    rest, held : Part
        No article is in both.

    Raises
    ------
    PreparationError
        If nothing would be left.
    """
    article_of = {c.id: c.article for c in part.contexts}
    n_questions = Counter(article_of[q.context_id] for q in part.questions)
    articles = sorted(n_questions)
    random.Random(f"valid {seed}").shuffle(articles)
    held, n_held = set(), 0
    while articles and n_held < share * len(part.questions):
        held.add(articles.pop())
        n_held = sum(n_questions[article] for article in held)
    if part.questions and n_held == len(part.questions):
        raise PreparationError(
            f"valid_share {share} leaves no article to train on; give less"
        )
    in_held = {c: article in held for c, article in article_of.items()}
    return tuple(
        Part(
            [c for c in part.contexts if in_held[c.id] == is_held],
            [c for c in part.clips if in_held[c.context_id] == is_held],
            [q for q in part.questions if in_held[q.context_id] == is_held],
            part.spoken,
        )
        for is_held in (False, True)
    )


def select(split, part, one_question, keeps_unasked):
    """Returns what of a part is used, and logs how much that is.

    Arguments
    ---------
    split : str
        Its name, for the log.
    part : Part
        All of it.
    one_question : bool
        Whether only the first question about a context is kept, as in the
        starred sets of Hu et al. (2025).
    keeps_unasked : bool
        Whether contexts that no question is about are kept.

    Returns
    -------
    Part
        Some of it.
    """
    counts = count_questions(part.contexts, part.questions)
    asked, questions = one_question_a_context(part.contexts, part.questions)
    logger.info(
        f"{split}: {counts['questions']} questions about {counts['asked']} of "
        f"{counts['contexts']} contexts"
        + (f"; one a context: {len(questions)}" if one_question else "")
    )
    kept = {context.id for context in asked}
    if keeps_unasked:
        kept.update(context.id for context in part.contexts)
    return Part(
        [context for context in part.contexts if context.id in kept],
        [clip for clip in part.clips if clip.context_id in kept],
        questions if one_question else part.questions,
        part.spoken,
    )
