"""Hits on their way to the terminal, to other programs, and into files.

Authors
 * The esr_lobes contributors
"""

import csv
import datetime
import io
import json
import shlex
import subprocess

import numpy as np
import pytest
import soundfile

from esr_lobes.errors import MendableError
from esr_lobes.highlights import (
    clock,
    cut_clips,
    hits_csv,
    hits_json,
    hits_table,
    play_command,
    safe_stem,
    write_labels,
    write_playlist,
)
from esr_lobes.index import Hit, Segment


def hit(path="/talks/a.wav", start=1.0, stop=2.5, channel=None, rank=0, **more):
    segment = Segment(str(path), start, stop, channel, f"id{rank}", more)
    return Hit(segment, 0.5 - rank / 10, rank, 2.0, 97.5)


@pytest.fixture
def talk(tmp_path):
    """Three seconds of stereo at 22050 Hz: a ramp left, its negative right."""
    ramp = np.linspace(-0.9, 0.9, 3 * 22050)
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.stack([ramp, -ramp], axis=1), 22050, "FLOAT")
    return path


# Shown


def test_a_table_says_where_and_how_good():
    lines = hits_table([hit(start=61.04, stop=3725.0), hit(rank=1)]).split("\n")
    assert lines[0].split() == ["#", "score", "z", "pct", "time", "file"]
    assert lines[1].split() == [
        "1",
        "0.500",
        "2.00",
        "97.5",
        "1:01.0-1:02:05.0",
        "/talks/a.wav",
    ]
    assert [line.index("/talks") for line in lines[1:]] == [
        lines[0].index("file")
    ] * 2


def test_a_table_without_background_has_dashes():
    line = hits_table([Hit(Segment("/a.wav", 0.0, 1.0), 0.1, 0)]).split("\n")[1]
    assert line.split()[1:4] == ["0.100", "-", "-"]


def test_a_table_fits_the_terminal():
    path = "/archive/" + "very/" * 40 + "long.wav"
    hits = [hit(path, rank=i, text="word " * 50, n=i) for i in range(12)]
    for width in 100, 80:
        lines = hits_table(hits, width).split("\n")
        assert max(map(len, lines)) <= width
        assert all("long.wav" in line for line in lines[1:])
        assert all("text=word" in line for line in lines[1:])
    assert path in hits_table(hits)


def test_a_table_shows_channels_only_where_there_are_some():
    assert " ch " not in hits_table([hit()])
    table = hits_table([hit(channel=1), hit(rank=1)])
    assert " ch " in table and " mix " in table


def test_a_table_is_not_led_astray_by_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = hits_table([hit(tmp_path / "a\x1b[2J\nb.wav", note="x\ny")])
    assert len(table.split("\n")) == 2 and "\x1b" not in table
    assert str(tmp_path) not in table  # in short, from where we are


def test_clock_rounds_up_to_the_next_minute():
    assert clock(59.96) == "1:00.0" and clock(3599.99) == "1:00:00.0"


def test_json_is_plain_data():
    odd = {"day": datetime.date(2024, 1, 2), "gain": float("nan"), "n": 3}
    hits = [hit(**odd), Hit(Segment("/ü.wav", 0.0, 1.0), 0.1, 1)]
    rows = json.loads(hits_json(hits), parse_constant=pytest.fail)
    assert rows[0]["metadata"] == {"day": "2024-01-02", "gain": None, "n": 3}
    assert rows[0]["rank"] == 1 and rows[0]["duration"] == 1.5
    assert rows[1]["path"] == "/ü.wav" and rows[1]["z"] is None
    assert json.loads(hits_json([])) == []


def test_csv_has_all_columns_of_all_hits():
    hits = [hit('/a,"b".wav', actor=3), hit(rank=1, channel=1, sex="f")]
    rows = list(csv.DictReader(io.StringIO(hits_csv(hits))))
    assert rows[0]["path"] == '/a,"b".wav' and rows[0]["actor"] == "3"
    assert rows[0]["sex"] == "" and rows[1]["sex"] == "f"
    assert rows[0]["channel"] == "" and rows[1]["channel"] == "1"
    assert float(rows[1]["score"]) == 0.4


