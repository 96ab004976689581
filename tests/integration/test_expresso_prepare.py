"""Expresso: its official lists, true and damaged, and a tree of its names.

Authors
 * The esr_lobes contributors
"""

import logging
import math
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from esr_lobes import manifests, preparation
from esr_lobes.audio import AudioError

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "Expresso"
sys.path.append(str(RECIPE))  # its modules import one another

import expresso_lists  # noqa: E402
import expresso_prepare  # noqa: E402
import expresso_speech  # noqa: E402
import show_split  # noqa: E402
from tiny_corpora import (  # noqa: E402
    EXPRESSO_LISTS,
    EXPRESSO_LONG,
    expresso_path,
    write_expresso,
    write_noise,
)

STYLES = (
    "angry awe bored calm confused desire disgusted enunciated fast fearful "
    "happy laughing neutral projected sad sarcastic sleepy sympathetic "
    "whispered"
).split()
READ_STYLES = "confused enunciated happy laughing neutral sad whispered".split()
SETS = ("train", "valid", "test", "test_read")
DEV = EXPRESSO_LISTS["splits/dev.txt"]


def prepare(data_folder, save_folder, **more):
    """Prepares, and gives the rows of the four manifests."""
    expresso_prepare.prepare_expresso(
        data_folder, save_folder, progress=False, **more
    )
    return {
        name: manifests.read_manifest(
            save_folder / f"{name}.csv", data_root=data_folder, styles=STYLES
        )
        for name in SETS
    }


@pytest.fixture
def corpus(tmp_path):
    """A corpus of nine recordings with lists of its own."""
    write_expresso(tmp_path / "expresso")
    return tmp_path / "expresso"


def test_small_corpus_by_hand(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path / "out")
    times = {
        name: [(row["ID"], row["start"], row["stop"]) for row in rows]
        for name, rows in splits.items()
    }
    # 1 to 8.5 s are joined; the next half second is 2.1 s away and too short;
    # 54 to 66 s are cut at the split's 60; 20 to 45 s are three equal parts.
    assert times == {
        "train": [
            (f"{EXPRESSO_LONG}_ch0_0060000", 60.0, 66.0),
            ("ex01_default_emphasis_00001", 0.0, 2.5),
            ("ex01_default_longform_00001_0020000", 20.0, 24.0),
            ("ex01_happy_00001", 0.0, 2.5),
        ],
        "valid": [
            ("ex01_default_longform_00001_0000000", 0.0, 10.0),
            ("ex01_happy_00002", 0.0, 2.5),
        ],
        "test": [
            (f"{EXPRESSO_LONG}_ch0_0001000", 1.0, 8.5),
            (f"{EXPRESSO_LONG}_ch0_0054000", 54.0, 60.0),
            (f"{EXPRESSO_LONG}_ch1_0020000", 20.0, 28.333),
            (f"{EXPRESSO_LONG}_ch1_0028333", 28.333, 36.666),
            (f"{EXPRESSO_LONG}_ch1_0036666", 36.666, 45.0),
            ("ex01_default_longform_00001_0010000", 10.0, 12.0),
            ("ex01_default_longform_00001_0018500", 18.5, 20.0),
            ("ex01_happy_00003", 0.0, 2.5),
            ("ex02_whisper_00001", 0.0, 2.5),
        ],
        "test_read": [
            ("ex01_happy_00003", 0.0, 2.5),
            ("ex02_whisper_00001", 0.0, 2.5),
        ],
    }
    rows = {row["ID"]: row for rows in splits.values() for row in rows}
    assert rows[f"{EXPRESSO_LONG}_ch1_0036666"] == {
        "ID": f"{EXPRESSO_LONG}_ch1_0036666",
        "duration": 8.334,
        "wav": str(corpus / expresso_path(EXPRESSO_LONG)),
        "start": 36.666,
        "stop": 45.0,
        "channel": 1,
        "speaker": "ex02",
        "style": "sympathetic",
        "part": "conversational",
        "substyle": "sympathetic",
        "recording": EXPRESSO_LONG,
        "text": "",
    }
    left = rows[f"{EXPRESSO_LONG}_ch0_0001000"]
    assert [left[key] for key in ("channel", "speaker", "style")] == [
        0,
        "ex01",
        "sad",
    ]
    emphasis = rows["ex01_default_emphasis_00001"]
    assert emphasis["style"] == "neutral" and emphasis["channel"] is None
    assert emphasis["substyle"] == "default_emphasis"
    assert rows["ex02_whisper_00001"]["style"] == "whispered"
    assert rows["ex01_default_longform_00001_0010000"]["part"] == "longform"
    assert rows["ex01_happy_00001"]["text"] == "It costs $ 5."
    assert preparation.read_skips(tmp_path / "out" / "skipped.csv") == []
    assert "left out 2 pieces shorter than 1.0 s" in caplog.text
    assert "left out 2 files of styles that are not used" in caplog.text
    assert "test_read: 2 clips, published are 588 (-586)" in caplog.text


