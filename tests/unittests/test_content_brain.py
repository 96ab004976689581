"""What the Brains of content do with a few tones: stages, terms, who learns.

Authors
 * The esr_lobes contributors
"""

import pytest
import speechbrain as sb
import torch
import torch.nn.functional as F
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.epoch_loop import EpochCounter
from tiny_content import say

from esr_lobes import schedules
from esr_lobes.clsr.clsr import Unprojected
from esr_lobes.clsr.speech import PooledParaformer, make_recogniser
from esr_lobes.clsr.vq import VQAdaptor
from esr_lobes.content_brain import ContentRetrievalBrain
from esr_lobes.dual_content_brain import DualContentBrain
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.heads import Projection
from esr_lobes.losses import LogitScale
from esr_lobes.pages import PageError

SIZES = {
    "n_mels": 16,
    "width": 32,
    "encoder_heads": 2,
    "encoder_ffn": 64,
    "encoder_layers": 2,
    "decoder_heads": 2,
    "decoder_ffn": 64,
    "decoder_layers": 1,
}
STAGES = {"recognition": 2, "text": 1, "joint": 3, "post": 1}
TEXTS = ["happy calm voice", "sad of", "fast loud person something", "sad of"]
CONTEXTS = ["a", "b", "c", "b"]
QUESTIONS = [
    {"question": "the happy voice", "context_id": "a"},
    {"question": "sad", "context_id": "b"},
    {"question": "the loud person", "context_id": "c"},
]


def page(**more):
    """Returns what a Brain asks of a page."""
    return {
        "stages": STAGES,
        "learning_rates": {
            "recognition": 1e-3,
            "text": 2e-3,
            "joint": 3e-3,
            "post": 4e-3,
        },
        "learns_temperature": False,
        "text_learns_jointly": False,
        "schedule": schedules.constant,
        "ema_decay": 0.0,
        "weight_decay": 0.0,
        "seed": 1,
        "train_loggers": [],
        "epoch_counter": EpochCounter(7),
        "vq": VQAdaptor(keeps_norms=True, takes="probabilities"),
        "quantity_weight": 0.25,
        "contrastive_weight": 0.25,
        "ce_weight": 0.5,
        "mwer_weight": 1.0,
        "n_candidates": 3,
        "label_smoothing": 0.1,
        **more,
    }


@pytest.fixture
def build(tiny_text_backbone):
    """A function that makes a Brain of random weights, ready to train."""

    def build_brain(kind=ContentRetrievalBrain, is_frozen=False, **more):
        torch.manual_seed(0)
        text = TextEncoder(tiny_text_backbone, is_frozen=is_frozen)
        paraformer = make_recogniser(text, SIZES)
        modules = {"text_encoder": text, "logit_scale": LogitScale(0.1)}
        if kind is ContentRetrievalBrain:
            modules["paraformer"] = paraformer
            modules["text_projection"] = Unprojected(32)
        else:
            modules["speech_encoder"] = PooledParaformer(paraformer)
            modules["speech_projection"] = Projection(32, 16)
            modules["text_projection"] = Projection(32, 16)
            more = {"stages": STAGES | {"recognition": 0}} | more
        brain = kind(
            modules=modules,
            opt_class=lambda params: torch.optim.SGD(params, lr=1.0),
            hparams=page(**more),
            run_opts={"device": "cpu"},
        )
        brain.ask(QUESTIONS, QUESTIONS)
        brain.init_optimizers()
        brain.steps_in_epoch = 1
        return brain

    return build_brain


def make_batch(texts=TEXTS, contexts=CONTEXTS):
    """Returns clips as a loader gives them."""
    numbers = {context: i for i, context in enumerate(sorted(set(contexts)))}
    return PaddedBatch(
        [
            {
                "id": str(i),
                "sig": torch.from_numpy(say(text.split())),
                "context_id": context,
                "context_index": numbers[context],
                "transcript": text,
            }
            for i, (text, context) in enumerate(
                zip(texts, contexts, strict=True)
            )
        ]
    )


def begin(brain, epoch):
    """Does what ``fit`` does before the first batch of an epoch."""
    brain.on_stage_start(sb.Stage.TRAIN, epoch)
    brain.modules.train()
    brain.zero_grad()


def test_the_stages_come_one_after_another(build):
    brain = build()
    assert [brain.stage_of(epoch) for epoch in range(1, 9)] == [
        *("recognition", "recognition", "text", "joint", "joint", "joint"),
        *("post", "post"),
    ]


