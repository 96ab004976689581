"""The retriever: opened without network or risk, the same embedding for a
clip in any company, and a report of what could not be used.

Authors
 * The esr_lobes contributors
"""

import json
import shutil
import socket
import tracemalloc

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from speechbrain.utils.fetching import FetchConfig

from esr_lobes import EncoderRetriever, batches
from esr_lobes.audio import AudioError, read, read_windows
from esr_lobes.heads import Projection
from esr_lobes.index import Segment
from esr_lobes.pages import PageError
from esr_lobes.safety import UnsafePageError
from esr_lobes.weights import WeightsError


@pytest.fixture(scope="module")
def exported(tiny_retriever):
    return tiny_retriever


@pytest.fixture(scope="module")
def opened(exported):
    return EncoderRetriever.from_hparams(exported)


@pytest.fixture
def retriever(opened):
    """An opened retriever that has embedded nothing yet."""
    opened.index = type(opened.index)(opened.hparams.embedding_size)
    opened.skipped = []
    return opened


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the folder, to be tampered with."""
    return shutil.copytree(exported, tmp_path / "copy")


def clip(seconds, hertz=220.0, seed=0):
    time = torch.arange(round(16000 * seconds)) / 16000
    noise = torch.randn(
        len(time), generator=torch.Generator().manual_seed(seed)
    )
    return 0.3 * torch.sin(2 * torch.pi * hertz * time) + 0.003 * noise


def assert_unit(rows, n):
    assert rows.shape == (n, 16)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    assert torch.allclose(rows.norm(dim=1), torch.ones(n), atol=1e-5)


# Opening


def test_a_folder_needs_no_network(exported, monkeypatch, write_tone, tmp_path):
    """Not even where a hub may be asked and could answer."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("no network in this test")

    for name in "connect", "connect_ex", "sendto":
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    retriever = EncoderRetriever.from_hparams(
        source=str(exported),
        savedir=str(tmp_path / "unused"),
        run_opts={"device": "cpu"},
    )
    path = str(write_tone(tmp_path / "a.wav"))
    retriever.encode_files([path], progress=False)
    assert retriever.search("a happy voice")[0].segment.path == path
    assert asked == []
    assert not (tmp_path / "unused").exists()


def test_opens_from_anywhere(exported, monkeypatch, tmp_path):
    """The page's `folder: .` is where it lies, not where we stand."""
    monkeypatch.chdir(tmp_path)
    relative = exported.relative_to(tmp_path.parents[1])
    monkeypatch.chdir(tmp_path.parents[1])
    retriever = EncoderRetriever.from_hparams(str(relative))
    assert retriever.hparams.folder == str(exported.resolve())


def test_opens_from_a_folder_of_any_name(exported, tmp_path):
    folder = tmp_path / "meine Modelle #1: [a, b] {c} 'é' 100% *x"
    shutil.copytree(exported, folder)
    retriever = EncoderRetriever.from_hparams(folder)
    assert retriever.hparams.folder == str(folder)


def test_ready_for_inference(retriever):
    assert not any(module.training for module in retriever.mods.modules())
    assert not any(p.requires_grad for p in retriever.parameters())
    assert retriever.device == "cpu"


def test_overrides_as_mapping_and_as_text(exported):
    for overrides in {"hop_seconds": 0.5}, "hop_seconds: 0.5":
        retriever = EncoderRetriever.from_hparams(exported, overrides=overrides)
        assert retriever.hparams.hop_seconds == 0.5


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"hop_second": 1}, "no key 'hop_second'.*mean 'hop_seconds'"),
        ({"zzz": 1}, "no key 'zzz'.*it knows .*embedding_size"),
        ("abc", "no keys and values: 'abc'"),
        (3, "no keys and values: 3"),
        (["a"], "no keys and values"),
        ("a: 'b", "overrides are not YAML"),
    ],
)
def test_bad_overrides(overrides, message, exported):
    for is_trusted in True, False:
        with pytest.raises(PageError, match=message):
            EncoderRetriever.from_hparams(
                exported, overrides=overrides, trust_source=is_trusted
            )


