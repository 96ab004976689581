"""One training step on content, on as many processes as there are.

Every process takes its share of the same five clips, and the main one writes
the loss's gradients for each stage into the folder OUT. TEXT is the folder of
a text backbone.

Authors
 * The esr_lobes contributors
"""

import os
from pathlib import Path

import speechbrain as sb
import torch
from safetensors.torch import save_file
from speechbrain.dataio.batch import PaddedBatch
from tiny_content import SIZES, say

from esr_lobes import distributed
from esr_lobes.content_brain import ContentRetrievalBrain
from esr_lobes.dual_content_brain import STAGES, DualContentBrain
from esr_lobes.pages import load_page

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "clsr_compact": ContentRetrievalBrain,
    "parabge_compact": DualContentBrain,
}
TEXTS = [
    "happy calm voice",
    "sad of",
    "fast loud person something",
    "quiet tone",
    "a calm angry",
]
CONTEXTS = ["a", "b", "c", "a", "unasked"]
QUESTIONS = [
    {"question": f"the {text}", "context_id": context}
    for text, context in zip(TEXTS[:3], CONTEXTS[:3], strict=True)
]
# Nothing is drawn at random, so that a clip is heard alike however clips are
# shared out.
OVERRIDES = """
output_folder: unused
data_folder: unused
sampling_ratio: 0.0
ema_decay: 0.0
stages: {{recognition: {recognition}, text: 1, joint: 1, post: 1}}
text_encoder: {{width: 32, is_frozen: False, model: {{source: "{text}"}}}}
recogniser: {sizes}
"""


def make_batch():
    """Returns this process's share of the clips."""
    clips = [
        {
            "id": str(i),
            "sig": torch.from_numpy(say(text.split())),
            "context_id": context,
            "context_index": "abcunasked".index(context),
            "transcript": text,
        }
        for i, (text, context) in enumerate(zip(TEXTS, CONTEXTS, strict=True))
    ]
    return PaddedBatch(clips[distributed.rank() :: distributed.n_ranks()])


def main(out, text):
    """Computes a step of each stage of each page and writes it."""
    _, run_opts, _ = sb.parse_arguments(["no page", "--device=cpu"])
    run_opts = distributed.join_processes(run_opts)
    for page, kind in KINDS.items():
        n = int(page == "clsr_compact")
        overrides = OVERRIDES.format(text=text, sizes=SIZES, recognition=n)
        hparams, _ = load_page(ROOT / "hparams" / f"{page}.yaml", overrides)
        hparams["modules"]["text_encoder"].backbone.config.update(
            {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        )
        for module in hparams["modules"]["text_encoder"].modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        brain = kind(
            hparams["modules"], hparams["opt_class"], hparams, run_opts
        )
        brain.ask(QUESTIONS)
        brain.on_fit_start()
        result = {}
        for epoch in range(1, 4 + n):
            stage = brain.stage_of(epoch)
            assert stage in STAGES
            result |= {f"{stage}.{k}": v for k, v in step(brain, epoch).items()}
        if distributed.rank() == 0:
            save_file(result, Path(out) / f"{page}.safetensors")


def step(brain, epoch):
    """Returns the gradients of a step."""
    brain.on_stage_start(sb.Stage.TRAIN, epoch)
    brain.modules.train()
    brain.optimizer.zero_grad()
    batch = make_batch()
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    brain.compute_objectives(outputs, batch, sb.Stage.TRAIN).backward()
    return {
        f"{name}.{key}": parameter.grad.clone()
        for name, module in brain.modules.items()
        for key, parameter in distributed.bare(module).named_parameters()
        if parameter.grad is not None
    }


def join_and_step(rank, n_ranks, port, *arguments):
    """Does as torchrun does for a process of a group, then :func:`main`."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    main(*arguments)
