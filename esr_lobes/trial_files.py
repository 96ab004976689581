"""Trials as text: a table of clips once, then rows of indices into it.

Authors
 * The esr_lobes contributors
"""

import gzip
import zlib
from itertools import islice
from pathlib import Path

import numpy as np

from esr_lobes.files import replacing
from esr_lobes.trials import Trials, TrialsError, check_names

FORMAT = "esr_lobes trials 1"
ALL_OTHERS = "all others"


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
    >>> from esr_lobes.trials import make_trials
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
    check_names(clip_ids, clip_styles)
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
