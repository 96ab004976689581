"""A retriever's page and weights are data: every known way to make them run
code is tried, leaves no trace and is refused.

Authors
 * The esr_lobes contributors
"""

import inspect
import json
import os
import pickle
import pydoc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from safetensors.torch import save_file
from tiny_backbones import SPEECH, TEXTS

from esr_lobes import safety, weights
from esr_lobes.encoders.emotion2vec import Emotion2vec
from esr_lobes.safety import UnsafePageError, check_backbone, check_page
from esr_lobes.weights import WeightsError, load_weights

HEAD = (
    "!new:esr_lobes.heads.Projection\n    in_features: 2\n    out_features: 2"
)

# MARK stands for a file that must not appear (or, where the page would empty
# a file, for one that must keep what it holds), INCLUDED for another page.
ROUTES = {
    "apply a system call": "x: !apply:os.system ['touch MARK']",
    "apply eval": "x: !apply:builtins.eval [\"open('MARK', 'w')\"]",
    "apply by mapping": "x: !apply:os.mkdir {path: MARK}",
    "apply in a list": "x: [1, {y: !apply:os.mkdir [MARK]}]",
    "apply as a key": "? !apply:os.mkdir [MARK]\n: 1",
    "apply under a hidden key": "__x: !apply:os.mkdir [MARK]",
    "apply inside an allowed call": (
        "x: !new:esr_lobes.heads.Projection\n"
        "    in_features: !apply:os.mkdir [MARK]"
    ),
    "new process": "x: !new:subprocess.Popen\n    args: [touch, MARK]",
    "new file": "x: !new:io.FileIO [MARK, w]",
    "new file by name": "x: !new:io.FileIO {file: MARK, mode: w}",
    "apply by reference": "x: !applyref:os.mkdir [MARK]",
    "apply eval by reference": (
        "x: !applyref:builtins.eval [\"open('MARK', 'w')\"]"
    ),
    "python object": "x: !!python/object/apply:os.mkdir [MARK]",
    "python object, new": "x: !!python/object/new:io.FileIO [MARK, w]",
    "python name": "x: !!python/name:evil_import.thing",
    "python module": "x: !!python/module:evil_import",
    "tuple": "x: !tuple '(!!python/object/apply:os.mkdir [MARK])'",
    "tuple without a tag": "x: (!!python/object/apply:os.mkdir [MARK])",
    "tuple in quotes": 'x: "(!!python/object/apply:os.mkdir [MARK])"',
    "tuple joined from references": (
        "a: '('\nx: !ref <a>!!python/object/apply:os.mkdir [MARK])"
    ),
    "tuple joined from copies": (
        "a: '('\nx: !copy <a>!!python/object/apply:os.mkdir [MARK])"
    ),
    "tuple through a chain": (
        "a: '('\nb: !ref <a>!!python/object/apply:os.mkdir\nx: !ref <b> [MARK])"
    ),
    "tuple as a key": "(!!python/object/apply:os.mkdir [MARK]): 1",
    "tuple over lines": (
        "x: |-\n    (!!python/object/apply:os.mkdir\n    [MARK])"
    ),
    "tuple in an alias": (
        "a: &a '(!!python/object/apply:os.mkdir [MARK])'\nx: [*a]"
    ),
    "import by name": "x: !name:evil_import.Thing",
    "a function's name, called later": "x: !name:os.system",
    "import a module": "x: !module:evil_import",
    "include": "x: !include:INCLUDED",
    "include with a body": "x: !include:INCLUDED\n    y: 1",
    "attribute of a reference": (f"a: {HEAD}\nx: !ref <a.forward>"),
    "a prefix that walks to the system": (
        "x: !apply:speechbrain.utils.data_utils.os.system ['touch MARK']"
    ),
    "a shell in the host": (
        "x: !apply:speechbrain.utils.superpowers.run_shell ['touch MARK']"
    ),
    "a prefix of our own": (
        "x: !new:esr_lobes.safety.Path.home.__globals__ {}"
    ),
    "our own module's imports": (
        "x: !new:esr_lobes.encoders.text.importlib.machinery."
        "SourceFileLoader {fullname: evil_import, path: MARK}"
    ),
    "beyond an allowed name": ("x: !new:esr_lobes.heads.Projection.forward {}"),
    "an unpickler of the host": (
        "x: !apply:speechbrain.dataio.dataio.load_pickle [MARK]"
    ),
    "verbatim tag": "x: !<!apply:os.mkdir> [MARK]",
    "verbatim python tag": (
        "x: !<tag:yaml.org,2002:python/object/apply:os.mkdir> [MARK]"
    ),
    "escaped tag": "x: !%61pply:os.mkdir [MARK]",
    "escaped twice": "x: !%2561pply:os.mkdir [MARK]",
    "tag alias for python": (
        "%TAG !e! tag:yaml.org,2002:python/\n---\n"
        "x: !e!object/apply:os.mkdir [MARK]"
    ),
    "tag alias for a shortcut": (
        "%TAG !e! !apply:os.\n---\nx: !e!mkdir [MARK]"
    ),
    "secondary handle moved": ("%TAG !! !apply:os.\n---\nx: !!mkdir [MARK]"),
    "behind an anchor": "a: &a !apply:os.mkdir [MARK]\nx: *a",
    "in a merge key": "x:\n    <<: {y: !apply:os.mkdir [MARK]}",
    "in a merge of an alias": (
        "a: &a {y: !apply:os.mkdir [MARK]}\nx: {<<: *a}"
    ),
    "a second document": "a: 1\n---\nx: !apply:os.mkdir [MARK]",
    "a duplicate key": "x: 1\nx: !apply:os.mkdir [MARK]",
    "placeholder": "x: !PLACEHOLDER",
    "unknown tag": "x: !surprise 1",
    "unknown core tag": "x: !!binary aGVsbG8=",
    "positional arguments": "x: !new:esr_lobes.heads.Projection [2, 2]",
}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A mark that must not appear, a module that would set it, a page."""
    mark = tmp_path / "mark"
    setter = f"open({str(mark)!r}, 'w').close()\nclass Thing: pass\nthing = 1"
    (tmp_path / "evil_import.py").write_text(setter)
    monkeypatch.syspath_prepend(str(tmp_path))
    included = tmp_path / "included.yaml"
    included.write_text(f"y: !apply:os.mkdir ['{mark}']")

    def fill(text):
        return text.replace("MARK", str(mark)).replace(
            "INCLUDED", str(included)
        )

    fill.mark = mark
    return fill


@pytest.mark.parametrize("route", ROUTES)
def test_page_is_refused_and_nothing_ran(route, trap):
    with pytest.raises(UnsafePageError, match="hyperparams.yaml"):
        check_page(trap(ROUTES[route]))
    assert not trap.mark.exists()


def run_python(code, *arguments, folder):
    """Runs code in a fresh process, which has loaded no page before."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "route",
    [
        "apply by mapping",
        "apply by reference",
        "new file by name",
        "python object",
        "tuple in quotes",
        "tuple joined from references",
        "tuple through a chain",
        "verbatim tag",
        "tag alias for python",
        "in a merge of an alias",
        "include",
        "import by name",
    ],
)
def test_the_routes_are_real(route, trap, tmp_path):
    """Without the check they run, so that the tests above mean something."""
    code = "import sys, hyperpyyaml as h; h.load_hyperpyyaml(sys.argv[1])"
    run_python(code, trap(ROUTES[route]), folder=tmp_path)
    assert trap.mark.exists()


