"""Every page opens, every public object is explained, every link leads on.

Authors
 * The esr_lobes contributors
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny_content import SIZES

import esr_lobes
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.pages import flatten_page, load_page

ROOT = Path(__file__).resolve().parents[2]
ALL_PAGES = sorted((ROOT / "hparams").glob("*.yaml"))
# What is said, and how it is said, are taught by pages of their own kinds.
CONTENT = ("clsr_", "parabge_", "speechdpr_")
CONTENT_PAGES = [p for p in ALL_PAGES if p.name.startswith(CONTENT)]
CLAP = ROOT / "hparams" / "clap.yaml"
PAGES = [p for p in ALL_PAGES if p not in (*CONTENT_PAGES, CLAP)]
CORPORA = sorted(ROOT.glob("recipes/*/*.yaml"))
MODULES = sorted(
    m.name for m in pkgutil.walk_packages(esr_lobes.__path__, "esr_lobes.")
)
DOCUMENTS = sorted(
    p
    for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    + [*ROOT.glob("recipes/*/*.md")]
)

# The classes of a page's towers, and what tiny checkpoint stands for theirs.
TEXTS = {
    "compact": ("TextEncoder", "bert"),
    "bert": ("TextEncoder", "bert"),
    "roberta": ("TextEncoder", "roberta"),
    "t5": ("TextEncoder", "t5"),
    "flan_t5": ("TextEncoder", "flan_t5"),
}
SPEECHES = {
    "compact": ("CompactEncoder", None),
    "e2v": ("Emotion2vec", "emotion2vec"),
    "wavlm": ("HuggingFaceSpeech", "wavlm"),
}


@pytest.fixture
def open_page(tiny_backbone, tmp_path):
    """A function that opens a page with tiny towers, outside the project."""

    def load(page, corpus):
        overrides = f"data_folder: {tmp_path}\noutput_folder: {tmp_path}\n"
        for tower, (_, kind) in towers(page).items():
            if kind:
                source = tiny_backbone(kind)
                overrides += (
                    f"{tower}_encoder: "
                    f"{{width: 32, model: {{source: '{source}'}}}}\n"
                )
        return load_page(page, overrides, corpus)

    return load


def towers(page):
    """Returns what the name of a page says it pairs."""
    text, _, speech = page.stem.rpartition("_")
    wanted = {"speech": SPEECHES[speech]}
    if text != "classifier":
        wanted["text"] = TEXTS[text or speech]
    return wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_opens(page, open_page):
    hparams, flat = open_page(page, CORPORA[0])
    modules, wanted = hparams["modules"], towers(page)
    assert hparams["name"] == page.stem
    assert ("text_encoder" in modules) == ("text" in wanted)
    for tower, (name, _) in wanted.items():
        encoder = modules[f"{tower}_encoder"]
        assert type(encoder).__name__ == name
        assert modules[f"{tower}_projection"].in_features == encoder.width
    saved = hparams["checkpointer"].recoverables
    learning = set(modules) - {"text_encoder"}  # a frozen one is not saved
    assert learning <= set(saved)
    assert all(saved[name] is modules[name] for name in learning)
    assert "!ref" not in flat and "!include" not in flat


@pytest.mark.parametrize("page", CONTENT_PAGES, ids=lambda p: p.stem)
def test_a_page_of_content_opens(page, tiny_text_backbone, tmp_path):
    """With a tiny recogniser: one of true size would fill a test's memory."""
    hparams, flat = load_page(
        page,
        f"data_folder: {tmp_path}\noutput_folder: {tmp_path}\n"
        "text_encoder: "
        f"{{width: 32, model: {{source: '{tiny_text_backbone}'}}}}\n"
        f"recogniser: {SIZES}\n",
    )
    modules = hparams["modules"]
    assert hparams["name"] == page.stem
    assert hparams["number_of_epochs"] == sum(hparams["stages"].values())
    paraformer = hparams["paraformer"]
    text_encoder = modules["text_encoder"]
    table = text_encoder.backbone.get_input_embeddings().weight
    assert paraformer.decoder.vocab == len(table)
    if page.name.startswith("clsr_"):
        assert modules["paraformer"] is paraformer
        assert hparams["vq"].is_hard and hparams["vq"].vq_temperature == 0.1
    else:
        assert modules["speech_encoder"].paraformer is paraformer
    saved = hparams["checkpointer"].recoverables
    # The text encoder is saved if it learns; the speech side is Paraformer.
    learning = set(modules) - {"text_encoder", "speech_encoder"}
    with_weights = {n for n in learning if list(modules[n].parameters())}
    assert with_weights | {"paraformer"} <= set(saved)
    assert all(saved[n] is modules[n] for n in with_weights)
    learns_text = hparams["stages"]["text"] or hparams["stages"]["post"]
    assert text_encoder.is_frozen == (not learns_text)
    assert "!ref" not in flat and "!include" not in flat


