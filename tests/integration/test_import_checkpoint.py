"""Released checkpoints of all pairs become retrievers that say the same.

Each checkpoint is fabricated in the released layout from tiny backbones; what
it should say is computed here anew, by transformers and plain torch.

Authors
 * The esr_lobes contributors
"""

import argparse
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_backbones import SENTENCES
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    RobertaModel,
    T5EncoderModel,
    WavLMModel,
)

from esr_lobes import EncoderRetriever
from esr_lobes.commands import import_checkpoint as command
from esr_lobes.encoders.emotion2vec import Emotion2vec
from esr_lobes.errors import MendableError, one_line_errors
from esr_lobes.importing import PAIRS, import_checkpoint
from esr_lobes.weights import WeightsError

SIZE = 24
SPEECH_KINDS = {"e2v": "emotion2vec", "wavlm": "wavlm"}
TEXT_MODELS = {"bert": BertModel, "roberta": RobertaModel}


def sources(pair, tiny_backbone):
    """Returns the folders with the settings of a pair's backbones."""
    text, speech = pair.rsplit("_", 1)
    return tiny_backbone(text), tiny_backbone(SPEECH_KINDS[speech])


def text_model(kind, folder):
    """Returns a text backbone with random weights."""
    config = AutoConfig.from_pretrained(folder)
    return TEXT_MODELS.get(kind, T5EncoderModel)(config).eval()


def speech_weights(kind, folder):
    """Returns a speech backbone's state dict as the paper's code saves it."""
    if kind == "wavlm":
        return WavLMModel(AutoConfig.from_pretrained(folder)).state_dict()
    weights = Emotion2vec(folder).state_dict()
    audio = "modality_encoders.AUDIO.decoder"
    # FunASR's model keeps the decoder of its pretraining.
    return weights | {
        f"{audio}.blocks.0.0.weight": torch.randn(4, 4, 3),
        f"{audio}.proj.weight": torch.randn(4, 4),
        f"{audio}.proj.bias": torch.randn(4),
    }


def fabricate(path, pair, tiny_backbone, change=None):
    """Writes a checkpoint in the released layout and returns what it holds."""
    text, speech = pair.rsplit("_", 1)
    text_folder, speech_folder = sources(pair, tiny_backbone)
    torch.manual_seed(7)
    towers = {
        "style_prompt_encoder": text_model(text, text_folder).state_dict(),
        "speech_style_encoder": speech_weights(speech, speech_folder),
    }
    held = {
        "epoch": 61,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0}]},
    }
    for name, weights in towers.items():
        # Nothing is what it is at the start: no scale 1, no bias 0.
        weights = {
            f"encoder.{key}": value + 0.1 * torch.rand_like(value)
            for key, value in weights.items()
        }
        held[name] = weights | {
            "embed_projection.weight": torch.randn(SIZE, 32),
            "embed_projection.bias": torch.randn(SIZE),
        }
    tie = held["style_prompt_encoder"]
    if "encoder.shared.weight" in tie:
        tie["encoder.encoder.embed_tokens.weight"] = tie[
            "encoder.shared.weight"
        ]
    if change:
        change(held)
    torch.save(held, path)
    return held


def imported(path, pair, tiny_backbone, folder, **more):
    """Returns the retriever that the import writes."""
    text_source, speech_source = sources(pair, tiny_backbone)
    import_checkpoint(path, pair, folder, text_source, speech_source, **more)
    return EncoderRetriever.from_hparams(folder)


# What the paper's code computes, for one sentence or clip


def under(tower, prefix):
    """Returns the tensors of a part by their names in it."""
    return {
        key.removeprefix(prefix): value
        for key, value in tower.items()
        if key.startswith(prefix)
    }


def project(tower, vector):
    """Returns the unit-length embedding of a pooled vector."""
    weight, bias = (
        tower["embed_projection.weight"],
        tower["embed_projection.bias"],
    )
    return F.normalize(F.linear(vector, weight, bias), dim=-1)


def plain_text(kind, folder, tower, sentence):
    """First token of BERT and RoBERTa, mean over the tokens of the T5s."""
    model = text_model(kind, folder)
    model.load_state_dict(under(tower, "encoder."))
    tokens = AutoTokenizer.from_pretrained(folder)(
        sentence, return_tensors="pt"
    )
    hidden = model(**tokens).last_hidden_state[0]
    vector = hidden[0] if kind in TEXT_MODELS else hidden.mean(dim=0)
    return project(tower, vector)


