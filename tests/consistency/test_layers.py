"""Imports go down only, as docs/architecture.md says.

Authors
 * The esr_lobes contributors
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "esr_lobes"

# From the bottom: a module imports from its own layer or from lower ones.
LAYERS = [
    {"errors"},
    {"audio", "devices", "files", "limits", "pages", "pooling", "weights"}
    | {"distributed", "schedules"},
    {"manifests", "augment", "prompts", "datasets", "heads", "batches"}
    | {"batching", "content_manifests", "late_interaction"},
    {
        "preparation",
        "losses",
        "encoders",
        "cascade",
        "clsr",
        "index",
        "safety",
        "synthesis",
    }
    | {"runs"},
    {
        "trials",
        "trial_files",
        "metrics",
        "bootstrap",
        "plots",
        "maps",
        "modality",
        "opening",
        "embedding",
        "corpora",
        "indexing",
        "content_metrics",
        "content_parts",
        "content_preparation",
        "voicing",
        "reranking",
    },
    {"searching", "highlights"}
    | {"reports", "evaluation", "inference", "brain", "export"}
    | {"published", "results", "style_brain", "tables"}
    | {"retrieval_brain", "dual_content_brain", "content_brain"}
    | {"content_evaluation", "content_export", "content_reports"}
    | {"content_tables"},
    {"training", "content_training", "importing", "cascading"}
    | {"answering"}
    | {"teacher", "distillation"},
    {"app"},
    {"commands", "cli"},
]
LAYER_OF = {name: i for i, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Yields the modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "esr_lobes":
                names = [f"esr_lobes.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "recipes":
                yield "recipes"
            elif parts[0] == "esr_lobes" and len(parts) > 1:
                yield parts[1]


def module_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_go_down(path):
    module = module_of(path)
    if module == "__init__":
        return
    assert module in LAYER_OF, f"say in LAYERS where {module} belongs"
    for name in imports(path):
        if name in ("__version__", "EncoderRetriever"):
            continue
        assert name != "recipes", "the library knows no recipe"
        assert LAYER_OF[name] <= LAYER_OF[module], (
            f"{module} imports {name}, which lies above it"
        )