@pytest.mark.parametrize(
    "line, instead, message",
    [
        ("sample_rate: 16000", "sample_rate: abc", "sample_rate is 'abc'"),
        ("sample_rate: 16000", "sample_rate: 8000", "must be 16000"),
        ("embedding_size: 16", "embedding_size: 16.0", "whole number|invalid"),
        ("max_seconds: 2.0", "max_seconds: -1", "max_seconds is -1"),
        ("max_seconds: 2.0", "max_seconds: .inf", "max_seconds is inf"),
        ("max_seconds: 2.0", "max_seconds: true", "max_seconds is True"),
        ("hop_seconds: 1.0", "hop_seconds: 0", "hop_seconds is 0"),
        ("hop_seconds: 1.0", "hop_seconds: 2.5", "at most max_seconds"),
        ("hop_seconds: 1.0", "", "needs hop_seconds"),
        ("min_seconds: 0.2", "min_seconds: abc", "min_seconds is 'abc'"),
        ("min_seconds: 0.2", "min_seconds: 3", "at most max_seconds"),
        ("min_seconds: 0.2", "min_seconds: 0.2\n1: 2", "'1' is no name"),
        ("min_seconds: 0.2", "min_seconds: 0.2\n: 2", "'' is no name"),
        (
            "    in_features: 32",
            "    in_featuress: 32",
            "Projection.*in_featuress",
        ),
        ("    in_features: 32", "    in_features: wide", "cannot be built"),
    ],
)
def test_pages_that_cannot_be(line, instead, message, copied):
    path = copied / "hyperparams.yaml"
    page = path.read_text()
    assert line in page
    path.write_text(page.replace(line, instead))
    for is_trusted in False, True:
        with pytest.raises(PageError, match=message) as error:
            EncoderRetriever.from_hparams(copied, trust_source=is_trusted)
        assert str(error.value).count("\n") == 0


def test_a_page_of_another_encoding(copied):
    path = copied / "hyperparams.yaml"
    path.write_bytes("# é\n".encode("latin-1") + path.read_bytes())
    with pytest.raises(PageError, match="hyperparams.yaml is not UTF-8"):
        EncoderRetriever.from_hparams(copied)


def test_a_page_of_no_keys(copied):
    for page in "- 1", "", "a: [":
        (copied / "hyperparams.yaml").write_text(page)
        for is_trusted in True, False:
            with pytest.raises(PageError, match="the page is"):
                EncoderRetriever.from_hparams(copied, trust_source=is_trusted)


def test_a_quoted_folder_is_a_folder(copied, tmp_path, monkeypatch):
    path = copied / "hyperparams.yaml"
    path.write_text(path.read_text().replace("folder: .", '"folder": .'))
    monkeypatch.chdir(tmp_path)
    retriever = EncoderRetriever.from_hparams(copied)
    assert retriever.hparams.folder == str(copied)


def test_a_path_that_looks_like_a_reference(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "run <seed>")
    with pytest.raises(PageError, match="rename .*run <seed>"):
        EncoderRetriever.from_hparams(folder)


def test_a_page_does_not_say_how_to_run(copied, tmp_path):
    path = copied / "hyperparams.yaml"
    page = path.read_text() + (
        "device: meta\njit: True\ncompile: True\nprecision: bf16\n"
        "audio_normalizer: 3\nnote: {by: [me, 2]}\n"
    )
    path.write_text(page)
    retriever = EncoderRetriever.from_hparams(
        copied, run_opts={"device": "cpu"}
    )
    assert retriever.device == "cpu" and retriever.precision == "fp32"
    assert not retriever.jit and not retriever.compile
    assert retriever.hparams.note == {"by": ["me", 2]}
    kept = set(vars(retriever.hparams))
    assert kept.isdisjoint({"jit", "device", "speech_encoder"})
    assert_unit(retriever.encode_text("sad"), 1)


def test_weights_are_those_of_the_file(exported, retriever):
    weights = load_file(exported / "weights.safetensors")
    state = retriever.mods.state_dict()
    for name, value in weights.items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(
    "source", ["no/such/folder", "./nowhere", "/nowhere/at/all", "nowhere"]
)
def test_no_such_folder(source):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        EncoderRetriever.from_hparams(source)


@pytest.mark.parametrize("source", ["", None, 3])
def test_no_source(source, exported, monkeypatch):
    monkeypatch.chdir(exported)
    with pytest.raises(FileNotFoundError, match="give its folder or a hub id"):
        EncoderRetriever.from_hparams(source)


