"""From ESD as downloaded to train.csv, valid.csv and test.csv.

The Emotional Speech Dataset (Zhou et al., 2021, arXiv 2105.14762) holds 350
sentences, spoken in five emotions by ten speakers of English (0011 to 0020)
and ten of Mandarin (0001 to 0010), who are left out here. It lies on disk as
``0011/Angry/0011_000351.wav``, or with one more folder, ``train``,
``evaluation`` or ``test``, below (or above) the emotion.

The numbers of a speaker's files run through the emotions in the order of
`EMOTIONS`, 350 each; of every 350 the first 20 are for validation, the next
30 for the test, the others for training. The number decides, not the place
among the files that happen to be there, so that a missing file moves no other
into another split. All speakers are heard in all splits.

The manifests are those of `esr_lobes.manifests`, their paths relative to the
corpus folder, with the columns emotion and text added.

Authors
 * The esr_lobes contributors
"""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes import audio, corpora, preparation

logger = get_logger(__name__)

SPEAKERS = [f"{number:04d}" for number in range(11, 21)]
SENTENCES = 350
EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
STYLES = {
    "Neutral": "neutral",
    "Angry": "angry",
    "Happy": "happy",
    "Sad": "sad",
    "Surprise": "surprised",
}
SPLIT_FOLDERS = {"train": "train", "evaluation": "valid", "test": "test"}
HOURS = {"train": 11.4, "valid": 0.8, "test": 1.3}
"""Kang and Roy (2025), Table I."""

_NAME = re.compile(r"(?P<speaker>00[012]\d)_(?P<number>\d{6})")
_LINE = re.compile(
    r"\s*(?P<id>\d{4}_\d{6})\s*(?P<text>.*?)"
    rf"\s*(?:{'|'.join(EMOTIONS)})?\s*"
)


def prepare_esd(
    data_folder,
    save_folder,
    min_seconds=0.3,
    skip_prep=False,
    progress=True,
):
    """Writes train.csv, valid.csv and test.csv, and lists what it left out.

    Any part of the corpus may be absent; what differs from the published
    counts is logged. Clips that cannot be used, and files whose names are
    not ESD's, are listed in skipped.csv; the Mandarin half is counted only.
    A second call on the same files does nothing.

    Arguments
    ---------
    data_folder : str or Path
        The folder that holds ``0011`` and so on, at any depth, as WAV or
        FLAC of any rate.
    save_folder : str or Path
        Where the manifests go.
    min_seconds : float
        Shorter clips are left out.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If no clip of an English speaker is there.
    AudioError
        If data_folder does not exist or holds no audio.
    """
    if skip_prep:
        return
    # the slash at the end: a folder is meant, a file is not enough
    paths = audio.find_audio(os.path.join(data_folder, ""))
    transcripts = sorted(
        path
        for path in Path(data_folder).rglob("00[12][0-9].txt")
        if path.stem in SPEAKERS
    )
    settings = {
        "corpus": "ESD",
        "files": preparation.fingerprint([*paths, *transcripts], data_folder),
        "min_seconds": min_seconds,
    }
    if preparation.is_prepared(save_folder, settings):
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return

    clips, skips = _english_clips(paths, data_folder)
    if not clips:
        raise preparation.PreparationError(
            f"{data_folder}: {len(paths)} audio files, none of them of an "
            "English speaker (0011 to 0020) in a folder of an emotion; let "
            "data_folder be the folder that holds 0011/Angry and so on"
        )
    _compare_folders(clips)
    infos, broken = preparation.check_clips(
        clips, min_seconds=min_seconds, progress=progress
    )
    texts = {}
    for path in transcripts:
        texts |= read_transcript(path)
    splits = {split: [] for split in HOURS}
    for path, info in infos.items():
        fields = clips[path]
        row = corpora.clip_row(
            info,
            data_folder,
            speaker=fields["speaker"],
            style=STYLES[fields["emotion"]],
            emotion=fields["emotion"],
            text=texts.get(fields["name"], ""),
        )
        splits[fields["split"]].append(row)
    skips += broken
    preparation.write_splits(save_folder, splits, skips, settings)
    _report(save_folder, splits, skips)


