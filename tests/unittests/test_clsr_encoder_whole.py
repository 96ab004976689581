"""CLSR from waveform to vector, small, with all its real parts.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch
import torch.nn.functional as F
from tiny_backbones import SENTENCES

from esr_lobes.clsr.clsr import ClsrEncoder, Unprojected
from esr_lobes.clsr.losses import (
    content_contrastive_loss,
    label_smoothed_cross_entropy,
    mwer_loss,
    quantity_loss,
)
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.text_bridge import TextBridge
from esr_lobes.clsr.vq import VQAdaptor
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError
from esr_lobes.inference import EncoderRetriever
from esr_lobes.losses import LogitScale

SIZES = {
    "vocab": 25,
    "n_mels": 16,
    "width": 32,
    "encoder_heads": 2,
    "encoder_ffn": 64,
    "encoder_layers": 2,
    "decoder_heads": 2,
    "decoder_ffn": 64,
    "decoder_layers": 1,
    "share_embedding": True,
    "blank_id": None,
    "sos_id": None,
    "eos_id": None,
    "predictor_bias": 0,
}
# With an end of sentence, which then is the text encoder's [SEP].
ENDED = {"predictor_bias": 1, "eos_id": 3}
HERTZ = 200


@pytest.fixture
def build(tiny_text_backbone):
    """A function that makes a CLSR of random weights, which all count."""

    def build_encoder(pooling="first", vq=None, **sizes):
        torch.manual_seed(0)
        paraformer = Paraformer.from_config(SIZES | sizes)
        with torch.no_grad():
            for weight in paraformer.parameters():
                weight.add_(0.1 * torch.randn(weight.shape))
        text = TextBridge(TextEncoder(tiny_text_backbone, pooling=pooling))
        return ClsrEncoder(paraformer, vq or VQAdaptor(), text)

    return build_encoder


def say(ids):
    """Returns a clip in which each token is a tone of a quarter second."""
    time = torch.arange(4000) / 16000
    tones = [torch.sin(2 * torch.pi * HERTZ * (i + 1) * time) for i in ids]
    return 0.3 * torch.cat(tones)


def spoken(vocabulary, texts):
    """Returns the tones of texts as a batch, and their tokens."""
    ids, counts = vocabulary.encode_batch(texts)
    clips = [say(row[:n].tolist()) for row, n in zip(ids, counts, strict=True)]
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    return wavs, lengths / wavs.shape[1], ids, counts


@pytest.mark.parametrize("ended", [{}, ENDED])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_vector_is_that_of_the_words_it_writes(build, pooling, ended):
    """A cascade without the way through text: same words, same vector."""
    encoder = build(pooling, **ended).eval()
    wavs, wav_lens, _, _ = spoken(encoder.vocabulary, SENTENCES)
    with torch.no_grad():
        rows = encoder(wavs, wav_lens)
    texts = encoder.transcribe(wavs, wav_lens)
    assert len(set(texts)) > 1 and rows.shape == (3, encoder.width)
    assert torch.allclose(rows, encoder.text.encoder(texts), atol=1e-6)


@pytest.mark.parametrize("ended", [{}, ENDED])
def test_a_clip_alone_equals_the_clip_beside_longer_ones(build, ended):
    encoder = build(**ended).eval()
    wavs, wav_lens, _, _ = spoken(encoder.vocabulary, SENTENCES)
    with torch.no_grad():
        together = encoder(wavs, wav_lens)
        texts = encoder.transcribe(wavs, wav_lens)
        for i, n in enumerate((wav_lens * wavs.shape[1]).round().long()):
            alone = wavs[i : i + 1, :n], torch.ones(1)
            assert encoder.transcribe(*alone) == texts[i : i + 1]
            assert torch.allclose(encoder(*alone)[0], together[i], atol=1e-5)


def test_an_end_of_sentence_is_not_read(build):
    encoder = build(**ENDED).eval()
    counts = torch.tensor([3, 1, 0])
    logits = torch.randn(3, 3, 25)
    rows = encoder.read(logits, counts)
    changed = logits.clone()
    changed[0, 2] += 9 * torch.randn(25)
    assert torch.equal(encoder.read(changed, counts), rows)
    empty = encoder.text.encoder([""])[0]
    assert torch.allclose(rows[1], empty, atol=1e-6)
    assert torch.allclose(rows[2], empty, atol=1e-6)
    changed[0, 1] = -changed[0, 1]
    assert not torch.allclose(encoder.read(changed, counts)[0], rows[0])


def test_special_tokens_are_never_recognised(build):
    encoder = build().eval()
    with torch.no_grad():
        bias = encoder.paraformer.decoder.output_layer.bias
        bias[encoder.vocabulary.banned_ids] += 100.0
    wavs, wav_lens, _, _ = spoken(encoder.vocabulary, SENTENCES)
    texts = encoder.transcribe(wavs, wav_lens)
    assert any(texts)
    for special in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"):
        assert not any(special in text for text in texts)


@pytest.mark.parametrize("takes", ["logits", "probabilities"])
def test_retrieval_teaches_recognition_and_not_the_text_side(build, takes):
    vq = VQAdaptor(takes=takes, keeps_norms=True)
    encoder = build(vq=vq, **ENDED).train()
    wavs, wav_lens, ids, counts = spoken(encoder.vocabulary, SENTENCES)
    output = encoder.paraformer(wavs, wav_lens, ids, counts)
    rows = F.normalize(encoder.read(output.logits, output.counts), dim=-1)
    questions = F.normalize(encoder.text.encoder(SENTENCES), dim=-1)
    loss = content_contrastive_loss(10 * rows @ questions.t(), torch.arange(3))
    loss.backward()
    for name, weight in encoder.paraformer.named_parameters():
        assert weight.grad.isfinite().all(), name
    steps = encoder.paraformer.encoder.parameters()
    assert sum(weight.grad.abs().sum() for weight in steps) > 0
    assert all(weight.grad is None for weight in encoder.text.parameters())
    assert vq.gradient_norms["embeddings"] > 0
    assert vq.gradient_norms["logits"] > 0


def test_gradients_are_finite_under_autocast(build):
    encoder = build(**ENDED).eval()
    wavs, wav_lens, ids, counts = spoken(encoder.vocabulary, SENTENCES)
    with torch.autocast("cpu", torch.bfloat16):
        output = encoder.paraformer(wavs, wav_lens, ids, counts)
        rows = encoder.read(output.logits, output.counts)
    loss = rows.float().pow(3).sum() + mwer_loss(
        output.logits, output.targets, output.counts
    )
    loss.backward()
    for name, weight in encoder.paraformer.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name
    assert encoder.paraformer.decoder.output_layer.weight.grad.any()


def test_it_needs_the_text_encoder_s_vocabulary(build):
    with pytest.raises(MendableError, match="vocabulary of 25"):
        build(vocab=24)


def test_the_retriever_takes_it_unchanged(build):
    encoder = build().eval()
    modules = {
        "speech_encoder": encoder,
        "speech_projection": Unprojected(encoder.width),
        "text_encoder": encoder.text.encoder,
        "text_projection": Unprojected(encoder.width),
    }
    hparams = {
        "sample_rate": 16000,
        "embedding_size": encoder.width,
        "max_seconds": 40.0,
        "hop_seconds": 20.0,
        "min_seconds": 0.2,
    }
    retriever = EncoderRetriever(modules, hparams)
    wavs, wav_lens, _, _ = spoken(encoder.vocabulary, SENTENCES)
    rows = retriever.encode_batch(wavs, wav_lens)
    texts = encoder.transcribe(wavs, wav_lens)
    assert torch.allclose(rows, retriever.encode_text(texts), atol=1e-6)
    assert torch.allclose(rows.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("ended", [{}, ENDED])
def test_joint_training_learns_to_hear_and_to_find(build, ended):
    """Words as tones: all losses together, from random weights."""
    encoder = build(encoder_dropout=0.0, decoder_dropout=0.0, **ended)
    encoder.paraformer.augment = None
    wavs, wav_lens, ids, counts = spoken(encoder.vocabulary, SENTENCES)
    encoder.text.encoder.warm(SENTENCES)
    questions = F.normalize(encoder.text.encoder(SENTENCES), dim=-1)
    scale = LogitScale(temperature=0.05)
    weights = [*encoder.paraformer.parameters(), *scale.parameters()]
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    encoder.train()
    for _ in range(60):
        output = encoder.paraformer(wavs, wav_lens, ids, counts)
        said = output.logits, output.targets, output.counts
        rows = F.normalize(encoder.read(said[0], said[2]), dim=-1)
        loss = label_smoothed_cross_entropy(*said)
        loss = loss + 0.1 * mwer_loss(*said, generator=generator)
        loss = loss + quantity_loss(output.n_hat, output.counts)
        loss = loss + content_contrastive_loss(
            scale(rows @ questions.t()), torch.arange(3)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
    encoder.eval()
    assert encoder.transcribe(wavs, wav_lens) == SENTENCES
    with torch.no_grad():
        rows = F.normalize(encoder(wavs, wav_lens), dim=-1)
    assert (rows @ questions.t()).argmax(dim=1).tolist() == [0, 1, 2]
    assert torch.allclose(rows, questions, atol=1e-5)
