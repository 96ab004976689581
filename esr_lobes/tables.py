"""Tables of results: those of the paper, and of whatever else was run.

From the reports that trainings have left (:mod:`esr_lobes.results`) come
Table II and Table III beside the paper's figures, and a table of systems and
ablations for every other test set. What has no report is said to be not run,
with the command that runs it.

Authors
 * The esr_lobes contributors
"""

from collections import defaultdict
from statistics import mean, stdev

from esr_lobes import published
from esr_lobes.errors import MendableError
from esr_lobes.reports import markdown_table
from esr_lobes.results import JOINT, full_system

COMMAND = (
    "python recipes/Joint/train.py hparams/{page}.yaml --expresso_folder "
    "EXPRESSO --esd_folder ESD --iemocap_folder IEMOCAP"
)
MISSING = "not run here"


def paper_tables(results):
    """Returns Table II and Table III, and how to run what is missing.

    Arguments
    ---------
    results : list of Result
        From :func:`esr_lobes.results.find_results`; none is all right.

    Returns
    -------
    str
        Markdown.
    """
    known, missing = published.figures(), []
    parts = [
        "# Beside the paper",
        f"{known['source']}. Queries are the mean of all prompts of the bank "
        "used in training, or a classifier's scores; means over styles of "
        "Recall@k in trials of one clip among others. Several seeds: mean ± "
        "standard deviation. The paper's systems learned from "
        f"{', '.join(known['trained_on'])} together, and so did ours unless "
        "a row says otherwise. Chance is R@k = k/401.",
    ]
    for corpus in known["table_2"]:
        parts.append(f"## Table II: {_titled(corpus)}")
        parts += _beside(results, corpus, published.pages(), missing)
    third = known["table_3"]
    names = [third["page"]]
    names += [f"{third['page']}-{each}" for each in third["rows"]]
    parts.append(f"## Table III: ablations, {_titled(third['corpus'])}")
    parts += _beside(results, third["corpus"], names, missing)
    parts.append(
        "The paper's Expresso figures are on short read clips in 7 styles, "
        "since its code takes no notice of the time ranges in the official "
        "lists; so they stand beside the test set `test_read`. Nothing "
        "published stands beside the full `test` of 19 styles."
    )
    if missing:
        commands = "\n".join(map(command_of, dict.fromkeys(missing)))
        parts += [f"## {MISSING.capitalize()}", f"```\n{commands}\n```"]
    return "\n\n".join(parts) + "\n"


def command_of(name):
    """Returns the command that trains and judges a system of the paper.

    Arguments
    ---------
    name : str
        Name of a page, with its variants joined by `-`.

    Returns
    -------
    str
        For the shell, from the repository's root.

    Example
    -------
    >>> command_of("t5_e2v-no_classifier").rpartition("--")[2]
    'variant no_classifier'
    """
    page, *variants = name.split("-")
    command = COMMAND.format(page=page)
    return command + (f" --variant {'+'.join(variants)}" if variants else "")


def other_tables(results):
    """Returns tables of all that the paper has no figures on.

    Arguments
    ---------
    results : list of Result
        From :func:`esr_lobes.results.find_results`.

    Returns
    -------
    str
        Markdown: for every training corpus, test set and page the system,
        its variants and ablations; empty if there is nothing to show.
    """
    groups = defaultdict(list)
    for each in results:
        key = (each.trained_on, each.corpus, each.test_set, each.page)
        groups[key].append(each)
    parts = []
    for (trained_on, corpus, test_set, page), group in groups.items():
        if all(
            published.table_row(each.name, corpus, test_set) for each in group
        ):
            continue
        where = f"{corpus}, {test_set}"
        if trained_on != corpus:
            where += f", trained on {trained_on}"
        parts.append(f"## {page} on {where}")
        for system in _systems(group):
            parts += [
                f"Queries: {system}. {_how_judged(group)}",
                ablation_table(group, system),
            ]
    return "\n\n".join(parts) + "\n" if parts else ""


def ablation_table(results, system):
    """Returns a table of a page's systems and their ablations.

    Differences from the full system are means over the seeds that both have
    been trained with.

    Arguments
    ---------
    results : list of Result
        Of one test set; any seeds.
    system : str
        Name of a bank or of scores in the reports, such as `train`.

    Returns
    -------
    str
        Markdown: one row a system; the last column is what the same
        ablation does to Recall@1 in the paper, on Expresso.

    Raises
    ------
    MendableError
        If no report has such a system.
    """
    by_name = defaultdict(dict)
    for each in results:
        if system in each.numbers["systems"]:
            macro = each.numbers["systems"][system]["macro"]
            by_name[each.name][each.seed] = macro
    if not by_name:
        raise MendableError(f"no report has figures of {system!r}")
    macros = [macro for each in by_name.values() for macro in each.values()]
    columns = [c for c in macros[0] if c.startswith("R@")] + ["mAP"]
    compared = [columns[0], "mAP"]
    lines = []
    for name in sorted(by_name, key=_in_order):
        of_seed, full = by_name[name], by_name.get(full_system(name), {})
        line = [name, str(len(of_seed))]
        line += [_spread([m.get(c) for m in of_seed.values()]) for c in columns]
        is_ablation = name != full_system(name)
        shared = sorted(set(of_seed) & set(full)) if is_ablation else []
        for column in compared:
            differences = [
                of_seed[seed][column] - full[seed][column]
                for seed in shared
                if column in of_seed[seed] and column in full[seed]
            ]
            line.append(_spread(differences, published.signed))
        effects = map(published.ablation_effect, name.split("-"))
        effects = [each for each in effects if each is not None]
        line.append(published.signed(effects[0]) if len(effects) == 1 else "-")
        lines.append(line)
    header = ["", "seeds", *columns]
    header += [f"{column} less full" for column in compared]
    return markdown_table([*header, "the paper's R@1 less full"], lines)