def test_each_file_is_decoded_once(corpus, tmp_path, monkeypatch):
    decoded = Counter()
    check = preparation.audio.check

    def counting(path, *args, **kwargs):
        decoded[path] += 1
        return check(path, *args, **kwargs)

    monkeypatch.setattr(preparation.audio, "check", counting)
    prepare(corpus, tmp_path / "out")
    assert set(decoded.values()) == {1} and len(decoded) == 7
    assert not [path for path in decoded if re.search("animal|singing", path)]


def test_second_call_does_nothing(corpus, tmp_path, caplog):
    out = tmp_path / "out"

    def state():
        return {
            path.name: (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(out.iterdir())
        }

    prepare(corpus, out)
    first = state()
    with caplog.at_level(logging.INFO):
        prepare(corpus, out)
    assert state() == first
    assert "prepared already, nothing to do" in caplog.text

    splits = prepare(corpus, out, max_piece_seconds=5.0)  # other arguments
    assert len(splits["test"]) > 9
    (out / "test_read.csv").unlink()  # as if broken off
    prepare(corpus, out)
    assert [v[1] for v in state().values()] == [v[1] for v in first.values()]

    path = corpus / "splits" / "train.txt"  # other lists
    path.write_text(path.read_text().replace("(60.0s,)", "(65.0s,)"))
    assert prepare(corpus, out)["train"][0]["start"] == 65.0


def test_broken_off_before_the_last_manifest(corpus, tmp_path, monkeypatch):
    """A test_read.csv of other settings does not pass for the new one."""
    out = tmp_path / "out"
    prepare(corpus, out, min_seconds=3.0)
    assert (out / "test_read.csv").read_text().count("\n") == 1

    def full_disk(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "write_manifest", full_disk)
        with pytest.raises(OSError, match="no space left"):
            prepare(corpus, out)
    assert len(prepare(corpus, out)["test_read"]) == 2


def test_what_cannot_be_used_is_listed(corpus, tmp_path, caplog):
    def at(name):
        return corpus / expresso_path(name)

    at("ex02_whisper_00001").unlink()
    at("ex01_happy_00003").write_bytes(b"RIFF")
    write_noise(at("ex01_happy_00002"), 2.5, channels=2)
    write_noise(at("ex01_default_longform_00001"), 23.0)
    copy = corpus / "copies" / "ex01_happy_00001.wav"
    copy.parent.mkdir()
    shutil.copy(at("ex01_happy_00001"), copy)
    write_noise(corpus / "ex09_happy_00001.wav", 1.0)  # in no list
    (corpus / "read_transcriptions.txt").unlink()
    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path / "out")
    assert [len(splits[name]) for name in SETS] == [3, 0, 5, 0]
    skips = preparation.read_skips(tmp_path / "out" / "skipped.csv")
    assert {Path(skip.path).stem: skip.reason for skip in skips} == {
        "ex02_whisper_00001": "missing",
        "ex01_happy_00003": "corrupt",
        "ex01_happy_00002": "other channels",
        "ex01_default_longform_00001": "shorter than listed",
        "ex01_happy_00001": "duplicate",
    }
    (missing,) = [skip for skip in skips if skip.reason == "missing"]
    assert missing.detail.endswith("test.txt, line 2")
    (duplicate,) = [skip for skip in skips if skip.reason == "duplicate"]
    assert duplicate.path == str(copy)  # the first by path is taken
    assert "left out 1 files that no list names" in caplog.text
    assert "so the manifests have no text" in caplog.text


