"""What the preparations of all corpora say at their end, and how the row of
a whole file is made.

Authors
 * The esr_lobes contributors
"""

import os
from collections import Counter

from speechbrain.utils.logger import get_logger

from esr_lobes.preparation import SKIPS_FILE

logger = get_logger(__name__)


def clip_row(info, data_folder, speaker, style, **more):
    """Returns the manifest row of a clip that is a whole file.

    Arguments
    ---------
    info : audio.AudioInfo
        The file, as `preparation.check_clips` found it.
    data_folder : str or Path
        The folder of the corpus; the file lies in it.
    speaker, style : str
        Who speaks, and how.
    **more : dict
        The columns that follow. An ``ID`` replaces the file's name without
        its suffix.

    Returns
    -------
    dict
        As `manifests.write_manifest` takes it.

    Example
    -------
    >>> from esr_lobes.audio import AudioInfo
    >>> info = AudioInfo("ESD/0011/0011_000001.wav", 16000, 1, 2.5)
    >>> row = clip_row(info, "ESD", "0011", "neutral", text="Hello.")
    >>> row["ID"], row["wav"], row["stop"]
    ('0011_000001', '{data_root}/0011/0011_000001.wav', 2.5)
    """
    name = os.path.relpath(info.path, data_folder).replace(os.sep, "/")
    return {
        "ID": os.path.splitext(os.path.basename(info.path))[0],
        "duration": info.seconds,
        "wav": "{data_root}/" + name,
        "start": 0.0,
        "stop": info.seconds,
        "channel": None,
        "speaker": speaker,
        "style": style,
        **more,
    }


def hours(rows):
    """Returns how long the clips of manifest rows are together, in hours.

    Arguments
    ---------
    rows : list of dict
        Rows with a ``duration`` in seconds.

    Returns
    -------
    float

    Example
    -------
    >>> hours([{"duration": 1200.0}, {"duration": 600.0}])
    0.5
    """
    return sum(row["duration"] for row in rows) / 3600


def log_splits(save_folder, splits, skips=()):
    """Logs what is in each split, and what was left out for which reason.

    Arguments
    ---------
    save_folder : str or Path
        Where the manifests and the list of skips are.
    splits : dict
        From the name of a split to its rows.
    skips : list of preparation.Skip
        The files left out.
    """
    for split, rows in splits.items():
        speakers = {row["speaker"] for row in rows}
        styles = {row["style"] for row in rows}
        logger.info(
            f"{split}.csv: {len(rows)} clips, {hours(rows):.2f} h, "
            f"{len(speakers)} speakers, {len(styles)} styles"
        )
    log_skips(save_folder, skips)


def log_skips(save_folder, skips):
    """Logs how many files were left out for which reason.

    Arguments
    ---------
    save_folder : str or Path
        Where the list of skips is.
    skips : list of preparation.Skip
        The files left out; may be empty.
    """
    if skips:
        reasons = Counter(skip.reason for skip in skips).most_common()
        logger.warning(
            f"left out {len(skips)} files ("
            + ", ".join(f"{count} {reason}" for reason, count in reasons)
            + "), listed in "
            + os.path.join(save_folder, SKIPS_FILE)
        )


def warn_differences(counts, published, what):
    """Logs a warning for each count that is not the published one.

    Arguments
    ---------
    counts : dict
        From a name (a speaker, a style, a split) to what was counted; a
        name that is missing counts 0.
    published : dict
        From the same names to the published numbers. They are rounded to
        one decimal at best, so a difference that rounds to 0.0 is none.
    what : str
        What is counted, such as ``clips`` or ``hours``.

    Returns
    -------
    dict
        From the names that differ to the differences, counted - published.

    Example
    -------
    >>> warn_differences({"0011": 1748}, {"0011": 1750, "0012": 1750}, "clips")
    {'0011': -2, '0012': -1750}
    >>> warn_differences({"train": 11.42}, {"train": 11.4}, "hours")
    {}
    """
    differences = {}
    for name in {**published, **counts}:
        count, expected = counts.get(name, 0), published.get(name, 0)
        difference = round(count - expected, 1)
        if difference:
            differences[name] = difference
            count = round(count, 1)
            logger.warning(
                f"{name}: {count} {what}, published are {expected} "
                f"({difference:+})"
            )
    return differences
