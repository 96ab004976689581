"""From a name to a folder, from a page to objects: what is refused, and how.

Authors
 * The esr_lobes contributors
"""

import pytest
from ruamel.yaml import YAML
from torch import nn

from esr_lobes.encoders.emotion2vec import Emotion2vec
from esr_lobes.encoders.huggingface import HuggingFaceSpeech
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.export import retriever_page
from esr_lobes.heads import Projection
from esr_lobes.opening import (
    build,
    check_numbers,
    plain_values,
    read_page,
    with_folder,
)
from esr_lobes.pages import PageError

NUMBERS = {
    "sample_rate": 16000,
    "embedding_size": 8,
    "max_seconds": 2,
    "hop_seconds": 2.0,
    "min_seconds": 0.1,
}


@pytest.mark.parametrize(
    "page, is_set",
    [
        ("folder: .", True),
        ("'folder' : .", True),
        ('"folder": .', True),
        ("{a: 1, folder: .}", True),
        ("? folder\n: .", True),
        ("# folder: .\na: 1", False),
        ("a: |\n    folder: .", False),
        ("a: {folder: .}", False),
        ("a: 'x\n\n  folder: y'", False),
    ],
)
def test_folder_is_set_where_it_is_a_key(page, is_set, tmp_path):
    overrides = with_folder(page, None, tmp_path)
    assert overrides == ({"folder": str(tmp_path)} if is_set else {})


def test_the_callers_folder_goes_first(tmp_path):
    overrides = with_folder("folder: .", "folder: /mine", tmp_path)
    assert overrides == {"folder": "/mine"}


def test_the_callers_overrides_are_left_alone(tmp_path):
    mine = {"a": 1}
    assert with_folder("folder: .", mine, tmp_path) != mine
    assert mine == {"a": 1}


def test_a_page_without_folder_may_lie_anywhere(tmp_path):
    assert with_folder("a: 1", None, tmp_path / "<seed>") == {}
    with pytest.raises(PageError, match="rename .*<seed>"):
        with_folder("folder: .", None, tmp_path / "<seed>")


def test_keys_that_are_no_names():
    with pytest.raises(PageError, match="line 2: '1' is no name"):
        build("a: 1\n1: 2", {}, "page.yaml")
    with pytest.raises(PageError, match="line 1: 'true' is no name"):
        build("true: 2", {}, "page.yaml")


def test_build_says_what_was_the_matter():
    page = "a: !new:collections.OrderedDict [1]\n"
    with pytest.raises(PageError, match="page.yaml cannot.*OrderedDict.*iter"):
        build(page, {}, "page.yaml")
    with pytest.raises(PageError, match='"b" is not valid'):
        build("a: !ref <b>", {}, "page.yaml")
    with pytest.raises(PageError, match="zero"):
        build("a: !ref <b> / 0\nb: 1", {}, "page.yaml")
    assert build("a: !ref <b> * 2\nb: 1", {"b": 3}, "page.yaml")["a"] == 6
    with pytest.raises(PageError, match="no key 'bb'.*did you mean 'bbb'"):
        build("bbb: 1", {"bb": 2}, "page.yaml")
    assert build("b: 1", {"c": 2}, "page.yaml", must_match=False)["c"] == 2
    merged = "x: &x {b: 1}\n<<: *x"
    assert build(merged, {"b": 2}, "page.yaml")["b"] == 2
    with pytest.raises(PageError, match="Override 'bb' not found"):
        build(merged, {"bb": 2}, "page.yaml")


ENCODERS = "esr_lobes.encoders"


@pytest.mark.parametrize("source", ["", "source: null"])
def test_random_weights_are_no_retriever(source):
    """A trusted page is built unchecked, but such an encoder means nothing."""
    page = (
        f"e: !new:{ENCODERS}.emotion2vec.Emotion2vec {{{source}}}\n"
        "modules: {speech_encoder: !ref <e>}\n"
    )
    with pytest.raises(PageError, match="speech_encoder has no source"):
        build(page, {}, "page.yaml")


