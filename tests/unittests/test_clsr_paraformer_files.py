"""Folders of Paraformer, FunASR's and ours, through the real loading code.

Authors
 * The esr_lobes contributors
"""

import argparse
import dataclasses
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.paraformer_config import ParaformerConfig
from esr_lobes.clsr.paraformer_files import open_paraformer
from esr_lobes.errors import MendableError
from esr_lobes.weights import WeightsError

SMALL = ParaformerConfig(
    vocab=6,
    n_mels=8,
    width=16,
    encoder_heads=2,
    encoder_ffn=32,
    encoder_layers=2,
    decoder_heads=4,
    decoder_ffn=24,
    decoder_layers=1,
)
TOKENS = ["<blank>", "<s>", "</s>", "hal@@", "lo", "world"]
# As released, but small.
PAGE = """
model: Paraformer
model_conf:
    ctc_weight: 0.0
    lsm_weight: 0.1
    length_normalized_loss: true
    predictor_weight: 1.0
    predictor_bias: 1
    sampling_ratio: 0.75
encoder: SANMEncoder
encoder_conf:
    output_size: 16
    attention_heads: 2
    linear_units: 32
    num_blocks: 2
    dropout_rate: 0.1
    positional_dropout_rate: 0.1
    attention_dropout_rate: 0.1
    input_layer: pe
    pos_enc_class: SinusoidalPositionEncoder
    normalize_before: true
    kernel_size: 11
    sanm_shfit: 0
    selfattention_layer_type: sanm
decoder: ParaformerSANMDecoder
decoder_conf:
    attention_heads: 4
    linear_units: 24
    num_blocks: 1
    dropout_rate: 0.1
    positional_dropout_rate: 0.1
    att_layer_num: 1
    kernel_size: 11
    sanm_shfit: 0
predictor: CifPredictorV2
predictor_conf:
    idim: 16
    threshold: 1.0
    l_order: 1
    r_order: 1
    tail_threshold: 0.45
frontend: WavFrontend
frontend_conf:
    fs: 16000
    window: hamming
    n_mels: 8
    frame_length: 25
    frame_shift: 10
    lfr_m: 7
    lfr_n: 6
tokenizer: CharTokenizer
"""
BATCH = 0.1 * torch.randn(2, 9000), torch.tensor([1.0, 0.6])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    cmvn = torch.randn(56), 0.3 + torch.rand(56)
    model = Paraformer.from_config(SMALL, cmvn, TOKENS).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        # Written as text, as an am.mvn is.
        for values in (model.frontend.shift, model.frontend.scale):
            values.copy_(torch.tensor([float(f"{v:.5f}") for v in values]))
    return model


