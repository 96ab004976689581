"""What the benchmarks compare computes the same.

Authors
 * The esr_lobes contributors
"""

import random
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from paper_loop import PaperLoop
from style_towers import (
    OurStep,
    make_batches,
    open_page,
    share_padded,
    write_roberta,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
KINDS = {"e2v": "emotion2vec", "wavlm": "wavlm"}


@pytest.fixture(params=KINDS)
def towers(request, tiny_backbone, tmp_path):
    """Both ways on copies of the same tiny towers, dropout off."""
    write_roberta(tmp_path / "roberta", **SIZES)
    sources = {
        "text_encoder": str(tmp_path / "roberta"),
        "speech_encoder": str(tiny_backbone(KINDS[request.param])),
    }
    hparams = open_page(f"roberta_{request.param}", sources, tmp_path, width=32)
    ours = OurStep(hparams)
    plain = PaperLoop(ours.brain.modules, hparams)
    plain.speech.eval()
    ours.brain.modules.eval()
    return ours, plain, hparams


def learning(modules):
    """The modules of a page without the frozen one."""
    return torch.nn.ModuleDict(
        {k: m for k, m in modules.items() if k != "text_encoder"}
    )


def gradients(loss, modules):
    """Gradients by name, none where a parameter has no part in the loss."""
    named = [(n, p) for n, p in modules.named_parameters() if p.requires_grad]
    names, parameters = zip(*named, strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: gradient
        for name, gradient in zip(names, found, strict=True)
        if gradient is not None
    }


@pytest.mark.parametrize("seconds", [(0.3, 0.3, 0.3, 0.3), (0.3, 0.2, 0.1)])
def test_both_ways_have_the_same_loss_and_gradients(towers, seconds):
    """The plain loop knows no mask: it hears clips of unlike length alone."""
    ours, plain, hparams = towers
    brain = ours.brain
    torch.manual_seed(0)
    clips = [0.1 * torch.randn(round(s * 16000)) for s in seconds]
    styles = [3, 1, 3, 0][: len(clips)]
    bank, rng = hparams["train_prompts"], random.Random(5)
    prompts = [bank.draw(bank.styles[style], rng) for style in styles]
    if len(set(seconds)) == 1:
        pooled = plain.embed_speech(clips)
    else:
        pooled = torch.cat([plain.embed_speech([clip]) for clip in clips])
    loss = plain.loss(pooled, prompts, styles)

    brain.prompt_rng = random.Random(5)
    batch = ours.batch(clips, styles)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    our_loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
    assert our_loss.item() == pytest.approx(loss.item(), abs=1e-5)

    plain_modules = torch.nn.ModuleDict(
        {"speech_encoder": plain.speech, **plain.heads}
    )
    expected = gradients(loss, plain_modules)
    found = gradients(our_loss, learning(brain.modules))
    assert len(expected) > 50 and found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_step_changes_the_weights_of_both(towers):
    ours, plain, _ = towers
    heads = plain.heads, ours.brain.modules
    before = [h["logit_scale"].value.item() for h in heads]
    clips = [torch.randn(4000), torch.randn(4000)]
    plain.step(clips, ["a calm voice", "a sad voice"], [0, 1])
    ours.step(clips, [0, 1])
    after = [h["logit_scale"].value.item() for h in heads]
    assert before[0] != after[0] and before[1] != after[1]


def test_batches_have_the_same_clips_and_ours_pad_less():
    clips, arriving, bucketed = make_batches(4, 8)
    flat = sorted(i for batch in arriving for i in batch)
    assert flat == sorted(i for batch in bucketed for i in batch)
    assert [len(batch) for batch in bucketed] == [8] * 4
    assert set(flat) == set(clips) and len(flat) == 32
    assert share_padded(clips, bucketed) < 0.1 < share_padded(clips, arriving)
    short = {0: torch.zeros(1), 1: torch.zeros(3)}
    assert share_padded(short, [[0, 1]]) == pytest.approx(1 / 3)