def test_a_spreadsheet_computes_nothing(talk, tmp_path):
    """Cells of a user's table such as =HYPERLINK(...) came out as they were."""
    texts = ["=1+1", "+1", "-x", "@a", "\t=1", "\r=1", "a=1", "'", ""]
    joined = {f"c{i}": text for i, text in enumerate(texts)}
    found = hit(talk, number=-3, **joined, **{"=head": 1})
    cut_clips([found], tmp_path / "clips")
    for text in (
        hits_csv([found]),
        (tmp_path / "clips" / "index.csv").read_bytes().decode(),
    ):
        (line,) = csv.DictReader(io.StringIO(text, newline=""))
        shown = [line[name] for name in joined]
        assert shown == ["'" + text for text in texts[:6]] + texts[6:]
        assert line["number"] == "-3" and line["'=head"] == "1"
    (whole,) = json.loads(hits_json([found]))
    assert whole["metadata"] == found.segment.metadata


def test_the_shell_sees_a_strange_name_as_one_word():
    path = "/it's; rm -rf $HOME.wav"
    words = shlex.split(play_command(hit(path, 1.25, 2.0)))
    assert words[-5:] == ["-ss", "1.25", "-t", "0.75", path]
    shown = subprocess.run(
        f"printf %s {play_command(hit(path)).split(' ', 9)[-1]}",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == path
    assert "pan=mono|c0=c1" in shlex.split(play_command(hit(channel=1)))


# Labels and playlists


def test_labels_one_file_a_recording_in_order_of_time(tmp_path):
    hits = [
        hit("/x/talk.wav", 5.0, 6.0, rank=0),
        hit("/y/talk.wav", 0.0, 1.0, rank=1, channel=1),
        hit("/x/talk.wav", 1.0, 2.5, rank=2),
    ]
    paths = write_labels(hits, tmp_path / "labels")
    assert [p.name for p in paths] == ["talk.txt", "talk_2.txt"]
    assert paths[0].read_text() == (
        "1.000000\t2.500000\t3 (0.300)\n5.000000\t6.000000\t1 (0.500)\n"
    )
    assert paths[1].read_text() == "0.000000\t1.000000\t2 (0.400) channel 1\n"


def test_names_of_labels_never_meet(tmp_path):
    """Not even where a_2 is a recording, or case does not count."""
    names = "/x/a.wav", "/y/a.wav", "/x/a_2.wav", "/z/A.wav"
    hits = [hit(name, rank=i) for i, name in enumerate(names)]
    paths = write_labels(hits, tmp_path / "labels")
    assert len({p.name.lower() for p in paths}) == 4


def test_a_playlist_that_plays_only_the_hits(tmp_path):
    (tmp_path / "sub").mkdir()
    hits = [
        hit(tmp_path / "sub" / "a.wav", 61.0, 63.25),
        hit("/elsewhere/b.wav", 0.0, 0.2, rank=1),
        hit(tmp_path / "#1.wav", rank=2),
        hit("/new\nline.wav", rank=3),
    ]
    write_playlist(hits, tmp_path / "best.m3u")
    lines = (tmp_path / "best.m3u").read_text().splitlines()
    assert lines[0] == "#EXTM3U" and len(lines) == 1 + 4 * 4
    assert lines[1:5] == [
        "#EXTINF:2,1. a 1:01.0-1:03.2 (0.500)",
        "#EXTVLCOPT:start-time=61",
        "#EXTVLCOPT:stop-time=63.25",
        "sub/a.wav",
    ]
    assert lines[5].startswith("#EXTINF:1,")
    assert lines[8] == "/elsewhere/b.wav"
    assert lines[12] == "./#1.wav"
    assert lines[16] == "file:///new%0Aline.wav"


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "old.m3u").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "talk.txt").write_text("mine")
    with pytest.raises(MendableError, match="old.m3u is there already"):
        write_playlist([hit()], tmp_path / "old.m3u")
    for write in write_labels, cut_clips:
        with pytest.raises(MendableError, match="no empty folder"):
            write([hit()], tmp_path / "full")
        with pytest.raises(MendableError, match="no empty folder"):
            write([hit()], tmp_path / "old.m3u")
        with pytest.raises(MendableError, match="cannot be made"):
            write([hit()], tmp_path / "old.m3u" / "clips")
    with pytest.raises(MendableError, match="no folder that may be written"):
        write_playlist([hit()], tmp_path / "old.m3u" / "new" / "b.m3u")
    assert (tmp_path / "old.m3u").read_text() == "mine"
    assert (tmp_path / "full" / "talk.txt").read_text() == "mine"


