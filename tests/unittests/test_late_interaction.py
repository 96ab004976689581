"""Late interaction: MaxSim, states of words, and hits that it reorders.

Authors
 * The esr_lobes contributors
"""

import pytest
import soundfile
import torch
from tiny_backbones import SENTENCES
from tiny_recognisers import make_tiny_ctc
from torch.nn.functional import cosine_similarity

from esr_lobes import EncoderRetriever
from esr_lobes.audio import SAMPLE_RATE, AudioError
from esr_lobes.cascade.encoder import CascadeEncoder
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascade.recogniser import Recogniser
from esr_lobes.cascading import make_cascade
from esr_lobes.clsr.clsr import ClsrEncoder
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.text_bridge import TextBridge
from esr_lobes.clsr.vq import VQAdaptor
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError
from esr_lobes.index import Hit, Segment
from esr_lobes.late_interaction import maxsim, score_tokens, unit_tokens

SECONDS = (0.6, 0.3, 0.1, 1.0)


def rows_of(counts, width=5, seed=0):
    """Returns random vectors, nonsense behind the end of each row."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(counts), max(counts), width, generator=generator)
    for row, n in zip(rows, counts, strict=True):
        row[n:] = float("nan")
    return rows, torch.tensor(counts)


def plainly(questions, passages):
    """MaxSim in loops, of rows (vectors, counts)."""
    scores = torch.zeros(len(questions[0]), len(passages[0]))
    for i, (question, n) in enumerate(zip(*questions, strict=True)):
        for j, (passage, m) in enumerate(zip(*passages, strict=True)):
            for one in question[:n]:
                best = -1.0
                for other in passage[:m]:
                    cosine = cosine_similarity(one, other, dim=0).item()
                    best = max(best, cosine)
                scores[i, j] += best / n
    return scores


@pytest.mark.parametrize("most_cosines", [1, 1000, 2**24])
def test_maxsim_is_that_of_a_plain_loop(most_cosines):
    questions = rows_of([3, 1, 0, 7])
    # More than are taken at once.
    passages = rows_of([4, 9, 0, *(1 + i % 5 for i in range(70))], seed=1)
    scores = maxsim(*questions, *passages, most_cosines)
    assert torch.allclose(scores, plainly(questions, passages), atol=1e-6)
    assert scores[0, 2] == -1.0 and scores[2].tolist() == [0.0] * 73


def test_other_passages_and_padding_change_nothing():
    asked, said = rows_of([3, 5]), rows_of([2, 6, 4], seed=1)
    together = maxsim(*asked, *said)
    for i in range(2):
        for j in range(3):
            n, m = asked[1][i], said[1][j]
            alone = maxsim(
                asked[0][i : i + 1, :n],
                n[None],
                said[0][j : j + 1, :m],
                m[None],
            )
            assert torch.allclose(alone[0, 0], together[i, j], atol=1e-6)


def test_half_precision_is_compared_in_full():
    asked, said = rows_of([3, 5]), rows_of([2, 6], seed=1)
    halves = asked[0].bfloat16(), asked[1], said[0].bfloat16(), said[1]
    scores = maxsim(*halves)
    assert scores.dtype == torch.float32
    whole = maxsim(halves[0].float(), asked[1], halves[2].float(), said[1])
    assert torch.equal(scores, whole)


def test_no_passage_has_a_word():
    scores = maxsim(*rows_of([2]), torch.zeros(2, 0, 5), torch.zeros(2).long())
    assert scores.tolist() == [[-1.0, -1.0]]


def test_lists_of_vectors_are_scored_as_padded_ones():
    asked, said = rows_of([3, 5]), rows_of([2, 0, 6], seed=1)
    scores = score_tokens(unit_tokens(*asked), unit_tokens(*said))
    assert torch.allclose(scores, maxsim(*asked, *said), atol=1e-6)


# States of words


@pytest.fixture
def text_encoder(tiny_text_backbone):
    return TextEncoder(tiny_text_backbone, local_files_only=True)


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_words_have_a_state_and_special_tokens_none(kind, tiny_backbone):
    encoder = TextEncoder(tiny_backbone(kind))
    texts = [*SENTENCES, ""]
    vectors, states, counts = encoder.read(texts)
    assert torch.equal(vectors, encoder(texts))
    assert not states.requires_grad
    words = encoder.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert counts.tolist() == [len(ids) for ids in words]
    for i, text in enumerate(texts):
        tokens = encoder.tokenizer(text, return_tensors="pt")
        whole = encoder.backbone(**tokens).last_hidden_state[0]
        first = 0 if kind == "t5" else 1
        alone = whole[first : first + counts[i]]
        assert torch.allclose(states[i, : counts[i]], alone, atol=1e-5)
        assert not states[i, counts[i] :].any()


def test_no_more_words_than_a_text_may_have(tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone, max_tokens=6)
    assert encoder.read(["happy " * 9])[2].tolist() == [4]


@pytest.fixture
def clsr(text_encoder):
    """A CLSR of random weights."""
    torch.manual_seed(0)
    paraformer = Paraformer.from_config(
        {
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
            "predictor_bias": 1,
            "eos_id": 3,
        }
    )
    with torch.no_grad():
        for weight in paraformer.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return ClsrEncoder(paraformer, VQAdaptor(), TextBridge(text_encoder)).eval()


@pytest.fixture
def cascade(text_encoder, tmp_path):
    recogniser = HuggingFaceRecogniser(make_tiny_ctc(tmp_path / "ctc"))
    return CascadeEncoder(recogniser, text_encoder)


@pytest.mark.parametrize("name", ["clsr", "cascade"])
def test_clips_have_the_states_of_the_words_they_say(
    name, text_encoder, request
):
    encoder = request.getfixturevalue(name)
    waves = [tones(seconds, i) for i, seconds in enumerate(SECONDS)]
    wavs = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    lengths = torch.tensor(SECONDS) / max(SECONDS)
    heard = encoder.hear_words(wavs, lengths)
    assert heard.texts == encoder.transcribe(wavs, lengths)
    with torch.no_grad():
        vectors = encoder(wavs, lengths)
    assert torch.equal(heard.vectors, vectors)
    _, states, counts = text_encoder.read(heard.texts)
    assert heard.counts.tolist() == counts.tolist()
    assert max(counts) > 1 and len(set(heard.texts)) > 2
    expected = unit_tokens(states, counts)
    for found, wanted in zip(
        unit_tokens(heard.states, heard.counts), expected, strict=True
    ):
        assert torch.allclose(found, wanted, atol=1e-5)
    for i, wave in enumerate(waves):  # nor does padding change them
        alone = encoder.hear_words(wave[None], torch.ones(1))
        (rows,) = unit_tokens(alone.states, alone.counts)
        assert torch.allclose(rows, expected[i], atol=1e-5)


def tones(seconds, seed):
    """Returns a clip of tones that change every twentieth of a second."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = round(seconds * SAMPLE_RATE)
    hertz = 200 + 3000 * torch.rand(
        n_samples // 800 + 1, 1, generator=generator
    )
    time = torch.arange(800) / SAMPLE_RATE
    return torch.sin(2 * torch.pi * hertz * time).flatten()[:n_samples] / 3


