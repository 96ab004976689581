"""From IEMOCAP, or a copy of it, to train.csv, valid.csv and test.csv.

IEMOCAP (Busso et al., 2008, https://sail.usc.edu/iemocap) holds 10,039 turns
of ten actors, who play and improvise in five sessions of two. Three layouts
are understood:

official
    ``Session1/dialog/EmoEvaluation/*.txt`` and so on as released, with audio
    at ``Session1/sentences/wav/<dialogue>/<utterance>.wav``;
table
    ``metadata.csv`` with a column of files (``file_name`` or ``file``) and
    one of labels (``major_emotion``, ``emotion`` or ``label``), beside the
    audio or one folder below data_folder, as copies on the hub are kept;
folders
    ``<label>/<utterance>.wav``, at any depth.

Files keep the names of the release (``Ses01F_impro01_M003.wav``), which tell
session and speaker. The nine labels of `STYLES` are used, in the release's
three letters or in the long words of copies; utterances without agreement
among the raters (``xxx``) and with other emotions (``oth``) are not.

Everything is training data unless sessions are held out; the two speakers of
a session are heard in no other. The manifests are those of
`esr_lobes.manifests` with the columns emotion, session, kind (scripted or
improvised), valence, arousal and dominance (1 to 5; empty where unknown).

Authors
 * The esr_lobes contributors
"""

import csv
import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from speechbrain.utils.logger import get_logger

from esr_lobes import audio, corpora, preparation

logger = get_logger(__name__)

N_SESSIONS = 5
STYLES = {
    **dict.fromkeys(("ang", "angry"), "angry"),
    **dict.fromkeys(("hap", "happy"), "happy"),
    **dict.fromkeys(("exc", "excited"), "excited"),
    "sad": "sad",
    **dict.fromkeys(("fru", "frustrated"), "frustrated"),
    **dict.fromkeys(("fea", "fear"), "fearful"),
    **dict.fromkeys(("sur", "surprise"), "surprised"),
    **dict.fromkeys(("dis", "disgust"), "disgusted"),
    **dict.fromkeys(("neu", "neutral"), "neutral"),
}
NOT_USED = frozenset(("oth", "xxx", "other"))
OFFICIAL_CLIPS = {
    "frustrated": 1849,
    "neutral": 1708,
    "angry": 1103,
    "sad": 1084,
    "excited": 1041,
    "happy": 595,
    "surprised": 107,
    "fearful": 40,
    "disgusted": 2,
}
"""Of the release's labels; 7,529, with xxx (2,507) and oth (3) 10,039."""
UTTERANCES = 10039
COPY_HOURS = 12.4
"""Kang and Roy (2025), Table I, for a copy on the hub."""

EXPECTED = (
    "expected are Session1/dialog/EmoEvaluation/*.txt as released, or a "
    "metadata.csv beside audio, or folders named by labels (ang, angry, ...)"
)

_NAME = re.compile(
    r"Ses0(?P<session>[1-5])[FM]_(?P<kind>impro|script)\w*_(?P<sex>[FM])[^_]*"
)
_KINDS = {"impro": "improvised", "script": "scripted"}
_RATING = r"\s*(\d+(?:\.\d*)?)\s*"
_LINE = re.compile(
    r"\[[\d. ]+-[\d. ]+\]\s+(?P<name>\S+)\s+(?P<label>\S+)\s+"
    rf"\[{_RATING},{_RATING},{_RATING}\]\s*"
)


class Utterance(NamedTuple):
    """What a corpus says of a file: path, label, three ratings or None."""

    path: str
    label: str
    ratings: tuple = (None, None, None)


