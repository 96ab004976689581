"""What the Brains do on a few made-up clips: terms, rates, compiling, scores.

Authors
 * The esr_lobes contributors
"""

import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import soundfile
import speechbrain as sb
import torch
from conftest import row, tone
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter

from esr_lobes import schedules
from esr_lobes.brain import StyleClassificationBrain, StyleRetrievalBrain
from esr_lobes.encoders.compact import CompactEncoder
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.evaluation import evaluate
from esr_lobes.heads import ModalityDiscriminator, Projection, StyleClassifier
from esr_lobes.losses import LogitScale
from esr_lobes.pages import PageError
from esr_lobes.pooling import masked_mean
from esr_lobes.prompts import PromptBank

STYLES = ["angry", "calm", "happy"]
BANK = PromptBank(["a {} voice"], {style: [style] for style in STYLES})


def page(**more):
    """Returns what a Brain asks of a page."""
    return {
        "train_prompts": BANK,
        "valid_prompts": BANK,
        "prompt_mix": None,
        "wave_augment": None,
        "positives": "same_style",
        "label_smoothing": 0.0,
        "schedule": schedules.constant,
        "ema_decay": 0.0,
        "lr": 1e-3,
        "discriminator_lr": 1e-4,
        "weight_decay": 0.0,
        "seed": 1,
        "train_loggers": [],
        "loss_weights": dict.fromkeys(StyleRetrievalBrain.TERMS, 1.0),
        "start_epochs": dict.fromkeys(StyleRetrievalBrain.TERMS, 1),
        "epoch_counter": EpochCounter(2),
        **more,
    }


def speech_modules():
    torch.manual_seed(0)
    return {
        "speech_encoder": CompactEncoder(
            channels=[8, 8], frame_strides=[1, 2], dropout=0.0
        ),
        "speech_projection": Projection(32, 16),
        "classifier": StyleClassifier(16, len(STYLES)),
    }


@pytest.fixture
def retrieval(tiny_text_backbone):
    """A function from options to a Brain of two tiny towers."""

    def make(folder=None, run_opts=None, replaced=None, **more):
        modules = speech_modules() | {
            "text_encoder": TextEncoder(str(tiny_text_backbone)),
            "text_projection": Projection(32, 16),
            "discriminator": ModalityDiscriminator(16),
            "logit_scale": LogitScale(),
            **(replaced or {}),
        }
        return brain_of(StyleRetrievalBrain, modules, folder, run_opts, more)

    return make


def brain_of(kind, modules, folder, run_opts, more):
    hparams = page(**more)
    checkpointer = None
    if folder is not None:
        parts = {k: m for k, m in modules.items() if k != "text_encoder"}
        parts["epoch_counter"] = hparams["epoch_counter"]
        checkpointer = Checkpointer(folder, parts)
    return kind(
        modules,
        partial(torch.optim.AdamW, lr=1e-3),
        hparams,
        {"device": "cpu", "noprogressbar": True} | (run_opts or {}),
        checkpointer,
    )


def classification(folder=None, run_opts=None, **more):
    return brain_of(
        StyleClassificationBrain, speech_modules(), folder, run_opts, more
    )


def batches(n_batches=4, n_clips=3):
    """Returns batches of noise, each of a length of its own."""
    generator = torch.Generator().manual_seed(0)
    return [
        PaddedBatch(
            [
                {
                    "id": f"{i}{j}",
                    "sig": torch.randn(
                        3200 + 800 * i + 160 * j, generator=generator
                    ),
                    "style": STYLES[j],
                    "style_index": j,
                }
                for j in range(n_clips)
            ]
        )
        for i in range(n_batches)
    ]


def loader(n_batches=4):
    """Returns the batches as a loader."""
    return torch.utils.data.DataLoader(batches(n_batches), batch_size=None)


def fit(brain, n_batches=4):
    brain.steps_in_epoch = n_batches // brain.grad_accumulation_factor
    brain.fit(brain.hparams.epoch_counter, loader(n_batches))


