"""The paper's figures, and ours beside them.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

import pytest

from esr_lobes import published
from esr_lobes.errors import MendableError
from esr_lobes.metrics import DURATION_EDGES
from esr_lobes.reports import FORMAT, Report
from esr_lobes.trials import DEFAULT_KS

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"


def numbers(recalls, system="train", styles=5, clips=1500, trials=1000):
    """A report's numbers, as short as they may be."""
    macro = dict(zip(("R@1", "R@5", "R@10", "R@20"), recalls, strict=True))
    return {
        "format": FORMAT,
        "settings": {
            "clips": clips,
            "styles_searched": [f"style{i}" for i in range(styles)],
            "n_trials": trials,
            "n_distractors": 400,
        },
        "systems": {system: {"macro": macro}},
    }


def test_every_row_is_whole_and_has_its_page():
    known = published.figures()
    assert list(DEFAULT_KS) == known["ks"]
    assert list(DURATION_EDGES) == known["duration_edges"]
    for corpus in ("ESD", "Expresso"):
        assert set(known["table_2"][corpus]) == set(published.pages())
    rows = [
        published.table_row(name, corpus, published.comparable_set(corpus))
        for corpus in known["table_2"]
        for name in published.pages()
    ]
    rows += [
        published.table_row(f"roberta_e2v-{each}", "Expresso", "test_read")
        for each in published.ablations()
    ]
    assert len(rows) == 24
    for row in rows:
        values = list(row.recalls.values())
        assert all(0 < value < 1 for value in values)
        assert values == sorted(values)
        assert len(values) == (0 if "no style classifier" in row.name else 4)
    for page in published.pages():
        assert (HPARAMS / f"{page}.yaml").is_file()
    for name in [*published.ablations(), *published.NEUTRAL_VARIANTS]:
        assert (HPARAMS / "variants" / f"{name}.yaml").is_file()


@pytest.mark.parametrize(
    "name, corpus, test_set",
    [
        ("compact", "ESD", "test"),
        ("roberta_e2v", "Expresso", "test"),
        ("roberta_e2v", "Expresso", "test_held_out_styles"),
        ("roberta_e2v", "RAVDESS", "test"),
        ("roberta_e2v-no_classifier", "ESD", "test"),
        ("t5_e2v-no_classifier", "Expresso", "test_read"),
        ("roberta_e2v-no_classifier-no_discriminator", "Expresso", "test_read"),
    ],
)
def test_nothing_stands_beside_what_the_paper_did_not_do(
    name, corpus, test_set
):
    assert published.table_row(name, corpus, test_set) is None
    ours = numbers([0.1] * 4)
    assert published.beside(ours, name, corpus, test_set) is None


def test_ours_the_papers_and_the_difference(tmp_path):
    ours = numbers([0.6126, 0.9, 0.966, 0.97])
    ours["systems"] = {"held_out": {"macro": {}}, **ours["systems"]}
    text = published.beside(ours, "roberta_e2v", "ESD", "test")
    lines = [line.split("|")[2:-1] for line in text.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[2] == ["0.6126", "0.9000", "0.9660", "0.9700"]
    assert cells[3] == ["0.6026", "0.9338", "0.9660", "0.9760"]
    assert cells[4] == ["+0.0100", "-0.0338", "+0.0000", "-0.0060"]
    assert "here (roberta_e2v, train)" in text
    assert "Table II" in text and "Mind" not in text
    assert published.beside(Report(ours), "roberta_e2v", "ESD", "test") == text
    path = tmp_path / "report.json"
    path.write_text(json.dumps(ours))
    assert published.beside(path, "roberta_e2v", "ESD", "test") == text


def test_a_classifier_is_judged_by_its_scores_and_variants_are_ours():
    ours = numbers([0.7, 0.8, 0.9, 1.0], "classifier")
    text = published.beside(ours, "classifier_e2v", "ESD", "test")
    assert "here (classifier_e2v, classifier)" in text and "+0.0186" in text
    ours = numbers([0.7, 0.8, 0.9, 1.0])
    text = published.beside(ours, "roberta_e2v-improved", "ESD", "test")
    assert "here (roberta_e2v-improved, train)" in text and "+0.0974" in text


def test_what_collapses_has_no_difference():
    ours = numbers([0.1] * 4, styles=7, clips=588)
    name = "roberta_e2v-no_classifier"
    text = published.beside(ours, name, "Expresso", "test_read")
    assert "collapses" in text and "difference" not in text
    assert published.ablation_effect("no_classifier") is None
    assert published.ablation_effect("no_augmentation") == pytest.approx(
        -0.2258
    )


def test_other_trials_or_clips_are_said():
    ours = numbers([0.1] * 4, styles=4, clips=1499, trials=20)
    text = published.beside(ours, "t5_e2v", "ESD", "test")
    assert "Mind: 4 styles, in the paper 5." in text
    assert "Mind: 1499 clips, in the paper 1500." in text
    assert "Mind: 20 trials a style, in the paper 1000." in text
    assert "distractors" not in text


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_a_broken_report_is_named(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(MendableError, match="report.json is .*evaluate again"):
        published.read_report(path)