def test_the_page_of_clap_opens_with_both_towers_of_one_checkpoint(
    tiny_backbone, tmp_path
):
    source = tiny_backbone("clap")
    hparams, flat = load_page(
        CLAP,
        f"data_folder: {tmp_path}\noutput_folder: {tmp_path}\n"
        f"clap_source: {source}\ntext_encoder: {{width: 24}}\n"
        "speech_encoder: {width: 24}\n",
    )
    modules = hparams["modules"]
    assert hparams["name"] == "clap" and "paraformer" not in hparams
    assert hparams["stages"]["joint"] == hparams["number_of_epochs"] > 0
    assert not modules["text_encoder"].is_frozen
    for tower in ("text", "speech"):
        width = modules[f"{tower}_encoder"].width
        assert modules[f"{tower}_projection"].in_features == width == 24
    saved = hparams["checkpointer"].recoverables
    assert saved["speech_encoder"] is modules["speech_encoder"]
    assert "!ref" not in flat and "!include" not in flat


def test_the_paper_s_page_of_content_has_the_paper_s_values():
    """Hu et al. (2025): alpha = beta = 1/3, 5e-5 in the joint stage, 220 M."""
    page = ROOT / "hparams" / "clsr_paraformer.yaml"
    hparams = YAML().load(flatten_page(page, "data_folder: x"))
    for name in ("quantity_weight", "contrastive_weight"):
        assert hparams[name] == pytest.approx(1 / 3, abs=1e-6)
    assert hparams["learning_rates"]["joint"] == 5e-5
    assert hparams["vq"]["vq_temperature"] == 0.1
    assert hparams["recogniser_source"] is None
    large = Paraformer.from_config(
        {"vocab": 8404} | dict(hparams["recogniser"]["sizes"]), device="meta"
    )
    n_parameters = sum(p.numel() for p in large.parameters())
    assert round(n_parameters / 1e6, 2) == 220.08


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda p: p.stem)
def test_every_corpus_is_laid_over_every_kind_of_page(corpus):
    said = YAML().load(corpus)
    for name in ("compact", "roberta_e2v", "classifier_wavlm"):
        page = ROOT / "hparams" / f"{name}.yaml"
        flat = YAML().load(flatten_page(page, "data_folder: x", corpus))
        folder = f"results/{corpus.parent.name}/{page.stem}/1986"
        assert flat["output_folder"] == folder
        assert flat["name"] == page.stem and flat["data_folder"] == "x"
        for key in said.keys() - {"output_folder", "data_folder"}:
            assert flat[key] == said[key] or "!ref" in str(said[key])


def test_the_paper_s_pages_have_the_paper_s_values():
    """Kang and Roy (2025), and their published pages."""
    for page in PAGES:
        if page.stem == "compact" or page.stem.startswith("classifier"):
            continue
        text = page.stem.rpartition("_")[0]
        hparams = YAML().load(flatten_page(page, "data_folder: x"))
        assert hparams["positives"] == "pair"
        assert hparams["batch_size"] == 32 and hparams["max_seconds"] == 8.0
        assert hparams["lr"] == 5e-5 and hparams["discriminator_lr"] == 2e-5
        assert hparams["embed_dim"] == 512 and hparams["temperature"] == 0.07
        is_bert = text == "bert"
        assert hparams["loss_weights"] == {
            "classification": 0.5,
            "contrastive": 1.0,
            "adversarial": 0.05 if is_bert else 0.1,
        }
        assert hparams["start_epochs"] == {
            "classification": 1,
            "contrastive": 6,
            "adversarial": 16 if is_bert else 11,
        }
        assert hparams["text_encoder"]["model"]["pooling"] == (
            "mean" if "t5" in text else "first"
        )


def public_objects():
    for name in MODULES:
        module = importlib.import_module(name)
        yield name, module
        for key, thing in vars(module).items():
            if key.startswith("_") or not callable(thing):
                continue
            if getattr(thing, "__module__", None) == name:
                yield f"{name}.{key}", thing


OBJECTS = list(public_objects())


@pytest.mark.parametrize("name, thing", OBJECTS, ids=[n for n, _ in OBJECTS])
def test_public_objects_are_documented(name, thing):
    text = inspect.getdoc(thing) or ""
    assert len(text) > 10, f"{name} has no docstring"
    if inspect.ismodule(thing):
        assert "Authors" in text, f"{name} does not name its authors"
    if not inspect.isfunction(thing):
        return
    parameters = [
        p
        for p in inspect.signature(thing).parameters.values()
        if p.name not in ("self", "args", "kwargs")
    ]
    if "\n" in text and parameters:
        missing = [p.name for p in parameters if p.name not in text]
        assert not missing, f"{name} does not explain {missing}"


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_inside_the_project_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_package_imports_without_its_extras():
    """Only ``import esr_lobes`` itself must stay light and quick."""
    import subprocess
    import sys

    code = "import sys, esr_lobes; print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert shown.stdout.strip() == "False", shown.stderr


def test_constraints_name_what_setup_asks_for():
    asked = re.findall(
        r'"([A-Za-z0-9_.\-]+)>=', (ROOT / "setup.py").read_text()
    )
    pinned = re.findall(
        r"(?m)^([\w.\-]+)==", (ROOT / "constraints.txt").read_text()
    )
    plain = {name.lower().replace("-", "_") for name in pinned}
    missing = [n for n in asked if n.lower().replace("-", "_") not in plain]
    assert not missing
