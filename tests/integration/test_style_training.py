"""Training on tones: stages, resuming, export, and the same embeddings.

Authors
 * The esr_lobes contributors
"""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from esr_lobes import EncoderRetriever, cli, training
from esr_lobes.brain import CheckpointError, StyleRetrievalBrain
from esr_lobes.encoders.compact import CompactEncoder
from esr_lobes.manifests import write_manifest
from esr_lobes.pages import PageError, load_page
from esr_lobes.prompts import PromptBank, PromptBankError

ROOT = Path(__file__).resolve().parents[2]
HERTZ = {"calm": 150.0, "happy": 600.0, "fast": 2400.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones of three heights that stand for styles, and a recipe's page."""
    import soundfile
    from conftest import tone

    folder = tmp_path_factory.mktemp("tones")
    rows = []
    for i in range(24):
        style = list(HERTZ)[i % 3]
        seconds = 0.3 + 0.02 * i
        wave = tone(seconds, HERTZ[style] * (1 + 0.01 * i), seed=i)
        soundfile.write(folder / f"{i:02d}.wav", wave, 16000)
        rows.append(
            {
                "ID": f"{i:02d}",
                "duration": seconds,
                "wav": f"{{data_root}}/{i:02d}.wav",
                "start": 0.0,
                "stop": seconds,
                "channel": None,
                "speaker": f"speaker{i % 4}",
                "style": style,
            }
        )
    page = folder / "tones.yaml"
    page.write_text("skip_prep: False\n")
    return folder, rows


def small(backbone):
    """Returns overrides that make both encoders tiny."""
    text = f"{{width: 32, model: {{source: '{backbone}'}}}}"
    speech = "{width: 32, model: {channels: [8, 8], frame_strides: [1, 2]}}"
    return f"--text_encoder={text}", f"--speech_encoder={speech}"


def open_run(corpus, output_folder, backbone, *options, embed_dim=16):
    folder, rows = corpus
    run = training.open_run(
        [
            str(ROOT / "hparams" / "compact.yaml"),
            "--device=cpu",
            "--noprogressbar",
            f"--data_folder={folder}",
            f"--output_folder={output_folder}",
            "--batch_size=6",
            f"--embed_dim={embed_dim}",
            "--cache_gib=0.1",
            *small(backbone),
            *options,
        ],
        folder / "tones.yaml",
    )
    training.prepare(write_manifests, run, rows=rows)
    return run


def write_manifests(data_folder, save_folder, skip_prep, rows):
    """Does what the preparation of a recipe does."""
    folder = Path(save_folder)
    folder.mkdir(exist_ok=True)
    write_manifest(folder / "train.csv", rows[:15])
    write_manifest(folder / "valid.csv", rows[15:])
    write_manifest(folder / "test.csv", rows[15:])


STAGES = ("--start_epochs={classification: 1, contrastive: 2, adversarial: 3}",)


def weights(brain):
    return {
        f"{name}.{key}": value.clone()
        for name, module in brain.modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory, tiny_text_backbone):
    """Three epochs, one a stage, exported and evaluated."""
    folder = tmp_path_factory.mktemp("run")
    run = open_run(
        corpus, folder, tiny_text_backbone, "--number_of_epochs=3", *STAGES
    )
    before = {
        name: [p.clone() for p in module.parameters()]
        for name, module in run.hparams["modules"].items()
    }
    brain = training.train(run)
    card = {"corpus": "tones", "licence": "none"}
    reports = training.export_and_evaluate(run, brain, card)
    return folder, run, brain, before, reports


def test_stages_add_their_terms(trained):
    folder, _, brain, _, _ = trained
    lines = (folder / "train_log.txt").read_text().splitlines()
    assert len(lines) == 3
    assert "train classification" in lines[0]
    assert "contrastive" not in lines[0]
    assert "train contrastive" in lines[1]
    assert "adversarial" not in lines[1]
    assert "train adversarial" in lines[2]
    assert all("valid mAP" in line for line in lines)
    assert list(brain.active_terms(1)) == ["classification"]
    assert list(brain.active_terms(3)) == list(brain.TERMS)


def test_everything_learns_but_the_frozen_text_encoder(trained):
    _, _, brain, before, _ = trained
    for name, module in brain.modules.items():
        after = list(module.parameters())
        moved = any(
            not torch.equal(a, b)
            for a, b in zip(after, before[name], strict=True)
        )
        assert moved == (name != "text_encoder"), name


def test_the_export_gives_the_embeddings_of_the_brain(trained, corpus):
    folder, run, brain, _, _ = trained
    source = folder / "retriever"
    retriever = EncoderRetriever.from_hparams(source=str(source))
    wavs = torch.rand(3, 8000, generator=torch.Generator().manual_seed(0)) - 0.5
    lengths = torch.tensor([1.0, 0.8, 0.4])
    with torch.no_grad():
        pooled = brain.tower("speech_encoder")(wavs, lengths)
        expected = brain.tower("speech_projection")(pooled)
        text = brain.embed_text(["a happy voice"])
    normalize = torch.nn.functional.normalize
    assert torch.allclose(
        retriever.encode_batch(wavs, lengths),
        normalize(expected, dim=-1),
        atol=1e-6,
    )
    assert torch.allclose(
        retriever.encode_text(["a happy voice"]),
        normalize(text, dim=-1),
        atol=1e-6,
    )
    card = (source / "README.md").read_text()
    assert "seed 1986" in card
    assert "Of 4 speakers of the test split, 4 were heard" in card
    names = {path.name for path in source.iterdir()}
    assert names == {
        "README.md",
        "hyperparams.yaml",
        "text_backbone",
        "weights.safetensors",
    }


def test_all_files_of_an_export_are_for_the_same_eyes(trained):
    """safetensors once left them for their owner alone."""
    folder = trained[0] / "retriever"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert len({path.stat().st_mode for path in files}) == 1


def test_the_report_is_written(trained):
    folder, _, _, _, reports = trained
    assert set(reports) == {"test"}
    files = {p.name for p in (folder / "evaluation" / "test").iterdir()}
    assert {"report.json", "report.md", "trials.txt.gz"} <= files


def test_the_command_line_gives_the_same_figures(trained, tmp_path, capsys):
    folder, _, _, _, reports = trained
    cli.main(["evaluate", str(folder), "--out", str(tmp_path / "report")])
    path = tmp_path / "report" / "test" / "report.json"
    again = json.loads(path.read_text())
    assert again["systems"] == json.loads(reports["test"].to_json())["systems"]
    assert "mAP" in capsys.readouterr().out


def test_the_command_line_asks_for_clips(trained, capsys):
    folder = trained[0]
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", str(folder / "retriever")])
    assert end.value.code == 2
    assert "add --manifest" in capsys.readouterr().err


def test_a_killed_training_goes_on_to_the_same_numbers(
    corpus, tmp_path, tiny_text_backbone
):
    options = ("--number_of_epochs=3", *STAGES)
    whole = training.train(
        open_run(corpus, tmp_path / "whole", tiny_text_backbone, *options)
    )
    broken = open_run(corpus, tmp_path / "broken", tiny_text_backbone, *options)
    steps = []

    def kill(*_):
        steps.append(1)
        if len(steps) == 5:  # in the middle of the second epoch of three
            raise KeyboardInterrupt

    hook = broken.hparams["modules"]["classifier"].register_forward_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        training.train(broken)
    hook.remove()
    resumed = training.train(
        open_run(corpus, tmp_path / "broken", tiny_text_backbone, *options)
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


def test_weights_that_heard_other_clips_are_not_gone_on_with(
    corpus, tmp_path, tiny_text_backbone
):
    """They may have heard the speakers of the new test split."""
    options = ("--number_of_epochs=1",)
    training.train(open_run(corpus, tmp_path, tiny_text_backbone, *options))
    run = open_run(corpus, tmp_path, tiny_text_backbone, *options)
    write_manifest(tmp_path / "manifests" / "train.csv", corpus[1][5:20])
    with pytest.raises(CheckpointError, match="other train.csv"):
        training.train(run)
    run = open_run(corpus, tmp_path, tiny_text_backbone, *options, "--seed=5")
    with pytest.raises(CheckpointError, match="other seed"):
        training.train(run)


def test_a_damaged_checkpoint_says_so(corpus, tmp_path, tiny_text_backbone):
    options = ("--number_of_epochs=1",)
    training.train(open_run(corpus, tmp_path, tiny_text_backbone, *options))
    for path in (tmp_path / "checkpoints").rglob("speech_encoder.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    run = open_run(corpus, tmp_path, tiny_text_backbone, "--number_of_epochs=2")
    with pytest.raises(CheckpointError, match="damaged"):
        training.train(run)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--positives=same_stile", "same_style or pair"),
        ("--start_epochs={contrastive: soon}", "contrastive must be a numb"),
        ("--number_of_epochs=0", "at least 1"),
        ("--ema_decay=2", "from 0 to 1"),
    ],
)
def test_values_that_could_only_fail_later(
    corpus, tmp_path, tiny_text_backbone, option, message
):
    with pytest.raises(PageError, match=message):
        training.train(open_run(corpus, tmp_path, tiny_text_backbone, option))


def test_another_bank_is_the_one_that_is_asked(
    corpus, tmp_path, tiny_text_backbone
):
    bank = tmp_path / "mine.yaml"
    bank.write_text(
        "templates: ['a {} voice']\n"
        "styles: {calm: [calm], happy: [happy], fast: [fast]}\n"
    )
    options = ("--number_of_epochs=1", f"--train_bank={bank}")
    run = open_run(corpus, tmp_path / "a", tiny_text_backbone, *options)
    with pytest.raises(PageError, match="n_styles 3"):
        training.train(run)
    run = open_run(
        corpus, tmp_path / "b", tiny_text_backbone, *options, "--n_styles=3"
    )
    brain = training.train(run)
    reports = training.export_and_evaluate(
        run, brain, {"corpus": "tones", "licence": "none"}
    )
    assert "mine" in reports["test"].numbers["systems"]


def test_styles_held_out_are_not_heard_and_reported_apart(
    corpus, tmp_path, tiny_text_backbone, capsys
):
    options = ("--number_of_epochs=1", "--holdout_styles=[fast]")
    run = open_run(corpus, tmp_path, tiny_text_backbone, *options)
    for split in ("train", "valid"):
        styles = {row["style"] for row in training.heard_rows(run, split)}
        assert styles == {"calm", "happy"}
    brain = training.train(run)
    card = {"corpus": "tones", "licence": "none"}
    reports = training.export_and_evaluate(run, brain, card)
    searched = {
        name: report.numbers["settings"]["styles_searched"]
        for name, report in reports.items()
    }
    assert searched == {
        "test": ["calm", "happy"],
        "test_held_out_styles": ["fast"],
    }
    # All clips are searched in, of whatever style.
    clips = {len(r.clip_styles) for r in reports.values()}
    assert clips == {len(corpus[1][15:])}
    cli.main(["evaluate", str(tmp_path)])  # once put all styles into one
    for name, report in reports.items():
        path = tmp_path / "evaluation" / name / "report.json"
        again = json.loads(path.read_text())
        assert again["settings"] == report.numbers["settings"], name


def test_a_style_to_hold_out_must_be_known(
    corpus, tmp_path, tiny_text_backbone
):
    option = "--holdout_styles=[fsat]"
    run = open_run(corpus, tmp_path, tiny_text_backbone, option)
    with pytest.raises(PageError, match="no style 'fsat'; did you mean 'fast'"):
        training.train(run)


def test_the_exported_page_spells_out_every_argument(trained):
    page = YAML().load(trained[0] / "retriever" / "hyperparams.yaml")
    encoder = page["speech_encoder"]
    parameters = inspect.signature(CompactEncoder).parameters
    assert set(encoder) == set(parameters)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    corpus, tmp_path, tiny_text_backbone
):
    rows = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run = open_run(
            corpus,
            tmp_path / name,
            tiny_text_backbone,
            "--number_of_epochs=1",
            f"--seed={seed}",
        )
        brain = training.train(run)
        rows.append(brain.modules.speech_projection.weight.detach().clone())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_without_validation_the_last_weights_are_kept(
    corpus, tmp_path, tiny_text_backbone
):
    run = open_run(corpus, tmp_path, tiny_text_backbone, "--number_of_epochs=2")
    write_manifest(tmp_path / "manifests" / "valid.csv", [])
    brain = training.train(run)
    assert brain.optimizer_step == 2 * 3  # 15 clips, 6 a batch
    assert np.isfinite(brain.train_stats["loss"])


