"""Tables of content retrieval: a corpus and test set each, beside the paper's.

Authors
 * The esr_lobes contributors
"""

from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import yaml

from esr_lobes.content_metrics import CUTOFFS
from esr_lobes.content_reports import BOUND, QUESTIONS_WER
from esr_lobes.reports import markdown_table
from esr_lobes.tables import MISSING

FILE = Path(__file__).parent / "data" / "published_content.yaml"
COLUMNS = ["WER", *(f"{way} R@{k}" for way in ("Q-C", "C-Q") for k in CUTOFFS)]


@cache
def published_content():
    """Returns the figures of Hu et al. 2025.

    Returns
    -------
    dict
        ``source``, and ``corpora``: by name ``of``, which is the set, and
        ``rows`` of the figures that ``COLUMNS`` names.

    Example
    -------
    >>> published_content()["corpora"]["LibriSQA"]["rows"]["CLSR"][:2]
    [4.09, 85.04]
    """
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def content_tables(results):
    """Returns a table for each corpus and test set of content.

    Arguments
    ---------
    results : list of Result
        From :func:`esr_lobes.results.find_content_results`; none is all
        right.

    Returns
    -------
    str
        Markdown.
    """
    known = published_content()
    groups = defaultdict(lambda: defaultdict(list))
    for each in results:
        groups[each.corpus][each.test_set].append(each)
    parts = [
        "# Content",
        "Percent. Q-C: a question finds its context among all of the set; "
        "C-Q: a context one of its questions; by context. Several seeds: mean "
        "± standard deviation. `cascade` reads the words that its system "
        "recognised, the upper bound the true words, each with the system's "
        f"text encoder. The paper is {known['source']}.",
    ]
    for corpus in dict.fromkeys([*known["corpora"], *groups]):
        parts.append(f"## {corpus}")
        lines = []
        if corpus in known["corpora"]:
            paper = known["corpora"][corpus]
            parts.append(f"The paper on {paper['of']}:")
            lines = [
                [name, *map(_cell, figures)]
                for name, figures in paper["rows"].items()
            ]
            parts.append(markdown_table(["", *COLUMNS], lines))
        if corpus not in groups:
            parts.append(
                f"Ours: {MISSING}; the commands are in "
                f"`recipes/{corpus}/README.md`."
            )
        for test_set, group in groups[corpus].items():
            parts += [f"Ours, on `{test_set}` ({_what(group)}):", _table(group)]
    return "\n\n".join(parts) + "\n"


def _what(group):
    """Returns what was judged on, and a caution if that differs."""
    names = ("clips", "contexts", "questions")
    counts = {
        tuple(each.numbers["settings"].get(name) for name in names)
        for each in group
    }
    texts = [
        ", ".join(f"{n} {name}" for n, name in zip(each, names, strict=True))
        for each in sorted(counts, key=str)
    ]
    text = "; ".join(texts)
    return f"mind, not on the same: {text}" if len(texts) > 1 else text


def _table(group):
    """Returns a table of the systems of one test set."""
    rows = defaultdict(dict)
    for each in sorted(group, key=lambda each: (each.name, each.seed)):
        systems = each.numbers["systems"]
        own = next(iter(systems))
        for system, figures in systems.items():
            title = each.name, system.removeprefix(own)
            if not system.startswith(own):
                title = each.name, f": {system}"
            rows[title][each.seed] = figures
    columns = [*COLUMNS]
    if any(QUESTIONS_WER in f for row in rows.values() for f in row.values()):
        columns.insert(1, QUESTIONS_WER)
    lines = [
        [f"{name}{what}", str(len(of_seed)), *_cells(of_seed.values(), columns)]
        for (name, what), of_seed in _merged(rows).items()
    ]
    return markdown_table(["", "seeds", *columns], lines)


def _merged(rows):
    """Returns the rows, upper bounds last and those that are alike once.

    Systems with the same text encoder have the same bound.
    """
    kept, bounds = {}, {}
    for (name, what), of_seed in rows.items():
        if not what.startswith(f": {BOUND}"):
            kept[name, what] = of_seed
            continue
        means = [cell.partition(" ")[0] for cell in _cells(of_seed.values())]
        bounds.setdefault((what, *means), {})[name] = of_seed
    for (what, *_), alike in bounds.items():
        of_seed = max(alike.values(), key=len)
        is_shared = sum(other == what for other, *_ in bounds) == 1
        name = "" if is_shared else ", ".join(alike)
        kept[name, what.removeprefix(": ") if is_shared else what] = of_seed
    return kept


def _cells(rows, columns=COLUMNS):
    """Returns the mean and deviation of each column over seeds."""
    rows = list(rows)
    return [_spread([row.get(name) for row in rows]) for name in columns]


def _spread(values):
    if None in values:
        return "-"
    text = _cell(mean(values))
    return text if len(values) == 1 else f"{text} ± {stdev(values):.2f}"


def _cell(value):
    return "-" if value is None else f"{value:.2f}"