def test_the_paper_s_weights(build):
    """(1-a-b) (g CE + MWER) + a MAE + b NLL, with a = b = 1/4, g = 1/2."""
    brain = build()
    assert brain.active_terms(1) == {
        "cross_entropy": 0.5,
        "mwer": 1.0,
        "quantity": 1.0,
    }
    assert brain.active_terms(3) == {"contrastive": 1.0}
    assert brain.active_terms(4) == {
        "cross_entropy": 0.25,
        "mwer": 0.5,
        "quantity": 0.25,
        "contrastive": 0.25,
    }
    assert brain.active_terms(7) == {"contrastive": 1.0}
    without = build(mwer_weight=0.0)
    assert "mwer" not in without.active_terms(4)


def moved(brain, epoch):
    """Returns which modules a step of an epoch has moved."""
    begin(brain, epoch)
    before = {
        name: [p.detach().clone() for p in module.parameters()]
        for name, module in brain.modules.items()
    }
    brain.fit_batch(make_batch())
    return {
        name
        for name, module in brain.modules.items()
        if any(
            not torch.equal(old, new)
            for old, new in zip(before[name], module.parameters(), strict=True)
        )
    }


@pytest.mark.parametrize(
    "epoch, learns",
    [
        (1, {"paraformer"}),
        (3, {"text_encoder"}),
        (4, {"paraformer"}),
        (7, {"text_encoder"}),
    ],
)
def test_who_learns_in_each_stage_of_clsr(build, epoch, learns):
    assert moved(build(), epoch) == learns


def test_who_learns_in_each_stage_of_a_dual_encoder(build):
    speech = {"speech_encoder", "speech_projection", "text_projection"}
    for epoch, learns in ((1, {"text_encoder"}), (2, speech)):
        assert moved(build(DualContentBrain), epoch) == learns
    assert moved(build(DualContentBrain), 5) == {"text_encoder"}
    learning = build(DualContentBrain, learns_temperature=True)
    assert moved(learning, 2) == speech | {"logit_scale"}


def test_both_towers_may_learn_jointly(build):
    towers = {"speech_encoder", "speech_projection", "text_projection"}
    towers |= {"text_encoder"}
    brain = build(DualContentBrain, text_learns_jointly=True)
    assert moved(brain, 2) == towers
    assert moved(brain, 5) == {"text_encoder"}
    # Its vectors change from step to step: none was kept.
    assert brain.modules.text_encoder._known == {}
    with pytest.raises(PageError, match="stage 'joint' the text encoder"):
        build(
            DualContentBrain,
            is_frozen=True,
            text_learns_jointly=True,
            stages=dict.fromkeys(STAGES, 0) | {"joint": 1},
        )


def test_who_has_something_to_teach(build, tmp_path):
    """To recognise: every clip; to be found: what a question is about."""
    clips = [{"context_id": c} for c in ("a", "unasked", "b")]
    kept = build(DualContentBrain).choose_clips(clips, None, tmp_path)
    assert kept == [clips[0], clips[2]]
    assert build().choose_clips(clips, None, tmp_path) == clips


def test_the_recogniser_is_as_in_use_while_the_text_encoder_learns(build):
    """Else dropout and holes would be what the text encoder learns from."""
    brain = build()
    begin(brain, 7)
    batch = make_batch()
    rows = [brain.compute_forward(batch, sb.Stage.TRAIN) for _ in "ab"]
    assert torch.equal(rows[0].output.logits, rows[1].output.logits)
    assert rows[0].output.targets is None


@pytest.mark.parametrize("epoch, rate", [(2, 1e-3), (3, 2e-3), (7, 4e-3)])
def test_each_stage_has_its_rate(build, epoch, rate):
    brain = build()
    begin(brain, epoch)
    brain.on_fit_batch_start(make_batch(), True)
    assert brain.optimizer.param_groups[0]["lr"] == rate


def test_the_schedule_is_that_of_the_stage(build):
    brain = build(schedule=lambda progress: 1.0 - progress)
    begin(brain, 5)
    rates = []
    for step in (3, 4, 5):  # one step an epoch, three epochs in joint
        brain.optimizer_step = step
        brain.on_fit_batch_start(make_batch(), True)
        rates.append(brain.optimizer.param_groups[0]["lr"] / 3e-3)
    assert rates == pytest.approx([1.0, 2 / 3, 1 / 3])


def contrastive(brain, batch):
    begin(brain, 4)
    heard = brain.compute_forward(batch, sb.Stage.TRAIN)
    return heard, brain.terms_of(heard, batch)["contrastive"]


