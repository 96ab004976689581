"""What a student learns from a teacher's words, and from nothing else.

Authors
 * The esr_lobes contributors
"""

import json
import logging

import pytest
import speechbrain as sb
import torch
import torch.nn.functional as F
from speechbrain.utils.epoch_loop import EpochCounter
from test_content_brain import QUESTIONS, SIZES, TEXTS, make_batch
from tiny_content import write_content
from tiny_recognisers import make_tiny_whisper

from esr_lobes import schedules
from esr_lobes.clsr.clsr import Unprojected
from esr_lobes.clsr.speech import PooledParaformer, make_recogniser
from esr_lobes.datasets import ClipReader
from esr_lobes.distillation import DistillationBrain, distillation_loss
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.heads import Projection
from esr_lobes.losses import LogitScale
from esr_lobes.pages import PageError
from esr_lobes.teacher import read_words

WORDS = ["calm voice", "sad", "loud person", "of"]  # heard in TEXTS


@pytest.fixture
def build(tiny_text_backbone):
    """A function that makes a Brain of random weights, ready to train."""

    def build_brain(text_projection=None, is_frozen=True, **more):
        torch.manual_seed(0)
        text = TextEncoder(tiny_text_backbone, is_frozen=is_frozen)
        page = {
            "stages": {"recognition": 0, "text": 0, "joint": 2, "post": 0},
            "learning_rates": dict.fromkeys(
                ("recognition", "text", "joint", "post"), 1e-3
            ),
            "learns_temperature": False,
            "text_learns_jointly": False,
            "schedule": schedules.constant,
            "ema_decay": 0.0,
            "weight_decay": 0.0,
            "seed": 1,
            "train_loggers": [],
            "epoch_counter": EpochCounter(2),
            "contrastive_weight": 1.0,
            "distillation_weight": 2.0,
            "imitation_weight": 3.0,
            "distillation_temperature": 0.1,
            **more,
        }
        brain = DistillationBrain(
            modules={
                "text_encoder": text,
                "logit_scale": LogitScale(0.1),
                "speech_encoder": PooledParaformer(
                    make_recogniser(text, SIZES)
                ),
                "speech_projection": Projection(32, 32),
                "text_projection": text_projection or Unprojected(32),
            },
            opt_class=lambda params: torch.optim.SGD(params, lr=1.0),
            hparams=page,
            run_opts={"device": "cpu"},
        )
        brain.ask(QUESTIONS)
        brain.words = {str(i): words for i, words in enumerate(WORDS)}
        brain.init_optimizers()
        brain.steps_in_epoch = 1
        return brain

    return build_brain


def terms(brain, batch):
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.eval()  # no dropout: to be worked out again
    heard = brain.compute_forward(batch, sb.Stage.TRAIN)
    return heard, brain.terms_of(heard, batch)


def test_the_loss_worked_out_on_paper():
    """One question, two clips: p = (3/4, 1/4) against q = (1/2, 1/2)."""
    teacher = torch.tensor([[3.0, 1.0]]).log()
    by_row = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    loss = distillation_loss(torch.zeros(1, 2), teacher)
    assert loss.item() == pytest.approx(by_row.item() / 2)  # columns: 0
    turned = distillation_loss(torch.zeros(2, 1), teacher.t())
    assert turned.item() == pytest.approx(loss.item())


def test_the_terms_are_those_of_teacher_and_student(build):
    """Over all clips: the third one is not asked about."""
    brain = build()
    batch = make_batch(contexts=["a", "b", "unasked", "c"])
    heard, given = terms(brain, batch)
    assert heard.places == [0, 1, 3] and len(heard.clips) == 4
    ours = F.normalize(heard.clips, dim=-1)
    theirs = F.normalize(brain.modules.text_encoder(WORDS), dim=-1)
    asked = F.normalize(
        brain.modules.text_encoder([row["question"] for row in QUESTIONS]),
        dim=-1,
    )
    total = 0.0
    for axis in 0, 1:
        p = (10 * asked @ theirs.t()).softmax(axis)
        q = (10 * asked @ ours.t()).softmax(axis)
        total += (p * (p / q).log()).sum() / p.shape[1 - axis]
    assert given["distillation"].item() == pytest.approx(
        total.item() / 2, rel=1e-4
    )
    cosines = F.cosine_similarity(ours, theirs)
    assert given["imitation"].item() == pytest.approx(
        1 - cosines.mean().item(), rel=1e-4
    )
    assert brain.active_terms(1) == {
        "contrastive": 1.0,
        "distillation": 2.0,
        "imitation": 3.0,
    }


