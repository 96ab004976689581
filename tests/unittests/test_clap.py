"""CLAP's towers: as transformers has them, one clip at a time or many.

Authors
 * The esr_lobes contributors
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from torchaudio.functional import resample

from esr_lobes.encoders.clap import ClapSpeech, ClapText
from esr_lobes.encoders.clap_features import ClapFeatures, cut_windows
from esr_lobes.safety import check_backbone
from esr_lobes.weights import WeightsError

TEXTS = ["a happy person", "sad", "the voice of a calm person speaking"]
WINDOW = 32000  # 2 s at 16 kHz, see tiny_backbones


@pytest.fixture(scope="module")
def folder(tiny_backbone):
    return tiny_backbone("clap")


@pytest.fixture(scope="module")
def speech(folder):
    return ClapSpeech(folder).eval()


@pytest.fixture(scope="module")
def text(folder):
    return ClapText(folder).eval()


def noise(n_samples):
    generator = torch.Generator().manual_seed(n_samples)
    return 0.1 * torch.randn(n_samples, generator=generator)


def embed(encoder, wave):
    """Returns the vector of a clip alone."""
    with torch.no_grad():
        return encoder(wave.unsqueeze(0))[0]


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_the_features_are_those_of_transformers(padding, truncation):
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        feature_size=16,
        max_length_s=2,
        frequency_min=50,
        padding=padding,
        truncation=truncation,
    )
    features = ClapFeatures(extractor)
    for n_samples in (100, 9000, WINDOW):
        wave = noise(n_samples)
        expected = extractor(
            resample(wave, 16000, 48000).numpy(),
            sampling_rate=48000,
            return_tensors="pt",
        )["input_features"][:, :1]
        given, owners, shares = features(wave.unsqueeze(0), torch.ones(1))
        assert given.shape == (1, 1, 201, 16)
        assert torch.allclose(given, expected, atol=1e-3)  # dB
        assert owners.tolist() == [0] and shares.tolist() == [1.0]


def test_windows_worked_out_on_paper():
    wavs = torch.arange(1.0, 15.0).reshape(2, 7)
    counts = torch.tensor([7, 2])
    windows, owners, lengths = cut_windows(wavs, counts, 5, "repeat")
    assert windows.int().tolist() == [
        [1, 2, 3, 4, 5],
        [6, 7, 6, 7, 6],
        [8, 9, 8, 9, 8],
    ]
    assert owners.tolist() == [0, 0, 1] and lengths.tolist() == [5, 2, 2]
    windows, _, _ = cut_windows(wavs, counts, 5, "pad")
    assert windows[1:].int().tolist() == [[6, 7, 0, 0, 0], [8, 9, 0, 0, 0]]
    windows, _, lengths = cut_windows(wavs[:, :5], torch.tensor([5, 5]), 5)
    assert torch.equal(windows, wavs[:, :5]) and lengths.tolist() == [5, 5]


def test_the_towers_are_those_of_transformers(folder, speech, text):
    """In version 5 its functions return an output, before a tensor."""
    from transformers import AutoTokenizer, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, return_tensors="pt"
    )
    wave = noise(9000)
    features = speech.extractor(
        resample(wave, 16000, 48000).numpy(),
        sampling_rate=48000,
        return_tensors="pt",
    )
    with torch.no_grad():
        heard = model.get_audio_features(**features)
        read = model.get_text_features(**tokens)
        vectors = normalize(text(TEXTS), dim=-1)
    heard = getattr(heard, "pooler_output", heard)
    read = getattr(read, "pooler_output", read)
    assert torch.allclose(
        normalize(embed(speech, wave), dim=0), heard, atol=1e-5
    )
    assert torch.allclose(vectors, read, atol=1e-5)
    assert text.width == speech.width == 24
    assert text.max_tokens == 32  # 34 positions, two of them not used


def test_a_clip_is_the_same_in_any_batch(speech):
    waves = [noise(n) for n in (70000, WINDOW, 5000, 1)]
    lengths = torch.tensor([len(wave) for wave in waves])
    wavs = torch.full((4, 70000), 7.0)  # padding is not heard
    for row, wave in zip(wavs, waves, strict=True):
        row[: len(wave)] = wave
    with torch.no_grad():
        given = speech(wavs, lengths / 70000)
    for row, wave in zip(given, waves, strict=True):
        assert torch.allclose(row, embed(speech, wave), atol=1e-5)


def test_a_longer_clip_is_the_mean_of_its_windows_by_length(speech):
    """With silence where it is cut, so that resampling sees no edge."""
    wave = noise(48000)
    wave[WINDOW - 800 : WINDOW + 800] = 0.0
    parts = [embed(speech, wave[:WINDOW]), embed(speech, wave[WINDOW:])]
    expected = (2 * parts[0] + parts[1]) / 3
    assert torch.allclose(embed(speech, wave), expected, atol=1e-4)
    assert not torch.allclose(parts[0], parts[1], atol=1e-3)


def test_in_training_too_a_clip_depends_on_itself_alone(folder):
    speech = ClapSpeech(folder).train()
    for module in speech.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch_norm = speech.model.audio_model.audio_encoder.batch_norm
    before = batch_norm.running_mean.clone()
    wavs = torch.stack([noise(8000), 5 * noise(8001)[1:]])
    together = speech(wavs)
    assert torch.allclose(together[0], speech(wavs[:1])[0], atol=1e-5)
    assert torch.equal(batch_norm.running_mean, before)
    together.sum().backward()
    assert batch_norm.weight.grad.abs().sum() > 0


def test_frozen_towers_do_not_learn_nor_change(folder):
    speech = ClapSpeech(folder, is_frozen=True).train()
    text = ClapText(folder, is_frozen=True).train()
    wavs = noise(8000).unsqueeze(0)
    assert not speech(wavs).requires_grad and not text(TEXTS).requires_grad
    assert torch.equal(speech(wavs), speech(wavs))
    assert torch.equal(text(TEXTS), text(TEXTS))
    text.warm(TEXTS)
    with pytest.raises(ValueError, match="only a frozen"):
        ClapText(folder).warm(TEXTS)


def test_both_towers_learn(folder):
    for encoder, given in (
        (ClapSpeech(folder), noise(8000).unsqueeze(0)),
        (ClapText(folder), TEXTS),
    ):
        encoder.train()(given).sum().backward()
        names = {
            name.split(".")[1]
            for name, weight in encoder.named_parameters()
            if weight.grad is not None and weight.grad.abs().sum() > 0
        }
        kind = "audio" if isinstance(encoder, ClapSpeech) else "text"
        assert names == {f"{kind}_model", f"{kind}_projection"}


def test_words_and_vectors_come_of_one_pass(text):
    with torch.no_grad():
        vectors, states, counts = text.read(TEXTS)
        assert torch.allclose(vectors, text(TEXTS), atol=1e-6)
    assert states.shape[:2] == (3, counts.max()) and counts.min() > 0


def test_a_tower_alone_is_saved_and_opened(folder, speech, text, tmp_path):
    for encoder in (speech, text):
        path = tmp_path / type(encoder).__name__
        encoder.save(path)
        check_backbone(path)
        again = type(encoder)(path, local_files_only=True).eval()
        given = TEXTS if encoder is text else noise(40000).unsqueeze(0)
        with torch.no_grad():
            assert torch.equal(again(given), encoder(given))
        names = load_file(path / "model.safetensors")
        kind = "text" if encoder is text else "audio"
        assert {name.split("_")[0] for name in names} == {kind}
    with pytest.raises(WeightsError, match="'clap_text_model'; the speech"):
        ClapSpeech(tmp_path / "ClapText")


def change(folder, tmp_path, change_json=None, file="config.json"):
    """Returns a copy of a checkpoint with other settings."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    settings = json.loads((copy / file).read_text())
    change_json(settings)
    (copy / file).write_text(json.dumps(settings))
    return copy