def test_unreachable_hub_id(tmp_path):
    fetch = FetchConfig(allow_network=False, huggingface_cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder here.*the hub"):
        EncoderRetriever.from_hparams("owner/name", fetch_config=fetch)


def test_hub_id_from_the_cache(exported, tmp_path):
    """As the hub's client lays a repository out when it has fetched it."""
    repository = tmp_path / "models--owner--name"
    shutil.copytree(exported, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    fetch = FetchConfig(allow_network=False, huggingface_cache_dir=tmp_path)
    retriever = EncoderRetriever.from_hparams("owner/name", fetch_config=fetch)
    assert_unit(retriever.encode_text("calm"), 1)
    assert (
        EncoderRetriever.from_hparams(
            "owner/name", fetch_config=fetch, download_only=True
        )
        is None
    )


@pytest.mark.parametrize("name", ["hyperparams.yaml", "weights.safetensors"])
def test_missing_file(name, copied):
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        EncoderRetriever.from_hparams(copied)


def test_missing_backbone(copied):
    shutil.rmtree(copied / "text_backbone")
    with pytest.raises(FileNotFoundError, match="text_backbone"):
        EncoderRetriever.from_hparams(copied)


@pytest.mark.parametrize(
    "line, instead, message",
    [
        ("    text_projection: !ref <text_projection>", "", "modules text_pro"),
        (
            "    text_encoder: !ref <text_encoder>",
            "    x: 3",
            "text_encoder, x",
        ),
        ("hop_seconds: 1.0", "", "hop_seconds"),
        ("embedding_size: 16", "embedding_size: 17", "another shape"),
    ],
)
def test_missing_module_or_value(line, instead, message, copied):
    page = (copied / "hyperparams.yaml").read_text()
    assert line in page
    (copied / "hyperparams.yaml").write_text(page.replace(line, instead))
    with pytest.raises(ValueError, match=message):
        EncoderRetriever.from_hparams(copied)


def test_widths_that_do_not_fit(opened):
    modules = dict(opened.mods) | {"text_projection": Projection(33, 16)}
    hparams = vars(opened.hparams)
    with pytest.raises(ValueError, match="text_projection maps 33 to 16.* 32"):
        EncoderRetriever(modules, hparams)
    modules = dict(opened.mods)
    with pytest.raises(ValueError, match="speech_projection.*need .* to 8"):
        EncoderRetriever(modules, hparams | {"embedding_size": 8})


def test_weights_of_another_retriever(copied):
    path = copied / "weights.safetensors"
    weights = load_file(path)

    def message(changed):
        save_file(changed, path)
        with pytest.raises(WeightsError, match="belong together") as e:
            EncoderRetriever.from_hparams(copied)
        return str(e.value)

    name = "text_projection.weight"
    less = {k: v for k, v in weights.items() if k != name}
    assert f"1 missing ({name}" in message(less)
    more = weights | {"style.weight": torch.ones(1)}
    assert "1 unexpected (style.weight" in message(more)
    other = weights | {name: torch.ones(16, 33)}
    assert f"{name} [16, 33] for [16, 32]" in message(other)
    lost = weights | {name: torch.full((16, 32), float("nan"))}
    assert f"1 not finite ({name}" in message(lost)
    assert str(path) in message(lost)


def test_weights_may_hold_the_text_encoder(copied):
    path = copied / "weights.safetensors"
    backbone = EncoderRetriever.from_hparams(copied).mods.text_encoder
    weights = load_file(path) | {
        f"text_encoder.{key}": torch.zeros_like(value)
        for key, value in backbone.state_dict().items()
    }
    save_file(weights, path)
    encoder = EncoderRetriever.from_hparams(copied).mods.text_encoder
    assert not any(p.any() for p in encoder.parameters())


# Opening what a stranger wrote


@pytest.fixture
def mark(tmp_path):
    """A folder that must not appear."""
    return tmp_path / "mark"


def test_page_with_code(copied, mark):
    page = (copied / "hyperparams.yaml").read_text()
    page += f"x: !apply:os.mkdir ['{mark}']\n"
    (copied / "hyperparams.yaml").write_text(page)
    line = page.count("\n")
    with pytest.raises(UnsafePageError, match=f"yaml, line {line}: .*os.mkdir"):
        EncoderRetriever.from_hparams(copied)
    assert not mark.exists()
    EncoderRetriever.from_hparams(copied, trust_source=True)
    assert mark.exists()


def test_overrides_with_code(copied, mark):
    call = f"!apply:os.mkdir ['{mark}']"
    inside = f"(!!python/object/apply:os.mkdir ['{mark}'])"
    for overrides in [
        f"hop_seconds: {call}",
        f"hop_seconds: {inside}",
        f'"hop_seconds": "{inside}"',
        f"speech_projection: {{in_features: {call}}}",
        {"hop_seconds": inside},
    ]:
        with pytest.raises(UnsafePageError):
            EncoderRetriever.from_hparams(copied, overrides=overrides)
        assert not mark.exists()
    for overrides in f"a: 1\n---\nb: {call}", "a: [":
        with pytest.raises(ValueError, match="overrides are not YAML"):
            EncoderRetriever.from_hparams(copied, overrides=overrides)
    overrides = "hop_seconds: !ref <max_seconds> / 4"
    retriever = EncoderRetriever.from_hparams(copied, overrides=overrides)
    assert retriever.hparams.hop_seconds == 0.5
    assert not mark.exists()


def test_python_beside_the_page_is_not_run(copied, mark):
    code = f"import os\nos.mkdir({str(mark)!r})\n"
    for name in "custom.py", "esr_lobes.py":
        (copied / name).write_text(code)
    EncoderRetriever.from_hparams(copied)
    (copied / "text_backbone" / "modeling.py").write_text(code)
    with pytest.raises(UnsafePageError, match="modeling.py"):
        EncoderRetriever.from_hparams(copied)
    assert not mark.exists()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_pickles_are_not_run(copied, mark, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"w": Evil(str(mark))}, copied / "weights.safetensors")
    with pytest.raises(WeightsError, match="weights.safetensors"):
        EncoderRetriever.from_hparams(copied)
    backbone = copied / "text_backbone"
    (backbone / "model.safetensors").unlink()
    torch.save({"w": Evil(str(mark))}, backbone / "pytorch_model.bin")
    with pytest.raises(UnsafePageError, match="pytorch_model.bin.*pickles"):
        EncoderRetriever.from_hparams(copied)
    with pytest.raises(WeightsError, match="text_backbone is damaged"):
        EncoderRetriever.from_hparams(copied, trust_source=True)
    assert not mark.exists()


def damage(folder, name, content):
    """Replaces a file's content, or removes it if there is none."""
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "name, content",
    [
        ("model.safetensors", None),
        ("model.safetensors", b"abc"),
        ("config.json", None),
        ("config.json", b"[1]"),
        ("config.json", b"{}"),
        ("tokenizer_config.json", b"[1]"),
    ],
)
def test_a_damaged_backbone(name, content, copied):
    damage(copied / "text_backbone", name, content)
    with pytest.raises(WeightsError, match="text_backbone is damaged.*again"):
        EncoderRetriever.from_hparams(copied)


