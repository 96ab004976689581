"""The figures of Kang and Roy 2025, to stand beside ours.

They are in ``data/published.yaml``. The paper's Expresso figures are on 588
short read clips in 7 styles, since its code takes no notice of the time ranges
in the official lists: they belong beside the test set `test_read`. Nothing
published stands beside the full test of 19 styles.

Authors
 * The esr_lobes contributors
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from esr_lobes.errors import MendableError
from esr_lobes.reports import FORMAT, markdown_table

FILE = Path(__file__).parent / "data" / "published.yaml"
TRAIN, CLASSIFIER = "train", "classifier"
NEUTRAL_VARIANTS = ("paper", "improved")  # no ablations: the towers' row


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables.

    Arguments
    ---------
    table : str
        `Table II` or `Table III`.
    name : str
        What the paper calls the system.
    recalls : dict
        `R@k` to a float; empty where the paper prints no figures.
    """

    table: str
    name: str
    recalls: dict


@cache
def figures():
    """Returns all of ``data/published.yaml``.

    Returns
    -------
    dict
        Source, tables and test sets.

    Example
    -------
    >>> figures()["table_2"]["Expresso"]["roberta_e2v"][0]
    0.8159
    """
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def pages():
    """Returns the pages of Table II, in its order.

    Returns
    -------
    list of str
        Names of pages.

    Example
    -------
    >>> pages()[0], len(pages())
    ('classifier_wavlm', 10)
    """
    return list(figures()["towers"])


def ablations():
    """Returns the variants of Table III, in its order.

    Returns
    -------
    list of str
        Names of variants.

    Example
    -------
    >>> ablations()[0]
    'no_pretraining'
    """
    return list(figures()["table_3"]["rows"])


def comparable_set(corpus):
    """Returns which test set of a corpus the paper's figures belong beside.

    Arguments
    ---------
    corpus : str
        Name of a corpus.

    Returns
    -------
    str
        Name of the test set; None if the paper has no figures on the corpus.

    Example
    -------
    >>> comparable_set("Expresso"), comparable_set("RAVDESS")
    ('test_read', None)
    """
    return figures()["test_sets"].get(corpus, {}).get("set")


def table_row(name, corpus, test_set):
    """Returns the paper's row for a system on a test set.

    Arguments
    ---------
    name : str
        Name of a page, with its variants joined by `-`. The variants `paper`
        and `improved` are other ways of teaching the same towers and have
        the towers' row.
    corpus : str
        Name of the corpus of the test set.
    test_set : str
        Name of the test set.

    Returns
    -------
    Row
        The row; None if the paper has none.

    Example
    -------
    >>> row = table_row("roberta_e2v-no_discriminator", "Expresso", "test_read")
    >>> row.table, row.recalls["R@1"]
    ('Table III', 0.6714)
    >>> table_row("roberta_e2v", "Expresso", "test") is None
    True
    """
    known = figures()
    page, *variants = name.split("-")
    variants = [v for v in variants if v not in NEUTRAL_VARIANTS]
    if comparable_set(corpus) != test_set or page not in known["towers"]:
        return None
    if not variants:
        recalls = known["table_2"][corpus][page]
        return Row("Table II", known["towers"][page], _by_rank(recalls))
    third = known["table_3"]
    is_there = (page, corpus) == (third["page"], third["corpus"])
    if len(variants) > 1 or not is_there or variants[0] not in third["rows"]:
        return None
    (variant,) = variants
    what = f"{known['towers'][page]}, {third['names'][variant]}"
    return Row("Table III", what, _by_rank(third["rows"][variant] or []))


def ablation_effect(variant):
    """Returns what an ablation costs in the paper, in Recall@1.

    Arguments
    ---------
    variant : str
        Name of a variant.

    Returns
    -------
    float
        Recall@1 on Expresso less that of the full system; None if there is
        no such ablation or no figure of it.

    Example
    -------
    >>> round(ablation_effect("no_discriminator"), 4)
    -0.1445
    """
    third = figures()["table_3"]
    recalls = third["rows"].get(variant)
    if not recalls:
        return None
    return recalls[0] - figures()["table_2"][third["corpus"]][third["page"]][0]


