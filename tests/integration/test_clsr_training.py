"""Training on content: stages, resuming, export, and the same embeddings.

Authors
 * The esr_lobes contributors
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_content import SIZES, write_content, write_content_splits

from esr_lobes import EncoderRetriever, content_training, training
from esr_lobes.pages import PageError
from esr_lobes.retrieval_brain import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CARD = {"corpus": "tones", "licence": "none"}
SMALL = "{recognition: 2, text: 0, joint: 2, post: 0}"
ALL = "{recognition: 1, text: 1, joint: 1, post: 1}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Thirteen clips of twelve contexts, and a recipe's page."""
    folder = tmp_path_factory.mktemp("content")
    clips, questions = write_content(folder)
    (folder / "tones.yaml").write_text("skip_prep: False\n")
    return folder, clips, questions


def open_run(
    corpus, output_folder, backbone, *options, page="clsr_compact", frozen=True
):
    folder, clips, questions = corpus
    text = (
        f"{{width: 32, is_frozen: {frozen}, model: {{source: '{backbone}'}}}}"
    )
    run = training.open_run(
        [
            str(ROOT / "hparams" / f"{page}.yaml"),
            "--device=cpu",
            "--noprogressbar",
            f"--data_folder={folder}",
            f"--output_folder={output_folder}",
            "--batch_size=7",
            "--cache_gib=0.1",
            f"--text_encoder={text}",
            f"--recogniser={SIZES}",
            *options,
        ],
        folder / "tones.yaml",
    )
    training.prepare(
        write_content_splits, run, clips=clips, questions=questions
    )
    return run


def log_of(folder):
    """Returns what each epoch logged, numbers by name."""
    rows = []
    for line in (folder / "train_log.txt").read_text().splitlines():
        pairs = re.findall(r"([\w @-]+?): ([-\d.e+]+)", line)
        rows.append({name.strip(" -"): float(value) for name, value in pairs})
    return rows


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory, tiny_text_backbone):
    """Two epochs of two stages, exported and evaluated."""
    folder = tmp_path_factory.mktemp("run")
    run = open_run(
        corpus,
        folder,
        tiny_text_backbone,
        f"--stages={SMALL}",
        "--mwer_weight=1.0",
    )
    brain = content_training.train_content(run)
    reports = content_training.export_and_evaluate_content(run, brain, CARD)
    return folder, brain, reports


def test_each_stage_logs_its_terms(trained):
    folder, brain, _ = trained
    rows = log_of(folder)
    assert len(rows) == 4
    recognition = {"train cross_entropy", "train mwer", "train quantity"}
    joint = recognition | {
        "train contrastive",
        "train gradient at embeddings",
        "train gradient at logits",
    }
    for row in rows[:2]:
        assert recognition <= row.keys() and "train contrastive" not in row
    for row in rows[2:]:
        assert joint <= row.keys()
        assert row["train gradient at embeddings"] > 0
    assert all("valid WER" in row for row in rows)
    assert all("valid Q-C R@1" in row for row in rows)
    assert brain.stage_of(2) == "recognition" and brain.stage_of(3) == "joint"


def test_the_export_gives_the_embeddings_of_the_brain(trained, corpus):
    folder, brain, _ = trained
    source = folder / "retriever"
    retriever = EncoderRetriever.from_hparams(source=str(source))
    # One text encoder for both towers.
    assert retriever.mods.speech_encoder.text.encoder is (
        retriever.mods.text_encoder
    )
    generator = torch.Generator().manual_seed(0)
    wavs = torch.rand(3, 16000, generator=generator) - 0.5
    lengths = torch.tensor([1.0, 0.8, 0.4])
    normalize = torch.nn.functional.normalize
    with torch.no_grad():
        expected = brain.tower("speech_encoder")(wavs, lengths)
        text = brain.embed_text(["a happy voice"])
    given = retriever.encode_batch(wavs, lengths)
    assert torch.allclose(given, normalize(expected, dim=-1), atol=1e-6)
    given = retriever.encode_text(["a happy voice"])
    assert torch.allclose(given, normalize(text, dim=-1), atol=1e-6)
    names = {path.name for path in source.iterdir()}
    assert names == {
        "README.md",
        "hyperparams.yaml",
        "speech_backbone",
        "text_backbone",
        "weights.safetensors",
    }
    assert "seed 1986" in (source / "README.md").read_text()


