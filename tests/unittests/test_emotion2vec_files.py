"""Checkpoints of emotion2vec in every layout, through the real loading code.

Authors
 * The esr_lobes contributors
"""

import argparse
import json
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from esr_lobes.encoders.emotion2vec import Emotion2vec, Emotion2vecConfig
from esr_lobes.encoders.emotion2vec_config import (
    config_text,
    parse_convs,
    read_config,
)
from esr_lobes.encoders.emotion2vec_files import read_weights
from esr_lobes.weights import WeightsError

SMALL = Emotion2vecConfig(
    embed_dim=24,
    depth=1,
    prenet_depth=1,
    conv_layers=((8, 10, 5), (8, 3, 2)),
    conv_pos_groups=4,
)
SCALE = "modality_encoders.AUDIO.alibi_scale"
BATCH = torch.randn(1, 400), torch.ones(1)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = Emotion2vec.from_config(SMALL).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return encoder


def write(folder, checkpoint, name="model.pt", config=True):
    """Writes a folder as FunASR's or fairseq's would be."""
    folder.mkdir(exist_ok=True)
    if config:
        (folder / "config.yaml").write_text(config_text(SMALL))
    torch.save(checkpoint, folder / name)
    return folder


def check_same(encoder, folder, **options):
    loaded = Emotion2vec(str(folder), local_files_only=True, **options).eval()
    assert loaded.config == SMALL
    with torch.no_grad():
        assert torch.equal(loaded(*BATCH), encoder(*BATCH))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert all(p.requires_grad for p in loaded.parameters())


def test_saved_encoder_gives_the_same(encoder, tmp_path):
    encoder.save(tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["config.yaml", "model.safetensors"]
    check_same(encoder, tmp_path / "copy")
    loaded = Emotion2vec(tmp_path / "copy")
    loaded.save(tmp_path / "copy")  # over the file it may be mapped from
    check_same(encoder, tmp_path / "copy")


def test_loading_draws_no_random_number(encoder, tmp_path):
    encoder.save(tmp_path)
    state = torch.get_rng_state()
    Emotion2vec(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["model.pt", "emotion2vec_base.pt", "any.pt"])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "d2v_model.", "w2v_encoder.w2v_model."]
)
def test_layouts(encoder, tmp_path, name, wrapper, prefix):
    state = {prefix + k: v for k, v in encoder.state_dict().items()}
    state = {wrapper: state, "epoch": 3} if wrapper else state
    check_same(encoder, write(tmp_path / "e2v", state, name))


def test_configuration_names_the_files(encoder, tmp_path):
    folder = write(tmp_path / "e2v", {}, "model.pt", config=False)
    torch.save({"model": encoder.state_dict()}, folder / "weights.pt")
    (folder / "sizes.yaml").write_text(config_text(SMALL))
    metas = {"config": "sizes.yaml", "init_param": "weights.pt"}
    index = folder / "configuration.json"
    index.write_text(json.dumps({"file_path_metas": metas}))
    check_same(encoder, folder)
    for name in ("../weights.pt", str(folder / "weights.pt")):
        metas["init_param"] = name
        index.write_text(json.dumps({"file_path_metas": metas}))
        with pytest.raises(WeightsError, match="outside of its folder"):
            Emotion2vec(folder)
    index.write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        Emotion2vec(folder)


def test_safetensors_come_first(encoder, tmp_path):
    folder = write(tmp_path / "e2v", {"broken": torch.ones(1)})
    encoder.save(folder)
    check_same(encoder, folder)


def test_what_pretraining_left_is_dropped(encoder, tmp_path):
    state = dict(encoder.state_dict())
    state[SCALE] = state[SCALE].reshape(1, 12, 1, 1)  # as in older files
    audio = "modality_encoders.AUDIO"
    for name in (
        f"{audio}.decoder.blocks.0.0.weight",
        f"{audio}.decoder.proj.bias",
        "proj.weight",
        "recon_proj.bias",
        "some_target.weight",
    ):
        state[name] = torch.ones(3)
    state["_ema"] = {"blocks.0.norm1.weight": torch.ones(24)}
    check_same(encoder, write(tmp_path / "e2v", {"model": state}))