def test_bf16_trains(corpus, tmp_path, tiny_text_backbone):
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        "--number_of_epochs=1",
        "--precision=bf16",
    )
    brain = training.train(run)
    assert np.isfinite(brain.train_stats["loss"])


@pytest.mark.parametrize("key", ["batch_sise", "loss_weights.styel"])
def test_a_misspelt_option_stops_before_anything_is_written(
    corpus, tmp_path, tiny_text_backbone, key
):
    root, _, leaf = key.partition(".")
    option = f"--{root}={{{leaf}: 1}}" if leaf else f"--{root}=1"
    with pytest.raises(PageError, match=leaf or root):
        open_run(corpus, tmp_path / "out", tiny_text_backbone, option)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_shape_says_so(
    corpus, tmp_path, tiny_text_backbone
):
    options = ("--number_of_epochs=1",)
    training.train(open_run(corpus, tmp_path, tiny_text_backbone, *options))
    run = open_run(
        corpus,
        tmp_path,
        tiny_text_backbone,
        "--number_of_epochs=2",
        embed_dim=8,
    )
    with pytest.raises(CheckpointError, match="another shape"):
        training.train(run)


def test_training_does_no_text_backbone_work(
    corpus, tmp_path, tiny_text_backbone, monkeypatch
):
    calls = []
    start = StyleRetrievalBrain.on_fit_start

    def watched(brain):
        backbone = brain.modules.text_encoder.backbone
        backbone.register_forward_hook(lambda *_: calls.append(1))
        start(brain)

    monkeypatch.setattr(StyleRetrievalBrain, "on_fit_start", watched)
    run = open_run(corpus, tmp_path, tiny_text_backbone, "--number_of_epochs=2")
    brain = training.train(run)
    assert brain.optimizer_step == 2 * 3
    assert not calls
    brain.embed_text(["happy happy"])
    assert calls


def test_a_phrase_may_stand_under_two_styles_if_one_says_so(
    corpus, tmp_path, tiny_text_backbone
):
    """The list of the paper has two such phrases."""
    bank = tmp_path / "theirs.yaml"
    phrases = "calm: [calm, quiet], happy: [happy], fast: [fast, quiet]"
    bank.write_text(f"templates: ['a {{}} voice']\nstyles: {{{phrases}}}\n")
    with pytest.raises(PromptBankError, match="quiet"):
        PromptBank.load(bank)
    folder, _ = corpus
    overrides = (
        f"data_folder: {folder}\noutput_folder: {tmp_path / 'out'}\n"
        f"train_bank: {bank}\n"
        "n_styles: 3\nunique_phrases: False\n"
        f"text_encoder: {{width: 32, model: {{source: {tiny_text_backbone}}}}}"
    )
    hparams, _ = load_page(ROOT / "hparams" / "compact.yaml", overrides)
    styles = hparams["train_prompts"].positives("a quiet voice")
    assert list(styles) == ["calm", "fast"]
    assert hparams["modules"]["classifier"][-1].out_features == 3
