"""CLAP, and a student of a cascade: trained, exported, opened, judged.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

import pytest
import torch
from test_clsr_training import log_of
from tiny_content import SIZES, write_content, write_content_splits
from tiny_recognisers import make_tiny_whisper
from torch.nn.functional import normalize

from esr_lobes import EncoderRetriever, content_training, training
from esr_lobes.brain import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CARD = {"corpus": "tones", "licence": "none"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Thirteen clips of twelve contexts, and a recipe's page."""
    folder = tmp_path_factory.mktemp("content")
    clips, questions = write_content(folder)
    (folder / "tones.yaml").write_text("skip_prep: False\n")
    return folder, clips, questions


def open_run(corpus, output_folder, page, *options, clips=None):
    folder, own_clips, questions = corpus
    run = training.open_run(
        [
            str(ROOT / "hparams" / f"{page}.yaml"),
            "--device=cpu",
            "--precision=fp32",
            "--num_workers=0",
            "--noprogressbar",
            f"--data_folder={folder}",
            f"--output_folder={output_folder}",
            "--batch_size=7",
            *options,
        ],
        folder / "tones.yaml",
    )
    training.prepare(
        write_content_splits, run, clips=clips or own_clips, questions=questions
    )
    return run


def opened_alike(brain, folder):
    """Returns the retriever, after a look at whether it is the Brain's."""
    retriever = EncoderRetriever.from_hparams(source=str(folder / "retriever"))
    generator = torch.Generator().manual_seed(0)
    wavs = torch.rand(3, 40000, generator=generator) - 0.5
    lengths = torch.tensor([1.0, 0.8, 0.4])
    with torch.no_grad():
        heard = brain.embed_speech(wavs, lengths)
        read = brain.embed_text(["a happy voice"])
    given = retriever.encode_batch(wavs, lengths)
    assert torch.allclose(given, normalize(heard, dim=-1), atol=1e-5)
    given = retriever.encode_text(["a happy voice"])
    assert torch.allclose(given, normalize(read, dim=-1), atol=1e-5)
    return retriever


def test_clap_learns_in_both_towers_and_opens_without_a_hub(
    corpus, tmp_path, tiny_backbone
):
    options = (
        f"--clap_source={tiny_backbone('clap')}",
        "--text_encoder={width: 24}",
        "--speech_encoder={width: 24}",
        "--stages={joint: 3}",
        "--learning_rates={joint: 0.002}",
        "--ema_decay=0.5",
    )
    run = open_run(corpus, tmp_path, "clap", *options)
    brain = content_training.train_content(run)
    rows = log_of(tmp_path)
    assert len(rows) == 3
    assert rows[-1]["train contrastive"] < rows[0]["train contrastive"]
    reports = content_training.export_and_evaluate_content(run, brain, CARD)
    assert list(reports["test"].systems)[0] == "clap"
    opened_alike(brain, tmp_path)
    page = (tmp_path / "retriever" / "hyperparams.yaml").read_text()
    assert page.count("is_frozen: true") == 2
    assert page.count("local_files_only: true") == 2
    # A second start goes on from the last checkpoint: nothing is left to do.
    again = content_training.train_content(
        open_run(corpus, tmp_path, "clap", *options)
    )
    for name in ("speech_encoder", "text_encoder"):
        weights = again.tower(name).state_dict()
        for key, value in brain.tower(name).state_dict().items():
            assert torch.equal(value, weights[key]), f"{name}.{key}"


def test_a_student_needs_no_transcripts(corpus, tmp_path, tiny_text_backbone):
    """Its log is the same whatever the manifest says was spoken."""
    teacher = make_tiny_whisper(tmp_path / "whisper")
    text = f"{{width: 32, model: {{source: '{tiny_text_backbone}'}}}}"
    options = (
        f"--teacher={teacher}",
        f"--text_encoder={text}",
        f"--recogniser={SIZES}",
        "--stages={joint: 3}",
        "--learning_rates={joint: 0.005}",
        "--ema_decay=0.0",
    )
    folder = tmp_path / "student"
    run = open_run(corpus, folder, "speechdpr_compact", *options)
    brain = content_training.train_content(run)
    rows = log_of(folder)
    for term in ("contrastive", "distillation", "imitation"):
        assert f"train {term}" in rows[0]
    assert rows[-1]["train loss"] < rows[0]["train loss"]
    content_training.export_and_evaluate_content(run, brain, CARD)
    saved = json.loads((folder / "evaluation/test/content.json").read_text())
    assert list(saved["systems"])[0] == "speechdpr_compact"
    opened_alike(brain, folder)

    other = [row | {"transcript": "something"} for row in corpus[1]]
    run = open_run(
        corpus, tmp_path / "blind", "speechdpr_compact", *options, clips=other
    )
    content_training.train_content(run)
    train_logs = [
        (path / "train_log.txt").read_text()
        for path in (folder, tmp_path / "blind")
    ]
    assert train_logs[0] == train_logs[1]

    changed = "--distillation_weight=0.5"
    run = open_run(corpus, folder, "speechdpr_compact", *options, changed)
    with pytest.raises(CheckpointError, match="distillation_weight"):
        content_training.train_content(run)