def test_flat_lists_elsewhere_and_flac_at_another_rate(corpus, tmp_path):
    import soundfile

    lists = tmp_path / "lists"
    lists.mkdir()
    for name in EXPRESSO_LISTS:
        if "transcriptions" not in name:
            shutil.move(corpus / name, lists / Path(name).name)
    path = corpus / expresso_path(EXPRESSO_LONG)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (8000 * 80, 2))
    soundfile.write(path.with_suffix(".FLAC"), noise, 8000, format="FLAC")
    path.unlink()
    splits = prepare(corpus, tmp_path / "out", lists_folder=lists)
    assert [len(splits[name]) for name in SETS] == [4, 2, 9, 2]


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("splits/test.txt", "ex02_whisper", "ex02_whistle", "line 2: 'ex02_wh"),
        ("splits/test.txt", "\t(,60.0s)", "\t(,)", r"line 4: '\(,\)' is no"),
        ("splits/test.txt", "(,60.0s)", "60", "line 4: '60' is no time range"),
        ("splits/test.txt", "(10.0s,20", "(30.0s,20", "ends before it begins"),
        ("splits/test.txt", "(,60.0s)", "(,60.5s)", "train.txt, line 6.*held"),
        ("splits/dev.txt", "00002", "00003", "ex01_happy_00003 from 0 s is in"),
        (
            "splits/dev.txt",
            EXPRESSO_LISTS["splits/dev.txt"],
            "#",
            "an empty list",
        ),
        ("VAD_segments.txt", "(1.0, 4.0)", "(1.0; 4)", "line 2: not a record"),
        ("VAD_segments.txt", "(5.5, 8.5)", "(3, 8.5)", "line 2: .* overlap"),
        ("VAD_segments.txt", "channel2", "channel1", "line 3: .* line above"),
        (
            "VAD_segments.txt",
            f"{EXPRESSO_LONG}/channel2",
            "a",
            "no line for .*/channel2",
        ),
    ],
)
def test_damaged_lists(corpus, tmp_path, name, old, new, message):
    path = corpus / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(preparation.PreparationError, match=message) as error:
        prepare(corpus, tmp_path / "out")
    assert Path(name).name in str(error.value)
    assert not (tmp_path / "out").exists()


def test_wrong_folders_and_arguments(corpus, tmp_path, write_tone):
    out = tmp_path / "out"
    with pytest.raises(AudioError, match="nowhere.* check the path"):
        prepare(tmp_path / "nowhere", out)
    write_tone(tmp_path / "other" / "tone.wav")
    with pytest.raises(ValueError, match="no train.txt in .*speechbot.github"):
        prepare(tmp_path / "other", out)
    with pytest.raises(ValueError, match="the folder that holds audio_48khz"):
        prepare(tmp_path / "other", out, lists_folder=corpus)
    with pytest.raises(ValueError, match="give 0 < min_piece_seconds <="):
        prepare(corpus, out, min_piece_seconds=11)
    expresso_prepare.prepare_expresso(tmp_path / "nowhere", out, skip_prep=True)
    assert not out.exists()


def test_bounds_are_met_to_the_millisecond():
    """1000 * 16.49 is less than 16490 in floating point."""
    speech = [(0.0, 30.0)]
    before = expresso_speech.cut_speech(speech, (0.0, 16.49), 1, 20, 2)
    after = expresso_speech.cut_speech(speech, (16.49, 30.0), 1, 20, 2)
    assert before == ([(0.0, 16.49)], []) and after == ([(16.49, 30.0)], [])


