"""Retrieval trials: one clip of a style hidden among clips of other styles.

The protocol is that of Kang and Roy 2025 (arXiv 2508.11187): a number of
trials for each style, each with one target clip of that style, drawn with
replacement over trials, and a number of distractors, drawn without
replacement from the clips of other styles (all of them where there are no
more than asked for). Recall@k is the share of trials whose target is among
the k best scored candidates. A distractor that scores as much as the target
stands before it: ties count against the truth.

Trials are made from sorted clip names and are kept as text, so that they
mean the same on every copy of a corpus.

Authors
 * The esr_lobes contributors
"""

from dataclasses import dataclass, field

import numpy as np

from esr_lobes.errors import MendableError

DEFAULT_KS = (1, 5, 10, 20)
_MAX_CELLS = 20_000_000  # cells of a working table, 1 byte each


class TrialsError(MendableError):
    """Trials that cannot be made, read, or matched with the scores."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Which clip is searched among which, for every style.

    Arguments
    ---------
    clip_ids : tuple of str
        Names of all clips, sorted; the arrays below count in this order.
    clip_styles : tuple of str
        The style of each clip.
    targets : dict
        Style to the clip searched for, int32 of shape [trial].
    distractors : dict
        Style to the clips it is hidden among, int32 of shape
        [trial, distractor] with increasing rows, or None for all clips of
        other styles.
    seed : int
        What the draws started from.
    n_trials : int
        Trials of each style.
    n_distractors : int
        Distractors asked for.
    skipped : dict
        Style to the reason why it has no trials.
    """

    clip_ids: tuple
    clip_styles: tuple
    targets: dict
    distractors: dict
    seed: int
    n_trials: int
    n_distractors: int
    skipped: dict = field(default_factory=dict)

    @property
    def styles(self):
        """The styles that have trials, sorted."""
        return sorted(self.targets)

    def n_candidates(self, style):
        """Returns how many clips are ranked in one trial of a style."""
        if self.distractors[style] is not None:
            return self.distractors[style].shape[1] + 1
        return sum(other != style for other in self.clip_styles) + 1


@dataclass(frozen=True, eq=False)
class TrialResult:
    """Where the targets came out, and the recall that follows.

    Arguments
    ---------
    ranks : dict
        Style to the rank of the target, from 1, int64 of shape [trial].
    recall : dict
        Style to a dict from k to Recall@k.
    macro : dict
        k to the mean of Recall@k over styles.
    """

    ranks: dict
    recall: dict
    macro: dict


def make_trials(rows, n_trials=1000, n_distractors=400, seed=42, styles=None):
    """Returns the trials of a corpus, the same for any order of its rows.

    The draws of a style depend on the seed, the style's name and the clips,
    not on which other styles are asked for.

    Arguments
    ---------
    rows : list of dict
        Manifest rows; `ID` and `style` are used.
    n_trials : int
        Trials of each style.
    n_distractors : int
        Clips of other styles in a trial; all of them if there are no more.
    seed : int
        Start of the draws, 0 or more.
    styles : list of str
        Styles to search for; by default all that the rows have. Clips of
        the rest are distractors all the same.

    Returns
    -------
    Trials
        Styles without a clip or without a distractor are listed in
        `skipped`.

    Raises
    ------
    TrialsError
        If a name occurs twice, a number is too small, or no style is left.

    Example
    -------
    >>> rows = [{"ID": "b", "style": "sad"}, {"ID": "a", "style": "happy"}]
    >>> trials = make_trials(rows, n_trials=3)
    >>> trials.clip_ids, trials.targets["sad"].tolist()
    (('a', 'b'), [1, 1, 1])
    """
    if n_trials < 1 or n_distractors < 1 or seed < 0:
        raise TrialsError(
            "trials need n_trials >= 1, n_distractors >= 1 and seed >= 0, "
            f"not {n_trials}, {n_distractors} and {seed}"
        )
    pairs = sorted((str(row["ID"]), str(row["style"])) for row in rows)
    clip_ids = tuple(clip_id for clip_id, _ in pairs)
    clip_styles = tuple(style for _, style in pairs)
    check_names(clip_ids, clip_styles)
    of_clip = np.array(clip_styles, dtype=object)
    targets, distractors, skipped = {}, {}, {}
    for style in sorted(set(clip_styles) if styles is None else set(styles)):
        own = np.flatnonzero(of_clip == style)
        others = np.flatnonzero(of_clip != style)
        if len(own) == 0:
            skipped[style] = "no clip of this style"
            continue
        if len(others) == 0:
            skipped[style] = "no clip of another style to tell it from"
            continue
        rng = _style_rng(seed, style)
        drawn = rng.integers(0, len(own), size=n_trials)
        targets[style] = own[drawn].astype(np.int32)
        distractors[style] = None
        if len(others) > n_distractors:
            chosen = _draw_sets(rng, len(others), n_distractors, n_trials)
            distractors[style] = others.astype(np.int32)[chosen]
    if not targets:
        reasons = "; ".join(f"{s}: {why}" for s, why in skipped.items())
        raise TrialsError(
            "no style can be searched for "
            f"({reasons or 'there are no clips'}); give clips of at least "
            "two styles"
        )
    return Trials(
        clip_ids,
        clip_styles,
        targets,
        distractors,
        int(seed),
        int(n_trials),
        int(n_distractors),
        skipped,
    )