def _beside(results, corpus, names, missing):
    """A table of the paper's rows and ours, and what to mind in it."""
    columns = [f"R@{k}" for k in published.figures()["ks"]]
    test_set = published.comparable_set(corpus)
    here = defaultdict(list)
    for each in results:
        if (each.corpus, each.test_set) == (corpus, test_set):
            here[each.name, each.trained_on].append(each)
    lines, minded = [], []
    for name in names:
        paper = published.table_row(name, corpus, test_set)
        is_ablation = name != full_system(name)
        title = paper.name.split(", ")[-1] if is_ablation else paper.name
        cells = [published.four(paper.recalls.get(c)) for c in columns]
        whose = "the paper" if paper.recalls else "the paper: collapses"
        lines.append([title, whose, "", *cells])
        if (name, JOINT) not in here:
            lines.append(["", MISSING, "", *("-" for _ in columns)])
            missing.append(name)
        for other, trained_on in sorted(here, key=_in_order_of):
            group = here[other, trained_on]
            row = published.table_row(other, corpus, test_set)
            if row != paper:
                continue
            whose = _whose(other, trained_on)
            means = _mean_lines(group, columns, paper, whose)
            lines += means
            notes = published.cautions(group[0].numbers, corpus)
            notes += _unlike(group)
            minded += [f"{title}, {whose}: {note}" for note in notes]
    parts = [markdown_table(["", "", "seeds", *columns], lines)]
    if minded:
        parts.append("Mind:\n\n" + "\n".join(f"* {text}" for text in minded))
    return parts


def _mean_lines(group, columns, paper, whose):
    """The lines of one system of ours: its figures, and less the paper's."""
    macros = []
    for each in group:
        system = published.system_of(each.numbers)
        macros.append(each.numbers["systems"][system]["macro"])
    values = {c: [macro.get(c) for macro in macros] for c in columns}
    lines = [["", whose, str(len(group)), *map(_spread, values.values())]]
    if paper.recalls:
        cells = [
            "-"
            if None in values[c]
            else published.signed(mean(values[c]) - paper.recalls[c])
            for c in columns
        ]
        lines.append(["", "difference", "", *cells])
    return lines


def _whose(name, trained_on):
    """What a row of ours is called."""
    words = [w for w in name.split("-") if w in published.NEUTRAL_VARIANTS]
    if trained_on != JOINT:
        words.append(f"{trained_on} alone")
    return "here" + "".join(f", {word}" for word in words)


def _systems(results):
    """Names of the systems that the reports have, in their order."""
    names = [name for each in results for name in each.numbers["systems"]]
    return list(dict.fromkeys(names))


def _how_judged(results):
    """One sentence on clips and trials, and a caution if they differ."""
    settings = results[0].numbers["settings"]
    text = (
        f"{settings['clips']} clips, {len(settings['styles_searched'])} "
        f"styles, {settings['n_trials']} trials a style with at most "
        f"{settings['n_distractors']} distractors."
    )
    return " ".join([text, *(f"Mind: {note}." for note in _unlike(results))])


def _unlike(results):
    """A clause if the reports are not on the same clips and trials."""
    names = ("clips", "styles_searched", "n_trials", "n_distractors")
    differing = [
        name
        for name in names
        if len({str(each.numbers["settings"][name]) for each in results}) > 1
    ]
    if not differing:
        return []
    return [f"these runs were judged with different {', '.join(differing)}"]


def _spread(values, show=published.four):
    """Mean, and standard deviation if there are several values."""
    if not values or None in values:
        return "-"
    text = show(mean(values))
    return text if len(values) == 1 else f"{text} ± {stdev(values):.4f}"


def _titled(corpus):
    """A corpus with the test set that is meant."""
    return f"{corpus} (`{published.comparable_set(corpus)}`)"


def _in_order(name):
    """A key that puts a system before its ablations, these as the paper."""
    full, order = full_system(name), published.ablations()
    removed = [part for part in name.split("-") if part.startswith("no_")]
    places = [order.index(p) if p in order else len(order) for p in removed]
    return full, len(removed), places, name


def _in_order_of(key):
    """The same for a name and a corpus; joint trainings come first."""
    name, trained_on = key
    return trained_on != JOINT, trained_on, _in_order(name)