def test_pieces_of_random_speech():
    """Pieces keep to the bounds, to the lengths, and to the speech."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        times = np.round(np.cumsum(rng.exponential(4.0, 20)) + 0.01, 2)
        times = np.unique(times)[: len(np.unique(times)) // 2 * 2]
        segments = times.reshape(-1, 2).tolist()
        middle = round(float(rng.uniform(0, times[-1])), 2)
        every = []
        for bounds in ((0.0, middle), (middle, math.inf)):
            end = min(bounds[1], times[-1])
            pieces, short = expresso_speech.cut_speech(
                segments, (bounds[0], end), 1.0, 10.0, 2.0
            )
            for start, stop in pieces:
                assert bounds[0] <= start and stop <= end + 1e-9
                assert 1.0 <= stop - start + 1e-9 <= 10.0 + 2e-9
            assert all(stop - start < 1.0 for start, stop in short)
            every += pieces + short
        every.sort()
        assert all(a[1] <= b[0] for a, b in zip(every, every[1:], strict=False))
        covered = sum(stop - start for start, stop in every)
        speech = sum(stop - start for start, stop in segments)
        gaps = sum(
            b[0] - a[1]
            for a, b in zip(segments, segments[1:], strict=False)
            if b[0] - a[1] <= 2.0
        )
        assert speech - 1e-6 <= covered <= speech + gaps + 1e-6


# On the official lists


@pytest.fixture(scope="module")
def official(shared_data):
    return shared_data / "expresso_meta"


def plain_ranges(folder, split):
    """The lists as a test reads them, apart from the recipe's reader."""
    ranges = defaultdict(list)
    for line in (folder / f"{split}.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, text = line.partition("\t")
            start, stop = (text.strip("()").split(",") + [""])[:2]
            ranges[name].append(
                (
                    float(start.rstrip("s") or 0),
                    float(stop.rstrip("s") or math.inf),
                )
            )
    return ranges


def plain_speech(folder):
    speech = {}
    for line in (folder / "VAD_segments.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, text = line.split("\t")
            times = list(map(float, re.findall(r"[\d.]+", text)))
            pairs = list(zip(times[::2], times[1::2], strict=True))
            name, _, channel = name.partition("/channel")
            speech[name, int(channel) - 1 if channel else None] = pairs
    return speech


@pytest.fixture(scope="module")
def named_tree(official, tmp_path_factory):
    """All long recordings of the true names and lengths, all read ones of
    dev and test, and every twentieth of train."""
    folder = tmp_path_factory.mktemp("expresso")
    ends = defaultdict(float)
    for (name, _), segments in plain_speech(official).items():
        ends[name] = max(ends[name], segments[-1][1] + 0.1)
    names = {*plain_ranges(official, "dev"), *plain_ranges(official, "test")}
    names |= {*list(plain_ranges(official, "train"))[::20], *ends}
    for name in sorted(names):
        channels = 2 if "-" in name.split("_")[0] else 1
        path = folder / expresso_path(name)
        write_noise(path, ends.get(name, 3.5), channels)
    return folder


@pytest.fixture(scope="module")
def prepared(named_tree, official, tmp_path_factory):
    out = tmp_path_factory.mktemp("manifests")
    return prepare(named_tree, out, lists_folder=official), out


def test_official_lists_are_read_whole(official):
    lists = expresso_lists.read_lists(official)
    counts = {split: len(entries) for split, entries in lists.entries.items()}
    assert counts == {"train": 10727, "dev": 688, "test": 648}
    assert lists.speech == plain_speech(official)
    for split, entries in lists.entries.items():
        ranges = plain_ranges(official, split)
        assert [(e.start, e.stop) for e in entries] == [
            pair for pairs in ranges.values() for pair in pairs
        ]
        used = {s.style for entry in entries for s in entry.used_sides}
        assert used == set(STYLES)


def test_no_held_out_second_is_trained_on(prepared, official):
    splits, _ = prepared
    own = {"train": "train", "valid": "dev", "test": "test"}
    ranges = {split: plain_ranges(official, own[split]) for split in own}
    n_beside = 0
    for split in own:
        for row in splits[split]:
            name, start, stop = row["recording"], row["start"], row["stop"]
            assert any(a <= start < stop <= b for a, b in ranges[split][name])
            for other in set(own) - {split}:
                for a, b in ranges[other].get(name, ()):
                    n_beside += 1
                    assert stop <= a or start >= b
    assert n_beside > 1000  # pieces of recordings that two splits share


def test_pieces_lie_in_official_speech(prepared, official):
    splits, _ = prepared
    speech = plain_speech(official)
    rows = [row for rows in splits.values() for row in rows]
    long_rows = [row for row in rows if row["part"] != "read"]
    assert len(long_rows) > 15000
    for row in long_rows:
        speakers, style = row["recording"].split("_")[:2]
        side = row["channel"] or 0
        assert row["speaker"] == speakers.split("-")[side]
        names = style.split("-")
        assert row["substyle"].split("_")[0] == names[min(side, len(names) - 1)]
        assert 1.0 <= round(row["duration"], 3) <= 10.0
        segments = speech[row["recording"], row["channel"]]
        inside = [
            (max(a, row["start"]), min(b, row["stop"]))
            for a, b in segments
            if a < row["stop"] and b > row["start"]
        ]
        assert inside[0][0] == row["start"]  # no pause at either end
        assert inside[-1][1] == row["stop"]
        gaps = zip(inside, inside[1:], strict=False)
        assert all(b[0] - a[1] <= 2.0 + 1e-9 for a, b in gaps)


def test_official_counts(prepared):
    splits, out = prepared
    styles = {
        name: sorted({row["style"] for row in rows})
        for name, rows in splits.items()
    }
    full = dict.fromkeys(("train", "valid", "test"), STYLES)
    assert styles == {**full, "test_read": READ_STYLES}
    assert len(splits["test"]) == 988 and len(splits["test_read"]) == 588
    whole = {row["ID"]: row for row in splits["test"]}
    assert all(whole[row["ID"]] == row for row in splits["test_read"])
    hours = sum(
        row["duration"]
        for name in ("train", "valid", "test")
        for row in splits[name]
        if row["part"] != "read"
    )
    assert 27.4 < hours / 3600 < 27.7  # and some 10.6 h of sentences
    skips = preparation.read_skips(out / "skipped.csv")
    # every twentieth of train is there
    assert {skip.reason for skip in skips} == {"missing"}
    assert all("train.txt, line" in skip.detail for skip in skips)


def test_finding_about_the_split(official):
    found = show_split.finding(expresso_lists.read_lists(official))
    assert (found["entries"], found["ranged"], found["to_train"]) == (
        648,
        60,
        60,
    )
    assert sorted(found["read"]) == READ_STYLES
    assert sum(found["read"].values()) == 588
    assert sorted(found["honoured"]) == STYLES
    assert sum(found["honoured"].values()) == 988
    assert 39 < found["leaked_minutes"] < 41


def test_command_that_shows_the_finding(official, tmp_path, capsys):
    shown = subprocess.run(
        [sys.executable, RECIPE / "show_split.py", "--lists", official],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "648 entries, 60 of them with a time range" in shown.stdout
    assert "60 of the 60 go to train.txt" in shown.stdout
    assert "588 clips, 7 styles: confused 63," in shown.stdout
    assert "988 clips, 19 styles: angry 17," in shown.stdout
    with pytest.raises(SystemExit, match="2"):
        show_split.main(["--lists", str(tmp_path)])
    assert capsys.readouterr().err.startswith("error: no train.txt in ")
