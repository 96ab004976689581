"""esr ask: what Python finds, as lines, JSON, clips and answers.

Authors
 * The esr_lobes contributors
"""

import csv
import json
import os

import pytest
import soundfile
from tiny_answerers import make_tiny_qwen_audio
from tiny_recognisers import make_tiny_ctc
from tiny_recordings import write_recording

from esr_lobes import cli
from esr_lobes.answering import PassageFinder
from esr_lobes.answering.handing_on import hms, read_clips
from esr_lobes.answering.qwen_audio import QwenAudioAnswerer
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascading import write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError

TALKS = {
    "morning": ["happy sad angry calm fast", "quiet loud of says something"],
    "evening": ["a an the voice with", "it calm fast quiet loud"],
}
CUT = ["--segments", "0.6s", "--workers", "1"]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory, tiny_text_backbone):
    """A retriever's folder: a random CTC model, a random BERT."""
    root = tmp_path_factory.mktemp("cascade")
    write_cascade(
        root / "retriever",
        HuggingFaceRecogniser(make_tiny_ctc(root / "ctc")),
        TextEncoder(tiny_text_backbone),
    )
    return root / "retriever"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return make_tiny_qwen_audio(tmp_path_factory.mktemp("answerer") / "qwen")


@pytest.fixture
def esr(tmp_path, monkeypatch, capsys):
    """Runs the command; gives status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    for name, passages in TALKS.items():
        write_recording(tmp_path / f"talks/{name}.wav", passages)

    def call(*argv):
        try:
            cli.main(["ask", *(str(word) for word in argv)])
            status = 0
        except SystemExit as end:
            status = end.code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return status, out, error

    return call


def test_the_passages_are_those_of_python(esr, cascade):
    asked = ["talks", "--source", cascade, *CUT, "--question", "the voice"]
    status, out, error = esr(*asked)
    assert status == 0, error
    with PassageFinder(
        str(cascade), "talks", "0.6s", n_workers=1, progress=False
    ) as finder:
        hits = finder.find("the voice", k=3)
    question, *lines = out.splitlines()
    assert question == "the voice" and len(lines) == 3
    for line, hit in zip(lines, hits, strict=True):
        segment = hit.segment
        rank, score, times, path = line.split()
        assert int(rank) == hit.rank + 1
        assert float(score) == pytest.approx(hit.score, abs=6e-4)
        assert times == f"{hms(segment.start)}-{hms(segment.stop)}"
        assert path == segment.path


def test_several_questions_to_one_index(esr, cascade, tmp_path):
    (tmp_path / "questions.txt").write_text("a voice\n\n  who is sad? \n")
    asked = ["--question", "calm", "--questions", "questions.txt", "-k", "2"]
    status, first, error = esr(
        "talks", "--source", cascade, *CUT, "--index", "index", *asked
    )
    assert status == 0, error
    blocks = first.strip().split("\n\n")
    assert [b.splitlines()[0] for b in blocks] == [
        "calm",
        "a voice",
        "who is sad?",
    ]
    assert all(len(block.splitlines()) == 3 for block in blocks)
    # Again, from what is kept; the index knows its retriever.
    assert esr("--index", "index", *asked)[:2] == (0, first)
    assert esr("talks", "--index", "index", *asked)[:2] == (0, first)


def test_the_index_is_one_for_esr_search(esr, cascade, capsys):
    """Where the best hits can be ranked again by their words."""
    asked = ["talks", "--source", cascade, *CUT, "--index", "index"]
    assert esr(*asked, "--question", "calm")[0] == 0
    cli.main("search index --content calm --rerank 4 -k 2".split())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(".wav" in line for line in lines[1:])


def test_json_and_clips(esr, cascade, tmp_path):
    asked = ["talks", "--source", cascade, *CUT, "-k", "2"]
    asked += ["--question", "calm", "--question", "loud"]
    status, out, _ = esr(*asked, "--json", "-", "--clips", "clips")
    assert status == 0
    rows = json.loads(out)  # nothing else is there
    assert [row["question"] for row in rows] == ["calm", "loud"]
    assert all(row["answer"] is None for row in rows)
    for number, row in enumerate(rows, start=1):
        folder = tmp_path / "clips" / str(number)
        with open(folder / "index.csv", newline="") as file:
            clips = list(csv.DictReader(file))
        assert len(clips) == len(row["passages"]) == 2
        for line, passage in zip(clips, row["passages"], strict=True):
            info = soundfile.info(folder / line["clip"])
            assert info.duration == pytest.approx(passage["duration"])
    status, out, error = esr(
        *asked[:-2], "--json", "found/all.json", "--clips", "one"
    )
    assert status == 0 and out.startswith("calm\n")
    assert "2 clips cut to one" in error
    (row,) = json.loads((tmp_path / "found/all.json").read_text())
    assert row == rows[0]


def test_a_model_answers(esr, cascade, qwen, tmp_path):
    asked = ["talks", "--source", cascade, *CUT, "--question", "who is sad?"]
    asked += ["--index", "index", "--json", "-"]
    asked += ["--answer_with", qwen, "--answer_precision", "fp32"]
    answerer = QwenAudioAnswerer(qwen, precision="fp32", local_files_only=True)
    with PassageFinder(
        str(cascade), "talks", "0.6s", "index", n_workers=1, progress=False
    ) as finder:
        hits = finder.find("who is sad?", k=3)
    for n_clips in 1, 2:
        status, out, error = esr(*asked, "--answer_from", n_clips)
        assert status == 0, error
        (row,) = json.loads(out)
        wanted = answerer("who is sad?", read_clips(hits[:n_clips]))
        assert row["answer"] == wanted and row["seconds"] > 0
    status, out, _ = esr(*asked[:-6], "--answer-with", qwen)
    assert status == 0 and out.splitlines()[1].startswith("  answer: ")


def test_what_cannot_be_read_is_listed(esr, cascade, tmp_path):
    (tmp_path / "talks/broken.wav").write_text("no audio")
    status, out, error = esr(
        "talks", "--source", cascade, *CUT, "--question", "calm"
    )
    assert status == 0 and len(out.splitlines()) == 4
    assert "1 skipped:" in error and "broken.wav: corrupt" in error


def test_what_was_found_before_a_failure_is_handed_on(
    esr, cascade, tmp_path, monkeypatch
):
    """The second of three questions fails; the first stays."""
    real = PassageFinder.find

    def find(finder, question, *more):
        if question == "loud":
            raise MendableError("the drive is gone")
        return real(finder, question, *more)

    monkeypatch.setattr(PassageFinder, "find", find)
    asked = ["talks", "--source", cascade, *CUT, "-k", "2"]
    for question in "calm", "loud", "fast":
        asked += ["--question", question]
    status, out, error = esr(*asked, "--json", "a.json", "--clips", "clips")
    assert status == 2 and "error: the drive is gone" in error
    assert out.splitlines()[0] == "calm" and len(out.splitlines()) == 3
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["question"] == "calm" and len(row["passages"]) == 2
    assert len(list((tmp_path / "clips/1").glob("*.wav"))) == 2
    status, out, error = esr(*asked, "--json", "-")
    assert status == 2 and json.loads(out) == [row]
    # Where the first fails there is nothing to write.
    status, out, _ = esr(*asked[:-6], "--question", "loud", "--json", "b.json")
    assert status == 2 and out == "" and not (tmp_path / "b.json").exists()


def test_answers_are_shown_as_they_come(esr, cascade, monkeypatch, capsys):
    real, shown = PassageFinder.find, []

    def find(finder, *question):
        shown.append(capsys.readouterr().out)
        return real(finder, *question)

    monkeypatch.setattr(PassageFinder, "find", find)
    asked = ["talks", "--source", cascade, *CUT, "-k", "1"]
    asked += ["--question", "calm", "--question", "loud"]
    assert esr(*asked)[0] == 0
    assert shown[0] == "" and shown[1].startswith("calm\n")


def test_a_file_is_replaced_by_the_json(esr, cascade, tmp_path):
    (tmp_path / "old.json").write_text("before")
    asked = ["talks", "--source", cascade, *CUT, "--question", " calm  "]
    assert esr(*asked, "--json", "old.json")[0] == 0
    (row,) = json.loads((tmp_path / "old.json").read_text())
    assert row["question"] == "calm"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--question", "  "], "a --question is blank"),
        (["--question", ""], "a --question is blank"),
        (["--question", "calm\udcff?"], "is no text in UTF-8"),
        (["--question", "x", "--json", ""], "--json: name a file"),
    ],
)
def test_what_has_blanks_is_refused_before_listening(
    esr, cascade, monkeypatch, more, message
):
    def listen(*arguments, **options):
        raise AssertionError("listened before a question was read")

    monkeypatch.setattr(PassageFinder, "__init__", listen)
    asked = ["talks", "--source", cascade, "--question", "calm"]
    status, out, error = esr(*asked, *more)
    assert status == 2 and out == "" and message in error


@pytest.mark.parametrize(
    "words, message",
    [
        ("talks --source R", "what is asked? give --question"),
        ("talks --question x", "with what? give --source RETRIEVER"),
        ("--source R --question x", "ask what? give recordings"),
        ("none.wav --source R --question x", "none.wav: missing"),
        ("talks --source none --question x", "none"),
        ("talks --source R --question x --segments 40", "write 40s (windows"),
        ("talks --source R --question x -k 0", "-k 0: give 1 or more"),
        ("talks --source R --question x -k -1", "-k -1: give 1 or more"),
        (
            "talks --source R --question x --answer_from 4",
            "--answer_from 4: give 1 to 3",
        ),
        ("talks --source R --question x --clips talks", "no empty folder"),
        ("talks --source R --question x --json talks", "is a folder"),
        ("talks --source R --question x --device q", "cannot be used here"),
        ("talks --source R --question x --json pipe", "is a folder or device"),
        (
            "talks --source R --question x --json latin.txt/new/a.json",
            "latin.txt is no folder that may be written to",
        ),
        (
            "talks --source R --questions none.txt",
            "--questions none.txt cannot be read (No such file",
        ),
        (
            "talks --source R --questions talks",
            "--questions talks cannot be read (Is a directory)",
        ),
        ("talks --source R --questions latin.txt", "no text in UTF-8"),
        ("talks --source R --questions empty.txt", "what is asked?"),
        (
            "talks --source R --question x --answer_with none",
            "the answering backbone none is no folder here",
        ),
        (
            "talks --source R --question x --answer_with R/text_backbone",
            "not one that hears and answers",
        ),
        ("--index nothing --question x", "nothing"),
    ],
)
def test_what_is_wrong_is_one_line(esr, cascade, tmp_path, words, message):
    (tmp_path / "latin.txt").write_bytes(b"wer l\xe4uft?")
    (tmp_path / "empty.txt").write_text("\n \n")
    os.mkfifo(tmp_path / "pipe")
    words = words.replace(" R", f" {cascade}").split()
    status, out, error = esr(*words)
    assert status == 2 and out == ""
    _, sign, line = error.partition("error: ")
    assert sign and message in line
