"""Every row of these tables runs, and leaves the files that it promises.

The tables have the columns of SpeechBrain's. Their flags speak of
``tests/tmp``: corpora in the layouts of their releases and checkpoints of the
true architectures, both small and made on the spot. To make them by hand::

    python tests/recipes/samples.py tests/tmp

Authors
 * The esr_lobes contributors
"""

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from samples import make_samples

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted(Path(__file__).parent.glob("*.csv"))
ROWS = [
    row
    for table in TABLES
    for row in csv.DictReader(table.open(encoding="utf-8"))
]


def name(row):
    """Returns what a test is called."""
    variant = re.findall(r"--variant=(\S+)", row["test_debug_flags"])
    return "-".join([row["Dataset"], Path(row["Hparam_file"]).stem, *variant])


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """The folder that stands for tests/tmp."""
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.fixture
def main(monkeypatch):
    """A function from a script's path to its ``main``."""

    def load(script):
        monkeypatch.syspath_prepend(str(script.parent))
        spec = importlib.util.spec_from_file_location("train", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_recipe_runs(row, samples, main, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.raiseExceptions", False)
    flags = row["test_debug_flags"].replace("tests/tmp", str(samples))
    out = tmp_path / "out"
    argv = [row["Hparam_file"], f"--output_folder={out}", *shlex.split(flags)]
    main(ROOT / row["Script_file"])(argv)
    (promised,) = re.findall(r"file_exists=\[(.*?)\]", row["test_debug_checks"])
    missing = [
        path for path in promised.split(",") if not (out / path).exists()
    ]
    assert not missing
    lines = (out / "train_log.txt").read_text().splitlines()
    assert len(lines) == 2 and "nan" not in " ".join(lines)


def test_every_page_and_recipe_has_a_row():
    pages = {row["Hparam_file"] for row in ROWS}
    assert pages == {f"hparams/{p.name}" for p in ROOT.glob("hparams/*.yaml")}
    scripts = {row["Script_file"] for row in ROWS}
    # The demonstration (make demo) runs the one of synthetic speech.
    assert scripts == {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("recipes/*/train.py")
        if path.parent.name != "SyntheticStyles"
    }


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_what_a_row_names_is_there(row):
    for key in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert (ROOT / row[key]).exists(), row[key]
