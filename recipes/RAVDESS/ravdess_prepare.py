"""From RAVDESS as downloaded to train.csv, valid.csv and test.csv.

RAVDESS (Livingstone and Russo 2018, https://zenodo.org/records/1188976,
CC BY-NC-SA 4.0) holds 1,440 spoken clips of 24 actors in 8 expressions.
``Audio_Speech_Actors_01-24.zip`` unpacks to ``Actor_NN/`` with names such as
``03-01-05-02-01-01-12.wav``: modality, vocal channel, emotion, intensity,
statement, repetition and actor, as two digits each.

A split is a set of actors, so nobody is heard both in training and in test.
The manifests are those of `esr_lobes.manifests`, their paths relative to the
corpus folder, with the columns emotion, intensity, statement, repetition and
sex added.

Authors
 * The esr_lobes contributors
"""

import os
import re
from collections import Counter

from speechbrain.utils.logger import get_logger

from esr_lobes import audio, corpora, preparation

logger = get_logger(__name__)

N_ACTORS = 24
CLIPS_PER_ACTOR = 60

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STYLES = {**EMOTIONS, "07": "disgusted"}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {
    "01": "Kids are talking by the door",
    "02": "Dogs are sitting by the door",
}

_NAME = re.compile(
    r"(?P<modality>0[1-3])-(?P<vocal_channel>0[12])-(?P<emotion>0[1-8])-"
    r"(?P<intensity>0[12])-(?P<statement>0[12])-(?P<repetition>0[12])-"
    r"(?P<actor>[0-2]\d)"
)


def prepare_ravdess(
    data_folder,
    save_folder,
    valid_actors=(17, 18),
    test_actors=(1, 2, 3, 4),
    train_actors=None,
    min_seconds=0.3,
    skip_prep=False,
    progress=True,
):
    """Writes train.csv, valid.csv and test.csv, and lists what it left out.

    Any of the actors may be absent. Clips that cannot be used, and files
    whose names are not RAVDESS's, are logged and listed in skipped.csv; songs
    and pictures are counted only. A second call with the same arguments on
    the same files does nothing; with other arguments it writes anew.

    Arguments
    ---------
    data_folder : str or Path
        The folder that holds ``Actor_01`` and so on, at any depth, as WAV or
        FLAC of any rate.
    save_folder : str or Path
        Where the manifests go.
    valid_actors, test_actors : list of int
        The actors of these splits, 1 to 24. An empty list gives a manifest
        without rows.
    train_actors : list of int, optional
        The actors to train on; by default all others that are there. With
        [] all may be test actors.
    min_seconds : float
        Shorter clips are left out.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    ValueError
        If an actor is in two splits or none of 1 to 24, or a split that
        should have clips has none.
    AudioError
        If data_folder does not exist or holds no audio.
    """
    if skip_prep:
        return
    wanted = {
        "train": None if train_actors is None else _actors(train_actors),
        "valid": _actors(valid_actors),
        "test": _actors(test_actors),
    }
    _check_disjoint(wanted)
    # the slash at the end: a folder is meant, a file is not enough
    paths = audio.find_audio(os.path.join(data_folder, ""))
    settings = {
        "corpus": "RAVDESS",
        "files": preparation.fingerprint(paths, data_folder),
        "min_seconds": min_seconds,
        **wanted,
    }
    if preparation.is_prepared(save_folder, settings):
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return

    clips, skips = _speech_clips(paths)
    if not clips:
        raise preparation.PreparationError(
            f"{data_folder}: {len(paths)} audio files, none of them named "
            "as RAVDESS names speech (03-01-05-02-01-01-12.wav); let "
            "data_folder be the folder that holds Actor_01"
        )
    split_of = _split_of({fields["actor"] for fields in clips.values()}, wanted)
    clips = {p: f for p, f in clips.items() if f["actor"] in split_of}
    infos, broken = preparation.check_clips(
        clips, min_seconds=min_seconds, progress=progress
    )
    splits = {split: [] for split in wanted}
    for path, info in infos.items():
        row = _row(info, clips[path], data_folder)
        splits[split_of[clips[path]["actor"]]].append(row)
    _check_filled(splits, wanted, data_folder)
    skips += broken
    preparation.write_splits(save_folder, splits, skips, settings)
    _report(save_folder, splits, skips, split_of)


