"""WavLM, wav2vec 2.0 and HuBERT through the real loading code.

Authors
 * The esr_lobes contributors
"""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_backbones import make_tiny_speech
from torch.nn.functional import cosine_similarity
from transformers import AutoFeatureExtractor, AutoModel

from esr_lobes.encoders.huggingface import (
    HuggingFaceSpeech,
)
from esr_lobes.pooling import length_to_mask
from esr_lobes.weights import WeightsError

KINDS = ("wavlm", "wav2vec2", "hubert")
# From one long clip to one that is shorter than the reach of a frame.
N_SAMPLES = [8000, 5203, 1601, 811, 17]


@pytest.fixture(scope="module", params=[*KINDS, "wavlm_large", "hubert_large"])
def folder(request, tmp_path_factory, tiny_backbone):
    """A tiny checkpoint of each family, and of both ways to normalise."""
    kind, _, is_large = request.param.partition("_")
    if not is_large:
        return tiny_backbone(kind)
    path = tmp_path_factory.mktemp(request.param)
    make_tiny_speech(path, kind, norm="layer")
    return path


def clips(n_samples=N_SAMPLES):
    """Returns noise of several loudnesses and offsets, by itself each."""
    torch.manual_seed(1)
    return [
        0.1 * (i + 1) * torch.randn(n) + 0.02 * i
        for i, n in enumerate(n_samples)
    ]


def batch(waves, fill=0.0):
    """Returns padded waveforms and their relative lengths."""
    longest = max(map(len, waves))
    wavs = torch.full((len(waves), longest), fill)
    for row, wave in zip(wavs, waves, strict=True):
        row[: len(wave)] = wave
    return wavs, torch.tensor([len(wave) / longest for wave in waves])


def alone(encoder, wave):
    """Returns the frames of one clip without padding."""
    return encoder.frames(wave.unsqueeze(0), torch.ones(1))[0][0]


# Blind to padding


@torch.no_grad()
def test_a_clip_alone_equals_the_clip_in_a_batch(folder):
    encoder = HuggingFaceSpeech(folder).eval()
    waves = clips()
    wavs, wav_lens = batch(waves)
    x, lengths = encoder.frames(wavs, wav_lens)
    mask = length_to_mask(lengths, x.shape[1])
    assert x.shape[2] == encoder.width == 32
    assert (x[~mask] == 0).all()
    rows = encoder(wavs, wav_lens)
    for i, wave in enumerate(waves):
        own = alone(encoder, wave)
        assert mask[i].sum() == len(own)
        assert torch.allclose(x[i, : len(own)], own, atol=1e-5)
        vector = encoder(wave.unsqueeze(0))[0]
        assert torch.allclose(vector, own.mean(dim=0), atol=1e-6)
        assert 1 - cosine_similarity(rows[i], vector, dim=0) < 1e-6


@torch.no_grad()
def test_what_stands_in_the_padding_is_not_heard(folder):
    encoder = HuggingFaceSpeech(folder).eval()
    silent = encoder(*batch(clips()))
    assert torch.equal(encoder(*batch(clips(), fill=float("nan"))), silent)