def test_backbone_elsewhere(copied, tiny_text_backbone):
    overrides = {"text_encoder": {"source": str(tiny_text_backbone)}}
    with pytest.raises(UnsafePageError, match="does not lie in"):
        EncoderRetriever.from_hparams(copied, overrides=overrides)
    EncoderRetriever.from_hparams(
        copied, overrides=overrides, trust_source=True
    )


def test_backbone_with_code(copied):
    path = copied / "text_backbone" / "config.json"
    text = path.read_text()
    path.write_text(text.replace("{", '{"auto_map": {"AutoModel": "m.M"},', 1))
    with pytest.raises(UnsafePageError, match="auto_map"):
        EncoderRetriever.from_hparams(copied)


def test_what_is_checked_is_what_is_loaded(copied):
    """transformers follows a name in the settings to a file of any name."""
    backbone = copied / "text_backbone"
    settings = json.loads((backbone / "config.json").read_text())
    evil = settings | {"attn_implementation": "someone/kernel"}
    (backbone / "config.0.1.json").write_text(json.dumps(evil))
    settings["configuration_files"] = ["config.0.1.json"]
    (backbone / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UnsafePageError, match="text_backbone"):
        EncoderRetriever.from_hparams(copied)


# Encoding


def test_encode_text(retriever):
    texts = ["a happy voice", "sad", "a person speaking in a calm tone"]
    rows = retriever.encode_text(texts)
    assert_unit(rows, 3)
    for text, row in zip(texts, rows, strict=True):
        alone = retriever.encode_text(text)
        assert_unit(alone, 1)
        assert torch.allclose(alone[0], row, atol=1e-5)
    assert torch.equal(rows, retriever.encode_text(texts))
    many = retriever.encode_text(["sad"] * 70 + ["happy"])
    assert torch.allclose(many[:70], rows[1].expand(70, -1), atol=1e-5)
    for nothing in "", "  ", [], ["sad", ""], [3], None, 3, {"a": 1}, b"sad":
        with pytest.raises(ValueError, match="in words"):
            retriever.encode_text(nothing)
    with pytest.raises(ValueError, match="no valid Unicode"):
        retriever.encode_text(["sad", "\ud800"])
    assert torch.equal(retriever.encode_text(t for t in texts), rows)


