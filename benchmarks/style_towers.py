"""How fast the paper's towers train and embed, against a plain loop.

    python benchmarks/style_towers.py [--steps 4] [--batch 32] [--device cuda]

Towers have their true sizes and random weights. RoBERTa reads words of the
prompt bank instead of byte pairs: of a vocabulary only the number of tokens
matters here. Training: a step of :mod:`paper_loop` against one of the library,
on the same clips of 2 to 8 seconds, in turn. Embedding: clips one by one
against batches of like length.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import speechbrain as sb
import torch
from paper_loop import PaperLoop
from speechbrain.dataio.batch import PaddedBatch

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.batching import ClipBatches
from esr_lobes.brain import StyleRetrievalBrain
from esr_lobes.pages import load_page
from esr_lobes.prompts import PromptBank

PAGES = Path(__file__).parents[1] / "hparams"
ALL_TERMS = 11  # the epoch from which on the paper's loss has all its terms
POOL = 32  # an epoch, in batches, of which a few are timed
SHORTEST, LONGEST = 2.0, 8.0  # seconds


def write_roberta(folder, **sizes):
    """Writes RoBERTa with random weights that knows the bank's words.

    Arguments
    ---------
    folder : str
        Where to.
    **sizes : dict
        Of ``RobertaConfig``, whose own are those of the base model.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaModel,
    )

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        PromptBank.load("train").all_prompts(),
        trainers.WordLevelTrainer(
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            show_progress=False,
        ),
    )
    words.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=514, **sizes
    )
    RobertaModel(config).save_pretrained(folder)


def write_wavlm(folder, **sizes):
    """Writes WavLM with random weights.

    Arguments
    ---------
    folder : str
        Where to.
    **sizes : dict
        Of ``WavLMConfig``, whose own are those of the base models.
    """
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    config = WavLMConfig(layerdrop=0.0, apply_spec_augment=False, **sizes)
    WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)


def open_page(name, sources, output_folder, width=768, is_checkpointed=False):
    """Returns a page of the paper's, its towers from these folders.

    Arguments
    ---------
    name : str
        Such as ``roberta_e2v``.
    sources : dict
        Folder of each tower, ``text_encoder`` and ``speech_encoder``.
    output_folder : str
        Where a training would write.
    width : int
        Of both towers.
    is_checkpointed : bool
        Whether the speech tower saves memory.

    Returns
    -------
    dict
        What the page makes.
    """
    overrides = {"data_folder": "none", "output_folder": str(output_folder)}
    for tower, source in sources.items():
        overrides[tower] = {"width": width, "model": {"source": source}}
    overrides["speech_encoder"]["gradient_checkpointing"] = is_checkpointed
    # All steps do the same work, in both ways.
    overrides["speech_encoder"]["model"]["layerdrop"] = 0.0
    return load_page(PAGES / f"{name}.yaml", overrides)[0]


class OurStep:
    """The library's step, as its Brain does it with a page.

    Arguments
    ---------
    hparams : dict
        The page.
    device, precision : str
        Of the training.
    """

    def __init__(self, hparams, device="cpu", precision="fp32"):
        self.brain = StyleRetrievalBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts={"device": device, "precision": precision},
        )
        self.brain.on_fit_start()
        self.brain.steps_in_epoch = self.brain.epoch_limit = 1000
        self.brain.modules.train()
        self.brain.on_stage_start(sb.Stage.TRAIN, ALL_TERMS)

    def batch(self, clips, styles):
        """Returns clips and the numbers of their styles as a Brain reads them.

        Arguments
        ---------
        clips : list of torch.Tensor
            Waveforms of shape [time].
        styles : list of int
            One a clip.

        Returns
        -------
        PaddedBatch
            The batch.
        """
        return PaddedBatch(
            [
                {
                    "sig": clip,
                    "style": self.brain.styles[style],
                    "style_index": style,
                }
                for clip, style in zip(clips, styles, strict=True)
            ]
        )

    def step(self, clips, styles):
        """Learns from one batch and returns its loss; see :meth:`batch`."""
        batch = self.batch(clips, styles)
        self.brain.on_fit_batch_start(batch, True)
        return self.brain.fit_batch(batch)


