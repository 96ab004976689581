"""Reports of preparations: right sums, every difference named once.

Authors
 * The esr_lobes contributors
"""

import logging

from conftest import row

from esr_lobes import corpora
from esr_lobes.audio import AudioInfo
from esr_lobes.preparation import Skip


def test_splits_are_summed_up(tmp_path, caplog):
    splits = {
        "train": [
            row("a", stop=1800.0),
            row("b", stop=900.0, speaker="bob", style="sad"),
            row("c", start=100.0, stop=1000.0),
        ],
        "test": [],
    }
    skips = [Skip("x", "silent"), Skip("y", "corrupt"), Skip("z", "silent")]
    with caplog.at_level(logging.INFO):
        corpora.log_splits(tmp_path, splits, skips)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "train.csv: 3 clips, 1.00 h, 2 speakers, 2 styles"),
        ("INFO", "test.csv: 0 clips, 0.00 h, 0 speakers, 0 styles"),
        (
            "WARNING",
            "left out 3 files (2 silent, 1 corrupt), listed in "
            f"{tmp_path / 'skipped.csv'}",
        ),
    ]


def test_no_word_on_skips_where_there_are_none(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        corpora.log_splits(tmp_path, {"train": [row("a")]}, [])
    assert len(caplog.records) == 1


def test_one_warning_a_difference(caplog):
    counts = {"ann": 57, "bob": 60, "dan": 3}
    published = {"ann": 60, "bob": 60, "cat": 60}
    with caplog.at_level(logging.INFO):
        found = corpora.warn_differences(counts, published, "clips")
    assert found == {"ann": -3, "cat": -60, "dan": 3}
    assert [r.getMessage() for r in caplog.records] == [
        "ann: 57 clips, published are 60 (-3)",
        "cat: 0 clips, published are 60 (-60)",
        "dan: 3 clips, published are 0 (+3)",
    ]


def test_published_hours_are_rounded(caplog):
    counts = {"train": 11.44, "valid": 0.93, "test": 1.3}
    published = {"train": 11.4, "valid": 0.8, "test": 1.3}
    assert corpora.warn_differences(counts, published, "h") == {"valid": 0.1}
    assert caplog.messages == ["valid: 0.9 h, published are 0.8 (+0.1)"]


def test_row_of_a_file_in_a_folder(tmp_path):
    path = tmp_path / "deep" / "clip 1.flac"
    info = AudioInfo(str(path), 48000, 2, 0.75)
    assert corpora.clip_row(info, tmp_path, "ann", "sad", take=2) == row(
        "clip 1",
        stop=0.75,
        wav="{data_root}/deep/clip 1.flac",
        style="sad",
        take=2,
    )
    named = corpora.clip_row(info, tmp_path, "ann", "sad", ID="deep-1")
    assert named["ID"] == "deep-1"
