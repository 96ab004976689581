"""ESD: both layouts of the release, and damaged ones, to the manifests.

Authors
 * The esr_lobes contributors
"""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import load_recipe
from tiny_corpora import (
    ESD_EMOTIONS,
    ESD_SPLITS,
    esd_numbers,
    write_esd,
)

from esr_lobes import manifests, preparation
from esr_lobes.audio import AudioError

esd = load_recipe("ESD/esd_prepare.py")
STYLES = {"angry", "happy", "neutral", "sad", "surprised"}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Two English speakers and a Mandarin one, flat, 150 tones."""
    folder = tmp_path_factory.mktemp("ESD")
    write_esd(folder, ["0001", "0011", "0020"], is_split=False)
    return folder


@pytest.fixture
def corpus(flat, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(flat, tmp_path / "corpus")
    return tmp_path / "corpus"


def prepare(data_folder, save_folder, **more):
    """Prepares and gives the checked rows of all splits."""
    esd.prepare_esd(data_folder, save_folder, progress=False, **more)
    return {
        split: manifests.read_manifest(
            save_folder / f"{split}.csv", data_root=data_folder, styles=STYLES
        )
        for split in ("train", "valid", "test")
    }


def test_flat_layout(flat, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(flat, tmp_path)
    for split, rows in splits.items():
        expected = [
            f"{speaker}_{number:06d}"
            for speaker in ("0011", "0020")
            for emotion in ESD_EMOTIONS
            for number in esd_numbers(emotion, ESD_SPLITS[split])
        ]
        assert [row["ID"] for row in rows] == expected
        assert {row["speaker"] for row in rows} == {"0011", "0020"}
        counts = Counter(row["style"] for row in rows)
        assert counts == dict.fromkeys(STYLES, 2 * len(ESD_SPLITS[split]))
    assert preparation.read_skips(tmp_path / "skipped.csv") == []
    assert "left out 50 clips of Mandarin speakers" in caplog.text

    (row,) = [r for r in splits["test"] if r["ID"] == "0020_001421"]
    assert row == {
        "ID": "0020_001421",
        "duration": 0.4,
        "wav": str(flat / "0020" / "Surprise" / "0020_001421.wav"),
        "start": 0.0,
        "stop": 0.4,
        "channel": None,
        "speaker": "0020",
        "style": "surprised",
        "emotion": "Surprise",
        "text": "Sentence 21.",
    }


@pytest.mark.parametrize("is_outside", [False, True])
def test_split_layout(flat, tmp_path, caplog, is_outside):
    """With folders of splits, below the emotion or above the speaker."""
    folder = tmp_path / "train" / "ESD"  # what lies above says nothing
    write_esd(folder, ["0011", "0020"], is_split=True)
    if is_outside:
        for path in sorted(folder.rglob("*.wav")):
            speaker, emotion, split, name = path.relative_to(folder).parts
            other = folder / split / speaker / emotion
            other.mkdir(parents=True, exist_ok=True)
            path.rename(other / name)
    with caplog.at_level(logging.INFO):
        splits = prepare(folder, tmp_path / "a")
    flat_splits = prepare(flat, tmp_path / "b")
    for split, rows in splits.items():
        assert [{**r, "wav": ""} for r in rows] == [
            {**r, "wav": ""} for r in flat_splits[split]
        ]
    assert "another split" not in caplog.text


def test_folders_that_contradict_the_esd_numbers(tmp_path, caplog):
    folder = tmp_path / "ESD"
    write_esd(folder, ["0011"], is_split=True)
    happy = folder / "0011" / "Happy"
    (happy / "test" / "0011_000721.wav").rename(
        happy / "train" / "0011_000721.wav"
    )
    splits = prepare(folder, tmp_path / "out")
    assert "0011_000721" in [row["ID"] for row in splits["train"]]
    assert "1 clips lie in the folder of another split" in caplog.text
    assert "0011_000721.wav would be test" in caplog.text


def test_missing_files_move_no_others(corpus, tmp_path, caplog):
    """The first, the 20th and the 21st of an emotion are not there."""
    before = prepare(corpus, tmp_path / "a")
    gone = {f"0011_{number:06d}" for number in esd_numbers("Sad", (1, 20, 21))}
    for name in gone:
        (corpus / "0011" / "Sad" / f"{name}.wav").unlink()
    after = prepare(corpus, tmp_path / "b")
    for split, rows in before.items():
        assert after[split] == [row for row in rows if row["ID"] not in gone]
    assert [len(rows) for rows in after.values()] == [30, 38, 29]
    assert "0011 Sad: 7 usable clips, published are 350 (-343)" in caplog.text
    assert "0012: 0 usable clips, published are 1750 (-1750)" in caplog.text
    assert "train: 0.0 hours, published are 11.4 (-11.4)" in caplog.text


def test_complete_emotion_is_not_warned_about(tmp_path, caplog):
    """350 files of one emotion, split 20, 30 and 300."""
    wave = 0.1 * np.sin(np.arange(4800) * 0.1)
    folder = tmp_path / "ESD" / "0015" / "Angry"
    folder.mkdir(parents=True)
    for number in range(351, 701):
        soundfile.write(folder / f"0015_{number:06d}.wav", wave, 16000)
    splits = prepare(tmp_path / "ESD", tmp_path / "out")
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 300,
        "valid": 20,
        "test": 30,
    }
    assert "0015 Angry" not in caplog.text
    assert "0015 Sad: 0 usable clips, published are 350" in caplog.text
    assert "350 clips have no sentence in a transcript" in caplog.text


def test_broken_and_odd_files_are_listed(corpus, tmp_path, caplog):
    angry = corpus / "0011" / "Angry"
    good = angry / "0011_000352.wav"
    odd = {
        angry / "0011_000370.wav": "empty",
        angry / "0011_000371.wav": "silent",
        angry / "0011_000385.wav": "too short",
        angry / "0011_000400.wav": "truncated",
        angry / "0011_000401 (copy).wav": "unrecognised name",
        angry / "0021_000351.wav": "unrecognised name",
        angry / "0011_001751.wav": "unrecognised name",
        angry / "0011_000021.wav": "wrong emotion",  # a neutral number
        corpus / "0011" / "0011_000360.wav": "no emotion folder",
        corpus / "old" / "Angry" / "0011_000352.wav": "duplicate",
    }
    for path, reason in odd.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if reason == "empty":
            path.write_bytes(b"")
        elif reason == "silent":
            soundfile.write(path, np.zeros(6400), 16000)
        elif reason == "too short":
            soundfile.write(path, np.full(160, 0.1), 16000)
        elif reason == "truncated":
            path.write_bytes(path.read_bytes()[:4000])
        else:
            shutil.copy(good, path)

    splits = prepare(corpus, tmp_path / "out")
    assert sum(map(len, splits.values())) == 96
    skips = preparation.read_skips(tmp_path / "out" / "skipped.csv")
    assert {Path(s.path): s.reason for s in skips} == odd
    assert "left out 10 files" in caplog.text
    assert "21 is a number of Neutral" in [s.detail for s in skips]


TEXT = "Don\N{RIGHT SINGLE QUOTATION MARK}t go, said René."


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("utf-8", TEXT),
        ("utf-8-sig", TEXT),
        ("utf-16", TEXT),  # with a byte order mark
        ("utf-16-le", TEXT),  # without
        ("cp1252", TEXT),
        ("latin-1", "Said René."),
        ("gb2312", "Don\N{RIGHT SINGLE QUOTATION MARK}t go, said Ren."),
        ("ascii", "Said Rene."),
    ],
)
def test_transcripts_in_the_encodings_of_the_release(tmp_path, encoding, text):
    path = tmp_path / "0016.txt"
    lines = [
        f"0016_000001\t{text}\tNeutral",
        "",
        "0016_000351 Parted by blanks. Angry",
        "0016_000352\tNo emotion here.",
        "0016_000353\t Two  blanks,\ttab.\tAngry \t",
        "0016_000354Parted by nothing.Angry",
        "0016_000701\tIt is Happy\tHappy",
        "a line of something else",
    ]
    path.write_bytes("\r\n".join(lines).encode(encoding))
    assert esd.read_transcript(path) == {
        "0016_000001": text,
        "0016_000351": "Parted by blanks.",
        "0016_000352": "No emotion here.",
        "0016_000353": "Two blanks, tab.",
        "0016_000354": "Parted by nothing.",
        "0016_000701": "It is Happy",
    }


def test_second_call_does_nothing(corpus, tmp_path, caplog):
    save = tmp_path / "out"

    def state():
        return {
            p.name: (p.stat().st_mtime_ns, p.read_bytes())
            for p in sorted(save.iterdir())
        }

    prepare(corpus, save)
    first = state()
    with caplog.at_level(logging.INFO):
        prepare(corpus, save)
    assert state() == first
    assert "prepared already, nothing to do" in caplog.text

    # a transcript that was mended is read again
    (corpus / "0011" / "0011.txt").write_text("0011_000051\tNew.\tNeutral\n")
    splits = prepare(corpus, save)
    texts = {row["ID"]: row["text"] for row in splits["train"]}
    assert texts["0011_000051"] == "New." and texts["0011_000200"] == ""
    assert prepare(corpus, save, min_seconds=0.1) == splits


def test_wrong_folders(flat, tmp_path):
    save = tmp_path / "out"
    with pytest.raises(AudioError, match="nowhere.* check the path"):
        prepare(tmp_path / "nowhere", save)
    with pytest.raises(ValueError, match="50 audio files, none.*0011/Angry"):
        prepare(flat / "0001", save)
    with pytest.raises(ValueError, match="the folder that holds 0011/Angry"):
        prepare(flat / "0011" / "Angry", save)
    assert not save.exists()


def test_one_speaker_folder_is_enough(flat, tmp_path):
    splits = prepare(flat / "0020", tmp_path)
    assert [len(rows) for rows in splits.values()] == [15, 20, 15]
    assert splits["valid"][0]["text"] == "Sentence 1."


def test_skip_prep(tmp_path):
    esd.prepare_esd(tmp_path / "nowhere", tmp_path / "out", skip_prep=True)
    assert not (tmp_path / "out").exists()