def test_clips_of_one_context_are_not_each_other_s_rivals(build):
    """Worked out plainly, cell by cell."""
    brain = build()
    heard, loss = contrastive(brain, make_batch())
    rows = F.normalize(heard.contexts, dim=-1)
    cosines = 10 * rows @ F.normalize(heard.questions, dim=-1).t()
    total = 0.0
    for i in range(4):
        rivals = [j for j in range(4) if j == i or CONTEXTS[j] != CONTEXTS[i]]
        total -= cosines[i, rivals].log_softmax(0)[rivals.index(i)]
        total -= cosines[rivals, i].log_softmax(0)[rivals.index(i)]
    assert loss.item() == pytest.approx(total.item() / 8, rel=1e-4)


def test_a_clip_that_nobody_asks_about_only_teaches_to_recognise(build):
    brain = build()
    contexts = ["a", "b", "unasked", "c"]
    batch = make_batch(contexts=contexts)
    heard, loss = contrastive(brain, batch)
    assert heard.places == [0, 1, 3] and len(heard.output.counts) == 4
    rows = F.normalize(heard.contexts, dim=-1)
    cosines = 10 * rows @ F.normalize(heard.questions, dim=-1).t()
    right = torch.arange(3)
    plain = F.cross_entropy(cosines, right) + F.cross_entropy(
        cosines.t(), right
    )
    assert loss.item() == pytest.approx(plain.item() / 2, rel=1e-4)
    batch = make_batch(contexts=["x", "y", "x", "z"])
    _, loss = contrastive(brain, batch)
    assert loss.item() == 0.0
    for epoch in (3, 4, 7):  # nobody asks in any stage, and all goes on
        begin(brain, epoch)
        brain.fit_batch(batch)


def test_retrieval_teaches_the_recogniser_and_its_gradients_are_noted(build):
    brain = build(is_frozen=True, stages=STAGES | {"text": 0, "post": 0})
    batch = make_batch()
    begin(brain, 3)
    heard = brain.compute_forward(batch, sb.Stage.TRAIN)
    brain.terms_of(heard, batch)["contrastive"].backward()
    gradient = brain.modules.paraformer.decoder.output_layer.weight.grad
    assert gradient.abs().sum() > 0
    parameters = brain.modules.text_encoder.parameters()
    assert all(p.grad is None for p in parameters)
    brain.on_fit_batch_end(batch, None, None, True)
    assert brain.sums["gradient at embeddings"] > 0
    assert brain.sums["gradient at logits"] > 0


def test_questions_are_drawn_from_seed_and_epoch_alone(build):
    brain = build()
    more = [{"question": f"sad {i}", "context_id": "b"} for i in range(50)]
    brain.ask([*QUESTIONS, *more])
    drawn = []
    for epoch in (4, 4, 5):
        begin(brain, epoch)
        drawn.append(brain.draw_questions(["b"] * 5))
    assert drawn[0] == drawn[1] != drawn[2]
    assert brain.draw_questions(["unasked"]) == ["-"]


def test_judging_is_by_context(build):
    brain = build()
    brain.on_stage_start(sb.Stage.TRAIN, 4)
    brain.on_stage_start(sb.Stage.VALID, 4)
    brain.modules.eval()
    with torch.no_grad():
        brain.compute_forward(make_batch(), sb.Stage.VALID)
    stats = brain.judge(4, 0.0)
    # Three contexts in all.
    assert stats["Q-C R@5"] == stats["C-Q R@5"] == 100.0
    assert stats["WER"] >= 0
    assert list(brain.merit(stats, 4)) == ["joint merit"]
    assert brain.merit(stats | {"WER": 7.0}, 1) == {"recognition merit": -7.0}


def test_the_average_is_what_is_judged(build):
    brain = build(ema_decay=0.9)
    begin(brain, 1)
    brain.fit_batch(make_batch())
    brain.fit_batch(make_batch())
    brain.modules.eval()
    judged = brain.tower("speech_encoder")
    assert judged.paraformer is brain.average.module["paraformer"]
    weight = judged.paraformer.decoder.output_layer.weight
    assert not torch.equal(
        weight, brain.modules.paraformer.decoder.output_layer.weight
    )
    brain.modules.train()
    trained = brain.tower("speech_encoder").paraformer
    assert trained is brain.modules.paraformer


def test_a_text_encoder_that_must_learn_may_not_be_frozen(build):
    with pytest.raises(PageError, match="is_frozen: False"):
        build(is_frozen=True)


def test_a_page_without_a_recogniser_cannot_teach_one(build):
    with pytest.raises(PageError, match="No words are recognised"):
        build(DualContentBrain, stages=STAGES)


def test_an_end_behind_all_stages_is_in_the_last(build):
    brain = build(stages=STAGES | {"post": 0})
    assert brain.stage_of(100) == "joint"