def prepare_iemocap(
    data_folder,
    save_folder,
    valid_sessions=(),
    test_sessions=(),
    min_seconds=0.3,
    skip_prep=False,
    progress=True,
):
    """Writes train.csv, valid.csv and test.csv, and lists what it left out.

    Any part of the corpus may be absent; what differs from the published
    counts is logged. Clips that cannot be used are listed in skipped.csv;
    utterances whose label is not used are counted only. A second call with
    the same arguments on the same files does nothing.

    Arguments
    ---------
    data_folder : str or Path
        The corpus in one of the layouts above, or the folder it lies in.
    save_folder : str or Path
        Where the manifests go.
    valid_sessions, test_sessions : list of int
        Sessions held out, 1 to 5; the others train. An empty list gives a
        manifest without rows.
    min_seconds : float
        Shorter clips are left out.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If no layout is recognised, a session is in two splits or none of 1
        to 5, or a split that should have clips has none.
    """
    if skip_prep:
        return
    wanted = _wanted(valid_sessions, test_sessions)
    utterances, skips, tables, is_official = _utterances(data_folder)
    sources = [*tables, *(u.path for u in utterances)]
    settings = {
        "corpus": "IEMOCAP",
        "files": preparation.fingerprint(
            filter(os.path.lexists, sources), data_folder
        ),
        "min_seconds": min_seconds,
        **wanted,
    }
    if preparation.is_prepared(save_folder, settings):
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return

    clips, odd = _usable(utterances)
    if not clips:
        reasons = Counter(skip.reason for skip in odd)
        raise preparation.PreparationError(
            f"{data_folder}: none of {len(utterances)} utterances can be used "
            f"({dict(reasons)}); files keep the names of the release, such as "
            f"Ses01F_impro01_M003.wav, and labels are {sorted(STYLES)}"
        )
    infos, broken = preparation.check_clips(
        clips, min_seconds=min_seconds, progress=progress
    )
    split_of = {s: split for split in wanted for s in wanted[split]}
    splits = {split: [] for split in wanted}
    for path, info in infos.items():
        row = _row(info, clips[path], data_folder)
        splits[split_of[row["session"]]].append(row)
    _check_filled(splits, wanted, data_folder)
    skips += odd + broken
    preparation.write_splits(save_folder, splits, skips, settings)
    n_utterances = len({utterance.path for utterance in utterances})
    _report(save_folder, splits, skips, n_utterances, is_official)


def _wanted(valid_sessions, test_sessions):
    """Gives the sessions of each split; turns down what makes no sense."""
    try:
        valid = sorted({int(number) for number in valid_sessions})
        test = sorted({int(number) for number in test_sessions})
    except (TypeError, ValueError) as error:
        raise preparation.PreparationError(
            "sessions are lists of whole numbers, not "
            f"{valid_sessions} and {test_sessions}"
        ) from error
    odd = [n for n in valid + test if not 1 <= n <= N_SESSIONS]
    if odd:
        raise preparation.PreparationError(
            f"IEMOCAP has the sessions 1 to {N_SESSIONS}, not {odd}"
        )
    both = sorted(set(valid) & set(test))
    if both:
        raise preparation.PreparationError(
            f"Sessions {both} are in valid_sessions and in test_sessions; "
            "give each to one split, or the figures are not "
            "speaker-independent"
        )
    train = sorted(set(range(1, N_SESSIONS + 1)) - {*valid, *test})
    return {"train": train, "valid": valid, "test": test}


def _utterances(data_folder):
    """Gives utterances, unreadable lines, files of labels, if official."""
    root = Path(data_folder)
    if not root.is_dir():
        raise preparation.PreparationError(f"{root}: no such folder")
    evaluations = _visible(root, "Session[1-5]/dialog/EmoEvaluation/*.txt")
    tables = _visible(root, "metadata.csv")
    if evaluations:
        utterances, skips = _official(evaluations)
    elif tables:
        utterances, skips = _tabled(tables), []
    else:
        utterances, skips = _foldered(root), []
    utterances.sort(key=lambda u: (u.path, u.label))
    return utterances, skips, evaluations or tables, bool(evaluations)


def _visible(root, pattern):
    """Gives the files of a pattern, in the folder or one below it.

    The release holds a hidden "._x" beside many a text x.
    """
    paths = [*root.glob(pattern), *root.glob(f"*/{pattern}")]
    return sorted(path for path in paths if not path.name.startswith("."))


def _official(evaluations):
    """Reads the release's files of labels, one a dialogue."""
    utterances, skips = [], []
    for file in evaluations:
        text = file.read_text(encoding="utf-8", errors="replace")
        wavs = file.parents[2] / "sentences" / "wav" / file.stem
        for number, line in enumerate(text.splitlines(), start=1):
            match = _LINE.fullmatch(line)
            if match:
                path = str(wavs / f"{match['name']}.wav")
                ratings = tuple(float(text) for text in match.groups()[2:])
                utterances.append(Utterance(path, match["label"], ratings))
            elif line.startswith("["):
                detail = f"line {number}: {line}"
                skips.append(
                    preparation.Skip(str(file), "unreadable line", detail)
                )
    return utterances, skips


