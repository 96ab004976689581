"""RAVDESS: from the official layout, and a damaged one, to the manifests.

Authors
 * The esr_lobes contributors
"""

import logging
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile
from conftest import load_recipe

from esr_lobes import manifests, preparation
from esr_lobes.audio import AudioError

prepare_ravdess = load_recipe("RAVDESS/ravdess_prepare.py").prepare_ravdess
STYLES = "angry calm disgusted fearful happy neutral sad surprised".split()


def names_of(actor):
    """The 60 official names of an actor's speech, without suffix."""
    return [
        f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-"
        f"{repetition:02d}-{actor:02d}"
        for emotion in range(1, 9)
        for intensity in (1, 2)
        for statement in (1, 2)
        for repetition in (1, 2)
        if (emotion, intensity) != (1, 2)  # neutral is never strong
    ]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Actors 1 to 6 as downloaded, 360 half-second tones at 48 kHz."""
    folder = tmp_path_factory.mktemp("RAVDESS")
    wave = 0.1 * np.sin(np.arange(24000) * 0.05)
    for actor in range(1, 7):
        (folder / f"Actor_{actor:02d}").mkdir()
        for name in names_of(actor):
            path = folder / f"Actor_{actor:02d}" / f"{name}.wav"
            soundfile.write(path, wave, 48000)
    return folder


@pytest.fixture
def corpus(official, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(official, tmp_path / "corpus")
    return tmp_path / "corpus"


def prepare(data_folder, save_folder, **more):
    """Prepares with test actors 1, 2 and valid actor 3; gives all rows."""
    more = {"test_actors": [1, 2], "valid_actors": [3], **more}
    prepare_ravdess(data_folder, save_folder, progress=False, **more)
    return {
        split: manifests.read_manifest(
            save_folder / f"{split}.csv", data_root=data_folder, styles=STYLES
        )
        for split in ("train", "valid", "test")
    }


def speakers(rows):
    return sorted({row["speaker"] for row in rows})


def test_official_layout(official, tmp_path):
    splits = prepare(official, tmp_path)
    assert {k: len(v) for k, v in splits.items()} == {
        "train": 180,
        "valid": 60,
        "test": 120,
    }
    assert speakers(splits["train"]) == ["Actor_04", "Actor_05", "Actor_06"]
    assert speakers(splits["valid"]) == ["Actor_03"]
    assert speakers(splits["test"]) == ["Actor_01", "Actor_02"]
    counts = Counter(row["style"] for row in splits["train"])
    assert counts == {**dict.fromkeys(STYLES, 24), "neutral": 12}
    assert preparation.read_skips(tmp_path / "skipped.csv") == []

    (row,) = [r for r in splits["test"] if r["ID"] == "03-01-07-02-01-02-02"]
    wav = official / "Actor_02" / "03-01-07-02-01-02-02.wav"
    assert row == {
        "ID": "03-01-07-02-01-02-02",
        "duration": 0.5,
        "wav": str(wav),
        "start": 0.0,
        "stop": 0.5,
        "channel": None,
        "speaker": "Actor_02",
        "style": "disgusted",
        "emotion": "disgust",
        "intensity": "strong",
        "statement": "Kids are talking by the door",
        "repetition": "2",
        "sex": "female",
    }


def test_five_percent_broken(corpus, tmp_path, caplog):
    """18 of 360 clips are broken; the others are used, these are listed."""
    rng = np.random.default_rng(0)
    broken = {}
    for number, path in enumerate(sorted(corpus.rglob("*.wav"))[::20]):
        reason = ["empty", "corrupt", "truncated", "too short", "silent"][
            number % 5
        ]
        if reason == "empty":
            path.write_bytes(b"")
        elif reason == "corrupt":
            path.write_bytes(rng.bytes(3000))
        elif reason == "truncated":
            path.write_bytes(path.read_bytes()[:9000])
        elif reason == "too short":
            soundfile.write(path, np.full(480, 0.1), 48000)
        else:
            soundfile.write(path, np.zeros(24000), 48000)
        broken[str(path)] = reason
    assert len(broken) == 18

    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path)
    used = {row["wav"] for rows in splits.values() for row in rows}
    assert len(used) == 342 and not used & set(broken)
    skips = preparation.read_skips(tmp_path / "skipped.csv")
    assert {skip.path: skip.reason for skip in skips} == broken
    assert "left out 18 files" in caplog.text
    assert "4 empty" in caplog.text and "3 silent" in caplog.text
    assert "Actor_01: 57 usable clips, published are 60 (-3)" in caplog.text


def test_other_files_are_told_apart(official, corpus, tmp_path, caplog):
    actor = corpus / "Actor_04"
    clip = next(actor.glob("03-01-05*.wav"))
    shutil.copy(clip, actor / "03-02-05-01-01-01-04.wav")  # a song
    shutil.copy(clip, actor / "01-01-05-01-01-01-04.wav")  # a film's sound
    shutil.copy(clip, actor / "take two.wav")
    shutil.copy(clip, actor / "03-01-09-01-01-01-04.wav")  # no such emotion
    shutil.copy(clip, actor / "03-01-05-01-01-01-25.wav")  # no such actor
    shutil.copy(clip, actor / f"._{clip.name}")
    # the archive that holds everything twice
    nested = corpus / "audio_speech_actors_01-24" / "Actor_04"
    shutil.copytree(official / "Actor_04", nested)

    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path)
    assert len(splits["train"]) == 180
    skips = preparation.read_skips(tmp_path / "skipped.csv")
    reasons = Counter(skip.reason for skip in skips)
    assert reasons == {"duplicate": 60, "unrecognised name": 3}
    assert "left out 1 songs" in caplog.text
    assert "left out 1 soundtracks of videos" in caplog.text


def test_nested_flac_of_another_rate(tmp_path):
    """Deeper folders, FLAC and upper case suffixes are as good."""
    for actor in (1, 2, 3):
        folder = tmp_path / "in" / "Audio_Speech_Actors_01-24" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.sin(np.arange(8000) * 0.2)
        for name in names_of(actor)[:4]:
            path = folder / f"{name}.FLAC"
            soundfile.write(path, wave, 16000, format="FLAC")
    splits = prepare(
        tmp_path / "in", tmp_path, test_actors=[1], valid_actors=[2]
    )
    assert [len(rows) for rows in splits.values()] == [4, 4, 4]


def test_second_call_does_nothing(corpus, tmp_path, caplog):
    def state():
        return {
            p.name: (p.stat().st_mtime_ns, p.read_bytes())
            for p in sorted(tmp_path.glob("*.*"))
        }

    prepare(corpus, tmp_path)
    first = state()
    with caplog.at_level(logging.INFO):
        prepare(corpus, tmp_path, test_actors=(2, 1))
    assert state() == first
    assert "prepared already, nothing to do" in caplog.text

    splits = prepare(corpus, tmp_path, test_actors=[1])  # other arguments
    assert speakers(splits["test"]) == ["Actor_01"]
    prepare(corpus, tmp_path)
    assert [v[1] for v in state().values()] == [v[1] for v in first.values()]

    shutil.rmtree(corpus / "Actor_06")  # another corpus
    splits = prepare(corpus, tmp_path)
    assert speakers(splits["train"]) == ["Actor_04", "Actor_05"]


def test_actors_not_there(official, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        splits = prepare(official, tmp_path, test_actors=[1, 20])
    assert "test_actors [20] are not in the corpus" in caplog.text
    assert speakers(splits["test"]) == ["Actor_01"]

    save = tmp_path / "other"
    with pytest.raises(ValueError, match=r"no usable clip for test.csv.*\[20"):
        prepare(official, save, test_actors=[20, 21])
    with pytest.raises(ValueError, match="no usable clip for train.csv"):
        prepare(official, save, test_actors=[1, 2, 4, 5, 6])
    assert not save.exists()


def test_splits_may_be_empty_on_purpose(official, tmp_path):
    splits = prepare(official, tmp_path, valid_actors=[])
    assert len(splits["train"]) == 240 and splits["valid"] == []
    splits = prepare(
        official,
        tmp_path,
        valid_actors=[],
        train_actors=[],
        test_actors=range(1, 7),
    )
    assert [len(rows) for rows in splits.values()] == [0, 0, 360]


def test_train_actors(official, tmp_path):
    splits = prepare(official, tmp_path, train_actors=[5])
    assert speakers(splits["train"]) == ["Actor_05"]
    assert [len(rows) for rows in splits.values()] == [60, 60, 120]


@pytest.mark.parametrize(
    "actors, message",
    [
        ({"valid_actors": [2, 3]}, r"\[2\] are in valid_actors and in test"),
        ({"train_actors": [1, 4]}, r"\[1\] are in train_actors and in test"),
        ({"test_actors": [0, 25]}, r"actors 1 to 24, not \[0, 25\]"),
    ],
)
def test_actors_that_make_no_sense(official, tmp_path, actors, message):
    with pytest.raises(ValueError, match=message):
        prepare(official, tmp_path / "out", **actors)
    assert not (tmp_path / "out").exists()


def test_wrong_folders(tmp_path, write_tone):
    save = tmp_path / "out"
    with pytest.raises(AudioError, match="nowhere.* check the path"):
        prepare(tmp_path / "nowhere", save)
    with pytest.raises(AudioError, match="no file in this folder ends in"):
        prepare(tmp_path, save)
    tone = write_tone(tmp_path / "corpus" / "tone.wav")
    with pytest.raises(ValueError, match="the folder that holds Actor_01"):
        prepare(tmp_path / "corpus", save)
    with pytest.raises(AudioError, match="no such file or folder"):
        prepare(tone, save)
    assert not save.exists()


def test_skip_prep(tmp_path):
    prepare_ravdess(tmp_path / "nowhere", tmp_path / "out", skip_prep=True)
    assert not (tmp_path / "out").exists()


def test_real_corpus(shared_data, tmp_path):
    """20 actors with 60 clips each, none of them broken."""
    folder = shared_data / "ravdess"
    prepare_ravdess(folder, tmp_path, progress=False)
    splits = {
        split: manifests.read_manifest(
            tmp_path / f"{split}.csv", data_root=folder, styles=STYLES
        )
        for split in ("train", "valid", "test")
    }
    assert [len(rows) for rows in splits.values()] == [840, 120, 240]
    assert preparation.read_skips(tmp_path / "skipped.csv") == []
    heard = [set(speakers(rows)) for rows in splits.values()]
    assert len(set.union(*heard)) == sum(map(len, heard)) == 20
    hours = sum(r["duration"] for s in splits.values() for r in s) / 3600
    assert 1.1 < hours < 1.4