def test_tuples_are_refused_before_the_first_load(trap):
    """The loader changes the parser for good when it is first called; what
    it is going to do then must be known before."""
    code = (
        "import sys\n"
        "from esr_lobes.safety import check_page, UnsafePageError\n"
        "for page in sys.argv[1:]:\n"
        "    try:\n"
        "        check_page(page)\n"
        "    except UnsafePageError:\n"
        "        print('refused')\n"
    )
    pages = [trap(ROUTES[route]) for route in ROUTES if "tuple" in route]
    root = Path(safety.__file__).parents[1]
    done = run_python(code, *pages, folder=root)
    assert done.stdout.split() == ["refused"] * len(pages), done.stderr
    assert not trap.mark.exists()


def test_message_names_file_line_tag_and_way_out():
    page = "a: 1\nb:\n    c: !apply:os.getcwd []\n"
    with pytest.raises(
        UnsafePageError,
        match=r"r/page.yaml, line 3: .*!apply:os.getcwd.*trust_source=True",
    ):
        check_page(page, "r/page.yaml")


OVERRIDES = {
    "text with a tag": "x: !apply:os.mkdir [MARK]",
    "text that includes": "x: !include:INCLUDED",
    "text with a tuple": 'x: "(!!python/object/apply:os.mkdir [MARK])"',
    "text, second document": "x: 1\n---\nx: !apply:os.mkdir [MARK]",
    "mapping with a tuple": {"x": "(!!python/object/apply:os.mkdir [MARK])"},
    "mapping, nested": {
        "y": {"z": ["(!!python/object/apply:os.mkdir [MARK])"]}
    },
    "mapping that joins a tuple": {"a": "("},
}