def test_half_precision_is_read_as_float32(encoder, tmp_path):
    state = {k: v.half() for k, v in encoder.state_dict().items()}
    loaded = Emotion2vec(write(tmp_path / "e2v", state))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def _change(state, fault):
    name = "blocks.0.norm1.weight"
    if fault == "missing":
        del state[name]
    elif fault == "unexpected":
        state["blocks.7.norm1.weight"] = torch.ones(24)
    elif fault == "of another shape":
        state[name] = torch.ones(23)
    elif fault == "not finite":
        state[name] = torch.full((24,), torch.nan)
    elif fault == "twice":
        state[f"module.{name}"] = state[name]
    elif fault == "no tensor":
        state[name] = [1.0]
    return state


@pytest.mark.parametrize(
    "fault",
    ["missing", "unexpected", "of another shape", "not finite", "twice"]
    + ["no tensor"],
)
def test_nothing_but_whole_checkpoints_is_loaded(encoder, tmp_path, fault):
    """FunASR keeps random weights in place of what does not fit, silently."""
    state = _change(dict(encoder.state_dict()), fault)
    folder = write(tmp_path / "e2v", state)
    with pytest.raises(WeightsError, match=fault) as caught:
        Emotion2vec(folder)
    assert "norm1.weight" in str(caught.value)


def test_a_foreign_prefix_is_told_by_its_keys(encoder, tmp_path):
    state = {f"speech.{k}": v for k, v in encoder.state_dict().items()}
    n_keys = len(state)
    match = f"{n_keys} missing .*{n_keys} unexpected .speech.blocks"
    with pytest.raises(WeightsError, match=match):
        Emotion2vec(write(tmp_path / "e2v", state))


def test_base_is_assumed_where_no_size_is_stated(encoder, tmp_path):
    folder = write(tmp_path / "e2v", encoder.state_dict(), config=False)
    assert read_config(folder / "config.yaml") == Emotion2vecConfig()
    with pytest.raises(WeightsError, match="or of the base model"):
        Emotion2vec(folder)
    (folder / "config.yaml").write_text("model: Emotion2vec\n")
    assert read_config(folder / "config.yaml") == Emotion2vecConfig()


def test_objects_are_unpickled_on_request_only(encoder, tmp_path):
    checkpoint = {
        "args": argparse.Namespace(arch="data2vec_multi"),
        "model": encoder.state_dict(),
    }
    folder = write(tmp_path / "e2v", checkpoint)
    with pytest.raises(WeightsError, match="trust_pickle=True"):
        Emotion2vec(folder)
    check_same(encoder, folder, trust_pickle=True)


@pytest.mark.parametrize("name", ["w.yaml", "w.dat", "w.PT", "w", "w.bin"])
def test_weights_of_other_names_are_no_weights(encoder, tmp_path, name):
    """Code in a pickle runs when it is opened: none must pass for a page."""
    folder = write(tmp_path / "e2v", encoder.state_dict(), name)
    metas = {"file_path_metas": {"init_param": name}}
    (folder / "configuration.json").write_text(json.dumps(metas))
    for trust in (False, True):
        with pytest.raises(WeightsError, match=f"{name} is no file of weights"):
            Emotion2vec(folder, trust_pickle=trust)
    torch.save(encoder.state_dict(), folder / "w.pth")
    (folder / "configuration.json").write_text(
        json.dumps({"file_path_metas": {"init_param": "w.pth"}})
    )
    check_same(encoder, folder)


def test_damaged_files_are_refused_however_trusted(encoder, tmp_path):
    folder = write(tmp_path / "e2v", encoder.state_dict())
    path = folder / "model.pt"
    path.write_bytes(path.read_bytes()[:5000])
    for trust in (False, True):
        with pytest.raises(WeightsError, match="model.pt"):
            Emotion2vec(folder, trust_pickle=trust)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for trust in (False, True):
        with pytest.raises(WeightsError, match="model.pt"):
            Emotion2vec(folder, trust_pickle=trust)
    torch.save([torch.ones(1)], path)
    with pytest.raises(WeightsError, match="no state_dict"):
        read_weights(path)


