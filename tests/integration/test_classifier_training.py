"""The classifier baseline on tones: trains from its page, resumes, ranks.

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import row, tone

from esr_lobes import training
from esr_lobes.brain import StyleClassificationBrain
from esr_lobes.evaluation import evaluate
from esr_lobes.manifests import write_manifest

ROOT = Path(__file__).resolve().parents[2]
HERTZ = {"calm": 150.0, "happy": 600.0, "fast": 2400.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones of three heights that stand for styles, and a recipe's page."""
    folder = tmp_path_factory.mktemp("tones")
    rows = []
    for i in range(24):
        style = list(HERTZ)[i % 3]
        name, seconds = f"{i:02d}", 0.3 + 0.02 * i
        wave = tone(seconds, HERTZ[style] * (1 + 0.01 * i), seed=i)
        soundfile.write(folder / f"{name}.wav", wave, 16000)
        rows.append(row(name, stop=seconds, style=style))
    (folder / "tones.yaml").write_text("skip_prep: False\n")
    return folder, rows


def write_manifests(data_folder, save_folder, skip_prep, rows):
    """Does what the preparation of a recipe does."""
    folder = Path(save_folder)
    folder.mkdir(exist_ok=True)
    write_manifest(folder / "train.csv", rows[:15])
    write_manifest(folder / "valid.csv", rows[15:])
    write_manifest(folder / "test.csv", rows[15:])


@pytest.fixture
def train(corpus, tmp_path, tiny_backbone):
    """A function that trains for some epochs, in one folder."""

    def run(n_epochs):
        folder, rows = corpus
        model = f"{{source: '{tiny_backbone('emotion2vec')}'}}"
        run = training.open_run(
            [
                str(ROOT / "hparams" / "classifier_e2v.yaml"),
                "--device=cpu",
                "--noprogressbar",
                "--precision=fp32",
                f"--data_folder={folder}",
                f"--output_folder={tmp_path / 'out'}",
                f"--number_of_epochs={n_epochs}",
                "--batch_size=4",
                "--embed_dim=16",
                "--lr=0.003",
                f"--speech_encoder={{width: 32, model: {model}}}",
            ],
            folder / "tones.yaml",
        )
        training.prepare(write_manifests, run, rows=rows)
        return run, training.train(run)

    return run


def test_it_learns_resumes_and_ranks(train, tmp_path):
    train(2)
    run, brain = train(8)
    assert type(brain) is StyleClassificationBrain
    assert brain.optimizer_step > 2 * 4  # the best of 8 epochs of 4 batches
    lines = (tmp_path / "out" / "train_log.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"epoch: {i}" for i in range(1, 9)
    ]
    assert all("train classification" in line for line in lines)
    losses = [
        float(line.split("train loss: ")[1].split(",")[0]) for line in lines
    ]
    assert losses[-1] < 0.7 * losses[0]

    rows = run.folder.rows("test", brain.styles)
    logits = brain.score_clips(rows)
    assert logits.shape == (9, 22) and torch.isfinite(logits).all()
    scores = {
        style: logits[:, brain.styles.index(style)].numpy() for style in HERTZ
    }
    report = evaluate(None, rows, scores={"classifier": scores})
    macro = report.numbers["systems"]["classifier"]["macro"]
    best = max(float(line.split("valid mAP: ")[1]) for line in lines)
    assert macro["mAP"] == pytest.approx(best, abs=0.005)
    assert np.isfinite(macro["R@1"])