# Hits


class Loudness(Recogniser):
    """Says what its table has for the loudness of a clip."""

    said = {1: "sad", 2: "happy voice", 3: "", 4: "a happy voice calm"}

    def transcribe_clips(self, clips):
        return [self.said[round(10 * float(clip.max()))] for clip in clips]

    def arguments(self, source):
        return {}


@pytest.fixture
def retriever(text_encoder):
    """A cascade whose words are known; windows of two seconds."""
    return make_cascade(Loudness({}), text_encoder, max_seconds=2.0)


def hits_of(folder, louds, seconds=1.0):
    """Returns hits on files of noise, as loud as that."""
    hits = []
    for i, loud in enumerate(louds):
        generator = torch.Generator().manual_seed(i)
        n_samples = round(seconds * SAMPLE_RATE)
        wave = torch.rand(n_samples, generator=generator) * 2 - 1
        wave *= loud / 10 / wave.max()
        path = folder / f"{i}.wav"
        soundfile.write(path, wave.numpy(), SAMPLE_RATE, "FLOAT")
        segment = Segment(str(path), 0.0, seconds, metadata={"loud": loud})
        hits.append(Hit(segment, 0.9 - i / 10, i, 1.0, 90.0))
    return hits


def test_hits_come_in_the_order_of_their_words(retriever, tmp_path):
    hits = hits_of(tmp_path, [3, 1, 2, 4, 1])
    asked = "happy voice"
    found = retriever.rerank(asked, hits, batch_size=2)
    texts = [retriever.mods.speech_encoder.recogniser.said[n] for n in (1, 4)]
    tokens = retriever.encode_text_tokens([asked, *texts])
    scores = score_tokens(tokens[:1], tokens[1:])[0].tolist()
    by_loud = {1: scores[0], 2: 1.0, 3: -1.0, 4: scores[1]}
    wanted = sorted([3, 1, 2, 4, 1], key=lambda n: -by_loud[n])
    assert [h.segment.metadata["loud"] for h in found] == wanted
    assert wanted[0] == 2 and wanted[-1] == 3  # silent to the recogniser
    for rank, hit in enumerate(found):
        loud = hit.segment.metadata["loud"]
        assert hit.score == pytest.approx(by_loud[loud], abs=1e-5)
        assert (hit.rank, hit.z, hit.percentile) == (rank, None, None)
    # Equal words keep their order.
    equal = [h.segment.path for h in found if h.segment.metadata["loud"] == 1]
    assert equal == [hits[1].segment.path, hits[4].segment.path]
    assert retriever.rerank(asked, []) == []


