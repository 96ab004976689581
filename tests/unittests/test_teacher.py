"""A teacher's words: heard once, kept, and heard again only if need be.

Authors
 * The esr_lobes contributors
"""

import json
import os
import socket

import pytest
import soundfile
import torch
from speechbrain.utils.run_opts import RunOptions
from tiny_recognisers import make_tiny_whisper

from esr_lobes.cascade.recogniser import Recogniser
from esr_lobes.cascading import write_cascade
from esr_lobes.datasets import ClipReader
from esr_lobes.distributed import join_processes
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError
from esr_lobes.teacher import open_teacher, read_words, write_down


class Counting(Recogniser):
    """Says how many samples a clip has; of one of 800, nothing.

    Stops like a killed run before it hears more than so many clips.
    """

    def __init__(self, ear="good", most=1000):
        super().__init__({"ear": ear})
        self.most, self.heard = most, 0

    def transcribe_clips(self, clips):
        self.heard += len(clips)
        if self.heard > self.most:
            raise KeyboardInterrupt
        return ["" if len(c) == 800 else f"n{len(c)}" for c in clips]

    def arguments(self, source):
        return {}


@pytest.fixture
def clips(tmp_path):
    """Twenty clips of 0.05 s to 1 s, the longest first."""
    rows = []
    for i in reversed(range(20)):
        path = tmp_path / f"{i:02d}.wav"
        wave = 0.1 * torch.randn(800 * (i + 1)).numpy()
        soundfile.write(path, wave, 16000)
        rows.append(
            {"ID": path.stem, "wav": str(path), "start": 0.0}
            | {"stop": len(wave) / 16000, "channel": None}
            | {"duration": len(wave) / 16000}
        )
    return rows


def hear(teacher, clips, folder):
    return write_down(teacher, clips, ClipReader(), folder, is_shown=False)


def test_each_clip_has_its_words(clips, tmp_path):
    words = hear(Counting(), clips, tmp_path / "teacher")
    assert list(words) == [clip["ID"] for clip in clips]
    assert words["00"] == "" and words["01"] == "n1600"
    assert words["19"] == "n16000"


def test_a_clip_is_heard_once(clips, tmp_path):
    words = hear(Counting(), clips, tmp_path / "teacher")
    again = Counting()
    assert hear(again, clips[3:], tmp_path / "teacher").items() <= words.items()
    assert again.heard == 0


def test_a_killed_run_goes_on_where_it_was(clips, tmp_path):
    folder = tmp_path / "teacher"
    with pytest.raises(KeyboardInterrupt):
        hear(Counting(most=16), clips, folder)
    assert len(read_words(folder)) == 16
    path = folder / "words-0.jsonl"
    path.write_text(path.read_text()[:-20])  # and a line was cut off
    again = Counting()
    words = hear(again, clips, folder)
    assert again.heard == 5
    assert words == hear(Counting(), clips, tmp_path / "anew")


def test_another_teacher_or_file_is_heard_anew(clips, tmp_path):
    folder = tmp_path / "teacher"
    hear(Counting(), clips, folder)
    other = Counting(ear="bad")
    hear(other, clips, folder)
    assert other.heard == 20
    soundfile.write(clips[0]["wav"], 0.1 * torch.randn(80).numpy(), 16000)
    clips[0]["stop"] = 0.005
    os.utime(clips[1]["wav"], (1, 1))  # only its date
    clips[2]["start"] = 0.1
    again = Counting()
    words = hear(again, clips, folder)
    assert again.heard == 2 and words["19"] == "n80"


def hear_as_one_of_two(rank, port, clips, folder):
    """What each of two processes does that torchrun has started."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    join_processes(RunOptions(device="cpu"))
    teacher = Counting()
    words = hear(teacher, clips, folder)
    assert teacher.heard == 10 and len(words) == 20
    assert words["19"] == "n16000" and words["18"] == "n15200"


def test_processes_share_the_work(clips, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(
        hear_as_one_of_two, (port, clips, tmp_path / "teacher"), nprocs=2
    )
    alone = Counting()  # takes what both have left
    assert len(hear(alone, clips, tmp_path / "teacher")) == 20
    assert alone.heard == 0


def test_a_retriever_that_recognises_words_is_a_teacher(
    clips, tmp_path, tiny_text_backbone, tiny_retriever
):
    """As is a recogniser of transformers."""
    whisper = make_tiny_whisper(tmp_path / "whisper")
    recogniser = open_teacher(str(whisper))
    write_cascade(
        tmp_path / "cascade", recogniser, TextEncoder(tiny_text_backbone)
    )
    teacher = open_teacher(str(tmp_path / "cascade"))
    expected = hear(recogniser, clips[:4], tmp_path / "a")
    assert hear(teacher, clips[:4], tmp_path / "b") == expected
    assert any(expected.values())
    first = (tmp_path / "b" / "words-0.jsonl").read_text().split("\n")[1]
    assert json.loads(first)["ID"] == "16"
    with pytest.raises(MendableError, match="writes no words down"):
        open_teacher(tiny_retriever)
