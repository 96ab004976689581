"""CLSR and the cascade of the benchmark do what they are timed for.

Authors
 * The esr_lobes contributors
"""

import argparse
import sys
from pathlib import Path

import pytest
import torch
from tiny_backbones import SIZES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import content
from content import (
    call,
    count_operations,
    count_words,
    make_cascade,
    make_clsr,
    make_segments,
    make_sides,
    print_table,
)

SECONDS, TOKENS = 40.0, 24
PARAFORMER = {
    "width": 32,
    "encoder_heads": 2,
    "encoder_ffn": 64,
    "encoder_layers": 2,
    "decoder_heads": 2,
    "decoder_ffn": 64,
    "decoder_layers": 1,
}
WHISPER = {
    "vocab_size": 70,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
BERT = {"vocab_size": 60, **SIZES}
BATCHES = [" 1 "], [" 2 "]


@pytest.fixture(scope="module")
def options():
    return argparse.Namespace(
        batch=[1, 2],
        rounds=1,
        seconds=SECONDS,
        tokens=TOKENS,
        threads=1,
        device="cpu",
        dtype="fp32",
    )


@pytest.fixture(scope="module")
def sides(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    return make_sides(options, folder, PARAFORMER, WHISPER, BERT)


@pytest.mark.parametrize("name", ["cascade", "CLSR"])
def test_both_sides_read_the_same_number_of_tokens(name, sides):
    """Counted by what their text encoder is given, too."""
    side, segments = sides[name], make_segments(2, SECONDS)
    assert count_words(side, segments) == [TOKENS, TOKENS]
    seen = []
    backbone = sides["cascade"].text_encoder.backbone
    hook = backbone.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["attention_mask"]),
        with_kwargs=True,
    )
    rows = call(side, segments)
    hook.remove()
    assert rows.shape == (2, 32) and len(seen) == 1
    assert seen[0].sum(dim=1).tolist() == [TOKENS + 2] * 2


def test_whisper_hears_all_pieces_and_decodes_with_a_cache(sides):
    recogniser = sides["cascade"].recogniser
    sizes = []
    hook = recogniser.model.model.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    call(sides["cascade"], make_segments(2, SECONDS))
    hook.remove()
    # Two pieces of two segments, one new token a step.
    assert sizes == [(4, 1)] * (TOKENS // 2)


def test_both_sides_read_their_words_with_the_same_encoder(sides):
    segments = make_segments(2, SECONDS, seed=1)
    text_encoder = sides["cascade"].text_encoder
    for side in sides.values():
        with torch.no_grad():
            expected = text_encoder(call(side.transcribe, segments))
        torch.testing.assert_close(call(side, segments), expected)


def test_bf16_rounds_a_little(sides):
    segments = make_segments(1, SECONDS)
    full = call(sides["CLSR"], segments)
    half = call(sides["CLSR"], segments, "bf16")
    cosine = torch.cosine_similarity(full, half.float()).item()
    assert cosine > 0.9 and not torch.equal(full, half.float())


def test_operations_are_counted(sides):
    """A BERT of 2 layers alone: 26 tokens, widths 32 and 64."""
    linear = 2 * 26 * 2 * (4 * 32 * 32 + 2 * 32 * 64)
    attention = 2 * 2 * 2 * 26 * 26 * 32
    pooler = 2 * 32 * 32  # whose output is not used
    text_encoder = sides["cascade"].text_encoder

    def read(segments, wav_lens):
        return text_encoder([" ".join(["w1"] * TOKENS)])

    counted = count_operations(read, make_segments(1, 1.0))
    assert counted == linear + attention + pooler
    whole = {
        name: count_operations(side, make_segments(1, SECONDS))
        for name, side in sides.items()
    }
    assert whole["cascade"] > whole["CLSR"] > counted


def test_the_table_has_a_row_a_batch(sides, options, capsys):
    print_table(sides, options)
    shown = capsys.readouterr().out
    rows = [row.split("|")[1:-1] for row in shown.splitlines()]
    numbers = [list(map(float, row)) for row in rows if row[:1] in BATCHES]
    assert [row[0] for row in numbers] == [1, 2]
    for _, cascade, clsr, ratio, of_processor in numbers:
        # Factors are rounded to 0.0001.
        assert ratio == pytest.approx(cascade / clsr, rel=0.2, abs=0.1)
        assert of_processor > 0
    assert "GFLOP" in shown


def test_sides_that_differ_are_not_compared(sides, options):
    other = argparse.Namespace(**vars(options) | {"tokens": TOKENS + 2})
    with pytest.raises(SystemExit, match="not 26 tokens each"):
        print_table(sides, other)


def test_impossible_numbers_of_tokens_are_refused(sides, tmp_path):
    text_encoder = sides["cascade"].text_encoder
    with pytest.raises(SystemExit, match="have 17 steps"):
        make_clsr(text_encoder, PARAFORMER, 1.0, 17)
    content.write_whisper(tmp_path / "whisper", WHISPER)
    with pytest.raises(SystemExit, match="2 pieces"):
        make_cascade(text_encoder, tmp_path / "whisper", SECONDS, 7)


def test_true_sizes_are_those_of_the_models():
    """Whisper-small, BERT base and Paraformer large, as published."""
    from transformers import (
        BertConfig,
        BertModel,
        WhisperConfig,
        WhisperForConditionalGeneration,
    )

    from esr_lobes.clsr.paraformer import Paraformer

    with torch.device("meta"):
        whisper = WhisperForConditionalGeneration(
            WhisperConfig(**content.WHISPER)
        )
        bert = BertModel(BertConfig(**content.BERT))
    paraformer = Paraformer.from_config(
        {"vocab": 8404, **content.PARAFORMER}, device="meta"
    )
    millions = [
        sum(p.numel() for p in model.parameters()) / 1e6
        for model in (whisper, bert, paraformer)
    ]
    assert [round(n, 1) for n in millions] == [241.7, 109.5, 220.1]
