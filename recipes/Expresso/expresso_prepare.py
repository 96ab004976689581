"""From Expresso as downloaded to train.csv, valid.csv, test.csv and
test_read.csv.

Expresso (Nguyen et al. 2023, arXiv 2308.05725, CC BY-NC 4.0) holds about 40
hours of four speakers in 26 styles: sentences and longer texts, read, and
improvised conversations with a channel for each of the two. 19 styles are
used. Sentences are clips as they are; long recordings are cut where the
official list of speech has pauses, each channel by itself.

The official lists put minutes of a recording into the test and the rest of it
into training; these time ranges are kept to, so that no held-out second is
trained on. The speakers are the same in all splits. ``test_read.csv`` is the
part of ``test.csv`` that Kang and Roy (2025) report on: their code passes over
the ranges, which leaves 588 sentences in 7 styles (``show_split.py``).

The manifests are those of `esr_lobes.manifests`, their paths relative to the
corpus folder, with the columns part (read, longform or conversational),
substyle (Expresso's own name of the style), recording and text added.

Authors
 * The esr_lobes contributors
"""

import os
from collections import Counter
from pathlib import Path

from expresso_lists import SPLITS, read_lists, without_ranges
from expresso_speech import cut_speech
from speechbrain.utils.logger import get_logger

from esr_lobes import audio, corpora, manifests, preparation

logger = get_logger(__name__)

TRANSCRIPTIONS = "read_transcriptions.txt"
READ_TEST = "test_read"
READ_TEST_CLIPS = {READ_TEST: 588}
HOURS = {"train.csv + valid.csv + test.csv": 38.1, READ_TEST: 0.6}
"""Kang and Roy (2025), Table I; of the splits only the sum is comparable,
since theirs pass over the time ranges."""

SHORTER = 0.5
"""Seconds by which a recording may end before its last segment."""


def prepare_expresso(
    data_folder,
    save_folder,
    lists_folder=None,
    min_seconds=0.3,
    min_piece_seconds=1.0,
    max_piece_seconds=10.0,
    max_gap_seconds=2.0,
    skip_prep=False,
    progress=True,
):
    """Writes the four manifests, and lists what it left out.

    Any part of the audio may be absent; it is listed in skipped.csv, as are
    files that cannot be used, and what differs from the published counts is
    logged. A second call with the same arguments on the same files does
    nothing; with other arguments it writes anew.

    Arguments
    ---------
    data_folder : str or Path
        The folder that holds ``audio_48khz``; recordings are found by name
        at any depth, as WAV or FLAC of any rate.
    save_folder : str or Path
        Where the manifests go.
    lists_folder : str or Path, optional
        The folder of the official lists (train.txt, dev.txt, test.txt, in it
        or in its ``splits``, and VAD_segments.txt) if not data_folder.
    min_seconds : float
        Shorter sentences are left out.
    min_piece_seconds, max_piece_seconds : float
        How long the pieces of long recordings may be. Speech that goes on
        for longer is cut into equal pieces.
    max_gap_seconds : float
        Segments that are no further apart are joined to one piece, as long
        as it is not too long.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If the lists are not there or damaged, or none of their recordings
        is there.
    AudioError
        If data_folder does not exist or holds no audio.
    """
    if skip_prep:
        return
    if not 0 < min_piece_seconds <= max_piece_seconds:
        raise preparation.PreparationError(
            f"pieces of {min_piece_seconds} to {max_piece_seconds} s cannot "
            "be; give 0 < min_piece_seconds <= max_piece_seconds"
        )
    limits = (min_piece_seconds, max_piece_seconds, max_gap_seconds)
    folders = [folder for folder in (lists_folder, data_folder) if folder]
    # the slash at the end: a folder is meant, a file is not enough
    paths = audio.find_audio(os.path.join(data_folder, ""))
    lists = read_lists(*folders)
    transcriptions = Path(data_folder, TRANSCRIPTIONS)
    files = [*paths, *lists.paths]
    files += [transcriptions] * transcriptions.is_file()
    settings = {
        "corpus": "Expresso",
        "files": preparation.fingerprint(files, data_folder),
        "min_seconds": min_seconds,
        "limits": limits,
    }
    subset_path = Path(save_folder, f"{READ_TEST}.csv")
    is_whole = preparation.is_prepared(save_folder, settings)
    if is_whole and subset_path.is_file():
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return

    listed = {e.name: e for split in lists.entries.values() for e in split}
    wanted, skips = _recordings(paths, listed, data_folder)
    infos, broken = preparation.check_clips(
        sorted(wanted.values()), min_seconds=min_seconds, progress=progress
    )
    skips += broken
    infos = _as_listed(infos, listed, lists.speech, skips)
    texts = read_transcriptions(transcriptions)
    splits, short = {}, []
    for official, split in SPLITS.items():
        splits[split] = []
        for entry in lists.entries[official]:
            info = infos.get(wanted.get(entry.name))
            if info and entry.part == "read":
                row = _sentence(entry, info, data_folder, texts)
                splits[split].append(row)
            elif info:
                rows, dropped = _pieces(
                    entry, info, data_folder, lists.speech, limits
                )
                splits[split] += rows
                short += dropped
    names = set(without_ranges(lists.entries)["test"])
    subset = [row for row in splits["test"] if row["recording"] in names]
    # Its clips are in test.csv as well, so it is no split; it is written
    # last, and its absence makes a run that was broken off start again.
    subset_path.unlink(missing_ok=True)
    preparation.write_splits(save_folder, splits, skips, settings)
    manifests.write_manifest(subset_path, subset)
    if short:
        logger.info(
            f"left out {len(short)} pieces shorter than {min_piece_seconds} "
            f"s, {sum(short) / 60:.1f} minutes in all"
        )
    _report(save_folder, splits, subset, skips)