def plain_wavlm(folder, tower, wav):
    """The mean over frames."""
    model = WavLMModel(AutoConfig.from_pretrained(folder)).eval()
    model.load_state_dict(under(tower, "encoder."))
    hidden = model(wav.unsqueeze(0)).last_hidden_state[0]
    return project(tower, hidden.mean(dim=0))


def plain_emotion2vec(folder, tower, wav):
    """emotion2vec written down once more, for one clip, and the mean."""
    w = under(tower, "encoder.")
    audio = under(w, "modality_encoders.AUDIO.")
    said = yaml.safe_load((folder / "config.yaml").read_text())["model_conf"]
    convs = yaml.safe_load(
        said["modalities"]["audio"]["feature_encoder_spec"]
        .replace("(", "[")
        .replace(")", "]")
    )
    width, n_heads = said["embed_dim"], said["num_heads"]

    def norm(x, part, name):
        weight = part[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, part[f"{name}.bias"], 1e-5)

    def linear(x, part, name):
        return F.linear(x, part[f"{name}.weight"], part[f"{name}.bias"])

    x = wav.reshape(1, 1, -1)
    for i, (_, _, stride) in enumerate(convs):
        name = f"local_encoder.conv_layers.{i}"
        x = F.conv1d(x, audio[f"{name}.0.weight"], stride=stride)
        x = F.gelu(norm(x.mT, audio, f"{name}.2.1")).mT
    x = norm(x.mT, audio, "project_features.1")
    x = linear(x, audio, "project_features.2")
    p = x
    for i in range(1, 6):
        weight = audio[f"relative_positional_encoder.{i}.0.weight"]
        bias = audio[f"relative_positional_encoder.{i}.0.bias"]
        groups = width // weight.shape[1]
        p = F.conv1d(p.mT, weight, bias, padding=9, groups=groups).mT
        p = F.gelu(F.layer_norm(p, (width,), eps=1e-5))
    x = (x + p)[0]

    # Two heads: the slopes 2 ** -4 and 2 ** -8.
    place = torch.arange(len(x))
    distance = (place[:, None] - place[None]).abs()
    slopes = torch.tensor([2**-4, 2**-8]) * audio["alibi_scale"].flatten()
    n_extra = audio["extra_tokens"].shape[1]
    bias = F.pad(-distance * slopes[:, None, None], (n_extra, 0, n_extra, 0))
    x = torch.cat([audio["extra_tokens"][0], x])
    x = norm(x, audio, "context_encoder.norm")
    blocks = [
        under(audio, f"context_encoder.blocks.{i}.") for i in range(1)
    ] + [under(w, f"blocks.{i}.") for i in range(said["depth"])]
    for block in blocks:
        heads = linear(x, block, "attn.qkv").reshape(len(x), 3, n_heads, -1)
        q, k, v = heads.permute(1, 2, 0, 3)
        logits = q @ k.mT / math.sqrt(width / n_heads) + bias
        y = (logits.softmax(dim=-1) @ v).transpose(0, 1).reshape(len(x), -1)
        x = norm(x + linear(y, block, "attn.proj"), block, "norm1")
        y = linear(F.gelu(linear(x, block, "mlp.fc1")), block, "mlp.fc2")
        x = norm(x + y, block, "norm2")
    return project(tower, x[n_extra:].mean(dim=0))


PLAIN = {"e2v": plain_emotion2vec, "wavlm": plain_wavlm}