def test_a_clip_is_the_same_in_any_company(retriever):
    clips = [
        clip(seconds, hertz, seed)
        for seed, (seconds, hertz) in enumerate(
            [(0.3, 150), (2.0, 220), (0.7, 900), (1.1, 400), (0.31, 3000)]
        )
    ]
    alone = torch.cat([retriever.encode_batch(one) for one in clips])
    assert_unit(alone, 5)
    for order in [0, 1, 2, 3, 4], [4, 2, 0], [3, 1, 0, 2], [2, 1]:
        batch = retriever.encode_batch([clips[i] for i in order])
        assert torch.allclose(batch, alone[order], atol=1e-4)
        again = retriever.encode_batch([clips[i] for i in order])
        assert torch.equal(batch, again)
    # Clips that were all alike would pass the above.
    assert (alone @ alone.T - torch.eye(5)).max() < 0.9999


def test_encode_batch_takes_one_or_many(retriever):
    wave = clip(0.5)
    padded = torch.nn.functional.pad(wave, (0, 8000))
    one = retriever.encode_batch(wave)
    many = retriever.encode_batch(
        torch.stack([padded, clip(1.0)]), torch.tensor([0.5, 1.0])
    )
    assert torch.allclose(one[0], many[0], atol=1e-4)
    assert torch.equal(one, retriever.encode_batch(wave[None]))
    assert torch.equal(one, retriever(wave, torch.ones(1)))
    assert torch.equal(one, retriever.encode_batch(wave.double().numpy()))


@pytest.mark.parametrize(
    "wavs, wav_lens, message",
    [
        (torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), None, r"clips \[1\]"),
        ([torch.ones(9), torch.full((9,), np.inf)], None, r"clips \[1\]"),
        (torch.ones(2, 2, 9), None, r"not \[2, 2, 9\]"),
        (torch.ones(2, 0), None, r"not \[2, 0\]"),
        ([], None, "a list of clips"),
        ([torch.ones(2, 9)], None, "a list of clips"),
        ([torch.ones(9)], torch.ones(1), "its own lengths"),
        (torch.ones(2, 9), torch.ones(3), "2 clips need as many"),
        (torch.ones(2, 9), torch.tensor([1.0, 0.0]), r"in \(0, 1\]"),
        (torch.ones(2, 9), torch.tensor([1.0, 9.0]), r"in \(0, 1\]"),
    ],
)
def test_bad_batches(wavs, wav_lens, message, retriever):
    with pytest.raises(ValueError, match=message):
        retriever.encode_batch(wavs, wav_lens)


@pytest.mark.parametrize(
    "wavs",
    [
        torch.ones(2, 900, dtype=torch.int16),
        np.ones(900, "i2"),
        [torch.ones(900, dtype=torch.int32)],
        torch.ones(2, 900, dtype=torch.bool),
        torch.ones(2, 900, dtype=torch.complex64),
    ],
)
def test_integers_have_no_scale(wavs, retriever):
    with pytest.raises(TypeError, match="divide by the scale, 32768"):
        retriever.encode_batch(wavs)


@pytest.mark.parametrize("wavs", [None, "a.wav", ["a.wav"]])
def test_no_waveform(wavs, retriever):
    with pytest.raises(TypeError, match="need to be tensors"):
        retriever.encode_batch(wavs)


def test_silence_and_single_samples_have_an_embedding(retriever):
    assert_unit(retriever.encode_batch(torch.zeros(2, 16000)), 2)
    assert_unit(retriever.encode_batch(torch.ones(1)), 1)


def test_similarity(retriever):
    texts = retriever.encode_text(["sad", "happy"])
    clips = retriever.encode_batch([clip(0.5), clip(0.5, 900), clip(1.0)])
    scores = retriever.similarity(texts, clips)
    assert scores.shape == (2, 3)
    by_hand = (texts[1] * clips[2]).sum()
    assert scores[1, 2].item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert retriever.similarity(texts[0], clips[0]).shape == (1, 1)


# Files


def write(path, wave, sample_rate=16000, **more):
    soundfile.write(path, np.asarray(wave), sample_rate, **more)
    return str(path)