def _tabled(tables):
    """Reads tables of files and labels."""
    utterances = []
    for table in tables:
        try:
            with open(table, newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise preparation.PreparationError(
                f"{table}: not a CSV file in UTF-8 ({error})"
            ) from error
        columns = list(rows[0]) if rows else []
        file_column = _first_of(("file_name", "file"), columns, table)
        label_column = _first_of(
            ("major_emotion", "emotion", "label"), columns, table
        )
        for row in rows:
            path = os.path.normpath(table.parent / (row[file_column] or ""))
            ratings = (row.get(key) for key in ("EmoVal", "EmoAct", "EmoDom"))
            utterances.append(
                Utterance(path, row[label_column] or "", tuple(ratings))
            )
    return utterances


def _first_of(names, columns, table):
    found = [name for name in names if name in columns]
    if not found:
        raise preparation.PreparationError(
            f"{table}: its columns are {columns}; one of {list(names)} is "
            "needed"
        )
    return found[0]


def _foldered(root):
    """Takes the labels from the names of folders."""
    try:
        paths = audio.find_audio(root)
    except audio.AudioError as error:
        advice = ""
        if any(root.rglob("*.parquet")):
            advice = "; the README says how to unpack parquet files"
        raise preparation.PreparationError(
            f"{root} is not IEMOCAP: {EXPECTED}{advice}"
        ) from error
    known = [
        Utterance(path, label)
        for path in paths
        if (label := Path(path).parent.name).lower() in {*STYLES, *NOT_USED}
    ]
    if not known:
        raise preparation.PreparationError(
            f"{root} is not IEMOCAP ({len(paths)} audio files): {EXPECTED}"
        )
    return known


def _usable(utterances):
    """Gives fields by path for what has a style, and the odd files."""
    clips, skips, first, not_used = {}, [], {}, Counter()
    for utterance in utterances:
        path, label = utterance.path, utterance.label.strip().lower()
        name = os.path.splitext(os.path.basename(path))[0]
        match = _NAME.fullmatch(name)
        if match is None:
            skips.append(preparation.Skip(path, "unrecognised name"))
        elif (other := first.setdefault(name, utterance)) is not utterance:
            skips.append(preparation.Skip(path, "duplicate", other.path))
        elif label in NOT_USED:
            not_used[label] += 1
        elif label not in STYLES:
            skips.append(preparation.Skip(path, "unknown label", label))
        else:
            clips[path] = {
                **match.groupdict(),
                "label": label,
                "ratings": utterance.ratings,
            }
    for label, count in sorted(not_used.items()):
        logger.info(f"left out {count} utterances labelled {label}")
    return clips, skips


def _row(info, fields, data_folder):
    """Gives the manifest row of one clip."""
    valence, arousal, dominance = fields["ratings"]
    return corpora.clip_row(
        info,
        data_folder,
        speaker=f"Ses0{fields['session']}{fields['sex']}",
        style=STYLES[fields["label"]],
        emotion=fields["label"],
        session=int(fields["session"]),
        kind=_KINDS[fields["kind"]],
        valence=valence,
        arousal=arousal,
        dominance=dominance,
    )


def _check_filled(splits, wanted, data_folder):
    for split, rows in splits.items():
        if not rows and wanted[split]:
            raise preparation.PreparationError(
                f"{data_folder}: no usable clip for {split}.csv, which is of "
                f"the sessions {wanted[split]}; fetch them or change "
                "valid_sessions and test_sessions"
            )


def _report(save_folder, splits, skips, n_utterances, is_official):
    """Logs what was written, what was left out, and what is not official."""
    corpora.log_splits(save_folder, splits, skips)
    rows = [row for split in splits.values() for row in split]
    corpora.warn_differences(
        {"in all": n_utterances}, {"in all": UTTERANCES}, "utterances"
    )
    if is_official:
        styles = Counter(row["style"] for row in rows)
        corpora.warn_differences(styles, OFFICIAL_CLIPS, "usable clips")
    else:
        hours = {"in all": corpora.hours(rows)}
        corpora.warn_differences(hours, {"in all": COPY_HOURS}, "hours")
