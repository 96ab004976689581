"""One training step, on as many processes as there are; for a test.

Every process takes its share of the same seven clips and of their prompts,
and the main one writes the loss and the gradients into the folder OUT. BANK
holds one prompt a style, TEXT is the folder of a text backbone, each SPEECH
that of an emotion2vec, or ``compact``.

Authors
 * The esr_lobes contributors
"""

import os
from pathlib import Path

import speechbrain as sb
import torch
from safetensors.torch import save_file
from speechbrain.dataio.batch import PaddedBatch

from esr_lobes import distributed
from esr_lobes.brain import StyleRetrievalBrain
from esr_lobes.encoders.emotion2vec import Emotion2vec
from esr_lobes.pages import load_page

ROOT = Path(__file__).resolve().parents[2]
STYLES = ["happy", "sad", "calm", "happy", "angry", "sad", "happy"]
# No draw at random, so that each clip meets the same words however they are
# shared out; no dropout, no mask.
OVERRIDES = """
output_folder: unused
data_folder: unused
train_bank: "{bank}"
n_styles: 4
embed_dim: 16
prompt_mix: null
wave_augment: null
text_encoder: {{width: 32, model: {{source: "{text}"}}}}
speech_encoder:
    width: 32
    model:
        channels: [8, 8]
        frame_strides: [1, 2]
        dropout: 0.0
        crop_frames: 0
        max_band_shift: 0
        band_gain_db: 0.0
        n_time_masks: 0
        n_band_masks: 0
"""


def make_batch(styles):
    """Returns this process's share of the clips."""
    generator = torch.Generator().manual_seed(0)
    clips = [
        {
            "id": str(i),
            "sig": torch.rand(4000 + 400 * i, generator=generator) - 0.5,
            "style": style,
            "style_index": styles.index(style),
        }
        for i, style in enumerate(STYLES)
    ]
    return PaddedBatch(clips[distributed.rank() :: distributed.n_ranks()])


def main(out, bank, text, *speeches):
    """Computes a step with each speech encoder and writes it."""
    _, run_opts, _ = sb.parse_arguments(["no page", "--device=cpu"])
    run_opts = distributed.join_processes(run_opts)
    overrides = OVERRIDES.format(bank=bank, text=text)
    for speech in speeches:
        page, _ = load_page(ROOT / "hparams" / "compact.yaml", overrides)
        if speech != "compact":
            page["modules"]["speech_encoder"] = Emotion2vec(
                speech, dropout=0.0, layerdrop=0.0
            )
        brain = StyleRetrievalBrain(
            page["modules"], page["opt_class"], page, run_opts
        )
        result = step(brain)
        if distributed.rank() == 0:
            save_file(result, Path(out) / f"{Path(speech).name}.safetensors")


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


def step(brain):
    """Returns loss and gradients of a step with all terms."""
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, epoch=11)
    brain.modules.train()
    for module in brain.modules.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # on the CPU statistics are a process's own
    batch = make_batch(brain.styles)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
    loss.backward()
    return {"loss": loss.detach()} | {
        f"{name}.{key}": parameter.grad.contiguous()
        for name, module in brain.modules.items()
        for key, parameter in distributed.bare(module).named_parameters()
        if parameter.grad is not None
    }