@pytest.mark.parametrize("route", OVERRIDES)
def test_overrides_are_refused(route, trap):
    overrides = OVERRIDES[route]
    if isinstance(overrides, str):
        overrides = trap(overrides)
    else:
        overrides = json.loads(trap(json.dumps(overrides)))
    page = trap(
        "x: 1\ny: {z: []}\na: b\n"
        "c: !ref <a>!!python/object/apply:os.mkdir [MARK])"
    )
    with pytest.raises(UnsafePageError):
        check_page(page, overrides=overrides)
    assert not trap.mark.exists()


def test_overrides_with_tagged_nodes_are_refused(trap):
    scalar = TaggedScalar(value="")
    scalar.yaml_set_ctag(
        type(scalar.tag)(suffix="!include:" + trap("INCLUDED"))
    )
    tagged = CommentedMap({"path": str(trap.mark)})
    tagged.yaml_set_ctag(type(scalar.tag)(suffix="!applyref:os.mkdir"))
    for value in scalar, tagged:
        with pytest.raises(UnsafePageError):
            check_page("x: 1", overrides={"x": value})
    assert not trap.mark.exists()


def test_overrides_that_are_only_text_stay_text():
    """In a mapping "!apply:..." is a string, for the loader as well."""
    overrides = {"x": "!apply:os.getcwd []"}
    check_page("x: 1", overrides=overrides)
    assert load_hyperpyyaml("x: 1", overrides) == overrides


def test_overrides_of_no_plain_value():
    with pytest.raises(UnsafePageError, match="plain values"):
        check_page("x: 1", overrides={"x": threading.Lock()})


def test_overrides_are_left_as_they_were():
    overrides = {"x": {"y": ["a", "b"]}}
    check_page("x: {y: 1}\nz: !ref <x>", overrides=overrides)
    assert overrides == {"x": {"y": ["a", "b"]}}


def test_harmless_pages_pass_and_load_to_the_same():
    page = (
        "n: 2\nratio: 1.5e-3\nnote: 'a (small) note'\nnone: null\n"
        "day: 2026-11-21\nbase: &base {in_features: !ref <n>}\n"
        "head: !new:esr_lobes.heads.Projection\n    <<: *base\n"
        "    out_features: !ref <n> + 1\nagain: !ref <head>\n"
        "other: !copy <head>\nkind: !name:esr_lobes.heads.Projection\n"
        "modules: {head: !ref <head>}\n"
    )
    check_page(page)
    hparams = load_hyperpyyaml(page)
    assert hparams["head"].weight.shape == (3, 2)
    assert hparams["again"] is hparams["modules"]["head"]