@torch.no_grad()
def test_speechbrain_alone_hears_the_padding(tiny_backbone):
    """Why forward is replaced: with SpeechBrain's own, a mask is not enough."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

    for kind in "wavlm", "wav2vec2":
        plain = Wav2Vec2(str(tiny_backbone(kind)), save_path="").eval()
        wavs, wav_lens = batch(clips([8000, 1601]))
        together = plain(wavs, wav_lens)[1]
        own = plain(wavs[1:, :1601])[0]
        assert (together[: len(own)] - own).abs().max() > 1e-2


@torch.no_grad()
def test_a_clip_alone_is_what_transformers_makes_of_it(folder):
    encoder = HuggingFaceSpeech(folder).eval()
    model = AutoModel.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    for wave in clips([8000, 1601, 40]):
        inputs = extractor(
            wave.numpy(), sampling_rate=16000, return_tensors="pt"
        )
        expected = model(inputs["input_values"]).last_hidden_state[0]
        assert torch.allclose(alone(encoder, wave), expected, atol=1e-5)


def test_number_of_frames_is_the_formula_of_the_checkpoint(tiny_backbone):
    """`round(wav_len * frames)` is off by one for a third of all lengths."""
    encoder = HuggingFaceSpeech(tiny_backbone("wavlm")).eval()
    assert encoder.shortest == 40
    n_samples = [4030, *range(1500, 1620, 7)]
    with torch.no_grad():
        x, lengths = encoder.frames(*batch(clips(n_samples)))
    counts = length_to_mask(lengths, x.shape[1]).sum(dim=1).tolist()
    expected = [
        (((n - 10) // 5 + 1 - 3) // 4 + 1 - 2) // 4 + 1 for n in n_samples
    ]
    assert counts == expected
    naive = [round(n / n_samples[0] * x.shape[1]) for n in n_samples]
    assert counts != naive


def test_gradients_do_not_see_the_padding(folder):
    """The gradient of a batch is the mean of those of its clips."""
    encoder = HuggingFaceSpeech(folder, layerdrop=0.0).eval()
    waves = clips([4000, 1601])
    encoder(*batch(waves)).square().sum().backward()
    together = {
        name: p.grad.clone()
        for name, p in encoder.named_parameters()
        if p.grad is not None
    }
    encoder.zero_grad()
    for wave in waves:
        encoder(wave.unsqueeze(0)).square().sum().backward()
    assert {n for n, p in encoder.named_parameters() if p.requires_grad} == set(
        together
    )
    for name, p in encoder.named_parameters():
        if name in together:
            scale = p.grad.abs().max() + 1e-3
            assert (p.grad - together[name]).abs().max() < 1e-4 * scale, name


# Training


def test_trains_under_autocast(folder):
    encoder = HuggingFaceSpeech(folder).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = encoder(*batch(clips()))
    assert vectors.dtype == torch.float32
    vectors.sum().backward()
    first = encoder.model.feature_extractor.conv_layers[0]
    for weight in first.conv.weight, first.layer_norm.weight:
        assert weight.grad.isfinite().all()


@torch.no_grad()
def test_autocast_costs_no_more_than_in_transformers(folder):
    """And what padding costs on top is rounding, too."""
    encoder = HuggingFaceSpeech(folder).eval()
    model = AutoModel.from_pretrained(folder).eval()
    waves = clips([8000, 5203, 1601])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = encoder(*batch(waves))
        for wave, row in zip(waves, together, strict=True):
            wavs, _ = encoder._prepare(wave.unsqueeze(0), torch.ones(1))
            expected = model(wavs).last_hidden_state[0].float().mean(dim=0)
            own = encoder(wave.unsqueeze(0))[0]
            assert cosine_similarity(own, expected, dim=0) > 0.9999
            assert cosine_similarity(own, row, dim=0) > 0.9999


def test_gradient_checkpointing_gives_the_same_gradients(folder):
    gradients = []
    for is_on in False, True:
        encoder = HuggingFaceSpeech(folder, gradient_checkpointing=is_on)
        encoder.train()
        assert encoder.model.is_gradient_checkpointing is is_on
        torch.manual_seed(3)
        # Two passes before the gradients, as one compares two batches.
        first = encoder(*batch(clips([3000, 1601])))
        second = encoder(*batch(clips([811, 2000])))
        (first.sum() + second.square().sum()).backward()
        gradients.append(
            [p.grad for p in encoder.parameters() if p.requires_grad]
        )
    for plain, saving in zip(*gradients, strict=True):
        assert torch.allclose(plain, saving, atol=1e-5)


def test_frozen_stays_frozen_after_train(folder):
    encoder = HuggingFaceSpeech(folder, is_frozen=True)
    torch.nn.ModuleDict({"speech_encoder": encoder}).train()
    assert not encoder.model.training
    wavs, wav_lens = batch(clips())
    assert torch.equal(encoder(wavs, wav_lens), encoder(wavs, wav_lens))
    assert not encoder(wavs, wav_lens).requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


def test_no_spec_augment_and_layerdrop_as_asked(tiny_backbone):
    """Without dropout a training pass is an evaluation pass."""
    encoder = HuggingFaceSpeech(tiny_backbone("wavlm"), layerdrop=0.0)
    assert encoder.model.config.mask_time_prob > 0
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    wavs, wav_lens = batch(clips())
    with torch.no_grad():
        still = encoder.eval()(wavs, wav_lens)
        moving = encoder.train()(wavs, wav_lens)
        assert torch.allclose(still, moving, atol=1e-6)
        encoder.model.config.layerdrop = 1.0
        assert (encoder(wavs, wav_lens) - still).abs().max() > 1e-3


def test_every_parameter_that_learns_gets_a_gradient(folder):
    encoder = HuggingFaceSpeech(folder, layerdrop=0.0).train()
    encoder(*batch(clips())).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_attention_by_sdpa_where_there_is_one(tiny_backbone):
    for kind in "wav2vec2", "hubert":
        encoder = HuggingFaceSpeech(tiny_backbone(kind))
        assert encoder.model.config._attn_implementation == "sdpa"


# Loading and saving


@torch.no_grad()
def test_saved_backbone_gives_the_same(folder, tmp_path):
    encoder = HuggingFaceSpeech(folder).eval()
    first = encoder.model.feature_extractor.conv_layers[0]
    first.conv.weight.mul_(1.5)
    encoder.save(tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    copy = HuggingFaceSpeech(tmp_path / "copy", local_files_only=True).eval()
    assert copy.normalize_wav == encoder.normalize_wav
    for key, value in encoder.state_dict().items():
        assert torch.equal(copy.state_dict()[key], value), key
    inputs = batch(clips())
    assert torch.equal(encoder(*inputs), copy(*inputs))


@torch.no_grad()
def test_a_hub_id_is_found_in_the_cache_without_network(
    tiny_backbone, tmp_path, monkeypatch
):
    """SpeechBrain's own class asks the hub, and fails without it."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--us--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_backbone("wavlm"), snapshot)
    reference = tmp_path / "models--us--tiny" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    own = HuggingFaceSpeech(tiny_backbone("wavlm")).eval()
    for local_files_only in False, True:
        encoder = HuggingFaceSpeech(
            "us/tiny", local_files_only=local_files_only
        ).eval()
        assert torch.equal(encoder(*batch(clips())), own(*batch(clips())))
    with pytest.raises(FileNotFoundError, match="nobody/no-such-model"):
        HuggingFaceSpeech("nobody/no-such-model")
    with pytest.raises(FileNotFoundError, match="nobody/no-such-model"):
        HuggingFaceSpeech("nobody/no-such-model", local_files_only=True)