def test_formats_rates_and_channels(retriever, tmp_path):
    # Whole numbers, so that WAV and FLAC hold the same.
    wave = (clip(1.5, 300).numpy() * 32767).astype("i2")
    stereo = np.stack([wave, wave], axis=1)
    fine, coarse = wave.repeat(3), wave[::2]
    opus = {"format": "OGG", "subtype": "OPUS"}
    paths = [
        write(tmp_path / "a.wav", wave),
        write(tmp_path / "b.flac", wave),
        write(tmp_path / "c.wav", stereo),
        write(tmp_path / "d.ogg", wave),
        write(tmp_path / "e.opus", wave, **opus),
        write(tmp_path / "f.mp3", wave),
        write(tmp_path / "g.wav", fine, 48000),
        write(tmp_path / "h.wav", np.stack([coarse, coarse], 1), 8000),
    ]
    rows, segments = retriever.encode_files(paths, progress=False)
    assert_unit(rows, 8)
    assert [segment.path for segment in segments] == paths
    assert all(abs(s.stop - 1.5) < 0.1 and s.start == 0 for s in segments)
    assert torch.allclose(rows[1:3], rows[0], atol=1e-4)
    assert (rows[3:] @ rows[0]).min() > 0.8
    assert retriever.skipped == []


def test_files_in_any_order_and_batch(retriever, write_tone, tmp_path):
    paths = [
        str(write_tone(tmp_path / f"{i}.wav", seconds, 200 + 90 * i))
        for i, seconds in enumerate([1.0, 0.25, 1.9, 0.6, 0.8, 1.3])
    ]
    rows, segments = retriever.encode_files(paths, progress=False)
    assert [segment.path for segment in segments] == paths
    for path, row in zip(paths, rows, strict=True):
        alone = retriever.encode_batch(read(path))
        assert torch.allclose(alone[0], row, atol=1e-4)
    backward, _ = retriever.encode_files(
        paths[::-1], batch_size=4, progress=False
    )
    assert torch.allclose(backward.flip(0), rows, atol=1e-4)
    assert len(retriever.index) == 6
    again, _ = retriever.encode_files(paths, progress=False)
    assert torch.equal(again, rows)
    folder, segments = retriever.encode_files(tmp_path, progress=False)
    assert torch.equal(folder, rows)
    one, _ = retriever.encode_files(paths[2], progress=False)
    assert torch.allclose(one, rows[2:3], atol=1e-4)
    with pytest.raises(ValueError, match="batch_size"):
        retriever.encode_files(paths, batch_size=0, progress=False)


def test_a_file_is_the_same_from_everywhere(
    retriever, write_tone, tmp_path, monkeypatch
):
    path = write_tone(tmp_path / "a" / "b.wav")
    retriever.encode_files(path, progress=False)
    for folder, source in (tmp_path, "a/b.wav"), (path.parent, "."):
        monkeypatch.chdir(folder)
        _, segments = retriever.encode_files(source, progress=False)
        assert [segment.path for segment in segments] == [str(path)]
    assert len(retriever.index) == 1


def write_broken(folder):
    """Writes files that cannot be used; returns path to reason."""
    folder.mkdir(exist_ok=True)
    nan = np.full(16000, 0.1, "f4")
    nan[8000] = np.nan
    whole = write(folder / "whole.flac", clip(1.0).numpy())
    flac = open(whole, "rb").read()
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "empty.wav").touch()
    (folder / "corrupt.wav").write_bytes(b"RIFF and nothing that follows")
    reasons = {
        str(folder / "absent.wav"): {"missing"},
        str(folder / "empty.wav"): {"empty"},
        str(folder / "corrupt.wav"): {"corrupt"},
        str(folder / "cut.flac"): {"corrupt", "truncated"},
        write(folder / "silent.wav", np.zeros(16000)): {"silent"},
        write(folder / "10ms.wav", clip(0.01)): {"too short"},
        write(folder / "nan.wav", nan, subtype="FLOAT"): {"not finite"},
    }
    return reasons


def test_broken_files_are_skipped_and_listed(retriever, tmp_path, write_tone):
    reasons = write_broken(tmp_path / "broken")
    good = [str(write_tone(tmp_path / f"{i}.wav")) for i in range(2)]
    paths = [good[0], *reasons, good[1]]
    rows, segments = retriever.encode_files(paths, progress=False)
    assert_unit(rows, 2)
    assert [segment.path for segment in segments] == good
    assert {skip.path for skip in retriever.skipped} == set(reasons)
    for skip in retriever.skipped:
        assert skip.reason in reasons[skip.path], skip
    assert len(retriever.index) == 2
    for path, reason in reasons.items():
        with pytest.raises(AudioError) as error:
            retriever.encode_files(path, progress=False, on_error="raise")
        assert error.value.path == path
        assert error.value.reason in reason
    with pytest.raises(ValueError, match="on_error"):
        retriever.encode_files(good, on_error="ignore")


def test_only_broken_files(retriever, tmp_path):
    rows, segments = retriever.encode_files(
        list(write_broken(tmp_path)), progress=False
    )
    assert rows.shape == (0, 16) and segments == []
    with pytest.raises(ValueError, match="encode_files"):
        retriever.search("sad")


