"""Tables of content: which figures stand where, and what was not run.

Authors
 * The esr_lobes contributors
"""

import re
import shlex
from pathlib import Path

import pytest
import speechbrain as sb
from ruamel.yaml import YAML
from test_tables import cells

from esr_lobes.content_metrics import content_recalls
from esr_lobes.content_reports import ContentReport
from esr_lobes.content_tables import COLUMNS, content_tables, published_content
from esr_lobes.errors import MendableError
from esr_lobes.pages import flatten_page
from esr_lobes.results import find_content_results, find_results

ROOT = Path(__file__).resolve().parents[2]
BOUND = "text (upper bound)"


@pytest.fixture
def save(tmp_path):
    """A function that writes a report where a training would."""

    def write(place, clips=9, **recalls):
        names = [column for column in COLUMNS if column != "WER"]
        systems = {}
        for name, value in recalls.items():
            name = {"bound": BOUND, "late": "clsr, late interaction"}.get(
                name, name
            )
            systems[name] = dict.fromkeys(names, value)
            if name != BOUND:
                systems[name]["WER"] = 12.5
        settings = {"clips": clips, "contexts": 8, "questions": 7}
        report = ContentReport(settings, systems, {})
        report.save(tmp_path / "results" / place)
        return tmp_path / "results"

    return write


def test_columns_are_those_of_the_metrics():
    figures = content_recalls([[1.0]], ["a"], ["a"])
    assert COLUMNS == ["WER", *figures]


def test_nothing_run_is_said(tmp_path):
    text = content_tables(find_content_results(tmp_path / "none"))
    corpora = published_content()["corpora"]
    assert text.count("not run here") == len(corpora) == 4
    for corpus, paper in corpora.items():
        assert f"`recipes/{corpus}/README.md`" in text
        table = cells(text, f"## {corpus}")
        assert [row[0] for row in table[2:]] == list(paper["rows"])
        assert all(len(row) == 1 + len(COLUMNS) for row in table)
    assert cells(text, "## DRCD")[3] == [
        *("CLSR", "5.56", "76.21", "87.79", "90.03"),
        *("75.23", "88.21", "91.51"),
    ]
    row = dict(map(lambda r: (r[0], r[1:]), cells(text, "## LibriSQA")[2:]))
    assert row["ParaBGE"] == ["-", "29.31", "-", "-", "20.57", "-", "-"]


def test_seeds_are_averaged_and_equal_bounds_stand_once(save):
    place = "Tones/{}/{}/evaluation/test"
    rows = {"cascade": 30.0, "bound": 90.0}
    save(place.format("clsr", 1), clsr=40.0, late=60.0, **rows)
    save(place.format("clsr", 2), clsr=50.0, late=60.0, **rows)
    save(place.format("clsr-no_vq", 1), clsr=20.0, **rows)
    save(place.format("parabge", 1), parabge=10.0, bound=90.0)
    save(place.format("clsr", "2.old"), clsr=1.0, **rows)
    results = save("Tones/clsr/1/evaluation/test_far", clsr=3.0, bound=80.0)
    found = find_content_results(results)
    assert len(found) == 5 and find_results(results) == []
    text = content_tables(found)
    assert "Ours, on `test` (9 clips, 8 contexts, 7 questions)" in text
    table = cells(text, "on `test` ")
    assert [row[:2] for row in table[2:]] == [
        ["clsr", "2"],
        ["clsr, late interaction", "2"],
        ["clsr: cascade", "2"],
        ["clsr-no_vq", "1"],
        ["clsr-no_vq: cascade", "1"],
        ["parabge", "1"],
        [BOUND, "2"],
    ]
    # Of 40 and 50: sqrt(2 x 5 squared / 1).
    assert table[2][2:4] == ["12.50 ± 0.00", "45.00 ± 7.07"]
    assert table[-1][2:4] == ["-", "90.00 ± 0.00"]
    assert cells(text, "on `test_far` ")[3][0] == BOUND
    assert "1.00" not in text.partition("## Tones")[2]


