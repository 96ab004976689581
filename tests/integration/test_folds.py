"""The five folds of RAVDESS: what is kept, refused, counted and printed.

Authors
 * The esr_lobes contributors
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = str(ROOT / "hparams" / "compact.yaml")
FIGURES = ("R@1", "R@5", "R@10", "R@20")


@pytest.fixture(scope="module")
def folds():
    """The script, as a module."""
    path = ROOT / "recipes" / "RAVDESS" / "folds.py"
    spec = importlib.util.spec_from_file_location("ravdess_folds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(folds, monkeypatch, capfd):
    """Runs the script; gives its status and its two outputs."""

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["folds.py", *map(str, argv)])
        try:
            folds.main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, *capfd.readouterr()

    return call


def tiny(backbone):
    """Returns the options that make both encoders tiny."""
    text = f"{{width: 32, model: {{source: '{backbone}'}}}}"
    speech = "{width: 32, model: {channels: [8, 8], frame_strides: [1, 2]}}"
    return f"--text_encoder={text}", f"--speech_encoder={speech}"


def finish(folder, **maps):
    """Writes the report of a fold with these mAPs by bank."""
    systems = {
        bank: {"macro": {"mAP": value} | dict.fromkeys(FIGURES, 0.5)}
        for bank, value in maps.items()
    }
    path = folder / "evaluation" / "test" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"systems": systems}))


def test_results_without_minutes_or_command_are_printed(run, tmp_path):
    """As a kill after the report, or an earlier version, leaves them."""
    finish(tmp_path / "fold1", held_out=0.5, train=0.6)
    finish(tmp_path / "fold2", held_out=0.6, train=0.8)
    (tmp_path / "fold2" / "minutes.txt").write_text("12.3\n")
    status, out, _ = run(PAGE, "--out", tmp_path, "--report")
    assert status == 0
    lines = out.splitlines()
    rest = "0.500 | 0.500 | 0.500 | 0.500"
    assert lines[2] == f"| train | 1 | {rest} | 0.600 |  |"
    assert lines[3] == f"| train | 2 | {rest} | 0.800 | 12.3 |"
    assert "| **0.700 ± 0.141** |" in lines[4]
    assert lines[5].startswith("| held_out | 1 ")
    # (0.5 + 0.6) / (0.6 + 0.8)
    assert "held_out / train, ratio of the mean mAP: 0.786" in lines
    assert (tmp_path / "folds.md").read_text().strip() == out.strip()


def test_banks_of_ones_own_are_printed(folds, tmp_path):
    finish(tmp_path / "fold1", mine=0.4)
    finish(tmp_path / "fold2", mine=0.5, held_out=0.45)
    text = folds.table(tmp_path, [1, 2, 3])
    assert "| mine | mean ± deviation |" in text
    assert "held_out / mine, ratio of the mean mAP: 1.000" in text


def test_another_command_is_refused_before_any_training(folds, run, tmp_path):
    page = tmp_path / "page.yaml"
    (tmp_path / "part.yaml").write_text("a: 1\n")
    page.write_text("name: x\nseed: 1\npart: !include:part.yaml {}\n")
    folder = tmp_path / "folds" / "fold2"
    finish(folder, train=0.6)
    command = folds.command_of(str(page), ["--seed=1"])
    (folder / "command.json").write_text(json.dumps(command))
    begin = (page, "--out", folder.parent, "--folds", "2")

    assert run(*begin, "--seed=1")[0] == 0
    status, _, error = run(*begin, "--seed=2")
    assert status == 2
    assert "fold2 holds a fold of another options" in error
    assert "--seed=1" in error and "another --out, remove" in error
    (tmp_path / "part.yaml").write_text("a: 2\n")
    status, _, error = run(
        page, "--out", folder.parent, "--folds", "1", "2", "--seed=1"
    )
    assert status == 2 and "another page" in error
    assert not (folder.parent / "fold1").exists()
    # What never came to a checkpoint binds nobody.
    (folder / "evaluation" / "test" / "report.json").unlink()
    assert not folds.is_finished(folder, {"page": "x", "options": []})


def test_minutes_of_all_parts_are_added(folds, tmp_path):
    path = tmp_path / "minutes.txt"
    path.write_text("5.0\n")
    arguments = [sys.executable, "-c", "import time; time.sleep(1.2)"]
    assert folds._run_timed(arguments, path) == 0
    assert 5.02 <= float(path.read_text()) < 6
    kill = "import os; os.kill(os.getpid(), 9)"
    assert folds._run_timed([sys.executable, "-c", kill], path) == 137
    assert float(path.read_text()) >= 5.02


def test_a_fold_that_fails_says_so_in_a_line(run, tmp_path, tiny_text_backbone):
    status, _, error = run(
        PAGE,
        "--out",
        tmp_path / "out",
        "--folds",
        "1",
        f"--data_folder={tmp_path / 'nowhere'}",
        "--device=cpu",
        *tiny(tiny_text_backbone),
    )
    assert status == 2
    assert "Traceback" not in error
    assert "nowhere/: missing" in error
    assert "error: fold 1 ended with status 2" in error.splitlines()[-1]


def test_a_page_that_is_not_there(run, tmp_path):
    status, _, error = run("compakt.yaml", "--out", tmp_path / "out")
    assert (status, error.count("\n")) == (2, 1)
    assert "no page at compakt.yaml" in error


def test_a_fold_is_trained_once(run, tmp_path, tiny_text_backbone, write_tone):
    for actor in (1, 2, 5, 6):
        for style in range(1, 9):
            name = f"03-01-{style:02d}-01-01-01-{actor:02d}.wav"
            path = tmp_path / "corpus" / f"Actor_{actor:02d}" / name
            write_tone(path, 0.5, hertz=100 * style, seed=actor)
    begin = (
        PAGE,
        "--out",
        tmp_path / "out",
        "--folds",
        "1",
        f"--data_folder={tmp_path / 'corpus'}",
        "--device=cpu",
        "--noprogressbar",
        "--number_of_epochs=1",
        *tiny(tiny_text_backbone),
    )
    status, out, error = run(*begin)
    assert status == 0, error
    assert "| train | 1 |" in out and "ratio of the mean mAP" in out
    fold = tmp_path / "out" / "fold1"
    report = fold / "evaluation" / "test" / "report.json"
    time = report.stat().st_mtime_ns
    assert float((fold / "minutes.txt").read_text()) > 0
    assert run(*begin)[:2] == (0, out[out.index("| prompts") :])
    assert report.stat().st_mtime_ns == time
    assert run(*begin, "--seed=2")[0] == 2
