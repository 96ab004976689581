"""The speech sides of CLSR and ParaBGE: made, normalised, saved, opened.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch
from tiny_content import say

from esr_lobes.clsr.frontend import Frontend
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.speech import (
    ClsrSpeech,
    PooledParaformer,
    make_recogniser,
    measure_cmvn,
)
from esr_lobes.clsr.spelling import spelled_rows
from esr_lobes.encoders.text import TextEncoder

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


@pytest.fixture
def text(tiny_text_backbone):
    return TextEncoder(tiny_text_backbone)


@pytest.fixture
def clips():
    """Two clips of unlike length, padded with noise."""
    long, short = (
        torch.from_numpy(say(words))
        for words in (["happy", "calm", "a", "loud"], ["sad", "of"])
    )
    wavs = torch.randn(2, len(long)) * 0.1
    wavs[0], wavs[1, : len(short)] = long, short
    return wavs, torch.tensor([1.0, len(short) / len(long)]), (long, short)


def test_its_tokens_are_the_text_encoder_s_words(text):
    recogniser = make_recogniser(text, SIZES, sampling_ratio=0)
    words = text.tokenizer.get_vocab()
    assert all(recogniser.tokens[i] == word for word, i in words.items())
    assert len(set(recogniser.tokens)) == len(recogniser.tokens)
    assert recogniser.predictor_bias == 0 and recogniser.sampling_ratio == 0
    # Padding, [CLS], [SEP] and [MASK] are never said.
    masked = recogniser.is_masked.nonzero().flatten().tolist()
    names = {recogniser.tokens[i] for i in masked}
    assert names == {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}


def test_a_new_one_may_begin_with_spelling(text):
    recogniser = make_recogniser(text, SIZES, spelling_scale=1.5)
    rows = recogniser.decoder.output_layer.weight
    assert torch.allclose(rows.norm(dim=1), torch.tensor(1.5))
    expected = spelled_rows(recogniser.tokens, SIZES["width"], 1.5)
    assert torch.equal(rows, expected) and rows.requires_grad
    drawn = make_recogniser(text, SIZES).decoder.output_layer.weight
    assert not torch.allclose(drawn.norm(dim=1), torch.tensor(1.5), atol=0.1)


def test_one_that_spoke_other_words_begins_with_all_but_the_rows(
    text, tmp_path
):
    """As a released Paraformer does, whose tokens are its own."""
    sizes = SIZES | {"vocab": 6}
    tokens = ["<blank>", "<s>", "</s>", "happy", "hap@@", "py"]
    old = Paraformer.from_config(sizes, tokens=tokens)
    old.save(tmp_path)
    new = make_recogniser(text, {}, tmp_path, sampling_ratio=0.5)
    assert new.predictor_bias == 0 and new.sampling_ratio == 0.5
    expected, given = old.state_dict(), new.state_dict()
    rows = "decoder.output_layer.weight", "decoder.output_layer.bias"
    assert set(expected) - set(given) == {"decoder.embed.0.weight"}
    for key in set(given) - set(rows):
        assert torch.equal(given[key], expected[key]), key
    place = text.tokenizer.get_vocab()["happy"]
    assert torch.equal(given[rows[0]][place], expected[rows[0]][3])
    assert len(given[rows[0]]) == len(new.tokens) == new.decoder.vocab


def test_features_come_out_with_mean_0_and_spread_1(clips):
    frontend = Frontend(n_mels=16)
    frontend.shift.fill_(7.0)  # what was there before does not count
    waves = [wave + 0.01 * torch.randn(len(wave)) for wave in clips[2]]
    measure_cmvn(frontend, iter(waves))
    feats = torch.cat(
        [frontend(wave[None], torch.ones(1))[0][0] for wave in waves]
    )
    assert feats.mean(dim=0).abs().max() < 1e-3
    spread = feats.std(dim=0, correction=0)
    assert torch.allclose(spread, torch.ones_like(spread), atol=1e-3)


def test_what_never_changes_is_not_blown_up():
    frontend = Frontend(n_mels=16)
    measure_cmvn(frontend, [torch.zeros(16000)])
    assert frontend.scale.max() <= 1001
    feats, _ = frontend(torch.zeros(1, 8000), torch.ones(1))
    assert feats.abs().max() < 1e-2


@pytest.mark.parametrize("kind", [ClsrSpeech, PooledParaformer])
def test_saved_and_opened_it_is_the_same_and_a_clip_alone_is_too(
    kind, text, clips, tmp_path
):
    torch.manual_seed(0)
    more = [text] if kind is ClsrSpeech else []
    built = kind(make_recogniser(text, SIZES), *more).eval()
    assert built.source is None
    built.save(tmp_path)
    opened = kind(str(tmp_path), *more).eval()
    assert opened.source == str(tmp_path)
    wavs, wav_lens, alone = clips
    with torch.no_grad():
        rows = built(wavs, wav_lens)
        assert rows.shape == (2, built.width)
        assert torch.equal(opened(wavs, wav_lens), rows)
        for row, wave in zip(rows, alone, strict=True):
            single = built(wave[None], torch.ones(1))[0]
            assert torch.allclose(single, row, atol=1e-5)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)


def test_the_two_towers_share_one_text_encoder(text, tmp_path):
    speech = ClsrSpeech(make_recogniser(text, SIZES), text)
    assert speech.text.encoder is text
    # The recogniser is no child twice.
    names = [n for n, _ in speech.named_modules() if n.endswith("paraformer")]
    assert names == ["paraformer"]


def test_a_piece_without_letters_has_no_direction():
    assert torch.equal(spelled_rows([""], 8).isfinite(), torch.ones(1, 8) > 0)