@pytest.mark.parametrize(
    "page", ["", "- 1", "a: [", "a: 1\na: 2", "a: &x [*x, !ref [1]]", "a: *b"]
)
def test_broken_pages_are_refused(page):
    with pytest.raises(UnsafePageError, match="hyperparams.yaml"):
        check_page(page)


def test_allow_list_is_exact_and_can_be_extended():
    page = "x: !new:collections.Counter {a: 1}"
    with pytest.raises(UnsafePageError, match="collections.Counter"):
        check_page(page)
    check_page(page, allowed=safety.ALLOWED | {"collections.Counter"})
    with pytest.raises(AttributeError):
        safety.ALLOWED.add("os.system")


def test_all_allowed_names_are_classes():
    for name in safety.ALLOWED:
        assert isinstance(pydoc.locate(name), type), name


# What a class that may be built is given


def write_named(folder, name, mark):
    """Writes a backbone whose weights are a pickle of any name."""
    folder.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
        torch.save({"model": Evil(str(mark))}, file)
    metas = {"file_path_metas": {"init_param": name}}
    (folder / "configuration.json").write_text(json.dumps(metas))


EMOTION2VEC = (
    "folder: .\n"
    "x: !new:esr_lobes.encoders.emotion2vec.Emotion2vec\n"
    "    source: !ref <folder>/speech_backbone\n"
    "    trust_pickle: TRUST\n"
)
PICKLE_NAMES = ["w.yaml", "config.yaml", "w.dat", "w.PT", "w", "w.bin", ".w"]
PICKLE_NAMES += ["w.pt", "w.pth", "w.ckpt", "w.Bin", "w.py", "w.pt.bak"]
PICKLE_NAMES += ["w.safetensors", "w.json", "w.txt", "w.model", "README.md"]


@pytest.mark.parametrize("name", PICKLE_NAMES)
def test_a_pickle_of_any_name_is_not_run(name, tmp_path):
    """Whatever of page and folder lets it: each is refused without the
    others."""
    mark = tmp_path / "mark"
    backbone = tmp_path / "speech_backbone"
    write_named(backbone, name, mark)
    for trust in "true", "false":
        with pytest.raises(UnsafePageError, match="page.yaml|speech_backbone"):
            check_page(
                EMOTION2VEC.replace("TRUST", trust),
                "page.yaml",
                {"folder": str(tmp_path)},
                folder=str(tmp_path),
            )
    with pytest.raises(UnsafePageError, match="file_path_metas|pickles can"):
        check_backbone(backbone)
    (backbone / "configuration.json").unlink()
    kept = {"w.safetensors", "w.txt", "w.model", "README.md", "config.yaml"}
    if name in kept:
        check_backbone(backbone)  # a name that nothing unpickles
    else:
        with pytest.raises(UnsafePageError, match=name):
            check_backbone(backbone)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.pth"])
def test_the_named_pickle_is_real(name, tmp_path):
    """Trusted outright, it runs."""
    write_named(tmp_path / "b", name, tmp_path / "mark")
    with pytest.raises(WeightsError):
        Emotion2vec(tmp_path / "b", trust_pickle=True)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "trust",
    ["true", "1", "'false'", "null", "yes", "[]", "!ref <t>", "!copy <t>"]
    + ["0"],
)
def test_trust_is_not_for_a_page_to_give(trust, tmp_path):
    (tmp_path / "speech_backbone").mkdir()
    page = EMOTION2VEC.replace("TRUST", trust) + "t: true\n"
    folder = {"folder": str(tmp_path)}
    with pytest.raises(UnsafePageError, match="trust_pickle lets"):
        check_page(page, overrides=folder, folder=str(tmp_path))
    page = EMOTION2VEC.replace("TRUST", "false")
    check_page(page, overrides=folder, folder=str(tmp_path))
    for overrides in (
        folder | {"x": {"trust_pickle": True}},
        f"folder: {tmp_path}\nx:\n    trust_pickle: True",
    ):
        with pytest.raises(UnsafePageError, match="trust_pickle lets"):
            check_page(page, overrides=overrides, folder=str(tmp_path))
    merged = (
        "m: &m {trust_pickle: true}\n"
        "x: !name:esr_lobes.encoders.emotion2vec.Emotion2vec {<<: *m}\n"
    )
    with pytest.raises(UnsafePageError, match="trust_pickle lets"):
        check_page(merged)


