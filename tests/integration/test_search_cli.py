"""esr search: what Python finds, in every form, and a line for what is wrong.

Authors
 * The esr_lobes contributors
"""

import csv
import io
import json
import shutil
import sys

import pytest
import soundfile

from esr_lobes import cli
from esr_lobes.indexing.build import build_index
from esr_lobes.searching import open_index


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four tones of one to seven seconds, one of them in two channels."""
    from conftest import tone

    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path,actor,mood"]
    for i, seconds in enumerate((1.0, 1.5, 7.0, 2.0)):
        wave = tone(seconds, 200 + 150 * i, seed=i)
        soundfile.write(folder / f"{i}.wav", wave, 16000)
        lines.append(f"{i}.wav,{i},{'sad' if i % 2 else 'calm'}")
    (folder / "about.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(corpus, tiny_retriever, tmp_path_factory):
    """An index of the corpus, windows of two seconds."""
    folder = tmp_path_factory.mktemp("built") / "index"
    build_index(
        str(corpus),
        str(folder),
        str(tiny_retriever),
        cutting={"kind": "windows"},
        metadata=str(corpus / "about.csv"),
        progress=False,
    )
    return folder


@pytest.fixture
def esr(tmp_path, monkeypatch, capsys):
    """Runs the command; gives status, standard output, last complaint."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        try:
            cli.main(["search", *(str(word) for word in argv)])
            status = 0
        except SystemExit as end:
            status = end.code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return status, out, (error.strip().splitlines() or [""])[-1]

    return call


def found(text):
    return [(row["path"], row["start"]) for row in json.loads(text)]


def places(hits):
    return [(h.segment.path, h.segment.start) for h in hits]


def test_a_table(esr, built):
    status, out, _ = esr(built, "a flat voice", "-k", "3")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 4
    assert lines[0].split()[:2] == ["#", "score"]
    assert "mood=" in lines[1] and ".wav" in lines[1]


def test_the_command_line_and_python_find_the_same(esr, built, corpus):
    clip = corpus / "0.wav"
    ways = [
        (["flat"], {"query": "flat"}),
        (["flat", "dull", "-k", "4"], {"query": ["flat", "dull"], "k": 4}),
        (
            ["flat=2", "dull =.5", "--minus", "angry=0.7", "--minus=mad"],
            {
                "query": {"flat": 2, "dull": 0.5},
                "minus": {"angry": 0.7, "mad": 1},
            },
        ),
        (
            ["flat", "angry=-1.5", "--minus=-dull"],
            {"query": {"flat": 1, "angry": -1.5}, "minus": "-dull"},
        ),
        (["--clip", clip], {"clip": clip}),
        (
            ["--clip", f"{corpus}/2.wav@0:01-0:3.0", "flat"],
            {"clip": (corpus / "2.wav", 1.0, 3.0), "query": "flat"},
        ),
        (["--style", "flat"], {"style": "flat"}),
        (
            ["flat", "--where", "mood == 'calm' and duration > 1"],
            {"query": "flat", "where": "mood == 'calm' and duration > 1"},
        ),
        (
            ["flat", "--threshold", "50", "--scale", "percentile", "--exact"],
            {
                "query": "flat",
                "threshold": 50,
                "scale": "percentile",
                "exact": True,
            },
        ),
        (
            ["flat", "--merge", "0", "--per_file", "1"],
            {"query": "flat", "merge": 0, "per_file": 1},
        ),
    ]
    answers = []
    with open_index(built) as index:
        for words, asked in ways:
            status, out, line = esr(built, *words, "--format", "json")
            assert status == 0, line
            assert found(out) == places(index.search(**asked))
            answers.append(out)
    assert len(set(answers)) >= len(ways) - 2  # options that do something