def test_long_files_become_windows(retriever, tmp_path):
    wave = torch.cat([clip(1.0, 200 + 150 * i, i) for i in range(6)])
    wave = torch.cat([wave, clip(0.5)]).numpy()
    path = write(tmp_path / "long.wav", wave, subtype="FLOAT")
    rows, segments = retriever.encode_files([path], 3, progress=False)
    starts = [0.0, 1.0, 2.0, 3.0, 4.0, 4.5]
    assert segments == [Segment(path, s, s + 2.0) for s in starts]
    for row, start in zip(rows, starts, strict=True):
        first = round(16000 * start)
        alone = retriever.encode_batch(wave[first : first + 32000])
        assert torch.allclose(alone[0], row, atol=1e-4)


def test_a_long_file_is_opened_once(retriever, tmp_path, monkeypatch):
    """Opening an MP3 goes through all of it, so that windows come in one
    go; their lengths differ in the last digit and must not part them."""
    opened = []

    def counted(path, windows, *more):
        opened.append(windows)
        return read_windows(path, windows, *more)

    monkeypatch.setattr(batches, "read_windows", counted)
    monkeypatch.setattr(retriever.hparams, "hop_seconds", 0.3)
    path = write(tmp_path / "long.mp3", clip(6.0))
    _, segments = retriever.encode_files(path, progress=False)
    assert len({s.stop - s.start for s in segments}) > 1
    assert len(opened) == 1
    assert opened[0] == sorted(opened[0])


def test_pauses_of_a_long_file_are_left_out(retriever, tmp_path):
    wave = np.concatenate([clip(2.0), np.zeros(64000), clip(2.0, seed=1)])
    path = write(tmp_path / "pause.wav", wave)
    _, segments = retriever.encode_files([path], progress=False)
    assert [s.start for s in segments] == [0.0, 1.0, 5.0, 6.0]
    assert [(s.reason, s.detail) for s in retriever.skipped] == [
        ("silent", f"{i}.00 s to {i + 2}.00 s") for i in (2, 3, 4)
    ]
    retriever.encode_files([path], progress=False, on_error="raise")