def test_every_class_with_a_source_must_be_given_one():
    sourced = {
        name
        for name in safety.ALLOWED
        if "source" in inspect.signature(pydoc.locate(name)).parameters
    }
    assert sourced == safety.SOURCED
    for name in sourced:
        for page in f"x: !new:{name}", f"x: !new:{name} {{is_frozen: true}}":
            with pytest.raises(UnsafePageError, match=f"{name} has no source"):
                check_page(page)


def test_only_the_text_encoder_knows_packaged_models(tmp_path, monkeypatch):
    """For another class the name would be a folder beside, or a hub id."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    (tmp_path / "retriever").mkdir()
    for name in safety.SOURCED - {"esr_lobes.encoders.text.TextEncoder"}:
        with pytest.raises(UnsafePageError, match="does not lie in"):
            check_page(f"x: !new:{name} {{source: minilm}}", folder="retriever")


def page_with_source(source):
    return (
        "x: !new:esr_lobes.encoders.text.TextEncoder\n"
        f"    source: {source}\n    local_files_only: True\n"
    )


@pytest.mark.parametrize(
    "source",
    ["someone/model", "../beside", "/etc", "https://example.org/x", "3", "[a]"],
)
def test_source_outside_the_folder(source, tmp_path):
    with pytest.raises(UnsafePageError, match="source"):
        check_page(page_with_source(source), folder=str(tmp_path))


def test_source_by_merge_and_reference(tmp_path):
    page = (
        "args: &args {source: someone/model}\n"
        "x: !new:esr_lobes.encoders.text.TextEncoder {<<: *args}\n"
    )
    with pytest.raises(UnsafePageError, match="someone/model"):
        check_page(page, folder=str(tmp_path))
    (tmp_path / "model").mkdir()
    page = page_with_source("!ref <where>/model") + f"where: {tmp_path}\n"
    check_page(page, folder=str(tmp_path))
    with pytest.raises(UnsafePageError, match="/elsewhere/model"):
        check_page(page, folder=str(tmp_path), overrides="where: /elsewhere")


def test_source_that_is_not_there_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no backbone at someone/model"):
        check_page(page_with_source("someone/model"))


def test_source_inside_or_packaged(tmp_path):
    check_page(page_with_source("minilm"), folder=str(tmp_path))
    (tmp_path / "inside").mkdir()
    check_page(page_with_source(tmp_path / "inside"), folder=str(tmp_path))
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(UnsafePageError, match="does not lie in"):
        check_page(page_with_source(tmp_path / "out"), folder=str(tmp_path))


@pytest.mark.parametrize(
    "name, settings",
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("config.json", {"deep": [{"auto_map": {"AutoConfig": "a--b.C"}}]}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y"]}}),
        ("config.json", {"attn_implementation": "someone/kernel"}),
        ("config.json", {"_attn_implementation": {"a": "someone/kernel"}}),
        ("config.json", {"quantization_config": {"quant_method": "x"}}),
        ("adapter_config.json", {"base_model_name_or_path": "someone/model"}),
        ("config.json", {"configuration_files": ["config.0.1.json"]}),
        ("config.0.1.json", {"attn_implementation": "someone/kernel"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../t.json"]}),
        ("config.json", {"transformers_weights": "../w.safetensors"}),
        ("configuration.json", {"file_path_metas": {"config": "w.yaml"}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "../b"}}),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../outside.safetensors"}},
        ),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "/tmp/w.safetensors"}},
        ),
        ("other.index.json", {"weight_map": {"a": "pytorch_model.bin"}}),
        ("other.index.json", {"weight_map": "w"}),
    ],
)
def test_backbone_that_asks_for_code(name, settings, tmp_path):
    (tmp_path / name).write_text(json.dumps(settings))
    with pytest.raises(UnsafePageError, match=name):
        check_backbone(tmp_path)


def test_backbone_of_plain_data(tiny_text_backbone, tmp_path):
    check_backbone(tiny_text_backbone)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnsafePageError, match="not JSON"):
        check_backbone(tmp_path)


@pytest.mark.parametrize("kind", [*TEXTS, *SPEECH])
def test_backbones_as_they_are_saved_pass(kind, tiny_backbone):
    check_backbone(tiny_backbone(kind))


def test_the_files_of_real_checkpoints_pass(tmp_path):
    for name in (
        ".gitattributes",
        "1_Pooling/config.json",
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "generation_config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "modules.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "vocab.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    check_backbone(tmp_path)
    os.mkfifo(tmp_path / "config.json")  # would be read without end
    with pytest.raises(UnsafePageError, match="config.json is none"):
        check_backbone(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "a/b.pkl", "w.pt", "modeling.py", "a/b/w"]
)
def test_backbone_with_a_pickle(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UnsafePageError, match="pickles can hold code"):
        check_backbone(tmp_path)


def test_words_of_a_vocabulary_are_no_settings(tmp_path):
    words = {"auto_map": 1, "quantization_config": 2}
    for name in "vocab.json", "added_tokens.json", "tokenizer.json":
        (tmp_path / name).write_text(json.dumps(words))
    shards = {"weight_map": {"a": "model-1-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    check_backbone(tmp_path)


def test_backbone_nested_without_end(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UnsafePageError, match="not JSON"):
        check_backbone(tmp_path)


def test_source_that_is_no_text():
    for source in "3", "[a]", "null":
        with pytest.raises(UnsafePageError, match="no text"):
            check_page(page_with_source(source))


# Pages that would become large


def doubled(first, line, n=40):
    """Returns a page whose lines each hold the one before twice."""
    lines = [first] + [
        line.replace("NEW", f"a{i}").replace("OLD", f"a{i - 1}")
        for i in range(1, n)
    ]
    return "\n".join(lines)


BOMBS = {
    "aliases": doubled("a0: &a0 [x, x]", "NEW: &NEW [*OLD, *OLD]"),
    "aliases of keys": doubled(
        "a0: &a0 {x: 1}", "NEW: &NEW {x: *OLD, y: *OLD}"
    ),
    "text by references": doubled("a0: lol", "NEW: !ref <OLD><OLD>"),
    "text by references, backwards": "\n".join(
        reversed(doubled("a0: lol", "NEW: !ref <OLD><OLD>").split("\n"))
    ),
    "copies": doubled("a0: {x: 1}", "NEW: {x: !copy <OLD>, y: !copy <OLD>}"),
    "products": doubled("a0: 99999999", "NEW: !ref <OLD> * <OLD>"),
    "power": "x: !ref 9**9**9<n>\nn: 9",
    "power by references": "n: 9\nx: !ref <n>**<n>**<n>",
    "power in a part": "n: '9**9**9'\nx: !ref <n>+1",
    "power from two parts": "s: '*'\nx: !ref 9<s><s>9<s><s>9",
    "power around a blank": "e: ''\nx: !ref 9*<e>*9*<e>*9",
    "power around a blank's reference": (
        "e: ''\nf: !ref <e>\nx: !ref 9*<f>*9*<f>*9"
    ),
    "power in halves": "n: 9\nh: !ref <n>*\nx: !ref <h>*<h>*9",
    "repeated text": "n: 99999999999\nx: !ref \"'x' * <n>\"",
    "repeated text in a part": "s: \"'x'\"\nx: !ref <s> * 99999999999",
    "filled text": "n: 1\nx: !ref \"'%99999999999d' % <n>\"",
    "a reference made of parts": ("l: '<'\nr: '>'\nn: 9\nx: !ref <l>n<r>*<n>"),
    "a reference in a text": "n: 9\ny: '<n>**<n>**<n>'\nx: !ref <y>",
    "a reference to itself": "x: !ref <y>\ny: !ref <x>",
    "a mapping in itself": "x: {y: !ref <x>}",
    "nothing but length": f"x: {'x' * 200_000}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_pages_that_would_become_large(name):
    start = time.monotonic()
    with pytest.raises(UnsafePageError, match="hyperparams.yaml"):
        check_page(BOMBS[name])
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["text by references", "copies"])
def test_the_bombs_are_real(name):
    """Half as many lines come to a thousandth; more would take the memory."""
    page = "\n".join(BOMBS[name].split("\n")[:14])
    assert len(resolve_references(page).getvalue()) > 30 * len(page)


def test_arithmetic_of_a_retriever_passes():
    page = (
        "n: 4\nhalf: !ref <n> / 2\nsquare: !ref <n> * <n>\n"
        "more: !ref (<half> + 1) * 3 - <n> // 2 % 3\n"
        "folder: .\nfile: !ref <folder>/a_<n>.txt\n"
    )
    folder = '/a folder\'s * ** "name" %d'
    check_page(page, overrides={"folder": folder})
    hparams = load_hyperpyyaml(page, {"folder": folder})
    assert hparams["more"] == 7
    assert hparams["file"] == f"{folder}/a_4.txt"


def test_a_limit_on_time_is_the_callers(monkeypatch):
    def late(*args, **kwargs):
        raise TimeoutError("too late")

    monkeypatch.setattr(safety, "resolve_references", late)
    with pytest.raises(TimeoutError, match="too late"):
        check_page("x: 1")


def test_a_limit_on_time_while_loading(tmp_path, monkeypatch):
    def late(*args, **kwargs):
        raise TimeoutError("too late")

    monkeypatch.setattr(weights, "load_file", late)
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(TimeoutError, match="too late"):
        load_weights(tmp_path / "w.safetensors")


# Weights


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def write_pickle(path, mark):
    path.write_bytes(pickle.dumps({"w": Evil(mark)}))


def write_torch(path, mark):
    torch.save({"w": torch.ones(1), "x": Evil(mark)}, path)


def write_legacy(path, mark):
    torch.save({"w": Evil(mark)}, path, _use_new_zipfile_serialization=False)


def write_script(path, mark):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        {
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        },
    ],
)
@pytest.mark.parametrize(
    "write", [write_pickle, write_torch, write_legacy, write_script]
)
@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_weights_with_code(write, ending, variables, tmp_path, monkeypatch):
    path, mark = tmp_path / f"weights{ending}", tmp_path / "mark"
    write(path, str(mark))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WeightsError, match=f"weights{ending}"):
        load_weights(path)
    assert not mark.exists()


def test_the_variable_is_real(tmp_path, monkeypatch):
    """A plain torch.load would have run the pickle above."""
    write_torch(tmp_path / "w.pt", str(tmp_path / "mark"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.warns(UserWarning, match="NO_WEIGHTS_ONLY"):
        torch.load(tmp_path / "w.pt")
    assert (tmp_path / "mark").exists()


def test_weights_of_plain_tensors(tmp_path, monkeypatch):
    tensors = {"a.weight": torch.arange(6.0).view(2, 3)}
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for name in "w.safetensors", "w.pt":
        loaded = load_weights(tmp_path / name)
        assert list(loaded) == ["a.weight"]
        assert torch.equal(loaded["a.weight"], tensors["a.weight"])


def test_weights_that_are_not_what_they_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        load_weights(tmp_path / "absent.pt")
    for ending in ".pt", ".safetensors":
        for damaged in b"", b"abc", b"\x00" * 64:
            path = tmp_path / f"damaged{ending}"
            path.write_bytes(damaged)
            with pytest.raises(WeightsError, match=f"damaged{ending}"):
                load_weights(path)
    save_file({"a": torch.ones(1000)}, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="cut.safetensors"):
        load_weights(tmp_path / "cut.safetensors")
    for content in [torch.ones(1)], {"a": 1}, {3: torch.ones(1)}:
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(WeightsError, match="names to tensors"):
            load_weights(tmp_path / "odd.pt")
