"""The commands for tables and figures, on trainings with random weights.

Authors
 * The esr_lobes contributors
"""

import shutil

import numpy as np
import pytest
import test_cli

from esr_lobes import cli
from esr_lobes.evaluation import evaluate
from esr_lobes.runs import RunFolder

training = test_cli.training  # fixtures
esr = test_cli.esr


@pytest.fixture
def results(training, tmp_path):
    """A page and an ablation of it, with the same report."""
    rows = RunFolder(training).test_sets()["test"]
    rng = np.random.default_rng(0)
    prompts = {
        bank: {
            style: rng.standard_normal((2, 4)) for style in ("calm", "happy")
        }
        for bank in ("train", "held_out")
    }
    clips = rng.standard_normal((len(rows), 4))
    report = evaluate(clips, rows, prompts, n_resamples=0)
    report.save(training / "evaluation" / "test", is_drawn=False)
    folder = tmp_path / "results"
    for name in ("compact", "compact-no_discriminator"):
        shutil.copytree(training, folder / "Tones" / name / "7")
    return folder


def test_tables_are_printed_and_written(results, tmp_path, capsys):
    out = tmp_path / "new" / "tables.md"
    cli.main(["tables", str(results), "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed == out.read_text()
    assert "## Table III" in printed
    assert f"From 2 reports below `{results}`." in printed
    others = printed.partition("# Other systems and test sets")[2]
    assert "## compact on Tones, test" in others
    (line,) = [
        line
        for line in others.partition("held_out.")[0].splitlines()
        if "no_discriminator" in line
    ]
    # The weights are the same, so nothing is lost.
    assert line.count("+0.0000") == 2


def test_a_folder_without_results_is_all_missing(tmp_path, capsys):
    cli.main(["tables", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "not run here" in printed and "Other systems" not in printed


def test_before_the_first_training_there_is_no_folder(tmp_path, capsys):
    cli.main(["tables", str(tmp_path / "none")])
    assert "There is no such folder yet" in capsys.readouterr().out


def test_runs_are_drawn_beside_each_other(results, tmp_path, capsys):
    runs = sorted(map(str, results.glob("Tones/*/7")))
    shutil.rmtree(results / "Tones/compact/7/retriever")
    out = tmp_path / "figures"
    cli.main(["figures", *runs, "--out", str(out)])
    printed = capsys.readouterr().out
    for name in ("durations.png", "embeddings.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert str(out / name) in printed
    assert "No map of compact/7: it has no retriever." in printed
    assert "| compact-no_discriminator/7 |     6 | " in printed


@pytest.mark.parametrize(
    "change, message",
    [
        ("twice", "named twice"),
        ("clips", "have different test clips"),
        ("trials", "not judged on the same clips"),
        ("report", "There is no report at"),
        ("set", "There is no report at"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    esr, results, tmp_path, change, message
):
    one, other = sorted(results.glob("Tones/*/7"))
    report = other / "evaluation" / "test" / "report.json"
    options = ["--test_set=tset"] if change == "set" else []
    if change == "twice":
        other = one
    elif change == "clips":
        manifest = other / "manifests" / "test.csv"
        manifest.write_text(manifest.read_text().replace("\n5,", "\nfive,"))
    elif change == "trials":
        text = report.read_text()
        report.write_text(text.replace('"n_trials": 1000', '"n_trials": 9'))
    elif change == "report":
        report.unlink()
    out = tmp_path / "figures"
    status, line = esr("figures", one, other, "--out", out, *options)
    assert status == 2 and message in line
    assert not (out / "embeddings.png").exists()