def make_batches(n_batches, batch_size, seed=0):
    """Returns clips of 2 to 8 seconds, and two ways to cut them into batches.

    Of an epoch of bucketed batches a few are taken, evenly from the shortest
    to the longest, so that they are as alike in length as in a whole epoch.

    Arguments
    ---------
    n_batches : int
        How many to take, at most ``POOL``.
    batch_size : int
        Clips in each.
    seed : int
        Of all draws.

    Returns
    -------
    clips : dict
        Number to waveform of shape [time].
    arriving, bucketed : list of list of int
        The same numbers, in the order of arrival and by length.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(POOL * batch_size, generator=generator)
    seconds = SHORTEST + (LONGEST - SHORTEST) * draws
    pool = list(ClipBatches(seconds, batch_size, seed))
    pool.sort(key=lambda batch: seconds[batch].mean())
    places = [POOL * (2 * i + 1) // (2 * n_batches) for i in range(n_batches)]
    bucketed = [pool[place] for place in places]
    clips = {
        i: 0.1 * torch.randn(int(seconds[i] * SAMPLE_RATE), generator=generator)
        for batch in bucketed
        for i in batch
    }
    rng = random.Random(seed)
    arriving = rng.sample(list(clips), len(clips))
    arriving = [
        arriving[i : i + batch_size]
        for i in range(0, len(arriving), batch_size)
    ]
    rng.shuffle(bucketed)
    return clips, arriving, bucketed


def share_padded(clips, batches):
    """Returns which share of the samples of padded batches is padding."""
    real = sum(len(clips[i]) for batch in batches for i in batch)
    total = sum(len(b) * max(len(clips[i]) for i in b) for b in batches)
    return 1 - real / total


class Clock:
    """Wall and processor seconds of what is called, per name.

    Arguments
    ---------
    device : str
        Waited for before a time is taken.
    """

    def __init__(self, device):
        self.device = device
        self.wall, self.cpu = {}, {}

    def __call__(self, name, function, *args):
        """Calls the function; its times are added to those of the name."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        function(*args)
        self._wait()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.wall[name] = self.wall.get(name, 0.0) + wall
        self.cpu[name] = self.cpu.get(name, 0.0) + cpu

    def _wait(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def ratio(self, plain, ours):
        """Returns how many times as fast ours is: by wall, by processor."""
        return (
            self.wall[plain] / self.wall[ours],
            self.cpu[plain] / self.cpu[ours],
        )


def shown(ratios):
    """Returns the median of (wall, processor) ratios, both as text."""
    wall, cpu = zip(*ratios, strict=True)
    return f"{statistics.median(wall):.2f} | {statistics.median(cpu):.2f}"


def time_training(hparams, options, precision):
    """Returns one row of the table of trainings.

    The two take turns, step by step; a ratio is of all steps of a round.
    """
    ours = OurStep(hparams, options.device, precision)
    plain = PaperLoop(ours.brain.modules, hparams, options.device, precision)
    bank, rng = hparams["train_prompts"], random.Random(0)
    clips, arriving, bucketed = make_batches(options.steps, options.batch)
    styles = {i: rng.randrange(len(bank.styles)) for i in clips}

    def plain_step(batch):
        numbers = [styles[i] for i in batch]
        prompts = [bank.draw(bank.styles[n], rng) for n in numbers]
        plain.step([clips[i] for i in batch], prompts, numbers)

    def our_step(batch):
        ours.step([clips[i] for i in batch], [styles[i] for i in batch])

    small = min(clips, key=lambda i: len(clips[i]))
    plain_step([small]), our_step([small])  # to warm up
    ratios, seconds = [], {"plain": [], "ours": []}
    for _ in range(options.rounds):
        clock = Clock(options.device)
        for plain_batch, our_batch in zip(arriving, bucketed, strict=True):
            clock("plain", plain_step, plain_batch)
            clock("ours", our_step, our_batch)
        ratios.append(clock.ratio("plain", "ours"))
        for name, wall in clock.wall.items():
            seconds[name].append(options.steps / wall)
    plain_speed = statistics.median(seconds["plain"])
    our_speed = statistics.median(seconds["ours"])
    return (
        f"| {hparams['name']} | {precision} | {plain_speed:.3f} | "
        f"{our_speed:.3f} | {shown(ratios)} |"
    )


@torch.inference_mode()
def time_embedding(hparams, options, precision):
    """Returns one row of the table of embedding.

    The encoder of the library, one by one and in batches of like length,
    against the plain one, one by one.
    """
    encoder = hparams["modules"]["speech_encoder"].to(options.device).eval()
    plain = PaperLoop(hparams["modules"], hparams, options.device, precision)
    plain.speech.eval()
    clips, _, bucketed = make_batches(options.steps, options.batch)

    def embed(numbers):
        wavs = [clips[i] for i in numbers]
        lengths = torch.tensor([float(len(wav)) for wav in wavs])
        batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        lengths = (lengths / lengths.max()).to(options.device)
        with plain.autocast():
            encoder(batch.to(options.device), lengths)

    def embed_plainly(number):
        with plain.autocast():
            plain.embed_speech([clips[number]])

    small = min(clips, key=lambda i: len(clips[i]))
    embed([small]), embed_plainly(small)
    against_plain, against_alone = [], []
    for _ in range(options.rounds):
        clock = Clock(options.device)
        for batch in bucketed:
            clock("together", embed, batch)
            for i in batch:
                clock("plain", embed_plainly, i)
                clock("alone", embed, [i])
        against_plain.append(clock.ratio("plain", "together"))
        against_alone.append(clock.ratio("alone", "together"))
    return (
        f"| {hparams['name']} | {precision} | {shown(against_plain)} | "
        f"{shown(against_alone)} |"
    )


def peak_memory(sources, name, folder, is_checkpointed):
    """Returns the GPU memory, in GiB, of our steps of 32 clips of 8 s."""
    hparams = open_page(name, sources, folder, is_checkpointed=is_checkpointed)
    ours = OurStep(hparams, "cuda", "bf16")
    clips = [torch.randn(int(LONGEST * SAMPLE_RATE)) * 0.1 for _ in range(32)]
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # the optimiser's memory comes with the first
        ours.step(clips, [0] * len(clips))
    return torch.cuda.max_memory_allocated() / 2**30


def main():
    """Prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", nargs="+", default=["e2v", "wavlm"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precisions", nargs="+", default=["bf16"], choices=["bf16", "fp32"]
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        roberta, wavlm = f"{folder}/roberta", f"{folder}/wavlm"
        write_roberta(roberta)
        write_wavlm(wavlm)
        sources = {"e2v": None, "wavlm": wavlm}
        print_tables(roberta, sources, folder, options)


def print_tables(roberta, sources, folder, options):
    """Prints the tables of trainings, of embedding, and of memory."""
    clips, *ways = make_batches(options.steps, options.batch)
    arriving, bucketed = (share_padded(clips, way) for way in ways)
    print(
        f"{options.steps} steps of {options.batch} clips of {SHORTEST:g} to "
        f"{LONGEST:g} s, {options.rounds} times, on {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}. Padding: "
        f"{arriving:.0%} in batches as clips arrive, {bucketed:.0%} in those "
        "of like length.\n"
    )
    header = "| pair | precision | plain, steps/s | ours, steps/s | ratio | "
    print(header + "of processor time |\n|---|---|---|---|---|---|")
    for pair in options.pairs:
        towers = {"text_encoder": roberta, "speech_encoder": sources[pair]}
        for precision in options.precisions:
            hparams = open_page(f"roberta_{pair}", towers, folder)
            print(time_training(hparams, options, precision), flush=True)
    print(
        "\nEmbedding the same clips: batches of like length against the "
        "plain encoder one by one, and against ours one by one.\n"
        "\n| pair | precision | ratio to plain | of processor time | "
        "ratio to ours one by one | of processor time |\n"
        "|---|---|---|---|---|---|"
    )
    for pair in options.pairs:
        towers = {"text_encoder": roberta, "speech_encoder": sources[pair]}
        for precision in ("bf16", "fp32"):
            hparams = open_page(f"roberta_{pair}", towers, folder)
            print(time_embedding(hparams, options, precision), flush=True)
    print("\nMemory of a step of 32 clips of 8 s, bf16: ", end="")
    if not options.device.startswith("cuda"):
        print("not run here (`--device cuda` prints it).")
        return
    print("\n\n| pair | GiB | with gradient checkpointing |\n|---|---|---|")
    for pair in options.pairs:
        towers = {"text_encoder": roberta, "speech_encoder": sources[pair]}
        peaks = [
            peak_memory(towers, f"roberta_{pair}", folder, is_checkpointed)
            for is_checkpointed in (False, True)
        ]
        print(f"| roberta_{pair} | {peaks[0]:.1f} | {peaks[1]:.1f} |")


if __name__ == "__main__":
    main()
