"""IEMOCAP: the release and copies of it, and damaged ones, to manifests.

Authors
 * The esr_lobes contributors
"""

import csv
import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import load_recipe
from tiny_corpora import (
    IEMOCAP_LABELS,
    iemocap_utterances,
    write_iemocap,
    write_tone,
)

from esr_lobes import manifests, preparation

iemocap = load_recipe("IEMOCAP/iemocap_prepare.py")
STYLE_OF = {
    "ang": "angry",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "fru": "frustrated",
    "fea": "fearful",
    "sur": "surprised",
    "dis": "disgusted",
    "neu": "neutral",
}
LONG = {
    **STYLE_OF,
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "xxx": "xxx",
    "oth": "other",
}
SHORT = {label: label for label in IEMOCAP_LABELS}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Sessions 1 to 5 as released, 110 tones, with what lies beside."""
    folder = tmp_path_factory.mktemp("in") / "IEMOCAP_full_release"
    write_iemocap(folder)
    return folder


@pytest.fixture
def corpus(release, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(release, tmp_path / "corpus")
    return tmp_path / "corpus"


def prepare(data_folder, save_folder, **more):
    """Prepares and gives the checked rows of all splits."""
    iemocap.prepare_iemocap(data_folder, save_folder, progress=False, **more)
    return {
        split: manifests.read_manifest(
            save_folder / f"{split}.csv",
            data_root=data_folder,
            styles=set(STYLE_OF.values()),
        )
        for split in ("train", "valid", "test")
    }


def test_release(release, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(release, tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 90,
        "valid": 0,
        "test": 0,
    }
    counts = Counter(row["style"] for row in splits["train"])
    assert counts == dict.fromkeys(STYLE_OF.values(), 10)
    assert len({row["speaker"] for row in splits["train"]}) == 10
    assert preparation.read_skips(tmp_path / "skipped.csv") == []
    assert "left out 10 utterances labelled oth" in caplog.text
    assert "left out 10 utterances labelled xxx" in caplog.text
    assert "in all: 110 utterances, published are 10039" in caplog.text
    assert "angry: 10 usable clips, published are 1103" in caplog.text
    assert "hours, published" not in caplog.text

    # the speaker is not the one whose name the dialogue has
    name = "Ses03M_script01_1b_F001"
    (row,) = [row for row in splits["train"] if row["ID"] == name]
    wav = f"Session3/sentences/wav/Ses03M_script01_1b/{name}.wav"
    assert row == {
        "ID": name,
        "duration": 0.4,
        "wav": str(release / wav),
        "start": 0.0,
        "stop": 0.4,
        "channel": None,
        "speaker": "Ses03F",
        "style": "happy",
        "emotion": "hap",
        "session": "3",
        "kind": "scripted",
        "valence": "2.5",
        "arousal": "3.0",
        "dominance": "1.6667",
    }


def test_published_counts_add_up():
    assert sum(iemocap.OFFICIAL_CLIPS.values()) + 2507 + 3 == iemocap.UTTERANCES
    assert set(iemocap.OFFICIAL_CLIPS) == set(STYLE_OF.values())


def test_folder_above_the_release(release, tmp_path):
    splits = prepare(release.parent, tmp_path)
    assert len(splits["train"]) == 90


def test_sessions_held_out(release, tmp_path):
    splits = prepare(release, tmp_path, valid_sessions=[4], test_sessions=[5])
    speakers = {
        split: sorted({row["speaker"] for row in rows})
        for split, rows in splits.items()
    }
    assert speakers["valid"] == ["Ses04F", "Ses04M"]
    assert speakers["test"] == ["Ses05F", "Ses05M"]
    assert [len(rows) for rows in splits.values()] == [54, 18, 18]


@pytest.mark.parametrize(
    "sessions, message",
    [
        ({"valid_sessions": [1, 2], "test_sessions": [2]}, r"\[2\] are in va"),
        ({"test_sessions": [0, 6]}, r"sessions 1 to 5, not \[0, 6\]"),
        ({"test_sessions": ["five"]}, "whole numbers"),
    ],
)
def test_sessions_that_make_no_sense(release, tmp_path, sessions, message):
    with pytest.raises(ValueError, match=message):
        prepare(release, tmp_path / "out", **sessions)
    assert not (tmp_path / "out").exists()


def test_sessions_that_are_not_there(corpus, tmp_path):
    shutil.rmtree(corpus / "Session5")
    assert len(prepare(corpus, tmp_path / "a")["train"]) == 72
    with pytest.raises(ValueError, match=r"no usable clip for test.csv.*\[5\]"):
        prepare(corpus, tmp_path / "b", test_sessions=[5])
    with pytest.raises(ValueError, match=r"for train.csv.*\[5\]"):
        prepare(corpus, tmp_path / "b", test_sessions=[1, 2, 3, 4])
    assert not (tmp_path / "b").exists()


def test_all_may_be_test(release, tmp_path):
    splits = prepare(release, tmp_path, test_sessions=range(1, 6))
    assert [len(rows) for rows in splits.values()] == [0, 0, 90]


def write_table(folder, columns):
    """Copies the corpus as a table of files and long labels."""
    rows = []
    for session in range(1, 6):
        for _, name, label in iemocap_utterances(session):
            write_tone(folder / "wavs" / f"{name}.wav")
            values = [f"wavs/{name}.wav", LONG[label], "2.5", "3.0", ""]
            rows.append(values[: len(columns)])
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.mark.parametrize("depth", ["", "train"])
@pytest.mark.parametrize(
    "columns",
    [
        ["file_name", "major_emotion", "EmoVal", "EmoAct", "EmoDom"],
        ["file", "emotion"],
    ],
)
def test_copy_with_a_table(release, tmp_path, caplog, columns, depth):
    folder = tmp_path / "copy" / depth
    folder.mkdir(parents=True)
    write_table(folder, columns)
    with caplog.at_level(logging.INFO):
        rows = prepare(tmp_path / "copy", tmp_path / "a")["train"]
    expected = prepare(release, tmp_path / "b")["train"]
    for key in ("ID", "speaker", "style", "session", "kind"):
        assert [row[key] for row in rows] == [row[key] for row in expected]
    rated = ("2.5", "3.0", "") if "EmoVal" in columns else ("", "", "")
    found = {(r["valence"], r["arousal"], r["dominance"]) for r in rows}
    assert found == {rated}
    assert {row["emotion"] for row in rows} == {LONG[x] for x in STYLE_OF}
    assert "left out 10 utterances labelled other" in caplog.text
    assert "in all: 0.0 hours, published are 12.4" in caplog.text


@pytest.mark.parametrize(
    "names", [LONG, {label: label for label in IEMOCAP_LABELS}]
)
def test_copy_with_a_folder_for_each_label(release, tmp_path, caplog, names):
    folder = tmp_path / "copy" / "all"
    for session in range(1, 6):
        for _, name, label in iemocap_utterances(session):
            write_tone(folder / names[label] / f"{name}.wav")
    write_tone(tmp_path / "copy" / "noise" / "hum.wav")  # no label, left alone
    rows = prepare(tmp_path / "copy", tmp_path / "a", test_sessions=[2])
    expected = prepare(release, tmp_path / "b", test_sessions=[2])
    for split, found in rows.items():
        for key in ("ID", "speaker", "style"):
            assert [row[key] for row in found] == [
                row[key] for row in expected[split]
            ]
    assert "in all: 110 utterances, published" in caplog.text


def test_broken_and_odd_ones_are_listed(corpus, tmp_path):
    wavs = corpus / "Session1" / "sentences" / "wav" / "Ses01F_impro05a"
    labels = corpus / "Session1" / "dialog" / "EmoEvaluation"
    (wavs / "Ses01F_impro05a_F000.wav").unlink()
    (wavs / "Ses01F_impro05a_M001.wav").write_bytes(b"")
    with open(labels / "Ses01F_impro05a.txt", "a") as file:
        file.write("[1.0 - 2.0]\tSes01F_impro05a_F000\n")
        file.write("[1.0 - 2.0]\tSes01F_impro05a_F000\tsad\t[1.0.0, 2, 3]\n")
        for name, label in (
            ("Ses01F_impro05a_F002", "neu"),  # is there with exc
            ("Ses01F_impro05a_F900", "fun"),
            ("Ses09F_impro05a_F900", "sad"),
        ):
            file.write(f"[1.0 - 2.0]\t{name}\t{label}\t[1.0, 2.0, 3.0]\n")

    splits = prepare(corpus, tmp_path / "out")
    assert len(splits["train"]) == 88
    skips = preparation.read_skips(tmp_path / "out" / "skipped.csv")
    assert [s.reason for s in skips].count("unreadable line") == 2
    assert {(Path(s.path).stem, s.reason) for s in skips} == {
        ("Ses01F_impro05a_F000", "missing"),
        ("Ses01F_impro05a_M001", "empty"),
        ("Ses01F_impro05a", "unreadable line"),
        ("Ses01F_impro05a_F002", "duplicate"),
        ("Ses01F_impro05a_F900", "unknown label"),
        ("Ses09F_impro05a_F900", "unrecognised name"),
    }


def test_second_call_does_nothing(corpus, tmp_path, caplog):
    save = tmp_path / "out"

    def state():
        return {
            p.name: (p.stat().st_mtime_ns, p.read_bytes())
            for p in sorted(save.iterdir())
        }

    lost = corpus / "Session1/sentences/wav/Ses01F_impro05a"
    lost = lost / "Ses01F_impro05a_F000.wav"
    content = lost.read_bytes()
    lost.unlink()
    prepare(corpus, save, test_sessions=[2, 1])
    first = state()
    with caplog.at_level(logging.INFO):
        prepare(corpus, save, test_sessions=(1, 2))
    assert state() == first
    assert "prepared already, nothing to do" in caplog.text

    lost.write_bytes(content)  # fetched after all
    assert len(prepare(corpus, save, test_sessions=[1, 2])["test"]) == 36
    assert prepare(corpus, save)["test"] == []


def test_wrong_folders(tmp_path, write_tone):
    save = tmp_path / "out"
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere", save)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="Session1/dialog/EmoEvaluation"):
        prepare(empty, save)
    (empty / "train-00000.parquet").touch()
    with pytest.raises(ValueError, match="README says how to unpack parquet"):
        prepare(empty, save)
    write_tone(tmp_path / "tones" / "a.wav")
    with pytest.raises(ValueError, match="1 audio files.*or a metadata.csv"):
        prepare(tmp_path / "tones", save)
    table = tmp_path / "tones" / "metadata.csv"
    table.write_text("file_name,mood\na.wav,angry\n")
    with pytest.raises(ValueError, match="one of .*'major_emotion'"):
        prepare(tmp_path / "tones", save)
    table.write_bytes("file_name,emotion\nä.wav,angry\n".encode("latin-1"))
    with pytest.raises(ValueError, match="metadata.csv: not a CSV file"):
        prepare(tmp_path / "tones", save)
    table.write_text("file_name,emotion\na.wav,angry\n")
    with pytest.raises(ValueError, match="none of 1 .*'unrecognised name': 1"):
        prepare(tmp_path / "tones", save)
    assert not save.exists()


def test_skip_prep(tmp_path):
    nowhere = tmp_path / "nowhere"
    iemocap.prepare_iemocap(nowhere, tmp_path / "out", skip_prep=True)
    assert not (tmp_path / "out").exists()