def test_without_a_test_set_it_says_so(
    trained, corpus, tmp_path, tiny_text_backbone
):
    run = open_run(corpus, tmp_path, tiny_text_backbone)
    table = tmp_path / "manifests" / "questions_test.csv"
    table.write_text("ID,question,context_id\n")
    _, brain, _ = trained
    reports = content_training.export_and_evaluate_content(run, brain, CARD)
    assert reports == {} and (tmp_path / "retriever").is_dir()
    log = (tmp_path / "log.txt").read_text()
    assert "Nothing is evaluated: no test set has a question" in log


def test_without_vq_the_export_reads_the_same_mixtures(
    corpus, tmp_path, tiny_text_backbone
):
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        "--stages={recognition: 1, joint: 1}",
        "--vq={is_hard: False, takes: probabilities, vq_temperature: 0.3}",
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)
    source = str(tmp_path / "retriever")
    retriever = EncoderRetriever.from_hparams(source=source)
    wavs = torch.rand(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = brain.tower("speech_encoder")(wavs, torch.ones(2))
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.allclose(retriever.encode_batch(wavs), expected, atol=1e-6)


def test_the_report_has_the_system_its_cascade_and_the_bound(trained):
    folder, _, reports = trained
    saved = json.loads((folder / "evaluation/test/content.json").read_text())
    systems = reports["test"].systems
    assert saved["systems"] == systems
    names = ["clsr_compact", "cascade", "text (upper bound)"]
    late = ", late interaction"
    assert list(systems) == [n + how for n in names for how in ("", late)]
    # Words that are read as embeddings are read as they would be as text.
    for key in ("Q-C R@1", "C-Q R@10", "WER"):
        assert systems["cascade"][key] == systems["clsr_compact"][key]
    assert saved["settings"]["contexts"] == 12
    assert saved["settings"]["clips"] == 13


def test_files_are_embedded_and_found(trained, corpus):
    folder, _, _ = trained
    source = str(folder / "retriever")
    retriever = EncoderRetriever.from_hparams(source=source)
    retriever.encode_files([str(corpus[0] / "c02a.wav")], progress=False)
    assert retriever.search("the happy person", k=1)[0].segment.start == 0


@pytest.mark.parametrize("vq", ["{is_hard: True}", "{takes: probabilities}"])
def test_it_learns_words_and_then_contexts_by_heart(
    corpus, tmp_path, tiny_text_backbone, vq
):
    """The same clips in all splits: an untaught system is at chance."""
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        "--stages={recognition: 60, joint: 10}",
        "--learning_rates={recognition: 0.005, joint: 0.001}",
        "--ema_decay=0.0",
        f"--vq={vq}",
    )
    brain = content_training.train_content(run)
    rows = log_of(tmp_path)
    first, taught, last = rows[0], rows[59], rows[-1]
    assert taught["train cross_entropy"] < 0.3 * first["train cross_entropy"]
    assert taught["train quantity"] < 0.5 * first["train quantity"]
    assert first["valid WER"] > 80 and taught["valid WER"] < 20
    assert last["train contrastive"] < rows[60]["train contrastive"]
    reports = content_training.export_and_evaluate_content(run, brain, CARD)
    system = reports["test"].systems["clsr_compact"]
    assert system["WER"] < 20
    chance = 100 / 12
    assert system["Q-C R@1"] > 3 * chance


def weights(brain):
    return {
        f"{name}.{key}": value.clone()
        for name, module in brain.modules.items()
        for key, value in module.state_dict().items()
    }