# All eight pairs


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_a_retriever_says_what_the_checkpoint_says(
    pair, tiny_backbone, tmp_path
):
    held = fabricate(tmp_path / "best.pt", pair, tiny_backbone)
    folder = tmp_path / "retriever"
    retriever = imported(tmp_path / "best.pt", pair, tiny_backbone, folder)
    text, speech = pair.rsplit("_", 1)
    text_folder, speech_folder = sources(pair, tiny_backbone)
    rows = retriever.encode_text(SENTENCES)
    assert rows.shape == (3, SIZE)
    for sentence, row in zip(SENTENCES, rows, strict=True):
        tower = held["style_prompt_encoder"]
        expected = plain_text(text, text_folder, tower, sentence)
        assert torch.allclose(row, expected, atol=1e-5)
        assert torch.allclose(
            retriever.encode_text(sentence)[0], expected, atol=1e-5
        )
    # Quiet and off centre, so that a normalised waveform is another one.
    clips = [0.05 * torch.randn(n) + 0.02 for n in (3000, 1234)]
    rows = retriever.encode_batch(clips)
    assert (rows[0] - rows[1]).abs().max() > 1e-3
    for clip, row in zip(clips, rows, strict=True):
        tower = held["speech_style_encoder"]
        expected = PLAIN[speech](speech_folder, tower, clip)
        assert torch.allclose(row, expected, atol=1e-5)
        assert torch.allclose(
            retriever.encode_batch(clip)[0], expected, atol=1e-5
        )
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "hyperparams.yaml",
        "speech_backbone",
        "text_backbone",
        "weights.safetensors",
    }
    card = (folder / "README.md").read_text()
    assert pair in card and "hears raw waveforms" in card
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".bin")]


@torch.no_grad()
def test_waveforms_are_normalised_if_asked(tiny_backbone, tmp_path):
    """Of WavLM's, the group norm takes out loudness and offset anyway."""
    path, pair = tmp_path / "best.pt", "bert_e2v"
    tower = fabricate(path, pair, tiny_backbone)["speech_style_encoder"]
    folder = tmp_path / "retriever"
    retriever = imported(path, pair, tiny_backbone, folder, normalize_wav=True)
    clip = 0.3 * torch.randn(3000) + 0.1
    unit = (clip - clip.mean()) / clip.std(correction=0)
    row = retriever.encode_batch(clip)[0]
    source = sources(pair, tiny_backbone)[1]
    expected = plain_emotion2vec(source, tower, unit)
    assert torch.allclose(row, expected, atol=1e-4)
    raw = plain_emotion2vec(source, tower, clip)
    assert not torch.allclose(row, raw, atol=1e-2)
    assert "hears normalised" in (folder / "README.md").read_text()


def test_of_the_sources_no_weights_are_read(tiny_backbone, tmp_path):
    """A config and a tokenizer are all that a hub would have to give."""
    pair = "roberta_wavlm"
    path = tmp_path / "best.pt"
    fabricate(path, pair, tiny_backbone)
    bare = []
    for source in sources(pair, tiny_backbone):
        bare.append(tmp_path / source.name)
        bare[-1].mkdir()
        for file in source.iterdir():
            if file.suffix != ".safetensors":
                (bare[-1] / file.name).write_bytes(file.read_bytes())
    import_checkpoint(path, pair, tmp_path / "a", *bare)
    import_checkpoint(path, pair, tmp_path / "b", *sources(pair, tiny_backbone))
    rows = [
        EncoderRetriever.from_hparams(tmp_path / name).encode_text(SENTENCES)
        for name in "ab"
    ]
    assert torch.equal(*rows)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_what_other_versions_save_is_left_out(kind, tiny_backbone, tmp_path):
    """Positions in order, BERT without pooler, a T5 with its decoder."""

    def change(held):
        tower = held["style_prompt_encoder"]
        for name in [n for n in tower if "pooler" in n]:
            del tower[name]
        tower["encoder.embeddings.position_ids"] = torch.arange(64)[None]
        tower["encoder.decoder.block.0.layer.0.layer_norm.weight"] = torch.ones(
            4
        )

    path, pair = tmp_path / "best.pt", f"{kind}_e2v"
    fabricate(path, pair, tiny_backbone)
    usual = imported(path, pair, tiny_backbone, tmp_path / "usual")
    fabricate(path, pair, tiny_backbone, change)
    other = imported(path, pair, tiny_backbone, tmp_path / "other")
    assert torch.equal(
        usual.encode_text(SENTENCES), other.encode_text(SENTENCES)
    )