def test_folders_without_or_with_too_many_weights(tmp_path):
    with pytest.raises(WeightsError, match="none"):
        Emotion2vec(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(WeightsError, match="a.pt, b.pt"):
        Emotion2vec(tmp_path)


@pytest.mark.parametrize("local_files_only", [True, False])
@pytest.mark.parametrize("source", ["nobody/no-such-model", "/no/such/folder"])
def test_a_source_that_is_not_there_says_so(source, local_files_only):
    with pytest.raises(FileNotFoundError, match="give its folder"):
        Emotion2vec(source, local_files_only=local_files_only)


def test_a_hub_id_is_read_from_the_cache(encoder, tmp_path, monkeypatch):
    """The layout of the hub's cache, whose files are links to elsewhere."""
    repo = tmp_path / "hub/models--someone--e2v"
    snapshot = repo / "snapshots/abc"
    encoder.save(tmp_path / "saved")
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("abc")
    (repo / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "saved").iterdir():
        path.rename(repo / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub")
    )
    check_same(encoder, "someone/e2v")


# Sizes


def test_numbers_of_a_page_are_read_as_meant(tmp_path):
    """PyYAML takes 1e-05 for text; FunASR evaluates the convolutions."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_conf:\n"
        "  embed_dim: 1024\n"
        "  num_heads: 16\n"
        "  norm_eps: 1e-06\n"
        "  loss_beta: 0\n"
        "  modalities:\n"
        "    audio:\n"
        "      prenet_depth: 3\n"
        "      feature_encoder_spec: "
        "'[(512, 10, 5)] + [(512,3,2)] * 4 + [(512,2,2)] + [(512,2,2)]'\n"
    )
    assert read_config(path) == Emotion2vecConfig(
        embed_dim=1024, num_heads=16, norm_eps=1e-6, prenet_depth=3
    )


def test_sizes_survive_writing(tmp_path):
    path = tmp_path / "config.yaml"
    for config in (SMALL, Emotion2vecConfig()):
        path.write_text(config_text(config))
        assert read_config(path) == config


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "[(512, 10, 5)] * 10**9",
        "[(512, 10, 5)] * 1000000000",
        "[(512, 10)]",
        "[(512, 10, 5.0)]",
        "(512, 10, 5)",
        "[(512, 10, 5)] + 3",
        "[",
        "512",
        "(" * 5000,
        "[(1, 1, 1)] * 128 * 128 * 128 * 16",
        "16 * (128 * [(1, 1, 1)])",
        "[(1, 1, 1)] * 33",
        "[(1, 1, 1)] * 32 + [(1, 1, 1)]",
        "[(1, 1, 65537)]",
        "[] * 65537",
        "+".join(["[(1, 1, 1)]"] * 5000),
    ],
)
def test_only_lists_of_convolutions_are_read(text):
    start = time.monotonic()
    with pytest.raises(ValueError, match="no list of") as caught:
        parse_convs(text)
    assert time.monotonic() - start < 1
    assert len(str(caught.value)) < 150


def test_as_many_convolutions_as_may_be():
    assert parse_convs("[(1, 2, 1)] * 16 * 2") == ((1, 2, 1),) * 32


@pytest.mark.parametrize(
    "sizes, reason",
    [
        # 2.8e14 samples, to which a first clip would be brought.
        ({"conv_layers": ((16, 65536, 65536),) * 3}, "more than 65536 samples"),
        ({"conv_layers": ((16, 2, 2),) * 17}, "more than 65536 samples"),
        ({"conv_layers": ((16, 65537, 1),)}, "kernel or stride 65537"),
        ({"conv_layers": ((16, 10, 0),)}, "kernel or stride 0"),
        ({"conv_layers": ((16, 10, 11),)}, "a kernel of 10 at stride 11"),
        ({"conv_layers": ((0, 10, 5),)}, "conv_layers 0"),
        ({"conv_layers": ((16, 1, 1),) * 33}, "33 convolutions"),
        ({"conv_layers": ()}, "not enough values"),
        ({"num_extra_tokens": 1025}, "num_extra_tokens 1025"),
        ({"num_heads": 768}, "num_heads 768"),
        ({"embed_dim": 770}, "embed_dim 770 is no multiple of num_heads 12"),
        ({"embed_dim": 61440}, "times mlp_ratio 4.0"),
        ({"mlp_ratio": float("nan")}, "times mlp_ratio nan"),
        ({"norm_eps": 1.0}, "norm_eps is 1.0"),
        ({"depth": 10**4000}, "depth 1000"),
    ],
)
def test_impossible_sizes_are_named(sizes, reason):
    with pytest.raises(WeightsError, match=reason) as caught:
        Emotion2vecConfig(**sizes)
    assert len(str(caught.value)) < 200
    at_most = Emotion2vecConfig(conv_layers=((16, 2, 2),) * 16)
    assert at_most.min_samples == 65536


def test_pages_that_would_become_large(tmp_path):
    """Nine lines of aliases stand for 10^9 words, which a message showed."""
    aliases = ["  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        parts = ", ".join([f"*a{i - 1}"] * 10)
        aliases.append(f"  a{i}: &a{i} [{parts}]")
    bombs = {
        "aliases": "\n".join([*aliases, "  layer_norm_first: *a8"]),
        "one alias": "  a: &a 1\n  depth: *a",
        "convolutions": "  modalities: {audio: {feature_encoder_spec: "
        "'[(1,1,1)]*128*128*128*16'}}",
        "bytes": f"  note: {'x' * 100_000}",
        "nesting": "  note: " + "[" * 50_000,
        "text": f"  layer_norm_first: {'x' * 90_000}",
        "number": f"  depth: 0x{'f' * 90_000}",
        "float": f"  mlp_ratio: 0x{'f' * 4000}",
        "endless": "  depth: .inf",
        "heads": f"  num_alibi_heads: {'x' * 90_000}",
        "words": f"  depth: {'x' * 90_000}",
    }
    path = tmp_path / "config.yaml"
    for name, lines in bombs.items():
        path.write_text(f"model_conf:\n{lines}\n")
        start = time.monotonic()
        with pytest.raises(WeightsError, match="no emotion2vec") as caught:
            read_config(path)
        assert time.monotonic() - start < 5, name
        assert len(str(caught.value)) < 1000, name


def test_sizes_beyond_the_weights_take_no_memory(encoder, tmp_path):
    """10 TB of weights: shapes are compared before anything is made."""
    encoder.save(tmp_path)
    page = yaml.safe_load(config_text(SMALL))
    page["model_conf"] |= {"embed_dim": 49152, "depth": 128, "mlp_ratio": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(page))
    start = time.monotonic()
    with pytest.raises(WeightsError, match="of another shape"):
        Emotion2vec(tmp_path)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"embed_dim": 25}, "sizes"),
        ({"depth": 0}, "sizes"),
        ({"depth": 10**6}, "sizes"),
        ({"depth": "many"}, "invalid literal"),
        ({"layer_norm_first": True}, "layer_norm_first is True"),
        ({"modalities": {"audio": {"learned_alibi": True}}}, "learned_alibi"),
        (
            {"embed_dim": 48, "modalities": {"audio": {"num_alibi_heads": 3}}},
            "num_alibi_heads is 3",
        ),
        ({"modalities": ["audio"]}, "AttributeError"),
    ],
)
def test_other_architectures_are_refused(tmp_path, change, reason):
    path = tmp_path / "config.yaml"
    page = yaml.safe_load(config_text(SMALL))
    page["model_conf"] |= change
    path.write_text(yaml.safe_dump(page))
    with pytest.raises(WeightsError, match=reason):
        read_config(path)


@pytest.mark.parametrize("text", ["[", "- a", "'text'", "model_conf: 3"])
def test_broken_pages_are_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(WeightsError, match="describes no emotion2vec"):
        read_config(path)


def test_saved_tensors_have_the_names_of_funasr(encoder, tmp_path):
    encoder.save(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names == encoder.state_dict().keys() and SCALE in names
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="missing"):
        Emotion2vec(tmp_path)
