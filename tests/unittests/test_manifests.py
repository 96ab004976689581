"""Manifests: what is written comes back, what is wrong is named by line.

Authors
 * The esr_lobes contributors
"""

import csv
import io
import os

import numpy as np
import pytest
import speechbrain as sb
from conftest import row

from esr_lobes import audio, manifests
from esr_lobes.manifests import ManifestError

HEADER = "ID,duration,wav,start,stop,channel,speaker,style\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.csv"


def test_any_cell_comes_back_from_csv():
    """A carriage return once ended the row that it stood in."""
    cells = ["a\rb", "a\nb", "a\r\nb", "\r", 'a"b', "a,b", " a ", "", "ü"]
    text = manifests.csv_text(["x", "y"], [[cell, "1"] for cell in cells])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["x", "y"], *([cell, "1"] for cell in cells)]
    assert manifests.csv_text(["x"], [[1], ["b"]]) == "x\n1\nb\n"


def test_written_rows_come_back(path):
    rows = [
        row("b", text='says "yes, no"', take=2),
        row("a", 1.25, 61.2500004, channel=1, text="Grüße", take=1),
        row("c", np.float32(0.5), np.float64(2.0), text="", take=np.int64(3)),
    ]
    manifests.write_manifest(path, rows)
    a, b, c = manifests.read_manifest(path, "/corpus", is_checked=False)

    assert [a["ID"], b["ID"], c["ID"]] == ["a", "b", "c"]
    assert a["wav"] == os.path.join("/corpus", "a.wav")
    assert (a["start"], a["stop"], a["duration"]) == (1.25, 61.25, 60.0)
    assert (a["channel"], b["channel"]) == (1, None)
    assert (a["text"], b["text"]) == ("Grüße", 'says "yes, no"')
    assert (a["take"], b["take"], c["take"]) == ("1", "2", "3")
    assert (c["start"], c["stop"], c["text"]) == (0.5, 2.0, "")


def test_bytes_do_not_depend_on_the_order(path):
    rows = [row("b"), row("a"), row("c")]
    manifests.write_manifest(path, rows)
    first = path.read_bytes()
    manifests.write_manifest(path, rows[::-1])
    assert path.read_bytes() == first
    assert first.decode() == (
        HEADER
        + "a,1.5,$data_root/a.wav,0,1.5,,ann,calm\n"
        + "b,1.5,$data_root/b.wav,0,1.5,,ann,calm\n"
        + "c,1.5,$data_root/c.wav,0,1.5,,ann,calm\n"
    )


def test_speechbrain_reads_it(tmp_path, path, write_tone):
    """Items come out of SpeechBrain's dataset, with audio by segment."""
    wav = write_tone(tmp_path / "corpus" / "long.wav", seconds=3.0)
    clips = [
        row("one", 0.5, 1.5, wav="{data_root}/long.wav"),
        row("two", 1.0, 3.0, wav="$data_root/long.wav", channel=0),
        row("three", 0.0, 3.0, wav=str(wav)),
    ]
    manifests.write_manifest(path, clips)
    dataset = sb.dataio.dataset.DynamicItemDataset.from_csv(
        path, {"data_root": tmp_path / "corpus"}
    )

    @sb.utils.data_pipeline.takes("wav", "start", "stop")
    @sb.utils.data_pipeline.provides("sig")
    def waveform(wav, start, stop):
        return audio.read(wav, float(start), float(stop))

    dataset.add_dynamic_item(waveform)
    dataset.set_output_keys(["id", "sig", "duration", "style", "channel"])
    items = {item["id"]: item for item in dataset}
    assert {name: len(i["sig"]) for name, i in items.items()} == {
        "one": 16000,
        "two": 32000,
        "three": 48000,
    }
    assert items["one"]["duration"] == 1.0
    assert items["two"]["channel"] == "0" and items["one"]["channel"] == ""
    typed = manifests.read_manifest(path, data_root=tmp_path / "corpus")
    assert {r["wav"] for r in typed} == {str(wav)}


