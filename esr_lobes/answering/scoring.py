"""How good answers are: exact match and F1, as SQuAD has them.

Rajpurkar et al. (2016), https://arxiv.org/abs/1606.05250. Words are what
blanks part, so that the figures say little for Chinese.

Authors
 * The esr_lobes contributors
"""

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text):
    """Returns a text in small letters, without punctuation and articles.

    Arguments
    ---------
    text : str
        An answer.

    Returns
    -------
    str
        Its words, one blank between two.

    Example
    -------
    >>> normalised("The  U.S. Army's answer, a retreat!")
    'us armys answer retreat'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction, answers):
    """Returns whether an answer is one of the right ones.

    Arguments
    ---------
    prediction : str
        What was answered.
    answers : sequence of str
        The right ones.

    Returns
    -------
    float
        1 or 0.

    Example
    -------
    >>> exact_match("the mill.", ["a water mill", "Mill"])
    1.0
    """
    words = normalised(prediction)
    return float(any(words == normalised(answer) for answer in answers))


def f1(prediction, answers):
    """Returns how many words an answer shares with the nearest right one.

    Arguments
    ---------
    prediction : str
        What was answered.
    answers : sequence of str
        The right ones.

    Returns
    -------
    float
        Harmonic mean of precision and recall of its words; of two texts
        without words 1.

    Example
    -------
    One word of two is right, and one of one is found: 2 * .5 * 1 / 1.5.

    >>> round(f1("the old mill", ["a mill"]), 4)
    0.6667
    """
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction, answer):
    said, right = normalised(prediction).split(), normalised(answer).split()
    if not said or not right:
        return float(said == right)
    n_shared = sum((Counter(said) & Counter(right)).values())
    return 2 * n_shared / (len(said) + len(right))


def holds_answer(text, answers):
    """Returns whether the words of a right answer stand in a text.

    Arguments
    ---------
    text : str
        Such as the words of a passage.
    answers : sequence of str
        The right ones.

    Returns
    -------
    bool
        Whether those of one do, in one piece.

    Example
    -------
    >>> holds_answer("They built the old mill.", ["Old mill", "tower"])
    True
    >>> holds_answer("The millstone is old.", ["mill"])
    False
    """
    words = f" {normalised(text)} "
    pieces = [normalised(answer) for answer in answers]
    return any(piece and f" {piece} " in words for piece in pieces)


def mean_scores(predictions, answers):
    """Returns the figures of a set of answers.

    Arguments
    ---------
    predictions : list of str
        What was answered to each question.
    answers : list of sequence of str
        What would be right.

    Returns
    -------
    dict
        ``EM`` and ``F1`` in percent.

    Raises
    ------
    ValueError
        If there are none, or not as many of both.

    Example
    -------
    >>> mean_scores(["the mill", "a tower"], [["mill"], ["old tower"]])["EM"]
    50.0
    """
    if not predictions or len(predictions) != len(answers):
        raise ValueError(
            f"{len(predictions)} answers to {len(answers)} questions give no "
            "figures"
        )
    pairs = list(zip(predictions, answers, strict=True))
    return {
        name: 100.0 * sum(score(p, a) for p, a in pairs) / len(pairs)
        for name, score in (("EM", exact_match), ("F1", f1))
    }