def test_nothing_else_is_on_standard_output(esr, built, tmp_path):
    more = ["--play", "--export", tmp_path / "c", "--labels", tmp_path / "l"]
    status, out, line = esr(
        built, "flat", "--format", "csv", *more, "--playlist", "p.m3u"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and line == f"playlist of {len(rows)} hits: p.m3u"
    assert len(rows) == 9 and {row["mood"] for row in rows} == {"sad", "calm"}
    assert len(list((tmp_path / "c").glob("*.wav"))) == 9
    assert len(list((tmp_path / "l").glob("*.txt"))) == 4
    assert (tmp_path / "p.m3u").read_text().count("#EXTINF") == 9


def test_commands_that_play(esr, built):
    out = esr(built, "flat", "-k", "2", "--play")[1]
    assert out.count("\nffplay ") == 2


def test_nothing_matches(esr, built, tmp_path):
    asked = [built, "flat", "--where", "actor == 99", "--export", "clips"]
    assert esr(*asked)[:2] == (0, "")
    status, out, line = esr(*asked, "--format", "json")
    assert (status, json.loads(out)) == (0, [])
    assert line.startswith("nothing matches: ask for less")
    assert not (tmp_path / "clips").exists()
    assert esr(*asked, "--format", "csv")[1].startswith("rank,score")


def test_what_cannot_be_cut_is_counted(esr, corpus, tiny_retriever, tmp_path):
    shutil.copytree(corpus, tmp_path / "moved")
    build_index(
        str(tmp_path / "moved"),
        str(tmp_path / "index"),
        str(tiny_retriever),
        cutting={"kind": "windows"},
        progress=False,
    )
    (tmp_path / "moved" / "0.wav").unlink()
    status, _, line = esr(tmp_path / "index", "flat", "--export", "clips")
    assert status == 0
    assert line.endswith("0.wav: missing (no such file or folder)")
    assert len(list((tmp_path / "clips").glob("*.wav"))) == 8
    # The index still knows what it sounds like.
    clip = tmp_path / "moved" / "0.wav"
    assert esr(tmp_path / "index", "--clip", clip)[0] == 0


def test_a_model_that_was_moved(esr, corpus, tiny_retriever, tmp_path):
    model = shutil.copytree(tiny_retriever, tmp_path / "model")
    index = tmp_path / "index"
    build_index(
        str(corpus / "0.wav"),
        str(index),
        str(model),
        cutting={"kind": "windows"},
        progress=False,
    )
    model = model.rename(tmp_path / "style=1")
    status, _, line = esr(index, "flat")
    assert status == 2 and "give its place as the source (--source)" in line
    for source in model, "style=1", "style=style=1":
        assert esr(index, "flat", "--source", source)[0] == 0


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "what is searched for? give a description"),
        (["  "], "say in words what is searched for"),
        (["flat", "-k", "0"], "k is a whole number from 1"),
        (["flat", "--where", "mod == 'sad'"], "did you mean 'mood'?"),
        (["flat", "--where", "actor = 3"], "write == to compare"),
        (["flat", "--content", "dogs"], "no vectors of content: it has style"),
        (["flat", "--weights", "style=1"], "ask for both"),
        (["flat", "--weights", "style"], "write a space and a number"),
        (["flat", "--clip", "none.wav"], "none.wav: missing"),
        (["flat", "--clip", "a.wav@5-1"], "5.0 to 1.0 s is no part"),
        (["flat", "--clip", "a.wav@1:2:-3"], "'1:2:' is no time"),
        (["flat", "--minus", "flat"], "cancel out"),
        (["flat", "--threshold", "nan"], "threshold is a number"),
        (["flat", "--source", "style=none"], "no longer|not at none"),
        (["flat", "--source", "text=none"], "no space 'text', but: style"),
        (["flat", "--source", "a", "--source", "b"], "the name of its space"),
        (["flat", "--device", "cuda:77"], "--device cuda:77 cannot be used"),
        (["flat", "--export", "full"], "full is there and no empty folder"),
        (["flat", "--labels", "full"], "full is there and no empty folder"),
        (["flat", "--playlist", "full"], "full is there already"),
        (["flat", "--playlist", "full/mine/x.m3u"], "mine is no folder"),
        (["flat", "--labels", "full/mine/x"], "mine is no folder"),
        (["flat", "--export", "o", "--labels", "./o"], "where --export writes"),
        (["flat", "--export", "o", "--playlist", "o"], "where --export writes"),
        (["flat", "--export", "o/x", "--labels", "o"], "where --export writes"),
    ],
)
def test_one_line_for_what_is_wrong(esr, built, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    status, out, line = esr(built, *words)
    assert status == 2 and out == ""
    assert line.startswith("error: ")
    assert any(each in line for each in message.split("|")), line
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]


def test_no_index_there(esr, tmp_path):
    status, _, line = esr(tmp_path / "none", "flat")
    assert status == 2 and "no such folder; make one with: esr index" in line


def test_a_terminal_of_a_hundred_columns(esr, built, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    out = esr(built, "flat")[1]
    assert max(map(len, out.splitlines())) <= 100
