"""Tables of a folder of results: which figures come where, and what is missing.

Authors
 * The esr_lobes contributors
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from esr_lobes import published, tables
from esr_lobes.reports import FORMAT
from esr_lobes.results import find_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def save(tmp_path):
    """A function that writes a report where a training would."""

    def write(place, recall, mean_ap=0.5, **more):
        systems = {"train": recall, "held_out": recall / 2}
        settings = {
            "clips": 588,
            "styles_searched": [f"style{i}" for i in range(7)],
            "n_trials": 1000,
            "n_distractors": 400,
        }
        numbers = {
            "format": FORMAT,
            "settings": settings | more,
            "systems": {
                name: {
                    "macro": {f"R@{k}": value for k in (1, 5, 10, 20)}
                    | {"mAP": mean_ap}
                }
                for name, value in systems.items()
            },
        }
        path = tmp_path / place / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(numbers))
        return tmp_path

    return write


def cells(text, heading=""):
    """The rows of the first table behind a heading, as lists of cells."""
    text = text[text.index(heading) :]
    table = re.search(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE).group()
    rows = [line.split("|")[1:-1] for line in table.strip().splitlines()]
    return [[cell.strip() for cell in row] for row in rows]


def test_nothing_run_is_said_with_commands(tmp_path):
    text = tables.paper_tables(find_results(tmp_path))
    for heading in ("Table II: ESD", "Table II: Expresso", "Table III"):
        rows = cells(text, heading)[2:]
        assert [row[1] for row in rows[1::2]] == ["not run here"] * (
            len(rows) // 2
        )
        assert {cell for row in rows[1::2] for cell in row[2:]} == {"", "-"}
    commands = text.partition("## Not run here")[2]
    assert commands.count("python recipes/Joint/train.py") == 14
    for page in published.pages():
        assert commands.count(f"hparams/{page}.yaml") >= 1
    for variant in published.ablations():
        assert commands.count(f"--variant {variant}\n") == 1
    assert tables.other_tables([]) == ""


def test_the_command_for_what_is_missing_fits_the_recipe():
    words = tables.command_of("t5_e2v-no_classifier").split()
    assert words[2] == "hparams/t5_e2v.yaml"
    assert all((ROOT / path).is_file() for path in words[1:3])
    page = yaml.compose((ROOT / "recipes/Joint/joint.yaml").read_text())
    known = {key.value for key, _ in page.value} | {"variant"}
    flags = [word[2:] for word in words if word.startswith("--")]
    assert len(flags) == 4 and set(flags) <= known


def test_joint_runs_alone_and_several_seeds(save):
    joint = "Joint/roberta_e2v/{}/evaluation/Expresso_test_read"
    for seed, recall in ((1, 0.7), (2, 0.8)):
        folder = save(joint.format(seed), recall)
    save("Joint/roberta_e2v-improved/1/evaluation/Expresso_test_read", 0.9)
    save("Expresso/roberta_e2v/1/evaluation/test_read", 0.6, n_trials=20)
    save("Expresso/roberta_e2v/1/evaluation/test", 0.11)
    save("Joint/roberta_e2v/1.old/evaluation/Expresso_test_read", 0.99)
    found = find_results(folder)
    assert len(found) == 5  # a copy is no seed
    text = tables.paper_tables(found)
    rows = cells(text, "Table II: Expresso")
    at = [row[0] for row in rows].index("RoBERTa + emotion2vec")
    assert rows[at][:4] == ["RoBERTa + emotion2vec", "the paper", "", "0.8159"]
    # Deviation of .7 and .8: sqrt(2 x .05 squared / 1).
    assert rows[at + 1][1:4] == ["here", "2", "0.7500 ± 0.0707"]
    assert rows[at + 2][1:4] == ["difference", "", "-0.0659"]
    assert rows[at + 3][1:4] == ["here, improved", "1", "0.9000"]
    assert rows[at + 5][1:4] == ["here, Expresso alone", "1", "0.6000"]
    assert rows[at + 7][0] == "T5 + emotion2vec"
    assert (
        "RoBERTa + emotion2vec, here, Expresso alone: 20 trials a style, in "
        "the paper 1000" in text
    )
    assert "0.1100" not in text and "0.9900" not in text
    # The joint run is done, so its command is gone but for the ablations.
    commands = text.partition("## Not run here")[2]
    assert commands.count("hparams/roberta_e2v.yaml") == 5  # ESD is missing
    others = tables.other_tables(found)
    assert "roberta_e2v on Expresso, test\n" in others
    assert "test_read" not in others and "0.1100" in others


def test_ablations_of_the_paper_stand_in_table_three(save):
    place = "Joint/roberta_e2v-{}/3/evaluation/Expresso_test_read"
    save(place.format("no_classifier"), 0.2)
    folder = save(place.format("no_discriminator"), 0.7)
    text = tables.paper_tables(find_results(folder))
    rows = cells(text, "Table III")
    titles = [row[0] for row in rows]
    at = titles.index("no discriminator")
    assert rows[at + 1][1:4] == ["here", "1", "0.7000"]
    assert rows[at + 2][1:4] == ["difference", "", "+0.0286"]
    at = titles.index("no style classifier")
    assert rows[at][1:4] == ["the paper: collapses", "", "-"]
    assert rows[at + 1][1:4] == ["here", "1", "0.2000"]
    assert rows[at + 2][0] == "no discriminator"
    assert "0.7000" not in text.partition("Table III")[0]


def test_an_ablation_table_compares_what_shares_a_seed(save):
    place = "RAVDESS/{}/{}/evaluation/test"
    runs = (
        ("compact", 1, 0.4),
        ("compact-paper", 1, 0.10),
        ("compact-paper", 2, 0.30),
        ("compact-paper", 3, 0.90),
        ("compact-paper-no_discriminator", 1, 0.20),
        ("compact-paper-no_discriminator", 2, 0.10),
        ("compact-paper-no_pretraining", 9, 0.05),
        ("compact-no_augmentation", 1, 0.1),
    )
    for name, seed, recall in runs:
        folder = save(place.format(name, seed), recall, mean_ap=recall)
    found = find_results(folder)
    rows = cells(tables.ablation_table(found, "train"))[2:]
    assert [row[:2] for row in rows] == [
        ["compact", "1"],
        ["compact-no_augmentation", "1"],
        ["compact-paper", "3"],
        ["compact-paper-no_pretraining", "1"],
        ["compact-paper-no_discriminator", "2"],
    ]
    assert rows[0][-3:] == ["-", "-", "-"]
    assert rows[1][-3:] == ["-0.3000", "-0.3000", "-0.2258"]
    # No seed in common with the full system: nothing to compare.
    assert rows[3][-3:] == ["-", "-", "-0.0370"]
    # Seeds 1 and 2 only: +.1 and -.2, their mean and deviation.
    assert rows[4][-3:] == ["-0.0500 ± 0.2121"] * 2 + ["-0.1445"]
    rows = cells(tables.ablation_table(found, "held_out"))[2:]
    assert rows[0][2] == "0.2000"
    text = tables.other_tables(found)
    assert text.count("## compact on RAVDESS, test\n") == 1
    assert "Queries: train. 588 clips" in text and "Mind" not in text
    with pytest.raises(ValueError, match="no report has figures of 'logits'"):
        tables.ablation_table(found, "logits")


def test_runs_judged_otherwise_are_not_passed_over(save):
    save("RAVDESS/compact/1/evaluation/test", 0.1)
    folder = save("RAVDESS/compact/2/evaluation/test", 0.2, n_trials=20)
    text = tables.other_tables(find_results(folder))
    assert "these runs were judged with different n_trials" in text


def test_joint_runs_on_other_test_sets_say_what_they_learned_from(save):
    folder = save("Joint/bert_e2v/1/evaluation/Expresso_test", 0.3)
    text = tables.other_tables(find_results(folder))
    assert "## bert_e2v on Expresso, test, trained on Joint" in text


def test_a_folder_that_is_none_has_no_results(tmp_path):
    assert find_results(tmp_path / "none") == []