def test_epochs_without_a_term_are_named(retrieval, tmp_path):
    """They crashed in their first step, for want of a gradient."""
    brain = retrieval(
        tmp_path,
        epoch_counter=EpochCounter(9),
        loss_weights={
            "classification": 0.0,
            "contrastive": 1.0,
            "adversarial": 1.0,
        },
        start_epochs={"classification": 1, "contrastive": 6, "adversarial": 7},
    )
    with pytest.raises(PageError, match="In epochs 1 to 5 no term"):
        fit(brain)


def test_a_weight_below_zero_is_no_weight(retrieval):
    weights = {"classification": 1.0, "contrastive": -1.0, "adversarial": 1.0}
    with pytest.raises(PageError, match="contrastive must be a number from 0"):
        retrieval(loss_weights=weights)


def test_a_projection_of_another_width_than_its_encoder(retrieval):
    """It came to light in the first batch, as shapes of matrices."""
    with pytest.raises(PageError, match='32 val.*takes 24.*"{width: 32}"'):
        retrieval(replaced={"speech_projection": Projection(24, 16)})
    with pytest.raises(PageError, match="add --text_encoder="):
        retrieval(replaced={"text_projection": Projection(24, 16)})


def test_gradients_of_several_batches_are_averaged(tmp_path):
    """Two steps of two batches each, worked out beside it."""
    brain = classification(
        tmp_path,
        {"grad_accumulation_factor": 2, "max_grad_norm": 1e9},
        epoch_counter=EpochCounter(1),
    )
    freeze_statistics(brain)
    steps = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *args, **kwargs):
        head = brain.modules.speech_projection.weight
        steps.append((head.detach().clone(), head.grad.clone()))
        return step(optimizer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        fit(brain)
    assert len(steps) == brain.optimizer_step == 2

    # SpeechBrain steps after batches 2 and 4.
    plain = classification()
    plain.modules.eval()
    head = plain.modules.speech_projection.weight
    assert torch.equal(head, steps[0][0])
    for batch in batches()[:2]:
        embeddings = plain.embed_speech(batch, sb.Stage.VALID)
        logits = plain.modules.classifier(embeddings)
        styles = torch.as_tensor(batch.style_index)
        (torch.nn.functional.cross_entropy(logits, styles) / 2).backward()
    assert torch.allclose(steps[0][1], head.grad, atol=1e-6)


def freeze_statistics(brain):
    """Makes training mode compute what evaluation mode does."""
    encoder = brain.modules.speech_encoder
    encoder.train = lambda mode=True: encoder
    encoder.eval = lambda: encoder
    torch.nn.Module.train(encoder, False)


class Frames(torch.nn.Module):
    """A speech encoder that a compiler is soon done with."""

    width = 32

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(160, 32)

    def forward(self, wavs, wav_lens):
        n_frames = wavs.shape[1] // 160
        frames = self.layer(wavs[:, : n_frames * 160].unflatten(1, (-1, 160)))
        return masked_mean(frames.tanh(), wav_lens)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_encoder_trains_to_what_it_would_be_uncompiled(tmp_path):
    weights, keys = [], []
    for i, run_opts in enumerate(({}, {"compile": True})):
        torch.manual_seed(0)
        modules = speech_modules() | {"speech_encoder": Frames()}
        brain = brain_of(
            StyleClassificationBrain,
            modules,
            tmp_path / str(i),
            run_opts,
            {"ema_decay": 0.5},
        )
        fit(brain, n_batches=2)
        is_compiled = hasattr(brain.modules.speech_encoder, "_orig_mod")
        assert is_compiled == bool(run_opts)
        assert not hasattr(brain.modules.classifier, "_orig_mod")
        assert brain.optimizer_step == 4
        brain.recover_best()
        encoder = brain.tower("speech_encoder")
        weights.append(dict(encoder.state_dict()))
        path = next((tmp_path / str(i)).glob("CKPT*")) / "speech_encoder.ckpt"
        keys.append(list(torch.load(path)))
    assert keys[0] == keys[1]  # a run may go on without the compiler
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=1e-3), key


