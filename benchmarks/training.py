"""How fast training steps and embedding are, as ratios in one run.

    python benchmarks/training.py [--page hparams/compact.yaml]

Two comparisons on made-up clips of 1 to 4 seconds: a training step with
prompts kept from the text backbone against one that runs it, and embedding
in batches of like length against one clip at a time.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import random
import time

import torch

from esr_lobes.encoders.compact import CompactEncoder
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.heads import Projection
from esr_lobes.losses import (
    LogitScale,
    contrastive_loss,
    same_style_positives,
)
from esr_lobes.prompts import PromptBank

SAMPLE_RATE = 16000
BATCH = 32


def make_clips(n_clips, seed=0):
    """Returns waveforms of random length, each of shape [time]."""
    generator = torch.Generator().manual_seed(seed)
    seconds = 1 + 3 * torch.rand(n_clips, generator=generator)
    return [
        torch.randn(int(s * SAMPLE_RATE), generator=generator) * 0.1
        for s in seconds
    ]


def pad(clips):
    """Returns a padded batch and its relative lengths."""
    lengths = torch.tensor([len(c) for c in clips], dtype=torch.float32)
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return batch, lengths / lengths.max()


class Step:
    """One contrastive step, with or without kept prompt vectors."""

    def __init__(self, is_kept, bank):
        torch.manual_seed(0)
        self.bank, self.is_kept = bank, is_kept
        self.rng = random.Random(0)
        self.text = TextEncoder("minilm")
        if is_kept:
            self.text.warm(bank.all_prompts())
        self.speech = CompactEncoder().train()
        self.to_speech = Projection(self.speech.width, 256)
        self.to_text = Projection(self.text.width, 256)
        self.scale = LogitScale()
        parts = (self.speech, self.to_speech, self.to_text, self.scale)
        self.optimizer = torch.optim.AdamW(
            [p for part in parts for p in part.parameters()], lr=1e-4
        )

    def __call__(self, wavs, lengths):
        styles = [self.rng.choice(self.bank.styles) for _ in wavs]
        prompts = [self.bank.draw(style, self.rng) for style in styles]
        index = torch.tensor([self.bank.styles.index(s) for s in styles])
        speech = self.to_speech(self.speech(wavs, lengths))
        text = self.to_text(self.text(prompts))
        normalize = torch.nn.functional.normalize
        cosines = normalize(speech, dim=-1) @ normalize(text, dim=-1).t()
        loss = contrastive_loss(
            self.scale(cosines), same_style_positives(index)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def time_steps(step, batches):
    """Returns steps per second, after one step to warm up."""
    step(*batches[0])
    start = time.perf_counter()
    for batch in batches:
        step(*batch)
    return len(batches) / (time.perf_counter() - start)


@torch.inference_mode()
def time_embedding(encoder, clips, batch_size):
    """Returns seconds of audio embedded per second."""
    clips = sorted(clips, key=len) if batch_size > 1 else clips
    encoder(*pad(clips[:batch_size]))
    start = time.perf_counter()
    for i in range(0, len(clips), batch_size):
        encoder(*pad(clips[i : i + batch_size]))
    spent = time.perf_counter() - start
    return sum(len(c) for c in clips) / SAMPLE_RATE / spent


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bank = PromptBank.load("train")
    clips = make_clips(BATCH * options.steps)
    batches = [pad(clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)]
    plain = time_steps(Step(False, bank), batches)
    kept = time_steps(Step(True, bank), batches)
    encoder = CompactEncoder().eval()
    clips = make_clips(options.clips, seed=1)
    alone = time_embedding(encoder, clips, 1)
    together = time_embedding(encoder, clips, 16)
    print(f"{options.threads} threads, torch {torch.__version__}\n")
    print("| what | plain | ours | ratio |\n|---|---|---|---|")
    print(
        f"| training steps/s, text backbone run / kept | {plain:.2f} | "
        f"{kept:.2f} | {kept / plain:.2f} |"
    )
    print(
        f"| embedding, seconds of audio per second, one by one / 16 a batch "
        f"| {alone:.0f} | {together:.0f} | {together / alone:.2f} |"
    )


if __name__ == "__main__":
    main()