# Clips


def test_clips_are_the_very_samples_of_the_recording(talk, tmp_path):
    hits = [hit(talk, 1.0, 1.5), hit(talk, 0.0, 1.0, channel=1, rank=1)]
    paths, skips = cut_clips(hits, tmp_path / "clips")
    assert skips == []
    assert [p.name for p in paths] == [
        "01_talk_1.0-1.5.wav",
        "02_talk_0.0-1.0.wav",
    ]
    wave, _ = soundfile.read(talk)
    both, rate = soundfile.read(paths[0])
    assert rate == 22050
    assert np.allclose(both, wave[22050 : 22050 * 3 // 2], atol=1e-4)
    right, _ = soundfile.read(paths[1])
    assert np.allclose(right, wave[:22050, 1], atol=1e-4)
    rows = list(csv.DictReader(open(tmp_path / "clips" / "index.csv")))
    assert [row["clip"] for row in rows] == [p.name for p in paths]
    assert rows[1]["path"] == str(talk) and rows[1]["channel"] == "1"


def test_samples_beyond_full_scale_do_not_wrap(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.full(16000, 1.5, np.float32), 16000, "FLOAT")
    (clip,), _ = cut_clips([hit(path, 0.0, 1.0)], tmp_path / "clips")
    assert soundfile.read(clip)[0].min() > 0.99


def test_what_cannot_be_cut_is_listed_and_the_rest_is_cut(talk, tmp_path):
    gone, broken = tmp_path / "gone.wav", tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    hits = [
        hit(gone),
        hit(talk, 0.0, 1.0, rank=1),
        hit(broken, rank=2),
        hit(talk, 2.5, 9.0, rank=3),
        hit(talk, channel=2, rank=4),
    ]
    paths, skips = cut_clips(hits, tmp_path / "clips")
    assert [p.name for p in paths] == ["02_talk_0.0-1.0.wav"]
    reasons = ["missing", "corrupt", "truncated", "no such channel"]
    assert [skip.reason for skip in skips] == reasons
    assert sorted(p.name for p in (tmp_path / "clips").iterdir()) == [
        "02_talk_0.0-1.0.wav",
        "index.csv",
    ]


@pytest.mark.parametrize(
    "path, stem",
    [
        ("/a/b/talk.final.wav", "talk.final"),
        ("/a/../..wav", "clip"),
        ("/a/ .wav", "clip"),
        ("/a/-rf.wav", "rf"),
        ("/a/x/\\..\\y:z*?.wav", "y_z"),
        ("/a/\x1b[2J\n.wav", "2J"),
        ("/a/日本語 話.wav", "日本語_話"),
        ("/a/\udcff.wav", "clip"),
    ],
)
def test_names_that_are_safe_everywhere(path, stem):
    assert safe_stem(path) == stem


def test_long_names_are_cut_to_what_a_file_system_takes():
    assert len(safe_stem("/" + "ü" * 200 + ".wav").encode()) <= 80
