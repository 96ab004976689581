"""How much faster CLSR turns speech into vectors than Whisper and BGE.

    python benchmarks/content.py [--batch 1 8] [--threads 1] [--device cuda]

Two speech sides of content retrieval at true sizes with random weights, on
the same segments: CLSR (Paraformer with 50 and 16 layers, whose words BERT's
base model reads) and a cascade (Whisper-small, then the same BERT). Both write
the same number of tokens a segment: CLSR's predictor is set to find so many,
and Whisper may neither end before nor go on behind them. Whisper hears 30 s at
a time, so that a segment of 40 s is cut at a quiet place, as
:class:`~esr_lobes.cascade.huggingface.HuggingFaceRecogniser` does it, and each
piece has its share of the tokens. It decodes greedily, with its cache of keys
and values; all pieces of a batch go side by side.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from ruamel.yaml import YAML
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.cascade.encoder import CascadeEncoder
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascade.recogniser import cut_quietly
from esr_lobes.clsr.speech import ClsrSpeech, make_recogniser
from esr_lobes.encoders.text import TextEncoder

PAGE = Path(__file__).parents[1] / "hparams" / "encoders" / "paraformer.yaml"
PARAFORMER = YAML(typ="safe").load(PAGE)["sizes"]
BERT = {"vocab_size": 30522}  # the rest is the base model's
WHISPER = {
    "vocab_size": 51865,
    "d_model": 768,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
END, START = range(2)  # Whisper's


def words(special, size):
    """Returns a vocabulary of words that nobody knows, by id."""
    return [*special, *(f"w{i}" for i in range(size - len(special)))]


def write_bert(folder, sizes):
    """Writes a BERT with random weights.

    Arguments
    ---------
    folder : str
        Where to.
    sizes : dict
        Of ``BertConfig``, whose own are those of the base model.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    Path(folder).mkdir()
    text = "\n".join(words(SPECIAL, sizes["vocab_size"])) + "\n"
    (Path(folder) / "vocab.txt").write_text(text, encoding="utf-8")
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_whisper(folder, sizes):
    """Writes a Whisper with random weights.

    A token of it is a word of BERT's, or unknown there: one token either way.

    Arguments
    ---------
    folder : str
        Where to.
    sizes : dict
        Of ``WhisperConfig``.
    """
    from tokenizers import Tokenizer, models
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    config = WhisperConfig(
        pad_token_id=END,
        eos_token_id=END,
        bos_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=[END, START],
        begin_suppress_tokens=None,
        **sizes,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    listed = words(["<|end|>", "<|start|>"], sizes["vocab_size"])
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.WordLevel({word: i for i, word in enumerate(listed)})
        ),
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=["<|start|>"],
    ).save_pretrained(folder)


def make_clsr(text_encoder, sizes, seconds, n_tokens):
    """Returns CLSR's speech side, which hears so many tokens in a segment.

    Arguments
    ---------
    text_encoder : TextEncoder
        What reads the words.
    sizes : dict
        Of the recogniser.
    seconds : float
        Length of a segment.
    n_tokens : int
        How many tokens its predictor finds, no more than there are steps.

    Returns
    -------
    ClsrSpeech
        The encoder.
    """
    paraformer = make_recogniser(text_encoder, sizes)
    _, n_steps = paraformer.frontend(
        torch.zeros(1, round(seconds * SAMPLE_RATE)), torch.ones(1)
    )
    share = torch.tensor((n_tokens + 0.05) / n_steps.item())
    if share >= 1:
        sys.exit(f"{seconds:g} s have {n_steps.item()} steps: fewer --tokens")
    # The same weight for all steps, whatever they are like.
    paraformer.predictor.cif_output.weight.data.zero_()
    paraformer.predictor.cif_output.bias.data.fill_(share.logit())
    return ClsrSpeech(paraformer, text_encoder).eval()


def make_cascade(text_encoder, folder, seconds, n_tokens):
    """Returns the cascade's speech side, which writes so many tokens.

    Arguments
    ---------
    text_encoder : TextEncoder
        What reads the words.
    folder : str
        Of the Whisper.
    seconds : float
        Length of a segment.
    n_tokens : int
        How many tokens it writes, over all pieces of a segment.

    Returns
    -------
    CascadeEncoder
        The encoder.
    """
    recogniser = HuggingFaceRecogniser(folder, local_files_only=True)
    longest = int(recogniser.longest_seconds * SAMPLE_RATE)
    segment = make_segments(1, seconds)[0]
    n_pieces = len(cut_quietly(segment, longest))
    if n_tokens % n_pieces:
        sys.exit(f"Whisper hears {n_pieces} pieces: --tokens a multiple of it")
    recogniser.model.generation_config.max_new_tokens = n_tokens // n_pieces
    recogniser.model.generation_config.max_length = None
    return CascadeEncoder(recogniser, text_encoder).eval()


