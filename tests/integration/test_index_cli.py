"""The command esr index, from the first build to the tenth.

Authors
 * The esr_lobes contributors
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from tiny_retriever import make_tiny_retriever

from esr_lobes import cli
from esr_lobes.index.local import LocalStore
from esr_lobes.index.store import write_lock


@pytest.fixture
def corpus(tmp_path, write_tone):
    for i in range(3):
        path = tmp_path / "audio" / f"{i}.wav"
        write_tone(path, 0.5 + i, 200.0 + 100 * i, seed=i)
    return tmp_path / "audio"


@pytest.fixture
def esr(tmp_path, tiny_retriever, monkeypatch, capsys):
    """Runs ``esr index WORDS --out index``: status, output, last complaint.

    R stands for the retriever.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logging.raiseExceptions", False)

    def call(words, out="index"):
        words = [
            word.replace("=R", f"={tiny_retriever}")
            if word != "R"
            else str(tiny_retriever)
            for word in words.split()
        ]
        try:
            cli.main(["index", *words, "--out", str(out)])
            status = 0
        except SystemExit as end:
            status = end.code
        output, error = capsys.readouterr()
        assert "Traceback" not in error
        return status, output, (error.strip().splitlines() or [""])[-1]

    return call


def info(folder="index"):
    return LocalStore(folder).info


def test_from_the_first_build_to_the_tenth(esr, corpus, write_tone):
    (corpus / "broken.wav").write_text("no audio")
    status, output, _ = esr("audio --source R --cut windows")
    assert status == 0
    lines = output.splitlines()
    assert lines[0] == "4 files: 4 new"
    assert lines[1].startswith("1 skipped, listed in /")
    assert os.path.exists(lines[1].partition("listed in ")[2])
    assert lines[2].startswith("4 segments, 6 s of speech, in ")
    # Cutting and retriever are known from now on, and the folder, too.
    os.unlink(corpus / "0.wav")
    write_tone(corpus / "5.wav", 0.5, 900.0)
    status, output, _ = esr("")
    assert status == 0
    assert output.startswith("4 files: 1 new, 3 unchanged, 1 dropped\n")
    status, output, _ = esr("audio/5.wav --prune")
    assert output.startswith("1 files: 1 unchanged, 3 dropped\n")
    assert len(LocalStore("index")) == 1


def test_options_arrive(esr, corpus, tmp_path):
    wave = np.zeros((16000, 2), np.float32)
    wave[:, 0] = np.sin(np.arange(16000))
    wave[::7, 1] = 0.5
    soundfile.write(corpus / "two.wav", wave, 16000)
    (tmp_path / "m.csv").write_text("file,actor\n1,7\n")
    status, output, line = esr(
        "audio --source style=R content=R --cut windows --max_seconds 1 "
        "--hop_seconds 0.5 --min_seconds 0.3 --channels split --metadata m.csv "
        "--workers 1 --batch_size 3 --device cpu --precision bf16"
    )
    assert status == 0, line
    about = info()
    assert set(about["spaces"]) == {"style", "content"}
    assert about["columns"] == ["actor"]
    wanted = {
        "kind": "windows",
        "max_seconds": 1.0,
        "hop_seconds": 0.5,
        "min_seconds": 0.3,
        "channels": "split",
        "precision": "bf16",
    }
    assert wanted.items() <= about["preprocessing"].items()
    store = LocalStore("index")
    segments = store.segments(store.find(str(corpus / "two.wav")))
    assert [segment.channel for segment in segments] == [0, 1]
    assert esr("")[0] == 0  # all of it is known now


@pytest.mark.parametrize(
    "words, message",
    [
        ("audio", "say with which retriever to make one: --source RETRIEVER"),
        ("nowhere --source R", "nowhere: missing (no such file or folder)"),
        ("--source R", "index what? give files, or folders with audio"),
        ("audio --source R --metadata .", "no such file"),
        ("audio --source none", "none"),
        ("audio --source style=R R", "each with the name of its space once"),
        ("audio --source a=R a=R", "each with the name of its space once"),
        ("audio --source Style=R", "a space is called by small letters"),
        ("audio --source R --device cudda", "--device cudda cannot be used"),
        ("audio --source R --max_seconds 0", "max_seconds is 0.0, but must"),
        ("audio --source R --metadata no.csv", "no.csv: no such file"),
        ("audio --source R --batch_size 0", "batch_size must be at least 1"),
        ("audio --source R --workers 0", "workers must be at least 1"),
        ("audio --source R --prune --cut words", "invalid choice: 'words'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(esr, corpus, words, message):
    status, _, line = esr(words)
    assert status == 2 and message in line
    assert not os.path.exists("index")


def test_other_settings_than_the_index_has(
    esr, corpus, tiny_text_backbone, tmp_path
):
    esr("audio --source R --cut windows")
    make_tiny_retriever(tmp_path / "other", tiny_text_backbone, 1)
    for words in ("--source other", "--cut voice", "--max_seconds 1.5"):
        status, _, line = esr(f"audio {words}")
        assert status == 2
        assert line.endswith("or add --rebuild to make all of it anew")
    assert esr("audio --source other --rebuild")[0] == 0
    assert info()["spaces"]["style"]["source"] == str(tmp_path / "other")


def test_the_second_writer(esr, corpus):
    with write_lock("index"):
        status, _, line = esr("audio --source R")
    assert status == 2 and "another process is writing" in line


def test_a_folder_that_is_no_index(esr, corpus):
    status, _, line = esr("audio --source R", out=corpus)
    assert status == 2 and "holds other files" in line


@pytest.mark.parametrize("out", ["file", "file/index"])
def test_a_file_in_the_way(esr, corpus, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    status, _, line = esr("audio --source R", out=out)
    assert status == 2 and "file" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_reader_that_stops_early_is_no_mistake():
    script = """
from esr_lobes.errors import one_line_errors
@one_line_errors
def tell():
    for _ in range(100000):
        print("a line")
tell()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit):
        cli.main(["index", "--help"])
    text = capsys.readouterr().out
    assert "esr index recordings --source RETRIEVER --out index" in text


def test_ctrl_c_ends_with_one_line_and_goes_on(
    tmp_path, write_tone, tiny_retriever, esr
):
    """Even while a long recording is being listened to."""
    for i in range(64):
        write_tone(tmp_path / "audio" / f"{i:03d}.wav", 0.3, 200.0 + i)
    # The last one, still under way when the signal comes.
    wave = np.tile(np.sin(np.arange(16000) * 0.1).astype(np.float32), 1800)
    soundfile.write(tmp_path / "audio" / "long.flac", wave, 16000)
    words = ["index", "audio", "--out", "index", "--cut", "windows"]
    words += ["--source", str(tiny_retriever), "--hop_seconds", "0.5"]
    # A shell starts what runs in the background deaf to Ctrl-C, and the tests
    # may be such.
    script = "import signal; from esr_lobes import cli; "
    script += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script} cli.main({words})"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        unfinished = tmp_path / "index" / "unfinished"
        end = time.monotonic() + 120
        while len(list(unfinished.glob("*.shard"))) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("stopped: the index is as it was")
    assert "Traceback" not in error
    os.unlink(tmp_path / "audio" / "long.flac")
    words = "audio --source R --cut windows --hop_seconds 0.5"
    status, output, _ = esr(words)
    assert status == 0 and "64 were done by an earlier run" in output
    shutil.rmtree(tmp_path / "index")
