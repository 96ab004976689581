"""Preparation: broken files are listed, and nothing is left half done.

Authors
 * The esr_lobes contributors
"""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import row

from esr_lobes import manifests, preparation
from esr_lobes.manifests import ManifestError
from esr_lobes.preparation import Skip


def test_skips_come_back(tmp_path):
    path = tmp_path / "skipped.csv"
    skips = [
        Skip("z.wav", "silent"),
        Skip("a, b.wav", "too short", '0.01 s, "short"'),
        Skip("bad\udcff.wav", "corrupt"),  # a name that is not UTF-8
    ]
    preparation.write_skips(path, skips)
    assert preparation.read_skips(path) == [skips[1], skips[2], skips[0]]
    preparation.write_skips(path, [])
    assert preparation.read_skips(path) == []


def test_check_clips_parts_good_from_bad(tmp_path, write_tone):
    good = [write_tone(tmp_path / f"{i}.flac", hertz=200 + i) for i in range(9)]
    short = write_tone(tmp_path / "short.wav", seconds=0.2)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    corrupt = tmp_path / "corrupt.wav"
    corrupt.write_text("not audio")
    paths = [short, *good[:4], silent, *good[4:], corrupt, tmp_path / "gone"]

    infos, skips = preparation.check_clips(
        paths, min_seconds=0.3, n_workers=3, progress=False
    )
    assert list(infos) == [str(path) for path in good]
    assert {info.seconds for info in infos.values()} == {1.0}
    assert [(Path(skip.path).name, skip.reason) for skip in skips] == [
        ("short.wav", "too short"),
        ("silent.wav", "silent"),
        ("corrupt.wav", "corrupt"),
        ("gone", "missing"),
    ]


def test_splits_know_how_they_were_made(tmp_path):
    folder = tmp_path / "manifests"
    splits = {"train": [row("a"), row("b")], "valid": [], "test": [row("c")]}
    settings = {"actors": (1, 2), "min_seconds": 0.3}
    assert not preparation.is_prepared(folder, settings)
    skips = [Skip("d.wav", "silent")]
    preparation.write_splits(folder, splits, skips, settings)

    assert sorted(os.listdir(folder)) == [
        "prepared.json",
        "skipped.csv",
        "test.csv",
        "train.csv",
        "valid.csv",
    ]
    assert preparation.is_prepared(folder, settings)
    assert not preparation.is_prepared(folder, {**settings, "actors": [1]})
    assert manifests.read_manifest(folder / "valid.csv") == []
    assert preparation.read_skips(folder / "skipped.csv") == skips
    (folder / "test.csv").unlink()
    assert not preparation.is_prepared(folder, settings)
    (folder / "prepared.json").write_text("[]")
    assert not preparation.is_prepared(folder, settings)


def test_splits_are_written_together_or_not_at_all(tmp_path):
    good = {"train": [row("a")], "test": [row("b")]}
    preparation.write_splits(tmp_path, good, (), {"run": 1})
    bad = {"train": [row("c")], "test": [row("d", stop=-1.0)]}
    with pytest.raises(ManifestError, match="not in order"):
        preparation.write_splits(tmp_path, bad, (), {"run": 2})
    twice = {"train": [row("c")], "test": [row("c")]}
    with pytest.raises(ManifestError, match="c is in train too"):
        preparation.write_splits(tmp_path, twice, (), {"run": 2})
    assert preparation.is_prepared(tmp_path, {"run": 1})
    assert "\na," in (tmp_path / "train.csv").read_text()


def test_broken_off_preparation_is_done_again(tmp_path, monkeypatch):
    splits = {"train": [row("a")], "test": [row("b")]}
    preparation.write_splits(tmp_path, splits, (), {"run": 1})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "write_skips", killed)
    with pytest.raises(KeyboardInterrupt):
        preparation.write_splits(tmp_path, splits, (), {"run": 1})
    assert not preparation.is_prepared(tmp_path, {"run": 1})


def test_fingerprint_sees_changes(tmp_path, write_tone):
    a, b = (write_tone(tmp_path / name) for name in ("a.wav", "b.wav"))
    before = preparation.fingerprint([a, b], tmp_path)
    assert preparation.fingerprint([b, a], tmp_path) == before
    assert preparation.fingerprint([a], tmp_path) != before
    write_tone(b, seconds=2.0)
    assert preparation.fingerprint([a, b], tmp_path) != before
