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

import esr_lobes
from esr_lobes.pages import load_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "hparams").glob("*.yaml"))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
@pytest.mark.parametrize("corpus", CORPORA, ids=lambda p: p.stem)
def test_a_page_opens_with_every_corpus(page, corpus, tiny_backbone, tmp_path):
    """Its name says what it pairs: a text and a speech tower."""
    text, _, speech = page.stem.rpartition("_")
    wanted = {"speech": SPEECHES[speech]}
    if text != "classifier":
        wanted["text"] = TEXTS[text or speech]
    overrides = f"data_folder: {tmp_path}\noutput_folder: {tmp_path}\n"
    for tower, (_, kind) in wanted.items():
        if kind:
            source = (
                f"{{width: 32, model: {{source: '{tiny_backbone(kind)}'}}}}"
            )
            overrides += f"{tower}_encoder: {source}\n"
    hparams, flat = load_page(page, overrides, corpus)
    modules = hparams["modules"]
    assert hparams["name"] == page.stem
    assert ("text_encoder" in modules) == ("text" in wanted)
    for tower, (name, _) in wanted.items():
        encoder = modules[f"{tower}_encoder"]
        assert type(encoder).__name__ == name
        assert modules[f"{tower}_projection"].in_features == encoder.width
    assert set(hparams["checkpointer"].recoverables) >= set(modules) - {
        "text_encoder"
    }
    assert "!ref" not in flat and "!include" not in flat


def test_the_paper_s_pages_have_the_paper_s_values(tiny_backbone, tmp_path):
    """Kang and Roy (2025), and their published pages."""
    for page in PAGES:
        if page.stem == "compact" or page.stem.startswith("classifier"):
            continue
        text, _, speech = page.stem.rpartition("_")
        sources = {
            "text": tiny_backbone(TEXTS[text][1]),
            "speech": tiny_backbone(SPEECHES[speech][1]),
        }
        overrides = f"data_folder: x\noutput_folder: {tmp_path}\n" + "".join(
            f"{tower}_encoder: {{width: 32, model: {{source: {source}}}}}\n"
            for tower, source in sources.items()
        )
        hparams, _ = load_page(page, overrides)
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
        assert hparams["modules"]["text_encoder"].pooling == (
            "mean" if "t5" in text else "first"
        )


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda p: p.stem)
def test_the_folder_of_results_names_corpus_page_and_seed(corpus):
    page = ROOT / "hparams" / "compact.yaml"
    hparams, _ = load_page(page, "data_folder: x", corpus)
    folder = f"results/{corpus.parent.name}/{hparams['name']}/1986"
    assert hparams["output_folder"] == folder


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