def test_other_text_encoders_have_other_bounds(save):
    place = "Tones/{}/1/evaluation/test"
    save(place.format("clsr"), clsr=40.0, bound=90.0)
    results = save(place.format("other"), clips=5, other=40.0, bound=91.0)
    text = content_tables(find_content_results(results))
    assert [row[0] for row in cells(text, "on `test` ")[4:]] == [
        f"clsr: {BOUND}",
        f"other: {BOUND}",
    ]
    assert "mind, not on the same: 5 clips, 8 contexts, 7 questions; 9" in text


def test_a_corpus_of_the_paper_has_both(save):
    results = save("LibriSQA/clsr/1/evaluation/test", clsr=40.0, bound=90.0)
    text = content_tables(find_content_results(results))
    part = text.partition("## LibriSQA")[2].partition("##")[0]
    assert "The paper on the test set" in part and "not run" not in part
    assert cells(part, "Ours, on")[2][:4] == ["clsr", "1", "12.50", "40.00"]


def test_a_damaged_report_is_named(save):
    results = save("Tones/clsr/1/evaluation/test", clsr=40.0)
    (path,) = results.rglob("content.json")
    path.write_text("{")
    with pytest.raises(MendableError, match="content.json is no report"):
        find_content_results(results)
    save("Tones/clsr/2/evaluation/test", clsr=40.0)
    skips = []
    (found,) = find_content_results(results, skips)
    assert found.seed == 2 and str(path) in str(skips[0])
    path.with_name("report.json").write_text("{}")
    assert find_results(results, skips) == [] and len(skips) == 2


def test_the_errors_of_spoken_questions_have_a_column(tmp_path):
    for seed, rate in (1, 20.0), (2, 30.0):
        systems = {
            "clsr": {"WER": 10.0},
            "clsr, spoken questions": {"WER": 10.0, "WER of questions": rate},
        }
        folder = tmp_path / f"Tones/clsr/{seed}/evaluation/test"
        ContentReport({"clips": 3}, systems, {}).save(folder)
    text = content_tables(find_content_results(tmp_path))
    head, _, typed, spoken = cells(text, "on `test` ")
    assert head[2:5] == ["WER", "WER of questions", "Q-C R@1"]
    assert typed[2:5] == ["10.00 ± 0.00", "-", "-"]
    assert spoken[2:5] == ["10.00 ± 0.00", "25.00 ± 7.07", "-"]


def test_the_ablation_is_told_apart_by_what_it_leaves_out():
    """15.29 is not CLSR without VQ but with less beside it, too."""
    rows = published_content()["corpora"]["SpokenSQuAD"]["rows"]
    first, second = [name for name in rows if rows[name][1] in (15.29, 42.52)]
    assert "joint training alone, without VQ" in first
    assert second.startswith("the same with VQ")
    assert rows[second][:2] == [17.0, 42.52] and rows[second][4] == 46.86


def test_the_commands_of_the_ablation_add_one_part_each():
    recipe = ROOT / "recipes" / "SpokenSQuAD"
    readme = (recipe / "README.md").read_text()
    rows = []
    for i in range(1, 7):
        (line,) = re.findall(rf"^train ablation_{i}\b.*", readme, re.MULTILINE)
        words = shlex.split(line)[2:]
        options = [f"--name=ablation_{i}", "--data_folder=."]
        options += map("=".join, zip(words[::2], words[1::2], strict=True))
        page = ROOT / "hparams" / "clsr_paraformer.yaml"
        _, _, given = sb.parse_arguments([str(page), *options])
        flat = flatten_page(page, given, recipe / "spoken_squad.yaml")
        page = YAML().load(flat)
        stages = {name: epochs > 0 for name, epochs in page["stages"].items()}
        assert stages["joint"] and page["name"] == f"ablation_{i}"
        rows.append(
            [
                page["vq"]["is_hard"],
                stages["text"],
                stages["recognition"],
                page["sampling_ratio"] > 0,
                stages["post"],
            ]
        )
    # In the order in which the paper adds them.
    assert rows == [[j < i for j in range(5)] for i in range(6)]
