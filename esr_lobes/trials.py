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

import gzip
import zlib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from esr_lobes.files import replacing

FORMAT = "esr_lobes trials 1"
DEFAULT_KS = (1, 5, 10, 20)
ALL_OTHERS = "all others"
_MAX_CELLS = 20_000_000  # cells of a working table, 1 byte each


class TrialsError(ValueError):
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
    _check_names(clip_ids, clip_styles)
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


def write_trials(path, trials):
    """Writes trials as text, compressed if the name ends in `.gz`.

    The first line has the format and the numbers, then comes a line for
    each clip and, for each style, a line for each trial: the target, then
    its distractors, as places in the list of clips from 0. The file appears
    when it is complete.

    Arguments
    ---------
    path : str
        File to write; its folder is made if needed.
    trials : Trials
        What to write.

    Example
    -------
    >>> import tempfile
    >>> rows = [{"ID": "a", "style": "sad"}, {"ID": "b", "style": "happy"}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_trials(folder + "/t.txt.gz", make_trials(rows, seed=7))
    ...     read_trials(folder + "/t.txt.gz").seed
    7
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if Path(path).suffix == ".gz":
            # Neither time nor name, so that equal trials are equal files.
            with gzip.GzipFile("", "wb", 3, file, mtime=0) as packed:
                packed.writelines(_lines(trials))
        else:
            file.writelines(_lines(trials))


def read_trials(path):
    """Returns the trials of a file that `write_trials` wrote.

    Arguments
    ---------
    path : str
        The file, compressed if its name ends in `.gz`.

    Returns
    -------
    Trials
        Equal to those written.

    Raises
    ------
    TrialsError
        If the file is missing, is not such a file, is cut off, or its
        numbers contradict each other.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="\n") as file:
            trials = _parse(file)
    except FileNotFoundError:
        raise TrialsError(
            f"no trials at {path}; write_trials writes some"
        ) from None
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise TrialsError(
            f"{path} cannot be read ({error}); it may be cut off or not be "
            "text: fetch or make it again"
        ) from error
    except TrialsError as error:
        raise TrialsError(f"{path}: {error}") from error
    return trials


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


def _check_names(clip_ids, clip_styles):
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


def _lines(trials):
    """Yields the file of some trials, in pieces of UTF-8."""
    header = (
        FORMAT,
        f"seed {trials.seed}",
        f"trials {trials.n_trials}",
        f"distractors {trials.n_distractors}",
        f"clips {len(trials.clip_ids)}",
        f"styles {len(trials.targets)}",
        f"skipped {len(trials.skipped)}",
    )
    yield ("\t".join(header) + "\n").encode()
    for pair in zip(trials.clip_ids, trials.clip_styles, strict=True):
        yield ("\t".join(pair) + "\n").encode()
    for style, reason in sorted(trials.skipped.items()):
        yield f"{style}\t{reason}\n".encode()
    words = [str(i) for i in range(len(trials.clip_ids))]
    for style in trials.styles:
        distractors = trials.distractors[style]
        count = ALL_OTHERS if distractors is None else distractors.shape[1]
        yield f"{style}\t{count}\n".encode()
        table = trials.targets[style][:, None]
        if distractors is not None:
            table = np.concatenate([table, distractors], axis=1)
        for row in table.tolist():
            yield (" ".join([words[i] for i in row]) + "\n").encode()


def _parse(file):
    """Reads and checks an open file of trials."""
    first, *fields = file.readline().rstrip("\n").split("\t")
    if first != FORMAT:
        raise TrialsError(
            f"begins with {first[:40]!r} instead of {FORMAT!r}; it is not a "
            "file of trials, or of another version"
        )
    numbers = {}
    for name in ("seed", "trials", "distractors", "clips", "styles", "skipped"):
        word, _, value = (fields.pop(0) if fields else "").partition(" ")
        if word != name or not value.isdecimal():
            raise TrialsError(f"line 1 gives no number for {name!r}")
        numbers[name] = int(value)
    pairs = [_pair(file) for _ in range(numbers["clips"])]
    clip_ids = tuple(clip_id for clip_id, _ in pairs)
    clip_styles = tuple(style for _, style in pairs)
    _check_names(clip_ids, clip_styles)
    if list(clip_ids) != sorted(clip_ids):
        raise TrialsError("its clips are not sorted by name")
    skipped = dict(_pair(file) for _ in range(numbers["skipped"]))
    of_clip = np.array(clip_styles, dtype=object)
    targets, distractors = {}, {}
    for _ in range(numbers["styles"]):
        style, count = _pair(file)
        if count != ALL_OTHERS and not count.isdecimal():
            raise TrialsError(
                f"{style!r} has no number of distractors: {count!r}"
            )
        n_columns = 1 if count == ALL_OTHERS else 1 + int(count)
        table = _table(file, numbers["trials"], n_columns, style)
        _check_table(table, of_clip == style, style)
        targets[style] = table[:, 0].copy()
        distractors[style] = None if n_columns == 1 else table[:, 1:].copy()
    if file.readline():
        raise TrialsError("has more lines than its first line says")
    return Trials(
        clip_ids,
        clip_styles,
        targets,
        distractors,
        numbers["seed"],
        numbers["trials"],
        numbers["distractors"],
        skipped,
    )


def _pair(file):
    """The two fields of the next line."""
    line = file.readline()
    fields = line.rstrip("\n").split("\t")
    if len(fields) != 2:
        raise TrialsError(
            f"a line with two fields was expected, not {line[:60]!r}"
            + ("" if line else ": the file is cut off")
        )
    return fields


def _table(file, n_rows, n_columns, style):
    """The next lines as int32 [row, column]."""
    lines = list(islice(file, n_rows))
    problem = f"{len(lines)} trials of {style!r} instead of {n_rows}"
    if len(lines) == n_rows:
        try:
            table = np.loadtxt(lines, dtype=np.int32, ndmin=2, comments=None)
        except (ValueError, OverflowError) as error:
            raise TrialsError(f"trials of {style!r}: {error}") from error
        if table.shape == (n_rows, n_columns):
            return table
        problem = (
            f"trials of {style!r} have {table.shape[1]} clips instead of "
            f"{n_columns}"
        )
    raise TrialsError(problem)


def _check_table(table, is_own, style):
    """Refuses trials that are not of their style."""
    if table.min() < 0 or table.max() >= len(is_own):
        raise TrialsError(f"a trial of {style!r} names a clip beyond the list")
    if not is_own[table[:, 0]].all():
        raise TrialsError(f"a target of {style!r} is a clip of another style")
    if is_own[table[:, 1:]].any():
        raise TrialsError(f"a distractor of {style!r} is a clip of it")
    if (np.diff(table[:, 1:], axis=1) <= 0).any():
        raise TrialsError(
            f"the distractors of a trial of {style!r} do not increase"
        )