def evaluate_trials(trials, scores, clip_ids, ks=DEFAULT_KS, styles=None):
    """Ranks every target among its distractors and counts Recall@k.

    Arguments
    ---------
    trials : Trials
        What is searched among what.
    scores : dict
        Style to the score of each clip, of shape [clip]; more is better.
    clip_ids : list of str
        Names of the clips the scores belong to, in their order; clips that
        are in no trial do not matter.
    ks : tuple of int
        Ranks that still count as found.
    styles : list of str
        Styles to evaluate; by default all that have trials.

    Returns
    -------
    TrialResult
        Ranks, Recall@k per style and their mean over styles.

    Raises
    ------
    TrialsError
        If a clip or style of the trials has no score, or a score is not
        finite.

    Example
    -------
    >>> rows = [{"ID": "a", "style": "sad"}, {"ID": "b", "style": "happy"}]
    >>> scores = {"sad": [0.9, 0.1], "happy": [0.5, 0.5]}
    >>> found = evaluate_trials(make_trials(rows), scores, ["a", "b"], (1, 2))
    >>> found.recall["sad"][1], found.recall["happy"][1], found.macro
    (1.0, 0.0, {1: 0.5, 2: 1.0})
    """
    place = {str(clip_id): i for i, clip_id in enumerate(clip_ids)}
    missing = [name for name in trials.clip_ids if name not in place]
    if missing:
        raise TrialsError(
            f"{len(missing)} of the {len(trials.clip_ids)} clips of the "
            f"trials have no score, among them {', '.join(missing[:5])}; "
            "embed them, or make trials for the clips at hand"
        )
    where = np.array([place[name] for name in trials.clip_ids])
    of_clip = np.array(trials.clip_styles, dtype=object)
    ranks = {}
    for style in trials.styles if styles is None else sorted(styles):
        if style not in trials.targets:
            raise TrialsError(
                f"no trials for {style!r}; there are trials for "
                + ", ".join(trials.styles)
            )
        if style not in scores:
            raise TrialsError(
                f"no scores for {style!r}; give them, or name the styles "
                "to evaluate"
            )
        of_style = np.asarray(scores[style])
        if of_style.shape != (len(place),):
            raise TrialsError(
                f"scores of {style!r} have shape {of_style.shape}, but "
                f"there are {len(place)} clip names"
            )
        of_style = of_style[where]
        if not np.isfinite(of_style).all():
            bad = trials.clip_ids[np.flatnonzero(~np.isfinite(of_style))[0]]
            raise TrialsError(
                f"score of clip {bad!r} for {style!r} is not finite"
            )
        ranks[style] = _target_ranks(
            of_style,
            trials.targets[style],
            trials.distractors[style],
            of_clip != style,
        )
    if not ranks:
        raise TrialsError("there is no style to evaluate")
    recall = {style: recall_at(found, ks) for style, found in ranks.items()}
    macro = {
        k: float(np.mean([of_style[k] for of_style in recall.values()]))
        for k in ks
    }
    return TrialResult(ranks, recall, macro)


def recall_at(ranks, ks=DEFAULT_KS):
    """Returns the share of ranks that are at most k, for each k.

    Arguments
    ---------
    ranks : array
        Ranks of the targets, from 1, of shape [trial].
    ks : tuple of int
        Ranks that still count as found.

    Returns
    -------
    dict
        k to a float from 0 to 1.

    Example
    -------
    >>> recall_at([1, 3, 7, 30], ks=(1, 5))
    {1: 0.25, 5: 0.5}
    """
    ranks = np.asarray(ranks)
    return {k: float(np.mean(ranks <= k)) for k in ks}


def _style_rng(seed, style):
    """A generator of draws that belongs to one style by its name."""
    entropy = [seed, *style.encode("utf-8")]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _draw_sets(rng, n, size, n_sets):
    """Draws sets of `size` out of `n` numbers: int64 [set, size], sorted.

    R. Floyd's way of sampling without replacement, one step for all sets at
    once: the step for number j draws from 0 to j and takes j itself if the
    draw is in the set already.
    """
    lasts = np.arange(n - size, n)
    draws = rng.integers(0, lasts + 1, size=(n_sets, size))
    at_once = max(1, _MAX_CELLS // n)
    sets = []
    for start in range(0, n_sets, at_once):
        block = draws[start : start + at_once]
        each = np.arange(len(block))
        is_drawn = np.zeros((len(block), n), dtype=bool)
        for step, last in enumerate(lasts):
            drawn = block[:, step]
            drawn = np.where(is_drawn[each, drawn], last, drawn)
            is_drawn[each, drawn] = True
        sets.append(np.nonzero(is_drawn)[1].reshape(len(block), size))
    return np.concatenate(sets)


def _target_ranks(scores, targets, distractors, is_other):
    """Ranks of the targets from 1, behind every distractor that equals."""
    of_target = scores[targets]
    if distractors is None:
        others = np.sort(scores[is_other])
        below = np.searchsorted(others, of_target, side="left")
        return 1 + len(others) - below
    return 1 + np.count_nonzero(
        scores[distractors] >= of_target[:, None], axis=1
    )


def check_names(clip_ids, clip_styles):
    """Refuses names that occur twice or would break a line of text."""
    if len(set(clip_ids)) < len(clip_ids):
        pairs = zip(clip_ids, clip_ids[1:], strict=False)
        twice = [name for name, following in pairs if name == following]
        raise TrialsError(
            f"clip {twice[0]!r} occurs more than once; every row needs an "
            "ID of its own"
        )
    for name in (*clip_ids, *clip_styles):
        if not name or any(sign in name for sign in "\t\n\r"):
            raise TrialsError(
                f"{name!r} cannot name a clip or style: it is empty or has "
                "a tab or line break"
            )