def make_segments(n_segments, seconds, seed=0):
    """Returns noise of shape [n_segments, time]."""
    generator = torch.Generator().manual_seed(seed)
    shape = n_segments, round(seconds * SAMPLE_RATE)
    return 0.1 * torch.randn(shape, generator=generator)


def make_sides(
    options, folder, paraformer=PARAFORMER, whisper=WHISPER, bert=BERT
):
    """Returns both speech sides by name, on the device.

    Arguments
    ---------
    options : argparse.Namespace
        With ``seconds``, ``tokens``, ``device`` and ``dtype``.
    folder : str
        For checkpoints.
    paraformer, whisper, bert : dict
        Sizes, by default the true ones.

    Returns
    -------
    dict
        ``cascade`` and ``CLSR``.
    """
    torch.manual_seed(0)
    write_bert(f"{folder}/bert", bert)
    write_whisper(f"{folder}/whisper", whisper)
    text_encoder = TextEncoder(f"{folder}/bert", "first", max_tokens=512)
    sizes = options.seconds, options.tokens
    sides = {
        "cascade": make_cascade(text_encoder, f"{folder}/whisper", *sizes),
        "CLSR": make_clsr(text_encoder, paraformer, *sizes),
    }
    if options.dtype == "bf16":
        # Else each step of its decoder would round all weights anew.
        sides["cascade"].recogniser.model.bfloat16()
        text_encoder.backbone.bfloat16()
    return {name: side.to(options.device) for name, side in sides.items()}


@torch.inference_mode()
def call(function, segments, dtype="fp32"):
    """Returns what a side, or its ``transcribe``, makes of segments."""
    device = segments.device
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
        return function(segments, torch.ones(len(segments), device=device))


def count_words(side, segments, dtype="fp32"):
    """Returns how many words a side reads of each segment."""
    return [len(t.split()) for t in call(side.transcribe, segments, dtype)]


def timed(side, segments, dtype):
    """Returns the seconds that a side takes for segments: wall, processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    call(side, segments, dtype)
    if segments.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def count_operations(side, segments, dtype="fp32"):
    """Returns how many products and sums of numbers a segment takes.

    Those of matrices, that is nearly all.
    """
    # Attention written out, since its fused forms are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as seen:
        call(side, segments, dtype)
    return seen.get_total_flops() / len(segments)


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--tokens", type=int, default=120, help="a segment")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        print_table(make_sides(options, folder), options)


def print_table(sides, options):
    """Prints how fast both sides are, in turn.

    Arguments
    ---------
    sides : dict
        From :func:`make_sides`.
    options : argparse.Namespace
        What the command line says.
    """
    one = make_segments(1, options.seconds).to(options.device)
    dtype = options.dtype
    counts = {n: count_words(side, one, dtype) for n, side in sides.items()}
    if any(n != [options.tokens] for n in counts.values()):
        sys.exit(f"not {options.tokens} tokens each, but {counts}")
    sizes = {
        name: sum(p.numel() for p in side.parameters()) / 1e6
        for name, side in sides.items()
    }
    print(
        f"Segments of {options.seconds:g} s, {options.tokens} tokens each, "
        f"{dtype}, on {options.device}, {options.threads} threads, "
        f"torch {torch.__version__}; medians of {options.rounds} rounds. "
        + ", ".join(f"{name}: {n:.0f} M" for name, n in sizes.items())
        + " parameters.\n\n| batch | cascade, real-time factor | CLSR, "
        "real-time factor | CLSR is faster by | of processor time |\n"
        "|---|---|---|---|---|"
    )
    for batch in options.batch:
        segments = make_segments(batch, options.seconds).to(options.device)
        spent = {name: [] for name in sides}
        # They take turns, so that another process slows both down.
        for _ in range(options.rounds):
            for name, side in sides.items():
                spent[name].append(timed(side, segments, dtype))
        # Medians of wall seconds, and of processor seconds.
        cascade, clsr = (
            [
                statistics.median(seconds)
                for seconds in zip(*spent[name], strict=True)
            ]
            for name in ("cascade", "CLSR")
        )
        heard = batch * options.seconds
        print(
            f"| {batch} | {cascade[0] / heard:.4f} | {clsr[0] / heard:.4f} | "
            f"{cascade[0] / clsr[0]:.1f} | {cascade[1] / clsr[1]:.1f} |",
            flush=True,
        )
    operations = {
        name: count_operations(side, one, dtype) / 1e9
        for name, side in sides.items()
    }
    print(
        "\nArithmetic of a segment: "
        + ", ".join(f"{name} {n:.0f} GFLOP" for name, n in operations.items())
        + f", a ratio of {operations['cascade'] / operations['CLSR']:.1f}: "
        "where it is what takes the time, as on a CPU, expect little more."
    )


if __name__ == "__main__":
    main()
