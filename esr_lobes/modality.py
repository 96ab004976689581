"""How far apart speech and text lie in one space, as numbers.

A map by t-SNE shows whether two clouds mix, not how far they are: it keeps
neighbours and no distances. These numbers belong beside it.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.errors import MendableError
from esr_lobes.metrics import unit_rows

MAX_FOLDS = 5


def modality_gap(clips, prompts):
    """Returns the distance between the mean clip and the mean prompt.

    Arguments
    ---------
    clips : array or torch.Tensor
        Embeddings of clips, of shape [clip, dimension].
    prompts : dict
        Style to embeddings of its prompts, of shape [prompt, dimension].
        Every style counts alike, however many prompts it has.

    Returns
    -------
    float
        From 0 to 2; vectors have length 1 before they are averaged.

    Example
    -------
    >>> modality_gap([[2.0, 0.0]], {"sad": [[-1.0, 0.0]]})
    2.0
    """
    of_text = [rows.mean(axis=0) for rows in _unit_prompts(prompts)]
    apart = unit_rows(clips, "clip").mean(axis=0) - np.mean(of_text, axis=0)
    return float(np.linalg.norm(apart))


def probe_accuracy(clips, clip_styles, prompts):
    """Returns how well a linear probe tells speech from text.

    A logistic regression is fitted on some styles and asked about clips and
    prompts of the others, in turn: what it has learned is a direction that
    holds for all styles, not which prompts it has seen.

    Arguments
    ---------
    clips : array or torch.Tensor
        Embeddings of clips, of shape [clip, dimension].
    clip_styles : list of str
        The style of each clip.
    prompts : dict
        Style to embeddings of its prompts, of shape [prompt, dimension].

    Returns
    -------
    float
        The mean of the shares of clips and of prompts that are told
        rightly, averaged over folds of styles: 1 if the two are apart, 0.5
        if nothing tells them.

    Raises
    ------
    MendableError
        If fewer than two styles have both clips and prompts.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    shared = sorted(set(clip_styles) & set(prompts))
    if len(shared) < 2:
        raise MendableError(
            "to tell speech from text takes clips and prompts of two styles "
            f"or more, not of {', '.join(shared) or 'none'}"
        )
    of_clip = np.array(clip_styles)
    is_shared = np.isin(of_clip, shared)
    speech = unit_rows(clips, "clip")[is_shared]
    text = _unit_prompts({style: prompts[style] for style in shared})
    of_prompt = np.repeat(shared, [len(rows) for rows in text])
    groups = np.concatenate([of_clip[is_shared], of_prompt])
    points = np.concatenate([speech, *text])
    is_text = np.arange(len(points)) >= len(speech)
    scores = cross_val_score(
        # Unit rows have small coordinates: a weak penalty lets them count.
        LogisticRegression(C=100.0, class_weight="balanced", max_iter=2000),
        points,
        is_text,
        groups=groups,
        cv=GroupKFold(min(MAX_FOLDS, len(shared))),
        scoring="balanced_accuracy",
    )
    return float(scores.mean())


def _unit_prompts(prompts):
    """Unit rows of the prompts, style by style in the order of names."""
    return [unit_rows(prompts[style], "prompt") for style in sorted(prompts)]