def test_transcripts_are_not_looked_at(build):
    losses = []
    for texts in (TEXTS, ["sad"] * 4):
        batch = make_batch()
        batch.transcript = texts
        losses.append(terms(build(), batch)[1])
    for term, value in losses[0].items():
        assert torch.equal(value, losses[1][term]), term


def test_the_student_learns_and_comes_nearer(build):
    brain = build()
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    before = [p.clone() for p in brain.modules.text_encoder.parameters()]
    for group in brain.optimizer.param_groups:
        group["lr"] = 0.05
    losses = [float(brain.fit_batch(make_batch())) for _ in range(12)]
    assert losses[-1] < losses[0]
    after = brain.modules.text_encoder.parameters()
    assert all(map(torch.equal, before, after))
    assert brain.sums.keys() == {"contrastive", "distillation", "imitation"}


@pytest.mark.parametrize(
    "weights, terms_left",
    [
        ({"contrastive_weight": 0.0}, {"distillation", "imitation"}),
        ({"imitation_weight": 0.0}, {"contrastive", "distillation"}),
        (
            {"contrastive_weight": 0.0, "distillation_weight": 0.0},
            {"imitation"},
        ),
    ],
)
def test_each_term_can_be_left_out(build, weights, terms_left):
    _, given = terms(build(**weights), make_batch())
    assert given.keys() == terms_left


def test_without_a_question_in_the_batch_the_teacher_still_teaches(build):
    brain = build()
    _, given = terms(brain, make_batch(contexts=["x", "y", "x", "z"]))
    assert given["distillation"] == given["contrastive"] == 0.0
    assert given["imitation"] > 0
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    brain.fit_batch(make_batch(contexts=["x", "y", "x", "z"]))


def test_clips_without_a_word_are_left_out_and_counted(build, tmp_path, caplog):
    folder = make_tiny_whisper(tmp_path / "whisper")
    clips, _ = write_content(tmp_path / "tones", 3)
    for clip in clips:
        clip["wav"] = clip["wav"].format(data_root=tmp_path / "tones")
    brain = build(teacher=str(folder))
    kept = brain.choose_clips(clips, ClipReader(), tmp_path)
    heard = read_words(tmp_path / "teacher").values()
    assert len(heard) == 3 and len(clips) == 4  # two are the same wave
    assert kept == [clip for clip in clips if brain.words[clip["ID"]]]
    assert kept  # and then the teacher falls silent about one
    path = tmp_path / "teacher" / "words-0.jsonl"
    lines = [json.loads(x) for x in path.read_text().split("\n") if x]
    for line in lines:
        if line["key"] == lines[0]["key"]:
            line["words"] = ""
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with caplog.at_level(logging.WARNING):
        fewer = brain.choose_clips(clips, ClipReader(), tmp_path)
    assert lines[0]["ID"] not in {clip["ID"] for clip in fewer}
    assert f"no word in {4 - len(fewer)} of 4" in caplog.text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"is_frozen": False}, "it is frozen"),
        ({"text_projection": Projection(32, 32)}, "is Unprojected"),
        ({"imitation_weight": -1.0}, "imitation_weight is not below 0"),
        ({"distillation_temperature": 0.0}, "is above 0"),
        (
            {
                "is_frozen": False,
                "stages": {"recognition": 0, "text": 1, "joint": 1, "post": 0},
            },
            "{text: 0}",
        ),
    ],
)
def test_pages_that_could_only_fail_later(build, changes, message):
    with pytest.raises(PageError, match=message):
        build(**changes)