@torch.no_grad()
def test_pickled_weights_are_read_as_tensors(copied):
    """Many a checkpoint on the hub has its weights as a .bin only."""
    own = HuggingFaceSpeech(copied).eval()
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(weights, copied / "pytorch_model.bin")
    encoder = HuggingFaceSpeech(copied).eval()
    assert torch.equal(encoder(*batch(clips())), own(*batch(clips())))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickled_code_is_not_run(copied, tmp_path):
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    weights["bad"] = Touch(tmp_path / "ran")
    torch.save(weights, copied / "pytorch_model.bin")
    refused(copied, "")
    with open(copied / "wav2vec2.ckpt", "wb") as file:
        pickle.dump({"model.wav2vec2.x": Touch(tmp_path / "ran")}, file)
    (copied / "pytorch_model.bin").unlink()
    refused(copied, "")
    assert not (tmp_path / "ran").exists()


def test_code_that_comes_along_is_not_run(copied, tmp_path):
    path = copied / "config.json"
    settings = json.loads(path.read_text())
    settings["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
    }
    path.write_text(json.dumps(settings))
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    HuggingFaceSpeech(copied)
    assert not (tmp_path / "ran").exists()


# Checkpoints that are damaged, not complete or of something else


@pytest.fixture
def copied(tiny_backbone, tmp_path):
    return shutil.copytree(tiny_backbone("wavlm"), tmp_path / "backbone")


def refused(folder, message):
    with pytest.raises(WeightsError, match=f"{folder} is damaged.*{message}"):
        HuggingFaceSpeech(folder)


def test_missing_weights(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    less = {k: v for k, v in weights.items() if "layers.1.attention" not in k}
    save_file(less, path, metadata={"format": "pt"})
    refused(copied, "weights are missing: encoder.layers.1.attention")
    less = {k: v for k, v in weights.items() if "masked_spec" not in k}
    save_file(less, path, metadata={"format": "pt"})
    HuggingFaceSpeech(copied)  # SpecAugment is not used


def test_weights_that_are_not_finite(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    weights["feature_projection.projection.bias"][3] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    refused(copied, "not finite")


@pytest.mark.parametrize(
    "name, content",
    [
        ("model.safetensors", None),
        ("model.safetensors", b"abc"),
        ("config.json", None),
        ("config.json", b"[1]"),
        ("preprocessor_config.json", None),
        ("preprocessor_config.json", b'{"a"'),
    ],
)
def test_damaged_files(name, content, copied):
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    refused(copied, "download it again")


@pytest.mark.parametrize(
    "name, value",
    [
        ("conv_stride", [0, 0, 0]),
        ("conv_stride", [5, 4, -4]),
        ("conv_stride", [5, 65536, 4]),
        ("conv_kernel", [10, 3, 65537]),
        ("conv_kernel", [0, 0, 0]),
    ],
)
def test_convolutions_of_no_speech_model(copied, name, value):
    """Strides of 0 opened, and failed at the first clip; large ones would
    have filled the memory with silence."""
    path = copied / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(WeightsError, match="convolution"):
        HuggingFaceSpeech(copied)


def test_settings_of_a_wrong_type(copied):
    """transformers raises something of its own for these."""
    path = copied / "config.json"
    wrong = {"conv_stride": [5, 4, True]}
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    refused(copied, "download it again")


def test_a_model_of_another_kind(tiny_backbone, copied):
    with pytest.raises(WeightsError, match="'bert'; this encoder is for"):
        HuggingFaceSpeech(tiny_backbone("bert"))
    path = copied / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"sampling_rate": 8000}
    path.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="8000 Hz"):
        HuggingFaceSpeech(copied)