def _name(path):
    return os.path.splitext(os.path.basename(path))[0]


def _recordings(paths, listed, data_folder):
    """Gives the path of each recording to be used, by its name, and the
    files and names that cannot be."""
    found, skips, n_unlisted, n_unused = {}, [], 0, 0
    for path in paths:
        name = _name(path)
        if name not in listed:
            n_unlisted += 1
        elif not listed[name].used_sides:
            n_unused += 1
        elif found.setdefault(name, path) != path:
            skips.append(preparation.Skip(path, "duplicate", found[name]))
    if n_unlisted:
        logger.info(f"left out {n_unlisted} files that no list names")
    if n_unused:
        logger.info(f"left out {n_unused} files of styles that are not used")
    if not found:
        raise preparation.PreparationError(
            f"{data_folder}: {len(paths)} audio files, none of them named as "
            "the official lists name recordings (ex01_happy_00001.wav); let "
            "data_folder be the folder that holds audio_48khz"
        )
    skips += [
        preparation.Skip(name, "missing", entry.where)
        for name, entry in listed.items()
        if entry.used_sides and name not in found
    ]
    return found, skips


def _as_listed(infos, listed, speech, skips):
    """Leaves out recordings of other length or channels than the lists say;
    their times or speakers could not be trusted."""
    fine = {}
    for path, info in infos.items():
        entry = listed[_name(path)]
        keys = [(entry.name, side.channel) for side in entry.sides]
        ends = [speech[key][-1][1] for key in keys if key in speech]
        last = max(ends, default=0.0)
        if info.channels != len(keys):
            detail = f"{info.channels}, its name says {len(keys)}"
            skips.append(preparation.Skip(path, "other channels", detail))
        elif last - info.seconds > SHORTER:
            detail = f"{info.seconds:.3f} s, speech is listed up to {last} s"
            skips.append(preparation.Skip(path, "shorter than listed", detail))
        else:
            fine[path] = info
    return fine


def read_transcriptions(path):
    """Gives the sentences by recording.

    Arguments
    ---------
    path : Path
        ``read_transcriptions.txt``: name, tab and sentence; emphasised words
        stand between stars.

    Returns
    -------
    dict
        From names to sentences, empty if there is no such file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "read_transcriptions.txt"
    >>> _ = path.write_text("ex01_happy_00001\\t*Sit down*, it's $5.\\n")
    >>> read_transcriptions(path)
    {'ex01_happy_00001': "*Sit down*, it's $ 5."}
    """
    if not path.is_file():
        logger.warning(f"no {path}, so the manifests have no text")
        return {}
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    texts = {}
    for name, _, text in (line.partition("\t") for line in lines):
        # SpeechBrain takes $5 for a placeholder, and no reader wants two
        # blanks
        texts[name.strip()] = " ".join(text.replace("$", "$ ").split())
    return texts


def _sentence(entry, info, data_folder, texts):
    """Gives the row of a sentence, which is a whole file."""
    return _row(entry, entry.sides[0], info, data_folder) | {
        "text": texts.get(entry.name, "")
    }


def _row(entry, side, info, data_folder):
    return corpora.clip_row(
        info,
        data_folder,
        speaker=side.speaker,
        style=side.style,
        part=entry.part,
        substyle=side.substyle,
        recording=entry.name,
        text="",
    )


def _pieces(entry, info, data_folder, speech, limits):
    """Gives the rows of the pieces of a recording that an entry names, and
    the lengths of those that are too short."""
    rows, short = [], []
    for side in entry.used_sides:
        pieces, dropped = cut_speech(
            speech[entry.name, side.channel],
            (entry.start, min(entry.stop, info.seconds)),
            *limits,
        )
        short += [stop - start for start, stop in dropped]
        mark = "" if side.channel is None else f"_ch{side.channel}"
        for start, stop in pieces:
            rows.append(
                _row(entry, side, info, data_folder)
                | {
                    "ID": f"{entry.name}{mark}_{round(1000 * start):07d}",
                    "start": start,
                    "stop": stop,
                    "duration": stop - start,
                    "channel": side.channel,
                }
            )
    return rows, short


def _report(save_folder, splits, subset, skips):
    """Logs what was written, what was left out, and what is not official."""
    corpora.log_splits(save_folder, {**splits, READ_TEST: subset}, skips)
    rows = [row for split in splits.values() for row in split]
    parts = Counter(row["part"] for row in rows).items()
    logger.info(
        "by part: " + ", ".join(f"{count} {part}" for part, count in parts)
    )
    corpora.warn_differences({READ_TEST: len(subset)}, READ_TEST_CLIPS, "clips")
    hours = map(corpora.hours, (rows, subset))
    corpora.warn_differences(
        dict(zip(HOURS, hours, strict=True)), HOURS, "hours"
    )