def test_memory_does_not_grow_with_the_file(retriever, tmp_path):
    """Two minutes of eight channels are 180 MB of samples when decoded."""
    second = np.repeat(clip(1.0).numpy()[:, None], 3, axis=0)
    block = (np.repeat(second, 8, axis=1) * 32767).astype("i2")
    with soundfile.SoundFile(
        tmp_path / "long.wav", "w", 48000, 8, subtype="PCM_16"
    ) as file:
        for _ in range(120):
            file.write(block)
    retriever.hparams.hop_seconds = 2.0
    tracemalloc.start()
    try:
        rows, _ = retriever.encode_files(
            tmp_path / "long.wav", progress=False, n_workers=1
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        retriever.hparams.hop_seconds = 1.0
    assert len(rows) == 60
    assert peak < 40e6


# Manifests


def row(path, start, stop, channel=None):
    return {"wav": path, "start": start, "stop": stop, "channel": channel}


def test_clips_of_a_manifest(retriever, tmp_path, monkeypatch):
    left, right = clip(3.0).numpy(), clip(3.0, 900).numpy()
    stereo = np.stack([left, right], axis=1)
    path = write(tmp_path / "talk.wav", stereo, subtype="FLOAT")
    other = write(tmp_path / "other.wav", clip(0.7, 500), subtype="FLOAT")
    rows = [
        row(path, 0.5, 1.5, 1),
        row(other, 0.0, 0.7),
        row(path, 0.5, 1.5, 0),
        row(path, 0.0, 3.0, 1),
    ]
    embeddings, kept = retriever.encode_clips(rows, progress=False)
    assert_unit(embeddings, 4)
    assert kept == rows
    halves = [right[8000:24000], clip(0.7, 500).numpy(), left[8000:24000]]
    for embedding, wave in zip(embeddings, halves, strict=False):
        alone = retriever.encode_batch(wave)
        assert torch.allclose(alone[0], embedding, atol=1e-4)
    # The last is longer than a window and heard whole all the same, unless
    # it were too long for memory: then it is the mean of its two windows.
    whole = retriever.encode_batch(right)[0]
    assert torch.allclose(whole, embeddings[3], atol=1e-4)
    monkeypatch.setattr("esr_lobes.embedding.WHOLE_SECONDS", 2.0)
    embeddings, _ = retriever.encode_clips(rows, progress=False)
    windows = retriever.encode_batch([right[:32000], right[16000:]])
    mean = torch.nn.functional.normalize(windows.mean(0), dim=0)
    assert torch.allclose(mean, embeddings[3], atol=1e-4)
    assert len(retriever.index) == 0


def test_bad_clips_raise_or_are_skipped(retriever, tmp_path):
    path = write(tmp_path / "a.wav", clip(1.0))
    silent = write(tmp_path / "silent.wav", np.zeros(80000))
    good = [row(path, 0.0, 0.5), row(path, 0.5, 1.0)]
    bad = {
        "truncated": row(path, 0.5, 1.5),
        "no such channel": row(path, 0.0, 1.0, 3),
        "silent": row(silent, 0.0, 5.0),
        "too short": row(path, 0.0, 0.1),
        "missing": row(str(tmp_path / "b.wav"), 0.0, 1.0),
    }
    embeddings, kept = retriever.encode_clips(
        [good[0], *bad.values(), good[1]], progress=False, on_error="skip"
    )
    assert kept == good
    assert torch.allclose(
        embeddings, retriever.encode_clips(good, progress=False)[0], atol=1e-4
    )
    assert {skip.reason for skip in retriever.skipped} == set(bad)
    for reason, one in bad.items():
        with pytest.raises(AudioError) as error:
            retriever.encode_clips([*good, one], progress=False)
        assert error.value.reason == reason
    # A clip with a pause is no fault, and not the one to be named.
    paused = write(
        tmp_path / "paused.wav", np.concatenate([clip(2.0), np.zeros(64000)])
    )
    clips = [row(paused, 0.0, 6.0), bad["silent"]]
    with pytest.raises(AudioError, match="silent.wav"):
        retriever.encode_clips(clips, progress=False)
    assert retriever.encode_clips(clips[:1], progress=False)[1] == clips[:1]


# Searching


def test_search_finds_what_sounds_alike(retriever, write_tone, tmp_path):
    for hertz in 200, 800, 3200:
        for i in range(3):
            path = tmp_path / f"{hertz}_{i}.wav"
            write_tone(path, 1.0 + 0.1 * i, hertz, seed=i)
    retriever.encode_files(tmp_path, progress=False)
    for hertz in 200, 800, 3200:
        heard = retriever.encode_batch(clip(1.2, hertz, seed=7))
        hits = retriever.search(heard, k=3)
        assert all(f"{hertz}_" in hit.segment.path for hit in hits)
        assert [hit.rank for hit in hits] == [0, 1, 2]


def test_search_by_words(retriever, write_tone, tmp_path):
    paths = [
        str(write_tone(tmp_path / f"{hertz}.wav", 0.6, hertz))
        for hertz in (150, 400, 1500, 5000)
    ]
    rows, _ = retriever.encode_files(paths, progress=False)
    scores = retriever.similarity(retriever.encode_text("sad"), rows)[0]
    hits = retriever.search("sad")
    best = scores.argsort(descending=True).tolist()
    assert [hit.segment.path for hit in hits] == [paths[i] for i in best]
    assert hits[0].score == pytest.approx(scores.max().item(), abs=1e-5)
    threshold = (hits[1].score + hits[2].score) / 2
    assert retriever.search("sad", threshold=threshold) == hits[:2]
    assert retriever.search("sad", k=1) == hits[:1]
    # Several descriptions: the mean of the cosines.
    texts = retriever.encode_text(["sad", "a calm voice"])
    means = retriever.similarity(texts, rows).mean(dim=0)
    both = retriever.search(["sad", "a calm voice"])
    assert both[0].score == pytest.approx(means.max().item(), abs=1e-5)
    assert both == retriever.search(texts)


def test_search_by_a_vector_and_with_bad_arguments(
    retriever, write_tone, tmp_path
):
    retriever.encode_files(write_tone(tmp_path / "a.wav"), progress=False)
    vectors = retriever.encode_text(["sad", "calm"])
    for query in vectors[0], vectors, vectors[:1].double():
        assert retriever.search(query.numpy()) == retriever.search(query)
    for k in 0, 2.0:
        with pytest.raises(ValueError, match="k must be positive"):
            retriever.search("sad", k=k)
    with pytest.raises(ValueError, match="threshold"):
        retriever.search("sad", threshold="a")
    for query in np.ones(3), np.ones((2, 2, 16)), np.arange(16), None:
        with pytest.raises(ValueError, match="need shape|in words"):
            retriever.search(query)


def test_search_before_anything_is_embedded(retriever):
    with pytest.raises(ValueError, match="encode_files"):
        retriever.search("sad")