def _english_clips(paths, data_folder):
    """Gives what path and name say, by path, and the odd files."""
    clips, skips, first, n_mandarin = {}, [], {}, 0
    for path in paths:
        name = os.path.splitext(os.path.basename(path))[0]
        folders = os.path.relpath(path, data_folder).split(os.sep)[:-1]
        match = _NAME.fullmatch(name)
        number = int(match["number"]) if match else 0
        emotion = _one_of({e.lower(): e for e in EMOTIONS}, folders)
        if match and "0001" <= match["speaker"] <= "0010":
            n_mandarin += 1
        elif (
            match is None
            or match["speaker"] not in SPEAKERS
            or not 1 <= number <= SENTENCES * len(EMOTIONS)
        ):
            skips.append(preparation.Skip(path, "unrecognised name"))
        elif emotion is None:
            skips.append(preparation.Skip(path, "no emotion folder"))
        elif emotion != (named := EMOTIONS[(number - 1) // SENTENCES]):
            detail = f"{number} is a number of {named}"
            skips.append(preparation.Skip(path, "wrong emotion", detail))
        elif first.setdefault(name, path) != path:
            skips.append(preparation.Skip(path, "duplicate", first[name]))
        else:
            official = official_split(number)
            clips[path] = {
                "name": name,
                "speaker": match["speaker"],
                "emotion": emotion,
                "official": official,
                "split": _one_of(SPLIT_FOLDERS, folders) or official,
            }
    if n_mandarin:
        logger.info(f"left out {n_mandarin} clips of Mandarin speakers")
    return clips, skips


def _one_of(values, folders):
    """Gives the value of the innermost folder that has one, else None."""
    found = [values[f.lower()] for f in folders if f.lower() in values]
    return found[-1] if found else None


def official_split(number):
    """Tells which split a clip belongs to, by the number in its name.

    Arguments
    ---------
    number : int
        1 to 1750; 350 for each emotion.

    Returns
    -------
    str
        valid for the first 20 of 350, test for the next 30, else train.

    Example
    -------
    >>> [official_split(number) for number in (20, 21, 50, 51, 350, 351)]
    ['valid', 'test', 'test', 'train', 'train', 'valid']
    """
    place = (number - 1) % SENTENCES
    return "valid" if place < 20 else "test" if place < 50 else "train"


def _compare_folders(clips):
    """Warns if folders named by splits do not hold the official numbers."""
    moved = [p for p, f in sorted(clips.items()) if f["split"] != f["official"]]
    if moved:
        fields = clips[moved[0]]
        logger.warning(
            f"{len(moved)} clips lie in the folder of another split than "
            f"their number says ({moved[0]} would be {fields['official']}); "
            "the folders are followed, so figures are not comparable"
        )


def read_transcript(path):
    """Gives the sentences of one speaker by clip.

    The lines are clip, sentence and emotion, parted by tabs; some of the
    release are parted by blanks, by nothing, or lack the emotion. Other lines
    are passed over.

    Arguments
    ---------
    path : str or Path
        Such as ``0011/0011.txt``, in any of the encodings of the release.

    Returns
    -------
    dict
        From names such as 0011_000001 to sentences.

    Example
    -------
    >>> path = getfixture("tmp_path") / "0011.txt"
    >>> text = "0011_000001\\tAll smile.\\tNeutral\\n0011_000002 It rained.\\n"
    >>> _ = path.write_bytes(text.encode("utf-16"))
    >>> read_transcript(path)
    {'0011_000001': 'All smile.', '0011_000002': 'It rained.'}
    """
    texts = {}
    for line in _decoded(Path(path).read_bytes()).splitlines():
        match = _LINE.fullmatch(line)
        if match:
            text = unicodedata.normalize("NFKC", match["text"])
            texts[match["id"]] = " ".join(text.split())
    return texts


def _decoded(content):
    """Gives the text of a file in one of the encodings of the release."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    if content[1::2].count(0) > len(content) / 4:  # Latin text, no mark
        return content.decode("utf-16-le", errors="replace")
    # GB 2312 takes high bytes in pairs only, so it turns down Windows' own
    for encoding in ("utf-8-sig", "gb2312", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _report(save_folder, splits, skips):
    """Logs what was written, what was left out, and what is not official."""
    corpora.log_splits(save_folder, splits, skips)
    rows = [row for split in splits.values() for row in split]
    present = {row["speaker"] for row in rows}
    published = {}
    for speaker in SPEAKERS:
        if speaker in present:
            published |= {f"{speaker} {e}": SENTENCES for e in EMOTIONS}
        else:
            published[speaker] = SENTENCES * len(EMOTIONS)
    counts = Counter(f"{row['speaker']} {row['emotion']}" for row in rows)
    corpora.warn_differences(counts, published, "usable clips")
    hours = {split: corpora.hours(rows) for split, rows in splits.items()}
    corpora.warn_differences(hours, HOURS, "hours")
    n_unwritten = sum(not row["text"] for row in rows)
    if n_unwritten:
        logger.warning(f"{n_unwritten} clips have no sentence in a transcript")