def test_a_classifier_has_no_words_and_ranks_by_logits():
    brain = classification()
    assert set(brain.modules) == set(StyleClassificationBrain.MODULES_NEEDED)
    logits = torch.tensor(
        [[0.0, 3.0, 1.0], [0.0, 2.0, 9.0], [0.0, 1.0, 5.0], [0.0, 0.0, 4.0]]
    )
    # calm: ranks 1 and 2; happy: 9 5 | 4 1, its own in places 1 and 3.
    styles = ["calm", "calm", "happy", "happy"]
    precision = {"calm": 1.0, "happy": (1 / 2 + 2 / 3) / 2}
    expected = sum(precision.values()) / 2
    assert brain.rank_clips(logits, styles) == pytest.approx(expected)


def test_a_classifiers_scores_are_in_the_order_of_the_rows(tmp_path):
    brain = classification()
    rows = []
    for i, seconds in enumerate([0.9, 0.3, 0.6]):
        name = f"clip{i}"
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, tone(seconds, 200.0 * (i + 1)), 16000)
        rows.append(row(name, stop=seconds, wav=str(path), style=STYLES[i]))
    logits = brain.score_clips(rows, batch_size=2)
    assert logits.shape == (3, 3)
    for clip, expected in zip(rows, logits, strict=True):
        wav = torch.from_numpy(soundfile.read(clip["wav"])[0]).float()
        with torch.no_grad():
            pooled = brain.modules.speech_encoder(wav[None], torch.ones(1))
            alone = brain.modules.classifier(
                brain.modules.speech_projection(pooled)
            )[0]
        assert torch.allclose(alone, expected, atol=1e-4)
    scores = {style: logits[:, i] for i, style in enumerate(brain.styles)}
    report = evaluate(None, rows, scores={"classifier": scores})
    assert "mAP" in report.numbers["systems"]["classifier"]["macro"]
    again = brain.score_clips(rows[::-1], batch_size=2)
    assert torch.allclose(again.flip(0), logits, atol=1e-4)


def test_a_run_killed_while_it_saves_goes_on_from_the_epoch_before(tmp_path):
    """What it had written of a checkpoint once made it refuse to go on."""

    def killed(*_):
        raise KeyboardInterrupt

    brain = classification(tmp_path)
    hooks = brain.checkpointer.custom_save_hooks
    brain.hparams.train_loggers.append(
        SimpleNamespace(  # the second epoch is at its end
            log_stats=lambda stats, **_: (
                stats["epoch"] == 2 and hooks.update(classifier=killed)
            )
        )
    )
    with pytest.raises(KeyboardInterrupt):
        fit(brain, n_batches=2)
    again = classification(tmp_path)
    fit(again, n_batches=2)
    (checkpoint,) = again.checkpointer.list_checkpoints()
    assert checkpoint.meta["epoch"] == 2
    assert again.optimizer_step == 4

    whole = classification(tmp_path / "whole")
    fit(whole, n_batches=2)
    for key, value in whole.modules.state_dict().items():
        assert torch.equal(value, again.modules.state_dict()[key]), key


def test_the_discriminator_has_a_rate_of_its_own(retrieval):
    brain = retrieval()
    brain.init_optimizers()
    towers, discriminator = brain.optimizer.param_groups
    assert towers["lr"] == 1e-3 and discriminator["lr"] == 1e-4
    own = set(map(id, brain.modules.discriminator.parameters()))
    assert set(map(id, discriminator["params"])) == own
    assert not own & set(map(id, towers["params"]))
    scale = brain.modules.logit_scale.log_scale
    assert any(scale is p for p in towers["params"])


def test_the_average_is_what_is_judged(tmp_path, retrieval):
    brain = retrieval(tmp_path, ema_decay=0.5)
    fit(brain, n_batches=2)
    brain.modules.train()
    learning = brain.tower("speech_projection")
    brain.modules.eval()
    judged = brain.tower("speech_projection")
    assert learning is brain.modules.speech_projection
    assert judged is brain.average.module["speech_projection"]
    assert not torch.equal(judged.weight, learning.weight)
    frozen = brain.tower("text_encoder")
    assert frozen is brain.modules.text_encoder
