"""The esr command: where a report goes, and a line for what is wrong.

Authors
 * The esr_lobes contributors
"""

import json
import shutil

import pytest
from tiny_retriever import make_tiny_retriever

from esr_lobes import cli
from esr_lobes.manifests import write_manifest
from esr_lobes.runs import RunFolder

FEW = ("--trials", "20", "--banks", "train")
BANK = "templates: ['a {} voice']\nstyles: {calm: [calm], happy: [jolly]}\n"


@pytest.fixture
def training(tmp_path, tiny_text_backbone, write_tone):
    """A training's output folder; its weights are random."""
    folder = tmp_path / "run"
    retriever = folder / "retriever"
    make_tiny_retriever(retriever, tiny_text_backbone)
    corpus = tmp_path / "corpus"
    (folder / "hyperparams.yaml").write_text("train_bank: train\n")
    RunFolder(folder).note_corpora({"": str(corpus)})
    rows = []
    for i in range(6):
        write_tone(corpus / f"{i}.wav", 0.5, 200.0 + 100 * i, seed=i)
        rows.append(
            {
                "ID": str(i),
                "duration": 0.5,
                "wav": f"{{data_root}}/{i}.wav",
                "start": 0.0,
                "stop": 0.5,
                "channel": None,
                "speaker": "ann",
                "style": ("calm", "happy")[i % 2],
            }
        )
    (folder / "manifests").mkdir()
    write_manifest(folder / "manifests" / "test.csv", rows)
    return folder


@pytest.fixture
def esr(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; gives its status and complaint."""
    monkeypatch.setattr("logging.raiseExceptions", False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(*argv):
        try:
            cli.main([str(word) for word in argv])
            status = 0
        except SystemExit as end:
            status = end.code
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert list(here.iterdir()) == []
        return status, (error.strip().splitlines() or [""])[-1]

    return call


def test_a_trainings_own_report_is_made_again(esr, training):
    assert esr("evaluate", training)[0] == 0
    path = training / "evaluation" / "test" / "report.json"
    systems = json.loads(path.read_text())["systems"]
    assert set(systems) == {"train", "held_out"}


def test_the_banks_are_those_of_the_training(esr, training, tmp_path):
    (tmp_path / "mine.yaml").write_text(BANK)
    page = f"train_bank: {tmp_path / 'mine.yaml'}\n"
    (training / "hyperparams.yaml").write_text(page)
    assert esr("evaluate", training, "--trials=9", "--out=../o")[0] == 0
    report = json.loads((tmp_path / "o" / "test" / "report.json").read_text())
    assert "mine" in report["systems"] and "train" not in report["systems"]


@pytest.mark.parametrize(
    "setting",
    [
        "--manifest={run}/manifests/test.csv",
        "--data_root={run}/../corpus",
        "--banks=train",
        "--trials=20",
        "--distractors=2",
        "--seed=1",
    ],
)
def test_another_report_does_not_go_over_the_trainings(esr, training, setting):
    own = training / "evaluation"
    own.mkdir()
    status, line = esr("evaluate", training, setting.format(run=training))
    assert status == 2 and "add --out FOLDER" in line
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("source", ["{run}/retriever", "owner/name"])
def test_no_report_goes_into_a_retriever(esr, training, source):
    manifest = training / "manifests" / "test.csv"
    before = sorted(training.rglob("*"))
    argv = ("evaluate", source.format(run=training), "--manifest", manifest)
    status, line = esr(*argv, "--data_root", training.parent / "corpus")
    assert status == 2 and "add --out FOLDER" in line
    assert sorted(training.rglob("*")) == before


def test_a_retriever_and_a_manifest(esr, training, tmp_path):
    status, line = esr(
        "evaluate",
        training / "retriever",
        "--manifest",
        training / "manifests" / "test.csv",
        "--data_root",
        tmp_path / "corpus",
        "--out",
        tmp_path / "new" / "report",
        *FEW,
    )
    assert status == 0, line
    assert (tmp_path / "new" / "report" / "report.md").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--device=cudda"], "--device cudda cannot be used here: give cpu"),
        (["--device=cuda:77"], "--device cuda:77 cannot be used here"),
        (["--device=meta"], "--device meta cannot be used here"),
        (["--banks", "train", "train"], "--banks names train twice"),
        (["--banks", "trian"], "no prompt bank 'trian'"),
        (["--out={run}/hyperparams.yaml"], "hyperparams.yaml is no folder"),
        (["--out={run}/hyperparams.yaml/a/b"], "hyperparams.yaml is no folder"),
        (["--manifest={run}/none.csv"], "none.csv: no such manifest"),
        (["--manifest={run}/empty.csv"], "empty.csv has no clips"),
        (["--manifest={run}/odd.csv"], "unknown style 'clam'; allowed: angry"),
    ],
)
def test_what_is_wrong_is_said_before_the_retriever_is_loaded(
    esr, training, options, message
):
    for path in (training / "retriever").glob("*.safetensors"):
        path.unlink()  # so that it could not be
    text = (training / "manifests" / "test.csv").read_text()
    (training / "empty.csv").write_text(text.splitlines()[0] + "\n")
    (training / "odd.csv").write_text(text.replace("calm", "clam"))
    before = sorted(training.rglob("*"))
    options = [option.format(run=training) for option in options]
    status, line = esr("evaluate", training, "--out=../report", *options)
    assert status == 2
    assert message in line
    assert sorted(training.rglob("*")) == before


def test_a_training_without_a_retriever_says_why(esr, training):
    """Of a classifier, or broken off."""
    shutil.rmtree(training / "retriever")
    status, line = esr("evaluate", training)
    assert status == 2 and "holds no retriever" in line


def test_one_root_is_not_for_several_corpora(esr, training):
    RunFolder(training).note_corpora({"A": "here", "B": "there"})
    argv = ("evaluate", training, "--data_root=x", "--out=../o")
    status, line = esr(*argv)
    assert status == 2 and "corpora A, B: one data_root cannot" in line
