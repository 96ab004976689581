"""Two processes learn what one would, write once, and resume.

Authors
 * The esr_lobes contributors
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import one_step
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpora import write_esd

from esr_lobes import EncoderRetriever

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
TWO = (*TORCHRUN, "--nproc_per_node=2")


def start(*arguments, out=None):
    """Starts a program with its children in a group of their own."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=out,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(process, log):
    """Waits for a program and shows what it said if it failed."""
    try:
        status = process.wait(timeout=240)
    finally:
        stop(process)
    assert status == 0, log.read_text()[-4000:]


def stop(process):
    """Kills a program and its children, wherever they are."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def run(log, *arguments):
    with open(log, "w", encoding="utf-8") as out:
        finish(start(*arguments, out=out), log)


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
    run(tmp_path / "log", *TWO, one_step.__file__, tmp_path / "two", *rest)
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
        "--number_of_epochs=6",
        "--ema_decay=0.9",
        "--start_epochs={classification: 1, contrastive: 2, adversarial: 3}",
        f"--text_encoder={{width: 32, model: {{source: '{text}'}}}}",
        f"--speech_encoder={{width: 32, model: {{source: '{speech}', "
        "layerdrop: 0.5}}",
    )
    return lambda folder: (*TWO, *options, f"--output_folder={folder}")


def test_a_killed_training_on_two_processes_goes_on_to_the_same_numbers(
    training, tmp_path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tmp_path / "whole.txt", *training(whole))
    lines = (whole / "train_log.txt").read_text().splitlines()
    assert len(lines) == 6  # of one writer

    process = start(*training(broken), out=subprocess.DEVNULL)
    log, deadline = broken / "train_log.txt", time.monotonic() + 240
    try:
        while not log.exists() or not log.read_text().count("\n") >= 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        stop(process)
    assert log.read_text().count("\n") < 6
    assert not (broken / "retriever").exists()
    run(tmp_path / "resumed.txt", *training(broken))
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


def test_more_processes_than_gpus_are_told_so(training, tmp_path):
    n_gpus = torch.cuda.device_count()
    arguments = list(training(tmp_path / "out"))
    arguments[3] = f"--nproc_per_node={n_gpus + 1}"
    arguments[arguments.index("--device=cpu")] = "--device=cuda"
    log = tmp_path / "log.txt"
    with open(log, "w", encoding="utf-8") as out:
        process = start(*arguments, out=out)
        try:
            assert process.wait(timeout=240) != 0
        finally:
            stop(process)
    assert f"There are {n_gpus} GPUs for {n_gpus + 1} proc" in log.read_text()