def _actors(actors):
    """The actors as sorted ints; turns down what RAVDESS does not have."""
    try:
        numbers = sorted({int(actor) for actor in actors})
    except (TypeError, ValueError) as error:
        raise preparation.PreparationError(
            f"actors are whole numbers, not {list(actors)}"
        ) from error
    odd = [number for number in numbers if not 1 <= number <= N_ACTORS]
    if odd:
        raise preparation.PreparationError(
            f"RAVDESS has the actors 1 to {N_ACTORS}, not {odd}"
        )
    return numbers


def _check_disjoint(wanted):
    names = list(wanted)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            both = sorted(set(wanted[name] or ()) & set(wanted[other] or ()))
            if both:
                raise preparation.PreparationError(
                    f"Actors {both} are in {name}_actors and in "
                    f"{other}_actors; give each actor to one split, or the "
                    "figures are not speaker-independent"
                )


def _speech_clips(paths):
    """Gives the name's fields by path for spoken audio, and the odd files."""
    clips, skips, other, first = {}, [], Counter(), {}
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        match = _NAME.fullmatch(stem)
        if match is None or not 1 <= int(match["actor"]) <= N_ACTORS:
            skips.append(preparation.Skip(path, "unrecognised name"))
        elif match["vocal_channel"] != "01":
            other["songs"] += 1
        elif match["modality"] != "03":
            other["soundtracks of videos"] += 1
        elif first.setdefault(stem, path) != path:
            skips.append(preparation.Skip(path, "duplicate", first[stem]))
        else:
            clips[path] = {**match.groupdict(), "actor": int(match["actor"])}
    for what, count in sorted(other.items()):
        logger.info(f"left out {count} {what}")
    return clips, skips


def _split_of(present, wanted):
    """Gives the split by actor; says which actors were not found."""
    for split, actors in wanted.items():
        absent = sorted(set(actors or ()) - present)
        if absent:
            logger.warning(f"{split}_actors {absent} are not in the corpus")
    held_out = {*wanted["valid"], *wanted["test"]}
    training = wanted["train"]
    if training is None:
        training = present - held_out
    split_of = dict.fromkeys(training, "train")
    for split in ("valid", "test"):
        split_of.update(dict.fromkeys(wanted[split], split))
    return {actor: split_of[actor] for actor in sorted(present & {*split_of})}


def _speaker(actor):
    return f"Actor_{actor:02d}"


def _row(info, fields, data_folder):
    """Gives the manifest row of one clip."""
    return corpora.clip_row(
        info,
        data_folder,
        speaker=_speaker(fields["actor"]),
        style=STYLES[fields["emotion"]],
        emotion=EMOTIONS[fields["emotion"]],
        intensity=INTENSITIES[fields["intensity"]],
        statement=STATEMENTS[fields["statement"]],
        repetition=int(fields["repetition"]),
        sex="male" if fields["actor"] % 2 else "female",
    )


def _check_filled(splits, wanted, data_folder):
    for split, rows in splits.items():
        if not rows and wanted[split] != []:
            raise preparation.PreparationError(
                f"{data_folder}: no usable clip for {split}.csv; fetch its "
                f"actors ({wanted[split] or 'all not held out'}) or change "
                "train_actors, valid_actors and test_actors to some that "
                "are there"
            )


def _report(save_folder, splits, skips, split_of):
    """Logs what was written, what was left out, and what is not official."""
    corpora.log_splits(save_folder, splits, skips)
    corpora.warn_differences(
        Counter(r["speaker"] for rows in splits.values() for r in rows),
        {_speaker(actor): CLIPS_PER_ACTOR for actor in split_of},
        "usable clips",
    )