def test_checkpoints_that_do_not_suit(
    folder, tmp_path, tiny_text_backbone, speech
):
    with pytest.raises(WeightsError, match="of type 'bert'"):
        ClapText(tiny_text_backbone)
    with pytest.raises(FileNotFoundError, match="no folder here"):
        ClapSpeech("owner/none", local_files_only=True)
    fused = change(
        folder,
        tmp_path,
        lambda settings: settings["audio_config"].update(enable_fusion=True),
    )
    with pytest.raises(WeightsError, match="missing|fuses"):
        ClapSpeech(fused)
    shutil.rmtree(fused)
    speech.save(tmp_path / "alone")
    for key, value, message in (
        ("max_length_s", 10, "windows have 1001 frames"),
        ("hop_length", 0, "hop_length is 0"),
        ("padding", "never", "padding is 'never'"),
        # They would fill the memory with filters.
        ("feature_size", 2_000_000, "feature_size is 2000000"),
        ("fft_window_size", 50_000_000, "fft_window_size is 50000000"),
        ("frequency_max", 1e9, "frequency_max is 1000000000"),
    ):
        copy = change(
            tmp_path / "alone",
            tmp_path,
            lambda settings, k=key, v=value: settings.update({k: v}),
            "preprocessor_config.json",
        )
        with pytest.raises(WeightsError, match=message):
            ClapSpeech(copy)
        shutil.rmtree(copy)


def test_damaged_checkpoints(folder, tmp_path):
    path = tmp_path / "copy" / "model.safetensors"
    shutil.copytree(folder, tmp_path / "copy")
    whole = load_file(path)
    for tower, encoder in (("audio", ClapSpeech), ("text", ClapText)):
        name = f"{tower}_projection.linear1.weight"
        save_file({k: v for k, v in whole.items() if k != name}, path)
        with pytest.raises(WeightsError, match="1 weights are missing"):
            encoder(tmp_path / "copy")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged or not complete"):
        ClapText(tmp_path / "copy")
    shutil.copy(folder / "model.safetensors", path)
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="tokenizer"):
        ClapText(tmp_path / "copy")