def test_older_names_of_weight_norm(tiny_backbone, tmp_path):
    def change(held):
        tower = held["speech_style_encoder"]
        for old, new in ("g", "original0"), ("v", "original1"):
            conv = "encoder.encoder.pos_conv_embed.conv"
            value = tower.pop(f"{conv}.parametrizations.weight.{new}")
            tower[f"{conv}.weight_{old}"] = value

    path, pair = tmp_path / "best.pt", "bert_wavlm"
    fabricate(path, pair, tiny_backbone)
    usual = imported(path, pair, tiny_backbone, tmp_path / "usual")
    fabricate(path, pair, tiny_backbone, change)
    other = imported(path, pair, tiny_backbone, tmp_path / "other")
    clip = torch.randn(2000)
    assert torch.equal(usual.encode_batch(clip), other.encode_batch(clip))


# What is refused, with nothing written


def refused(tmp_path, tiny_backbone, message, pair="bert_e2v", **more):
    folder = tmp_path / "out" / "retriever"
    with pytest.raises(WeightsError, match=message):
        imported(tmp_path / "best.pt", pair, tiny_backbone, folder, **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "said, pair",
    [
        *itertools.permutations([p for p in PAIRS if "e2v" in p], 2),
        ("bert_e2v", "bert_wavlm"),
        ("t5_wavlm", "t5_e2v"),
    ],
)
def test_another_pair(said, pair, tiny_backbone, tmp_path):
    """T5 and T5 1.1 differ by a gate, BERT and RoBERTa by their tables."""
    fabricate(tmp_path / "best.pt", pair, tiny_backbone)
    refused(
        tmp_path,
        tiny_backbone,
        f"not that of the pair {said}.*Is the pair right",
        pair=said,
    )


def test_another_source(tiny_backbone, tmp_path):
    """Settings of other sizes, or none, do not pass for the base model's."""
    path, out = tmp_path / "best.pt", tmp_path / "out"
    fabricate(path, "bert_e2v", tiny_backbone)
    bert, e2v = sources("bert_e2v", tiny_backbone)
    with pytest.raises(WeightsError, match="source of its settings"):
        import_checkpoint(path, "bert_e2v", out, bert)
    with pytest.raises(FileNotFoundError, match="config.yaml"):
        import_checkpoint(path, "bert_e2v", out, bert, bert)
    with pytest.raises(WeightsError, match="text backbone .* is damaged"):
        import_checkpoint(path, "bert_e2v", out, e2v, e2v)
    assert not out.exists()


def test_there_is_no_such_pair(tiny_backbone, tmp_path):
    with pytest.raises(WeightsError, match="choose among bert_e2v"):
        import_checkpoint(tmp_path / "best.pt", "gpt_e2v", tmp_path / "out")


@pytest.mark.parametrize(
    "tower, key",
    [
        ("style_prompt_encoder", "encoder.embeddings.LayerNorm.weight"),
        ("style_prompt_encoder", "embed_projection.bias"),
        ("speech_style_encoder", "encoder.blocks.1.attn.proj.weight"),
        ("speech_style_encoder", "embed_projection.weight"),
    ],
)
def test_strict_keys(tower, key, tiny_backbone, tmp_path):
    path = tmp_path / "best.pt"
    fabricate(path, "bert_e2v", tiny_backbone, lambda h: h[tower].pop(key))
    refused(tmp_path, tiny_backbone, rf"{tower}.* 1 missing \({key}")
    fabricate(
        path,
        "bert_e2v",
        tiny_backbone,
        lambda h: h[tower].update({f"{key}.more": torch.ones(2)}),
    )
    refused(tmp_path, tiny_backbone, rf"{tower}.* 1 unexpected \({key}.more")
    fabricate(
        path,
        "bert_e2v",
        tiny_backbone,
        lambda h: h[tower][key].view(-1)[:1].fill_(float("nan")),
    )
    refused(tmp_path, tiny_backbone, rf"{tower}.* 1 not finite \({key}")


def test_towers_of_two_spaces(tiny_backbone, tmp_path):
    def change(held):
        tower = held["speech_style_encoder"]
        for part in "weight", "bias":
            name = f"embed_projection.{part}"
            tower[name] = tower[name][:-1]

    fabricate(tmp_path / "best.pt", "bert_e2v", tiny_backbone, change)
    refused(tmp_path, tiny_backbone, "text tower gives 24 .* speech tower 23")