def system_of(numbers):
    """Returns which system of a report stands beside the paper's row.

    The paper asks with the mean of all prompts of the bank used in training;
    its baselines rank by a classifier's scores.

    Arguments
    ---------
    numbers : dict
        `Report.numbers`, or what `report.json` holds.

    Returns
    -------
    str
        `train`, or `classifier` without one, or else the first system.

    Example
    -------
    >>> system_of({"systems": {"held_out": {}, "train": {}}})
    'train'
    """
    systems = list(numbers["systems"])
    return next((s for s in (TRAIN, CLASSIFIER) if s in systems), systems[0])


def beside(report, name, corpus, test_set):
    """Returns our row, the paper's and their difference.

    Arguments
    ---------
    report : Report or dict or str
        An evaluation: the report, its numbers, or the path of a
        ``report.json``.
    name : str
        Name of the page, with its variants joined by `-`.
    corpus : str
        Name of the corpus of the test set.
    test_set : str
        Name of the test set.

    Returns
    -------
    str
        A small table with what to mind in comparing; None if the paper has
        no such row.

    Raises
    ------
    MendableError
        If the report cannot be read.
    """
    row = table_row(name, corpus, test_set)
    if row is None:
        return None
    numbers = report
    if isinstance(report, (str, Path)):
        numbers = read_report(report)
    elif not isinstance(report, dict):
        numbers = report.numbers
    system = system_of(numbers)
    macro = numbers["systems"][system]["macro"]
    columns = [f"R@{k}" for k in figures()["ks"]]
    lines = [
        [f"here ({name}, {system})", *(four(macro.get(c)) for c in columns)],
        [
            f"the paper ({row.name})",
            *(four(row.recalls.get(c)) for c in columns),
        ],
    ]
    if row.recalls:
        differences = [
            signed(macro[c] - row.recalls[c]) if c in macro else "-"
            for c in columns
        ]
        lines.append(["difference", *differences])
    texts = [
        f"Beside {row.table} of Kang and Roy 2025, {corpus} ({test_set}), "
        "whose towers learned from "
        f"{', '.join(figures()['trained_on'])} together:",
        markdown_table(["", *columns], lines),
    ]
    if not row.recalls:
        texts.append("The paper says that this system collapses: no figures.")
    texts += [f"Mind: {text}." for text in cautions(numbers, corpus)]
    return "\n\n".join(texts)


def cautions(numbers, corpus):
    """Returns in what an evaluation differs from the paper's.

    Arguments
    ---------
    numbers : dict
        `Report.numbers`, or what `report.json` holds.
    corpus : str
        Name of the corpus, one that the paper has figures on.

    Returns
    -------
    list of str
        Clauses such as `50 trials a style, in the paper 1000`; empty if the
        trials are of the paper's kind and on as many clips and styles.
    """
    settings, known = numbers["settings"], figures()
    wanted = known["test_sets"][corpus]
    trials = known["trials"]
    compared = (
        (len(settings["styles_searched"]), wanted["styles"], "styles"),
        (settings["clips"], wanted["clips"], "clips"),
        (settings["n_trials"], trials["n_trials"], "trials a style"),
        (settings["n_distractors"], trials["n_distractors"], "distractors"),
    )
    return [
        f"{here} {what}, in the paper {there}"
        for here, there, what in compared
        if here != there
    ]


def read_report(path):
    """Returns the numbers of a ``report.json``.

    Arguments
    ---------
    path : str
        The file.

    Returns
    -------
    dict
        What `Report.numbers` was.

    Raises
    ------
    MendableError
        If it is no report.
    """
    try:
        numbers = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MendableError(
            f"{path} is damaged ({error}): evaluate again"
        ) from error
    if not isinstance(numbers, dict) or numbers.get("format") != FORMAT:
        raise MendableError(f"{path} is no report of this kind: evaluate again")
    return numbers


def four(value):
    """Returns a number with four decimals, or `-` for None."""
    return "-" if value is None else f"{value:.4f}"


def signed(value):
    """Returns a difference with its sign and four decimals."""
    return f"{value:+.4f}"


def _by_rank(recalls):
    """Recalls by the name of their column; empty stays empty."""
    names = [f"R@{k}" for k in figures()["ks"]]
    return dict(zip(names, recalls, strict=True)) if recalls else {}