def test_pretrained_encoders_with_a_source_are_built(tiny_backbone):
    page = (
        f"a: !new:{ENCODERS}.emotion2vec.Emotion2vec\n"
        f"    source: {tiny_backbone('emotion2vec')}\n"
        f"b: !new:{ENCODERS}.huggingface.HuggingFaceSpeech\n"
        f"    source: {tiny_backbone('wavlm')}\n"
        f"c: !new:{ENCODERS}.text.TextEncoder\n"
        f"    source: {tiny_backbone('bert')}\n"
        "d: !new:esr_lobes.heads.Projection\n"
        "    in_features: 2\n    out_features: 2\n"
        "modules: {a: !ref <a>, b: !ref <b>, c: !ref <c>, d: !ref <d>}\n"
    )
    assert build(page, {}, "page.yaml")["modules"]["a"].width == 32


@pytest.mark.parametrize(
    "kind, path, encoder",
    [
        ("emotion2vec", "emotion2vec.Emotion2vec", Emotion2vec),
        ("wavlm", "huggingface.HuggingFaceSpeech", HuggingFaceSpeech),
    ],
)
def test_a_retriever_opens_otherwise_than_it_was_trained(
    kind, path, encoder, tiny_backbone
):
    """No page that we write asks for trust, or to compute twice."""
    modules = {
        "speech_encoder": encoder(tiny_backbone(kind)),
        "speech_projection": Projection(32, 8),
        "text_encoder": TextEncoder(tiny_backbone("bert")),
        "text_projection": Projection(32, 8),
    }
    trust = ", trust_pickle: true" if kind == "emotion2vec" else ""
    head = "!new:esr_lobes.heads.Projection {in_features: 32, out_features: 8}"
    trained = (
        "max_seconds: 8.0\nmodules:\n"
        f"  speech_encoder: !new:{ENCODERS}.{path}\n"
        f"    {{source: x, gradient_checkpointing: true{trust}}}\n"
        f"  speech_projection: {head}\n"
        f"  text_encoder: !new:{ENCODERS}.text.TextEncoder {{source: x}}\n"
        f"  text_projection: {head}\n"
    )
    page = YAML().load(retriever_page(trained, modules))
    speech, text = page["speech_encoder"], page["text_encoder"]
    assert speech["gradient_checkpointing"] is False
    assert speech.get("trust_pickle", False) is False
    assert ("trust_pickle" in speech) == (kind == "emotion2vec")
    for node in speech, text:
        assert node["is_frozen"] is node["local_files_only"] is True
    assert "gradient_checkpointing" not in text


def test_numbers_that_pass_and_do_not():
    check_numbers(NUMBERS)
    for key, value in [
        ("sample_rate", 8000),
        ("embedding_size", True),
        ("embedding_size", 0),
        ("max_seconds", float("nan")),
        ("max_seconds", None),
        ("hop_seconds", 2.1),
        ("min_seconds", -1),
        ("min_seconds", 2.1),
    ]:
        with pytest.raises(PageError, match=f"page.yaml: {key} is {value}"):
            check_numbers(NUMBERS | {key: value}, "page.yaml")


def test_plain_values():
    module = nn.Linear(1, 1)
    page = {
        "modules": {"a": module},
        "a": module,
        "deep": {"x": [1, {"y": module}]},
        "note": {"x": [1, {"y": None}]},
        "device": "meta",
        "debug": True,
    }
    kept = plain_values(page, ["modules"])
    assert list(kept) == ["modules", "note"]


def test_a_page_that_is_no_utf8(tmp_path):
    path = tmp_path / "page.yaml"
    path.write_bytes(b"a: \xe9")
    with pytest.raises(PageError, match="page.yaml is not UTF-8"):
        read_page(path)