@pytest.mark.parametrize("n_bytes", [0, 100, -100])
def test_cut_file(n_bytes, tiny_backbone, tmp_path):
    path = tmp_path / "best.pt"
    fabricate(path, "bert_e2v", tiny_backbone)
    path.write_bytes(path.read_bytes()[:n_bytes])
    refused(tmp_path, tiny_backbone, "best.pt is damaged")
    refused(tmp_path, tiny_backbone, "best.pt", trust_pickle=True)


def test_no_checkpoint_of_the_paper(tiny_backbone, tmp_path):
    path = tmp_path / "best.pt"
    torch.save({"model": {"a": torch.ones(1)}}, path)
    refused(tmp_path, tiny_backbone, "style_prompt_encoder.* holds 'model'")
    torch.save([1], path)
    refused(tmp_path, tiny_backbone, "holds nothing by name")
    fabricate(
        path,
        "bert_e2v",
        tiny_backbone,
        lambda h: h["speech_style_encoder"].update(step=3),
    )
    refused(tmp_path, tiny_backbone, "needs the tensors")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_python_objects_need_trust(tiny_backbone, tmp_path):
    """As a training that saves its command line beside the weights."""
    path = tmp_path / "best.pt"
    fabricate(
        path,
        "bert_e2v",
        tiny_backbone,
        lambda h: h.update(args=argparse.Namespace(lr=5e-5)),
    )
    refused(
        tmp_path, tiny_backbone, "holds argparse.Namespace.*add --trust_pickle"
    )
    retriever = imported(
        path, "bert_e2v", tiny_backbone, tmp_path / "own", trust_pickle=True
    )
    assert retriever.encode_text("sad").shape == (1, SIZE)


def test_code_in_a_checkpoint_is_not_run(tiny_backbone, tmp_path):
    path = tmp_path / "best.pt"
    fabricate(
        path,
        "bert_e2v",
        tiny_backbone,
        lambda h: h.update(args=Touch(tmp_path / "ran")),
    )
    refused(tmp_path, tiny_backbone, "best.pt is damaged, or holds Python")
    path.write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    refused(tmp_path, tiny_backbone, "best.pt is damaged, or holds Python")
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_something_else_is_left_alone(tiny_backbone, tmp_path):
    fabricate(tmp_path / "best.pt", "bert_e2v", tiny_backbone)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for place in "out", "best.pt":
        with pytest.raises(MendableError, match="give another --out"):
            imported(
                tmp_path / "best.pt",
                "bert_e2v",
                tiny_backbone,
                tmp_path / place,
            )
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    retriever = tmp_path / "retriever"
    for _ in range(2):  # one that is there is replaced
        imported(tmp_path / "best.pt", "bert_e2v", tiny_backbone, retriever)
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.pt",
        "out",
        "retriever",
    }


# The command


def run(*words):
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(required=True))
    options = parser.parse_args(["import-checkpoint", *map(str, words)])
    one_line_errors(options.run)(options)


def test_the_command(tiny_backbone, tmp_path, capsys):
    path = tmp_path / "best.pt"
    fabricate(path, "t5_e2v", tiny_backbone)
    text_source, speech_source = sources("t5_e2v", tiny_backbone)
    words = [path, "--pair", "t5_e2v", "--out", tmp_path / "out"]
    words += ["--text_source", text_source, "--speech_source", speech_source]
    run(*words)
    assert f"Retriever: {tmp_path / 'out'}" in capsys.readouterr().out
    retriever = EncoderRetriever.from_hparams(tmp_path / "out")
    assert retriever.mods.text_encoder.pooling == "mean"
    assert not retriever.mods.speech_encoder.normalize_wav
    page = (tmp_path / "out" / "hyperparams.yaml").read_text()
    assert "normalize_wav: False" in page or "normalize_wav: false" in page


@pytest.mark.parametrize(
    "words, message",
    [
        (["absent.pt", "--pair", "t5_e2v"], "no checkpoint at absent.pt"),
        (["best.pt", "--pair", "t5"], "there is no pair 't5'"),
        (["best.pt", "--pair", "t5_e2v"], "google-t5/t5-base"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    words, message, tiny_backbone, tmp_path, capsys, monkeypatch
):
    """The last one asks for a hub's files, which no test can have."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path / "best.pt", "t5_e2v", tiny_backbone)
    with pytest.raises(SystemExit):
        run(*words, "--out", "out")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()