def test_embeddings_are_those_of_the_index(retriever):
    waves = [torch.full((n,), n / 10000.0) for n in (1000, 2000, 3000)]
    embeddings, tokens, texts = retriever.hear_words(waves)
    assert torch.equal(embeddings, retriever.encode_batch(waves))
    assert texts == ["sad", "happy voice", ""]
    assert [len(row) for row in tokens] == [1, 2, 0]


def test_a_long_hit_is_as_good_as_its_best_window(retriever, tmp_path):
    (hit,) = hits_of(tmp_path, [1], seconds=5.0)
    wave, rate = soundfile.read(hit.segment.path, dtype="float32")
    wave[4 * rate :] *= 2.0
    soundfile.write(hit.segment.path, wave, rate, "FLOAT")
    (found,) = retriever.rerank("happy voice", [hit])
    assert found.score == pytest.approx(1.0, abs=1e-5)
    assert found.segment == hit.segment


def test_silence_says_nothing(retriever, tmp_path):
    loud, silent = hits_of(tmp_path, [1, 2])
    soundfile.write(silent.segment.path, torch.zeros(16000).numpy(), 16000)
    found = retriever.rerank("happy", [silent, loud])
    assert [hit.score for hit in found][1] == -1.0
    assert found[0].segment == loud.segment


def test_a_file_that_is_gone_is_named_and_last(retriever, tmp_path, caplog):
    hits = hits_of(tmp_path, [1, 2, 1, 3])
    (tmp_path / "0.wav").unlink()
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    found = retriever.rerank("happy", hits)
    # The silent one has no score either, but it was heard.
    order = [hits[2], hits[3], hits[0], hits[1]]
    assert [h.segment for h in found] == [h.segment for h in order]
    assert found[0].score > -1.0
    assert [hit.score for hit in found[1:]] == [-1.0] * 3
    warnings = "\n".join(record.message for record in caplog.records)
    assert warnings.count("ring the index up to date") == 2
    assert "0.wav: missing" in warnings and "1.wav: corrupt" in warnings


def test_where_all_files_are_gone_there_is_no_ranking(retriever, tmp_path):
    hits = hits_of(tmp_path, [1, 2])
    for hit in hits:
        (tmp_path / hit.segment.path).unlink()
    with pytest.raises(AudioError, match="wav: missing"):
        retriever.rerank("happy", hits)


def test_who_knows_no_words_says_so(tiny_retriever, tmp_path):
    retriever = EncoderRetriever.from_hparams(tiny_retriever)
    assert not retriever.knows_words
    hits = hits_of(tmp_path, [1])
    with pytest.raises(MendableError, match="CompactEncoder.*knows no words"):
        retriever.rerank("happy", hits)
    with pytest.raises(MendableError, match="knows no words"):
        retriever.encode_text_tokens("happy")


def test_a_question_without_words_is_none(retriever, tmp_path):
    with pytest.raises(MendableError, match="no word in ''"):
        retriever.rerank("", hits_of(tmp_path, [1]))