def write(folder, model, page=PAGE, wrap=None, extra=(), without=()):
    """Writes a folder as FunASR releases one."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(page)
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    lines = ["<Nnet>"]
    values = {"AddShift": model.frontend.shift, "Rescale": model.frontend.scale}
    for tag, row in values.items():
        numbers = " ".join(f"{value:.5f}" for value in row.tolist())
        lines += [f"<{tag}> 56 56", f"<LearnRateCoef> 0 [ {numbers} ]"]
    (folder / "am.mvn").write_text("\n".join([*lines, "</Nnet>"]))
    weights = {
        name: weight
        for name, weight in model.state_dict().items()
        if not name.startswith("frontend.") and name not in without
    }
    weights |= dict(extra)
    torch.save({wrap: weights} if wrap else weights, folder / "model.pt")
    return folder


def check_same(model, found):
    assert found.config == SMALL and found.tokens == TOKENS
    assert not found.training
    with torch.no_grad():
        expected, output = model(*BATCH), found(*BATCH)
    assert torch.equal(expected.logits, output.logits)
    assert torch.equal(expected.alphas, output.alphas)
    assert all(p.requires_grad and not p.is_meta for p in found.parameters())
    assert not any(buffer.is_meta for buffer in found.buffers())


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_folder_of_funasr_opens(model, tmp_path, wrap):
    check_same(model, open_paraformer(write(tmp_path, model, wrap=wrap)))


def test_keys_of_the_variants_are_ignored_by_name(model, tmp_path):
    names = ["predictor.upsample_cnn.weight", "predictor.blstm.weight_ih_l0"]
    names += ["predictor.cif_output2.bias", "bias_encoder.weight_hh_l0"]
    names += ["seaco_decoder.after_norm.bias", "hotword_output_layer.weight"]
    extra = {name: torch.ones(3) for name in names}
    check_same(model, open_paraformer(write(tmp_path, model, extra=extra)))
    write(tmp_path, model, extra={"predictor.other.weight": torch.ones(3)})
    with pytest.raises(WeightsError, match=r"1 unexpected \(predictor.other"):
        open_paraformer(tmp_path)


def test_a_saved_one_gives_the_same_and_holds_no_pickle(model, tmp_path):
    model.save(tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["model.safetensors", "paraformer.json", "tokens.json"]
    found = open_paraformer(tmp_path / "copy")
    check_same(model, found)
    found.save(tmp_path / "copy")  # over the file it may be mapped from
    check_same(model, open_paraformer(tmp_path / "copy"))


def test_opening_draws_no_random_number(model, tmp_path):
    model.save(tmp_path)
    state = torch.get_rng_state()
    open_paraformer(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


def test_another_vocabulary_changes_the_rows_and_nothing_else(model, tmp_path):
    """Rows of tokens that both have are copied; special ids follow."""
    tokens = ["[PAD]", "world", "</s>", "##lo", "lo", "hello", "you"]
    torch.manual_seed(0)
    found = open_paraformer(write(tmp_path, model), tokens)
    assert found.tokens == tokens and found.config.vocab == 7
    assert (found.config.blank_id, found.config.sos_id) == (None, None)
    assert found.config.eos_id == 2 and found.predictor_bias == 1
    new, old = found.state_dict(), model.state_dict()
    rows = {"embed.0.weight", "output_layer.weight", "output_layer.bias"}
    for name, value in new.items():
        if name.removeprefix("decoder.") not in rows:
            assert torch.equal(value, old[name]), name
            continue
        for i, j in ((1, 5), (2, 2), (4, 4)):
            assert torch.equal(value[i], old[name][j])
        if value.ndim == 2:
            drawn = value[[0, 3, 5, 6]]
            assert 0.01 < drawn.std() < 0.03 and drawn.mean().abs() < 0.01
        else:
            assert value[[0, 3, 5, 6]].abs().sum() == 0
    found.save(tmp_path / "copy")
    again = open_paraformer(tmp_path / "copy")
    assert again.config == found.config and again.tokens == tokens


def test_a_vocabulary_without_an_end_has_none(model, tmp_path):
    found = open_paraformer(
        write(tmp_path, model),
        ["a", "b", "c", "d"],
        share_embedding=True,
        masked_ids=[3],
        sampling_ratio=0.5,
    )
    assert found.predictor_bias == 0 and found.sampling_ratio == 0.5
    assert found.is_masked.tolist() == [False, False, False, True]
    assert "decoder.embed.0.weight" not in found.state_dict()
    assert not found.dropped_ids


def test_embeddings_may_be_shared_afterwards_or_parted(model, tmp_path):
    shared = open_paraformer(write(tmp_path, model), share_embedding=True)
    ids = torch.tensor([[3, 5]])
    rows = model.decoder.output_layer.weight[ids]
    assert torch.equal(shared.decoder.embed_tokens(ids), rows)
    shared.save(tmp_path / "shared")
    parted = open_paraformer(tmp_path / "shared", share_embedding=False)
    assert torch.equal(parted.decoder.embed_tokens(ids), rows)
    own = parted.decoder.embed[0].weight
    assert own.data_ptr() != parted.decoder.output_layer.weight.data_ptr()


def test_a_page_may_say_nothing_and_sizes_are_those_of_the_large(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: Paraformer\n")
    config = ParaformerConfig.from_yaml(path, 8404)
    assert config == ParaformerConfig(vocab=8404)
    assert (config.encoder_layers, config.decoder_layers) == (50, 16)


def test_a_page_is_read_whole(tmp_path):
    path = tmp_path / "config.yaml"
    page = yaml.safe_load(PAGE)
    page["model_conf"] |= {"predictor_bias": 0, "sampling_ratio": 0.4}
    page["model_conf"] |= {"share_embedding": True, "sos": 3, "eos": 4}
    page["encoder_conf"] |= {"kernel_size": 7, "dropout_rate": "2e-1"}
    page["decoder_conf"] |= {"kernel_size": 5, "dropout_rate": 0}
    page["predictor_conf"]["tail_threshold"] = 0.3
    path.write_text(yaml.safe_dump(page))
    expected = dataclasses.replace(
        SMALL,
        predictor_bias=0,
        sampling_ratio=0.4,
        share_embedding=True,
        sos_id=3,
        eos_id=4,
        encoder_kernel=7,
        encoder_dropout=0.2,
        decoder_kernel=5,
        decoder_dropout=0.0,
        tail=0.3,
    )
    assert ParaformerConfig.from_yaml(path, 6) == expected


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("input_layer: pe", "input_layer: conv2d", "input_layer"),
        ("threshold: 1.0", "threshold: 0.9", "threshold of predictor_conf"),
        ("att_layer_num: 1", "att_layer_num: 0", "att_layer_num"),
        ("fs: 16000", "fs: 8000", "fs of frontend_conf"),
        ("num_blocks: 2", "num_blocks: many", "encoder_layers 'many'"),
        ("num_blocks: 2", "num_blocks: 99999", "256"),
        ("attention_heads: 2", "attention_heads: 3", "multiple of 3 heads"),
        ("sampling_ratio: 0.75", "sampling_ratio: .nan", "sampling_ratio is"),
        ("sampling_ratio: 0.75", "sampling_ratio: 1.5", "above 1"),
        ("ctc_weight: 0.0", "sos: 6", "special id 6"),
        ("sanm_shfit: 0", "sanm_shfit: 5", "sanm_shfit"),
        ("encoder_conf:", "encoder_conf: &a\n    b: *a", "aliases"),
        ("encoder_conf:", "encoder_conf: 3\nother:", "describes no Paraformer"),
        (PAGE, "[" * 50, "describes no Paraformer"),
        (PAGE, "- a list", "describes no Paraformer"),
    ],
)
def test_another_architecture_is_refused(model, tmp_path, old, new, said):
    write(tmp_path, model, page=PAGE.replace(old, new, 1))
    with pytest.raises(WeightsError, match=said):
        open_paraformer(tmp_path)


def test_every_tensor_must_be_there_and_fit(model, tmp_path):
    write(tmp_path, model, without=["decoder.output_layer.bias"])
    with pytest.raises(WeightsError, match=r"1 missing \(decoder.output_l"):
        open_paraformer(tmp_path)
    with pytest.raises(WeightsError, match="1 missing"):  # not made up either
        open_paraformer(tmp_path, ["a", "b"])
    wrong = {"encoder.after_norm.bias": torch.ones(3)}
    write(tmp_path, model, extra=wrong)
    with pytest.raises(WeightsError, match=r"\[3\] for \[16\]"):
        open_paraformer(tmp_path)
    write(
        tmp_path, model, extra={"encoder.after_norm.bias": torch.ones(16) / 0}
    )
    with pytest.raises(WeightsError, match="1 not finite"):
        open_paraformer(tmp_path)
    write(tmp_path, model)
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS[:-1]))
    with pytest.raises(WeightsError, match=r"\[6, 16\] for \[5, 16\]"):
        open_paraformer(tmp_path)


def test_nothing_but_tensors_is_unpickled(model, tmp_path):
    write(tmp_path, model, extra={"hidden": argparse.Namespace(a=1)})
    with pytest.raises(WeightsError, match="it holds argparse.Namespace"):
        open_paraformer(tmp_path)
    write(tmp_path, model, extra={"number": 3})
    with pytest.raises(WeightsError, match="holds a int as number"):
        open_paraformer(tmp_path)
    torch.save([torch.ones(1)], tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="no state_dict"):
        open_paraformer(tmp_path)


@pytest.mark.parametrize(
    "name", ["config.yaml", "am.mvn", "tokens.json", "model.pt"]
)
def test_a_missing_file_is_named(model, tmp_path, name):
    (write(tmp_path, model) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in"):
        open_paraformer(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1, 2]", "[]"])
def test_tokens_are_a_list_of_texts(model, tmp_path, text):
    (write(tmp_path, model) / "tokens.json").write_text(text)
    with pytest.raises(WeightsError, match="tokens.json"):
        open_paraformer(tmp_path)


def test_changes_are_of_what_there_is(model, tmp_path):
    model.save(tmp_path)
    with pytest.raises(MendableError, match="no lambda; what may differ"):
        open_paraformer(tmp_path, **{"lambda": 1})
    with pytest.raises(WeightsError, match="of another shape"):
        open_paraformer(tmp_path, encoder_ffn=8)
    with pytest.raises(WeightsError, match="sampling_ratio"):
        open_paraformer(tmp_path, sampling_ratio=2.0)


def test_a_damaged_folder_of_ours_is_refused(model, tmp_path):
    model.save(tmp_path)
    sizes = tmp_path / "paraformer.json"
    text = sizes.read_text()
    for wrong in ("{", "[]", '{"vocab": -1}', '{"vocab": 6, "other": 1}'):
        sizes.write_text(wrong)
        with pytest.raises(WeightsError, match="paraformer.json"):
            open_paraformer(tmp_path)
    sizes.write_text(text.replace('"vocab": 6', '"vocab": 7'))
    with pytest.raises(WeightsError, match="has 6 tokens.*says 7"):
        open_paraformer(tmp_path)
    sizes.write_text(text)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "shift" not in k}, path)
    with pytest.raises(WeightsError, match="1 missing"):
        open_paraformer(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="damaged"):
        open_paraformer(tmp_path)


def test_one_without_sizes_or_tokens_is_not_saved(model, tmp_path):
    parts = (model.frontend, model.encoder, model.predictor, model.decoder)
    for other in (Paraformer(*parts), Paraformer.from_config(SMALL)):
        with pytest.raises(MendableError, match="build it with"):
            other.save(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_sizes_may_be_a_mapping_as_on_a_page():
    model = Paraformer.from_config(
        {"vocab": 6, "encoder_layers": 1}, device="meta"
    )
    assert model.config == ParaformerConfig(vocab=6, encoder_layers=1)
    with pytest.raises(WeightsError, match="width 512 is no multiple of 3"):
        Paraformer.from_config({"vocab": 6, "encoder_heads": 3})