def test_a_killed_training_goes_on_to_the_same_numbers(
    corpus, tmp_path, tiny_text_backbone
):
    options = (f"--stages={ALL}", "--mwer_weight=0.5")
    whole = content_training.train_content(
        open_run(
            corpus,
            tmp_path / "whole",
            tiny_text_backbone,
            *options,
            frozen=False,
        )
    )
    broken = open_run(
        corpus, tmp_path / "broken", tiny_text_backbone, *options, frozen=False
    )
    calls = []

    def kill(*_):
        calls.append(1)
        if len(calls) == 11:  # in the middle of the third epoch of four
            raise KeyboardInterrupt

    # It is called once a batch of training, and once a batch of judging.
    encoder = broken.hparams["paraformer"].encoder
    hook = encoder.register_forward_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        content_training.train_content(broken)
    hook.remove()
    resumed = content_training.train_content(
        open_run(
            corpus,
            tmp_path / "broken",
            tiny_text_backbone,
            *options,
            frozen=False,
        )
    )
    assert resumed.optimizer_step == whole.optimizer_step
    expected = weights(whole)
    for key, value in weights(resumed).items():
        assert torch.equal(value, expected[key]), key
    logs = [
        (tmp_path / name / "train_log.txt").read_text().splitlines()[-1]
        for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1]


def test_parabge_begins_with_the_recogniser_of_clsr(
    corpus, tmp_path, tiny_text_backbone, trained
):
    source = trained[0] / "retriever" / "speech_backbone"
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        f"--recogniser_source={source}",
        "--stages={joint: 2}",
        "--embed_dim=16",
        page="parabge_compact",
    )
    before = run.hparams["paraformer"].encoder.state_dict()
    began = trained[1].tower("paraformer").encoder.state_dict()
    assert all(torch.equal(before[key], began[key]) for key in before)
    brain = content_training.train_content(run)
    reports = content_training.export_and_evaluate_content(run, brain, CARD)
    systems = reports["test"].systems
    assert list(systems) == ["parabge_compact", "text (upper bound)"]
    assert "WER" not in systems["parabge_compact"]
    rows = log_of(tmp_path)
    assert rows[1]["train contrastive"] < rows[0]["train contrastive"]
    source = str(tmp_path / "retriever")
    retriever = EncoderRetriever.from_hparams(source=source)
    assert retriever.encode_text("a voice").shape == (1, 16)


def test_a_training_does_not_go_on_with_other_questions_or_aims(
    corpus, tmp_path, tiny_text_backbone
):
    options = ("--stages={recognition: 1, joint: 0}",)
    run = open_run(corpus, tmp_path, tiny_text_backbone, *options)
    content_training.train_content(run)
    folder, clips, questions = corpus
    fewer = folder, clips, questions[1:]
    run = open_run(fewer, tmp_path, tiny_text_backbone, *options)
    with pytest.raises(CheckpointError, match=r"other questions_train\.csv"):
        content_training.train_content(run)
    other = *options, "--vq={takes: probabilities}", "--label_smoothing=0.2"
    run = open_run(corpus, tmp_path, tiny_text_backbone, *other)
    with pytest.raises(CheckpointError, match=r"other vq, label_smoothing:"):
        content_training.train_content(run)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--stages={text: 1}", "is_frozen: False"),
        ("--stages={recognition: 0, joint: 0}", "at least 1"),
        ("--contrastive_weight=0.8", "at most 1"),
        ("--learning_rates={joint: -1}", "joint must be a number from 0"),
    ],
)
def test_values_that_could_only_fail_later(
    corpus, tmp_path, tiny_text_backbone, option, message
):
    with pytest.raises(PageError, match=message):
        run = open_run(corpus, tmp_path, tiny_text_backbone, option)
        content_training.train_content(run)


def test_bf16_trains(corpus, tmp_path, tiny_text_backbone):
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        "--stages={recognition: 1, joint: 1}",
        "--precision=bf16",
    )
    brain = content_training.train_content(run)
    assert np.isfinite(brain.train_stats["loss"])