def test_a_manifest_may_be_empty(path):
    manifests.write_manifest(path, [])
    assert path.read_text() == HEADER
    assert manifests.read_manifest(path) == []


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"stop": 0.0}, "start 0 and stop 0 are not in order"),
        ({"start": -1.0}, "not in order"),
        ({"duration": 1.6}, "duration 1.6 is not stop - start = 1.5"),
        ({"duration": float("nan")}, "duration 'nan' is not a number"),
        ({"start": "soon"}, "start 'soon' is not a number"),
        ({"channel": "left"}, "channel 'left' is neither empty nor 0, 1"),
        ({"channel": -1}, "channel '-1' is neither"),
        ({"style": ""}, "no style"),
        ({"speaker": None}, "no speaker"),
        ({"ID": ""}, "no ID"),
        ({"ID": "b\0"}, "ID 'b.x00' holds a control character"),
        ({"speaker": "an\tn"}, "speaker .* holds a control character"),
        ({"wav": "/a\n.wav"}, "wav .* holds a control character"),
        ({"style": "calm "}, "style 'calm ' begins or ends with a blank"),
        ({"ID": " b"}, "ID ' b' begins or ends with a blank"),
        ({"channel": "1_0"}, "channel '1_0' is neither"),
        ({"duration": "1_5"}, "duration '1_5' is not a number"),
        ({"wav": "{data_root}/../../b.wav"}, "b.wav leaves data_root"),
        ({"wav": "$data_root//etc/passwd"}, "passwd leaves data_root"),
        ({"wav": "{data_root}/cost$5.wav"}, "placeholder; rename"),
        ({"mood": "good"}, "missing or additional: mood"),
        ({"ID": "a"}, "the ID a: 2 rows"),
    ],
)
def test_wrong_rows_are_not_written(path, wrong, message):
    manifests.write_manifest(path, [row("old")])
    old = path.read_bytes()
    with pytest.raises(ManifestError, match=message.replace("$", r"\$")):
        manifests.write_manifest(path, [row("a"), {**row("b"), **wrong}])
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_nothing(path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        manifests.write_manifest(path, [row("a")])
    assert list(path.parent.iterdir()) == []


def test_all_wrong_lines_are_named(path):
    path.write_text(
        HEADER
        + "a,1.5,/a.wav,0,1.5,,ann,calm\n"
        + "b,1.5,/b.wav,0,1.5,,ann,clam\n"  # line 3
        + "c,long,/c.wav,0,1.5,,ann,calm\n"  # line 4
        + "a,1.5,/d.wav,0,1.5,,ann,calm\n"  # line 5
        + "e,1.5,/e.wav,2,0.5,,ann,calm\n"  # line 6
        + "f,1.5,/f.wav,0,1.5,,ann\n"  # line 7
        + "g,1.5,/g.wav,0,1.5,0.5,ann,calm\n"  # line 8
        + "h,1.5,/h.wav,0,1.5,,ann,calm,more\n"  # line 9
    )
    with pytest.raises(ManifestError) as caught:
        manifests.read_manifest(
            path, styles=["calm", "angry"], is_checked=False
        )
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}: 7 problem(s), correct these lines")
    assert lines[1:] == [
        "  line 3: unknown style 'clam'; allowed: angry, calm",
        "  line 4: duration 'long' is not a number of seconds",
        "  line 5: the ID a is that of line 2 too",
        "  line 6: start 2 and stop 0.5 are not in order",
        "  line 7: more or fewer cells than columns",
        "  line 8: channel '0.5' is neither empty nor 0, 1, ...",
        "  line 9: more or fewer cells than columns",
    ]


@pytest.mark.parametrize(
    "line, message",
    [
        ("a,1_0,/a.wav,0,1_0,,ann,calm", "duration '1_0' is not a number"),
        ("a,1.5,/a.wav,0,1.5,1_0,ann,calm", "channel '1_0' is neither"),
        ("a,1.5,/a.wav,0,1.5,\u0661,ann,calm", "channel .* is neither"),
        ("a\x01,1.5,/a.wav,0,1.5,,ann,calm", "holds a control character"),
        ("a,1.5,/a.wav,0,1.5,,ann,calm ", "'calm ' begins or ends with"),
        ("a,1.5,$data_root/../a.wav,0,1.5,,ann,calm", "leaves data_root"),
        ("a,1.5,$data_root/b/../../a.wav,0,1.5,,ann,calm", "leaves data_r"),
        ("a,1.5,$data_root//etc/passwd,0,1.5,,ann,calm", "leaves data_root"),
    ],
)
def test_what_only_looks_right_is_refused(path, line, message):
    path.write_text(f"{HEADER}{line}\n")
    with pytest.raises(ManifestError, match=f"line [23]: .*{message}"):
        manifests.read_manifest(path, data_root="/corpus", is_checked=False)


def test_numbers_of_any_usual_writing_are_read(path):
    path.write_text(f"{HEADER}a,1.5e0,$data_root/b/../a.wav,.5,2.,01,ann,c\n")
    (a,) = manifests.read_manifest(path, "/corpus", is_checked=False)
    assert (a["duration"], a["start"], a["stop"]) == (1.5, 0.5, 2.0)
    assert a["channel"] == 1


def test_a_long_list_is_cut(path):
    lines = [f"{i},1.5,/a.wav,0,1.5,,ann,odd\n" for i in range(200)]
    path.write_text(HEADER + "".join(lines))
    with pytest.raises(ManifestError) as caught:
        manifests.read_manifest(path, styles=["calm"], is_checked=False)
    shown = str(caught.value).splitlines()
    assert "200 problem(s)" in shown[0]
    assert len(shown) == 12 and shown[-1] == "  and 190 more"


def test_files_must_be_there(tmp_path, path, write_tone):
    write_tone(tmp_path / "a.wav")
    manifests.write_manifest(path, [row("a"), row("b")])
    with pytest.raises(ManifestError, match="line 3: no such file: .*b.wav"):
        manifests.read_manifest(path, data_root=tmp_path)
    write_tone(tmp_path / "b.wav")
    assert len(manifests.read_manifest(path, data_root=tmp_path)) == 2


def test_data_root_is_asked_for(path):
    manifests.write_manifest(path, [row("a")])
    with pytest.raises(ManifestError, match="line 2: .* needs a data_root"):
        manifests.read_manifest(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "line 1: the columns are ''"),
        (b"ID;duration;wav\na;1;2\n", "line 1: the columns are 'ID;duration"),
        (b"ID,wav\na,b\n", "line 1: the columns are 'ID,wav'"),
        (HEADER.encode()[:-1] + b",style\n", "line 1: the columns are"),
        (b"fLaC\xff\x00\x80", "not a CSV file in UTF-8"),
    ],
)
def test_what_is_no_manifest(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        manifests.read_manifest(path)


def test_missing_manifest(path):
    with pytest.raises(ManifestError, match="no such manifest; run the prep"):
        manifests.read_manifest(path)
