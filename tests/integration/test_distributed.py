"""Two processes learn what one would, write once, and resume.

Authors
 * The esr_lobes contributors
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import one_step
import pytest
import speechbrain as sb
import torch
from safetensors.torch import load_file
from tiny_corpora import write_esd

from esr_lobes import EncoderRetriever
from esr_lobes.distributed import join_processes
from esr_lobes.errors import MendableError

ROOT = Path(__file__).resolve().parents[2]
N_EPOCHS = 3
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(),
    reason="finds the processes that it started in /proc",
)


class Program:
    """A program and all the processes that it starts.

    torchrun puts its workers into sessions of their own, and they outlive
    it; but all of them inherit a mark.
    """

    def __init__(self, log, *arguments):
        self.log = Path(log)
        mark = uuid.uuid4().hex
        self.mark = f"ESR_LOBES_TEST={mark}".encode()
        with open(log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "ESR_LOBES_TEST": mark},
            )

    def alive(self):
        """Returns the ids of its processes that still run."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def finish(self):
        """Waits for its end and shows what it said if it failed."""
        try:
            status = self.process.wait(timeout=240)
        finally:
            self.stop()
        assert status == 0, self.log.read_text()[-4000:]

    def stop(self):
        """Kills all its processes and waits until they are gone."""
        deadline = time.monotonic() + 30
        while alive := self.alive():
            assert time.monotonic() < deadline, f"{alive} do not end"
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.02)
        self.process.wait()


def test_two_processes_have_the_loss_and_gradients_of_one(
    tmp_path, tiny_backbone
):
    """With four and three clips; all are compared with the words of all."""
    bank = tmp_path / "bank.yaml"
    bank.write_text(
        "templates: ['a {} voice']\n"
        "styles: {angry: [angry], calm: [calm], happy: [happy], sad: [sad]}\n"
    )
    speech = tiny_backbone("emotion2vec")
    rest = bank, tiny_backbone("bert"), speech, "compact"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one_step.main(tmp_path / "one", *rest)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(
        one_step.join_and_step, (2, port, tmp_path / "two", *rest), nprocs=2
    )
    for encoder in (speech.name, "compact"):
        one, two = (
            load_file(tmp_path / name / f"{encoder}.safetensors")
            for name in ("one", "two")
        )
        assert one.keys() == two.keys()
        assert {key.split(".")[0] for key in one} == {
            "loss",
            "speech_encoder",
            "speech_projection",
            "text_projection",
            "classifier",
            "discriminator",
            "logit_scale",
        }
        for key, expected in one.items():
            error = (two[key] - expected).abs().max()
            assert error < 1e-5, key
            if key.endswith("weight"):  # there is something to compare
                assert error < 1e-3 * expected.abs().max(), key


@pytest.fixture(scope="module")
def training(tmp_path_factory, tiny_backbone):
    """A function from a folder to the arguments of a short training.

    Layers are dropped, another one in each process.
    """
    corpus = tmp_path_factory.mktemp("esd")
    write_esd(corpus, ["0011", "0012"])
    text, speech = tiny_backbone("roberta"), tiny_backbone("emotion2vec")
    options = (
        ROOT / "recipes" / "ESD" / "train.py",
        ROOT / "hparams" / "roberta_e2v.yaml",
        "--device=cpu",
        "--noprogressbar",
        f"--data_folder={corpus}",
        "--batch_size=4",
        "--embed_dim=16",
        f"--number_of_epochs={N_EPOCHS}",
        "--num_workers=0",
        "--ema_decay=0.9",
        "--start_epochs={classification: 1, contrastive: 2, adversarial: 3}",
        f"--text_encoder={{width: 32, model: {{source: '{text}'}}}}",
        f"--speech_encoder={{width: 32, model: {{source: '{speech}', "
        "layerdrop: 0.5}}",
    )
    torchrun = "-m torch.distributed.run --standalone --nproc_per_node=2"
    return lambda folder: (
        *torchrun.split(),
        *options,
        f"--output_folder={folder}",
    )


def test_a_killed_training_on_two_processes_goes_on_to_the_same_numbers(
    training, tmp_path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    Program(tmp_path / "whole.txt", *training(whole)).finish()
    lines = (whole / "train_log.txt").read_text().splitlines()
    assert len(lines) == N_EPOCHS  # of one writer

    program = Program(tmp_path / "broken.txt", *training(broken))
    log, deadline = broken / "train_log.txt", time.monotonic() + 240
    try:
        while not log.exists() or log.read_text().count("\n") < N_EPOCHS - 1:
            assert program.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(program.alive()) >= 3  # torchrun and two workers
    finally:
        program.stop()
    assert not program.alive()
    assert log.read_text().count("\n") < N_EPOCHS
    assert not (broken / "retriever").exists()
    Program(tmp_path / "resumed.txt", *training(broken)).finish()
    assert log.read_text().splitlines()[-1] == lines[-1]

    weights = [
        load_file(folder / "retriever" / "weights.safetensors")
        for folder in (whole, broken)
    ]
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
    retriever = EncoderRetriever.from_hparams(source=str(broken / "retriever"))
    assert retriever.encode_text(["a calm voice"]).shape == (1, 16)
    assert (broken / "evaluation" / "test" / "report.json").exists()


def test_more_processes_than_gpus_are_told_so(monkeypatch):
    n_gpus = torch.cuda.device_count()
    monkeypatch.setenv("LOCAL_RANK", str(n_gpus))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(n_gpus + 1))
    message = f"There are {n_gpus} GPUs for {n_gpus + 1} processes"
    with pytest.raises(MendableError, match=message):
        join_processes(sb.RunOptions(device="cuda"))
