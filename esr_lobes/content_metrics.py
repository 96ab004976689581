"""Figures of content retrieval: does a question find its context, and back.

Each question ranks all contexts of a set, and each context all questions, as
CLSR is judged (Hu et al., 2025, https://arxiv.org/abs/2511.09282). Of equal
scores the wrong ones come first: who says the same of everything gains
nothing.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.metrics import as_array

CUTOFFS = (1, 5, 10)


def best_ranks(scores, is_right):
    """Returns at which place the best right answer of each query comes out.

    Arguments
    ---------
    scores : array or torch.Tensor
        Of shape [query, answer]; more is better.
    is_right : array
        Which answers are right, booleans of the same shape; one a query at
        least.

    Returns
    -------
    array
        Whole numbers from 1, of shape [query]. Right answers are not in each
        other's way.

    Raises
    ------
    ValueError
        If shapes differ, a query has no right answer, or a score is not
        finite.

    Example
    -------
    >>> scores = [[0.9, 0.5, 0.7], [0.2, 0.2, 0.1]]
    >>> is_right = [[False, True, True], [True, False, False]]
    >>> best_ranks(scores, is_right).tolist()
    [2, 2]
    """
    scores, is_right = as_array(scores), np.asarray(is_right, dtype=bool)
    if scores.ndim != 2 or scores.shape != is_right.shape:
        raise ValueError(
            f"scores {scores.shape} and is_right {is_right.shape} are not of "
            "one shape [query, answer]"
        )
    if not is_right.any(axis=1).all():
        place = int(np.argmin(is_right.any(axis=1)))
        raise ValueError(f"query number {place} has no right answer")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    best = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~is_right & (scores >= best)).sum(axis=1)


def recalls(ranks, cutoffs=CUTOFFS):
    """Returns which percentage of the queries finds a right answer early.

    Arguments
    ---------
    ranks : array
        From :func:`best_ranks`.
    cutoffs : sequence of int
        How many answers are looked at.

    Returns
    -------
    dict
        Percentages by name, such as ``R@5``.

    Example
    -------
    >>> recalls([1, 3, 7, 12])
    {'R@1': 25.0, 'R@5': 50.0, 'R@10': 75.0}
    """
    ranks = np.asarray(ranks)
    return {f"R@{k}": 100.0 * float(np.mean(ranks <= k)) for k in cutoffs}


def merge_clips(scores, clip_contexts):
    """Returns scores of contexts, of which each is its best clip's.

    Arguments
    ---------
    scores : array or torch.Tensor
        Of shape [question, clip].
    clip_contexts : sequence of str
        The context that each clip voices.

    Returns
    -------
    merged : array
        Of shape [question, context].
    contexts : list of str
        The contexts, in the order in which they come first.

    Example
    -------
    >>> merged, contexts = merge_clips([[0.1, 0.5, 0.3]], ["b", "a", "b"])
    >>> merged.tolist(), contexts
    ([[0.3, 0.5]], ['b', 'a'])
    """
    scores = as_array(scores)
    contexts = list(dict.fromkeys(clip_contexts))
    place = {context: i for i, context in enumerate(contexts)}
    merged = np.full((len(scores), len(contexts)), -np.inf)
    for column, context in enumerate(clip_contexts):
        i = place[context]
        np.maximum(merged[:, i], scores[:, column], out=merged[:, i])
    return merged, contexts


def content_recalls(scores, question_contexts, clip_contexts):
    """Returns how well questions and contexts find each other.

    Judged by contexts: clips of one context count as one, a question is right
    for its context whichever other questions are right too, and contexts that
    nobody asks about are only in the way.

    Arguments
    ---------
    scores : array or torch.Tensor
        Of shape [question, clip].
    question_contexts : sequence of str
        What each question is about.
    clip_contexts : sequence of str
        What each clip voices.

    Returns
    -------
    dict
        Percentages by name: ``Q-C R@1`` (a question ranks contexts), ``C-Q
        R@1`` (a context ranks questions), and so on.

    Example
    -------
    Two questions about x; that about y is lost:

    >>> scores = [[0.9, 0.1], [0.8, 0.2], [0.5, 0.4]]
    >>> figures = content_recalls(scores, ["x", "x", "y"], ["x", "y"])
    >>> round(figures["Q-C R@1"], 1), figures["C-Q R@1"]
    (66.7, 100.0)
    """
    merged, contexts = merge_clips(scores, clip_contexts)
    asked = np.asarray(question_contexts, dtype=object)[:, None]
    is_right = asked == np.asarray(contexts, dtype=object)[None, :]
    is_asked = is_right.any(axis=0)
    by_context = merged.T[is_asked]
    return _both_ways(
        best_ranks(merged, is_right),
        best_ranks(by_context, is_right.T[is_asked]),
    )


def pair_recalls(scores, question_contexts, clip_contexts):
    """Returns the same figures judged by pairs of question and context.

    A context stands as often as there are questions about it, each time with
    one right question; one that nobody asks about is once in the way. Copies
    are told apart by nothing, and so cost places: Q-C and C-Q R@1 are lower
    bounds for who does not say how copies were counted. C-Q R@5 and R@10 are
    none, since here a context weighs as much as it has questions.

    Arguments
    ---------
    scores, question_contexts, clip_contexts
        As for :func:`content_recalls`.

    Returns
    -------
    dict
        As :func:`content_recalls`. Equal to it where no context has several
        questions.

    Example
    -------
    >>> scores = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.4]]
    >>> pair_recalls(scores, ["x", "x", "y"], ["x", "y"])["Q-C R@5"]
    100.0
    """
    merged, contexts = merge_clips(scores, clip_contexts)
    place = {context: i for i, context in enumerate(contexts)}
    absent = [c for c in question_contexts if c not in place]
    if absent:
        raise ValueError(f"no clip voices the context {absent[0]!r}")
    pairs = [place[context] for context in question_contexts]
    unasked = sorted(set(range(len(contexts))) - set(pairs))
    columns = merged[:, pairs + unasked]
    is_right = np.eye(*columns.shape, dtype=bool)
    return _both_ways(
        best_ranks(columns, is_right),
        best_ranks(merged[:, pairs].T, np.eye(len(pairs), dtype=bool)),
    )


def _both_ways(of_questions, of_contexts):
    """Returns recalls of both directions under one name each."""
    ways = {"Q-C": of_questions, "C-Q": of_contexts}
    return {
        f"{way} {name}": value
        for way, ranks in ways.items()
        for name, value in recalls(ranks).items()
    }
