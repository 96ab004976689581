"""One call from embeddings to a report of how well styles are found.

`evaluate` takes embeddings of clips and of prompts, or ready scores such as
the logits of a classifier, and counts everything the report shows: Recall@k
in trials, rankings of the whole corpus with confidence intervals, single
prompts, recall by duration, and beside them chance and random embeddings.
All systems go through the same trials. `evaluate_retriever` embeds first.

A report is a dict of plain numbers; tables and Markdown are made from it, so
that a `report.json` read back prints the same.

Authors
 * The esr_lobes contributors
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esr_lobes.metrics import (
    DURATION_EDGES,
    as_array,
    bootstrap_ranking,
    bootstrap_recall,
    chance_metrics,
    chance_recall,
    mean_average_precision,
    mean_over_styles,
    rank_styles,
    ranking_metrics,
    recall_by_duration,
    relevant_positions,
    score_clips,
    unit_rows,
)
from esr_lobes.trials import (
    DEFAULT_KS,
    evaluate_trials,
    make_trials,
    replacing,
    write_trials,
)

__all__ = [
    "Report",
    "evaluate",
    "evaluate_retriever",
    "mean_average_precision",
    "summary_table",
    "to_markdown",
]

FORMAT = "esr_lobes report 1"
RANDOM = "random embeddings"
CHANCE = "chance"
CONFIDENCE = 0.95


@dataclass(eq=False)
class Report:
    """The figures of an evaluation and how to show them.

    Arguments
    ---------
    numbers : dict
        Everything that was counted, ready for JSON.
    trials : Trials
        What was searched among what; None in a report read from JSON.
    clips : array
        Unit embeddings of shape [clip, dimension] for the map, or None.
    clip_styles : list of str
        The style of each clip.
    prompts : dict
        Bank to style to unit embeddings [prompt, dimension].
    scores : dict
        System to style to the score of each clip.
    """

    numbers: dict
    trials: object = None
    clips: object = None
    clip_styles: tuple = ()
    prompts: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)

    def __str__(self):
        return summary_table(self.numbers)

    def to_json(self):
        """Returns all figures as JSON."""
        return json.dumps(self.numbers, indent=2, allow_nan=False)

    def to_markdown(self):
        """Returns all figures as a Markdown document."""
        return to_markdown(self.numbers)

    def save(self, folder, is_drawn=True):
        """Writes report.json, report.md, trials.txt.gz and plots/*.png.

        Arguments
        ---------
        folder : str
            Where to; made if needed. Each file appears when complete.
        is_drawn : bool
            Whether to draw the plots.

        Returns
        -------
        list of pathlib.Path
            The files written.
        """
        folder = Path(folder)
        written = []
        for name, text in (
            ("report.json", self.to_json() + "\n"),
            ("report.md", self.to_markdown()),
        ):
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(folder / name)
        if self.trials is not None:
            write_trials(folder / "trials.txt.gz", self.trials)
            written.append(folder / "trials.txt.gz")
        return written + (self._draw(folder / "plots") if is_drawn else [])

    def _draw(self, folder):
        from esr_lobes import plots

        figures = {}
        for name, scores in self.scores.items():
            tail = re.sub(r"[^\w-]+", "_", name).strip("_") or "system"
            figures[f"similarity_{tail}"] = plots.similarity_map(
                scores, self.clip_styles, f"Queries and clips: {name}"
            )
            bins = self.numbers["systems"][name]["durations"]
            if bins:
                figures[f"durations_{tail}"] = plots.duration_bars(
                    bins, f"Recall by duration: {name}"
                )
            if name in self.prompts and "embeddings" not in figures:
                figures["embeddings"] = plots.embedding_map(
                    self.clips,
                    self.clip_styles,
                    self.prompts[name],
                    f"Speech and text: {name}",
                )
        for name, figure in figures.items():
            plots.save_figure(folder / f"{name}.png", figure)
        return [folder / f"{name}.png" for name in figures]


def evaluate(
    clip_embeddings,
    rows,
    prompt_embeddings=None,
    prompt_texts=None,
    scores=None,
    trials=None,
    styles=None,
    n_trials=1000,
    n_distractors=400,
    seed=42,
    ks=DEFAULT_KS,
    n_resamples=1000,
    duration_edges=DURATION_EDGES,
    duration_ks=(1, 5),
):
    """Returns the report of some embeddings, or of ready scores, or both.

    The order of the rows does not matter. A clip's score for a style is the
    mean cosine with all prompts of the style.

    Arguments
    ---------
    clip_embeddings : array or torch.Tensor
        Embeddings of shape [clip, dimension]; None if only scores are given.
    rows : list of dict
        Manifest rows of the clips; `ID`, `style` and `duration` are used.
    prompt_embeddings : dict
        Bank to style to embeddings of shape [prompt, dimension]. A bank
        named `train` and one named `held_out` are also compared.
    prompt_texts : dict
        Bank to style to the texts of those prompts, to name the worst one.
    scores : dict
        Name of a system, such as a classifier, to style to the score of
        each clip in the order of `rows`; more is better.
    trials : Trials
        Trials to use; by default they are made with the next numbers.
    styles : list of str
        Styles to search for; by default all that the rows have.
    n_trials : int
        Trials of each style.
    n_distractors : int
        Clips of other styles in a trial.
    seed : int
        Start of the trials' draws, the resampling and the random row.
    ks : tuple of int
        Ranks that count as found.
    n_resamples : int
        Draws behind a confidence interval; 0 leaves them out.
    duration_edges : tuple of float
        Where a new bin of durations begins, in seconds.
    duration_ks : tuple of int
        Ranks that count as found in the bins.

    Returns
    -------
    Report
        The figures.

    Raises
    ------
    ValueError
        If numbers or shapes do not fit, a vector is not finite or is zero,
        or there is nothing to evaluate.

    Example
    -------
    >>> rows = [{"ID": "a", "style": "sad", "duration": 1.0},
    ...         {"ID": "b", "style": "happy", "duration": 2.0}]
    >>> banks = {"train": {"sad": [[1.0, 0.0]], "happy": [[0.0, 1.0]]}}
    >>> report = evaluate([[0.9, 0.1], [0.2, 0.7]], rows, banks)
    >>> report.numbers["systems"]["train"]["macro"]["R@1"]
    1.0
    """
    rows = list(rows)
    if not rows:
        raise ValueError("there are no clips to evaluate")
    order = sorted(range(len(rows)), key=lambda i: str(rows[i]["ID"]))
    rows = [rows[i] for i in order]
    clip_ids = [str(row["ID"]) for row in rows]
    clip_styles = [str(row["style"]) for row in rows]
    if trials is None:
        trials = make_trials(rows, n_trials, n_distractors, seed, styles)
    _check_trials(trials, clip_ids, clip_styles)
    wanted = trials.styles if styles is None else sorted(styles)
    wanted = [style for style in wanted if style in trials.targets]
    clips, prompts, system_scores = None, {}, {}
    if clip_embeddings is not None:
        clips = as_array(clip_embeddings)
        if len(clips) != len(rows):
            raise ValueError(
                f"{len(clips)} embeddings for {len(rows)} clips; each row "
                "of the manifest needs one"
            )
        clips = unit_rows(clips[order], "clip", clip_ids)
    for bank, of_style in (prompt_embeddings or {}).items():
        if clips is None:
            raise ValueError(f"prompts of {bank!r} need embeddings of clips")
        prompts[bank] = {
            style: unit_rows(of_style[style], f"{bank} prompt of {style}")
            for style in wanted
            if style in of_style
        }
        system_scores[bank] = {
            style: score_clips(clips, of_unit.mean(axis=0))
            for style, of_unit in prompts[bank].items()
        }
    for name, of_style in (scores or {}).items():
        if name in system_scores:
            raise ValueError(f"{name!r} is the name of a bank and of scores")
        system_scores[name] = {
            style: _ordered(of_style[style], order, name, style)
            for style in wanted
            if style in of_style
        }
    if not system_scores:
        raise ValueError("give prompts or scores to evaluate")

    judge = _Judge(
        rows, trials, ks, n_resamples, seed, duration_edges, duration_ks
    )
    systems = {}
    for name, of_style in system_scores.items():
        if not of_style:
            raise ValueError(
                f"{name!r} knows none of the styles {', '.join(wanted)}"
            )
        systems[name] = judge(of_style)
        systems[name]["skipped"] = {
            **trials.skipped,
            **{s: "no query" for s in wanted if s not in of_style},
        }
        if name in prompts:
            texts = (prompt_texts or {}).get(name)
            systems[name]["single_prompts"] = _single_prompts(
                clips, clip_styles, prompts[name], texts
            )
    # One random row and one chance row serve all, for the styles that some
    # system knows.
    known = [s for s in wanted if any(s in of for of in system_scores.values())]
    numbers = {
        "format": FORMAT,
        "settings": {
            "clips": len(rows),
            "styles": sorted(set(clip_styles)),
            "styles_searched": known,
            "n_trials": trials.n_trials,
            "n_distractors": trials.n_distractors,
            "candidates": {s: trials.n_candidates(s) for s in known},
            "trials_seed": trials.seed,
            "seed": seed,
            "ks": list(ks),
            "n_resamples": n_resamples,
            "confidence": CONFIDENCE,
            "duration_edges": [float(edge) for edge in duration_edges],
        },
        "systems": systems,
        "random": judge(_random_scores(len(rows), known, clips, seed)),
        "chance": judge.chance(known),
        "ratios": _ratios(systems),
        "left_out": [],
    }
    return Report(
        numbers, trials, clips, tuple(clip_styles), prompts, system_scores
    )


def evaluate_retriever(
    retriever, rows, banks, out_folder=None, encode_options=None, **settings
):
    """Embeds clips and prompts with a retriever, and evaluates them.

    Arguments
    ---------
    retriever : EncoderRetriever
        Has `encode_clips(rows)`, which returns embeddings and the rows they
        are of, and `encode_text(list)`.
    rows : list of dict
        Manifest rows of the clips.
    banks : list of PromptBank
        Banks to ask with; their names become the names of the systems.
    out_folder : str
        Where to save the report; None saves nothing.
    encode_options : dict
        Further arguments of `encode_clips`, such as `on_error="skip"`; clips
        left out are named in the report.
    settings
        Further arguments of `evaluate`.

    Returns
    -------
    Report
        The figures.
    """
    rows = list(rows)
    embeddings, kept = retriever.encode_clips(rows, **(encode_options or {}))
    present = {str(row["style"]) for row in kept}
    if settings.get("styles") is not None:
        present &= set(settings["styles"])
    texts, prompts = {}, {}
    for bank in banks:
        if bank.name in texts:
            raise ValueError(f"two prompt banks are named {bank.name!r}")
        shared = sorted(present & set(bank.styles))
        texts[bank.name] = {style: bank.prompts(style) for style in shared}
        prompts[bank.name] = {
            style: retriever.encode_text(of_style)
            for style, of_style in texts[bank.name].items()
        }
    report = evaluate(embeddings, kept, prompts, texts, **settings)
    left_out = {str(row["ID"]) for row in rows} - {
        str(row["ID"]) for row in kept
    }
    report.numbers["left_out"] = sorted(left_out)
    if out_folder is not None:
        report.save(out_folder)
    return report


def summary_table(numbers):
    """Returns the main table: a row a system, then random and chance.

    Arguments
    ---------
    numbers : dict
        `Report.numbers`, or what `report.json` holds.

    Returns
    -------
    str
        A table that is read as Markdown and on a terminal.
    """
    recalls = [f"R@{k}" for k in numbers["settings"]["ks"]]
    names = [*recalls, "mAP", "R-precision", "P@10", "nDCG@10"]
    lines = []
    for name, system in (
        *numbers["systems"].items(),
        (RANDOM, numbers["random"]),
        (CHANCE, numbers["chance"]),
    ):
        cells = [f"{system['macro'][column]:.4f}" for column in names]
        n_styles = str(len(system["per_style"]))
        low_high = system.get("interval", {}).get("mAP")
        if low_high:
            low, high = low_high
            cells[len(recalls)] += f" [{low:.3f}, {high:.3f}]"
        lines.append([name, n_styles, *cells])
    return _table(["", "styles", *names], lines)


def to_markdown(numbers):
    """Returns all figures of a report as a Markdown document.

    Arguments
    ---------
    numbers : dict
        `Report.numbers`, or what `report.json` holds.

    Returns
    -------
    str
        The document.
    """
    settings = numbers["settings"]
    searched = settings["styles_searched"]
    counts = sorted(set(settings["candidates"].values()))
    span = str(counts[0])
    if len(counts) > 1:
        span += f" to {counts[-1]}"
    parts = [
        "# Style retrieval",
        f"{settings['clips']} clips, {len(searched)} styles searched for; "
        f"{settings['n_trials']} trials a style with {span} candidates "
        f"(at most {settings['n_distractors']} distractors), trials' seed "
        f"{settings['trials_seed']}. Means over styles; ties count against "
        "the truth.",
        summary_table(numbers),
    ]
    if settings["n_resamples"]:
        parts.append(
            f"In brackets: {settings['confidence']:.0%} intervals, "
            f"percentiles of {settings['n_resamples']} draws of the clips "
            "with replacement within their style; prompts and speakers are "
            "taken as given."
        )
    parts += [
        f"{name}: **{value:.3f}**" for name, value in numbers["ratios"].items()
    ]
    if numbers["left_out"]:
        parts.append(
            f"{len(numbers['left_out'])} clips could not be embedded and are "
            f"left out: {_cell(', '.join(numbers['left_out'][:20]))}"
            + (" ..." if len(numbers["left_out"]) > 20 else "")
        )
    for name, system in numbers["systems"].items():
        parts += _system_parts(_cell(name), system, settings["ks"])
    return "\n\n".join(parts) + "\n"


class _Judge:
    """Counts the figures of one system's scores on the trials of all."""

    def __init__(
        self, rows, trials, ks, n_resamples, seed, duration_edges, duration_ks
    ):
        self.clip_ids = [str(row["ID"]) for row in rows]
        self.clip_styles = [str(row["style"]) for row in rows]
        self.trials = trials
        self.ks = tuple(ks)
        self.resampling = dict(
            n_resamples=n_resamples, confidence=CONFIDENCE, seed=seed
        )
        self.edges = duration_edges
        self.duration_ks = duration_ks
        seconds = {str(row["ID"]): row.get("duration") for row in rows}
        is_timed = all(value is not None for value in seconds.values())
        self.seconds = seconds if is_timed else None

    def __call__(self, scores):
        """The figures of scores by style, as a dict ready for JSON."""
        found = evaluate_trials(
            self.trials, scores, self.clip_ids, self.ks, scores
        )
        ranking = rank_styles(scores, self.clip_styles)
        per_style = {
            style: {
                "clips": self.clip_styles.count(style),
                **{f"R@{k}": found.recall[style][k] for k in self.ks},
                **ranking[style],
            }
            for style in sorted(scores)
        }
        result = {
            "macro": _macro(per_style),
            "per_style": per_style,
            "durations": [],
        }
        if self.seconds is not None:
            result["durations"] = recall_by_duration(
                found.ranks,
                self.trials.targets,
                [float(self.seconds[name]) for name in self.trials.clip_ids],
                self.edges,
                self.duration_ks,
            )
        if self.resampling["n_resamples"]:
            by_style, macro = bootstrap_ranking(
                scores, self.clip_styles, **self.resampling
            )
            _, recalls = bootstrap_recall(
                found.ranks, self.trials.targets, self.ks, **self.resampling
            )
            result["interval"] = {
                **{f"R@{k}": list(recalls[k]) for k in self.ks},
                **{_mean_name(key): list(macro[key]) for key in macro},
            }
            for style, intervals in by_style.items():
                per_style[style]["AP_interval"] = list(intervals["AP"])
        return result

    def chance(self, styles):
        """What random scores are expected to give."""
        n_clips = len(self.clip_ids)
        per_style = {}
        for style in styles:
            n_candidates = self.trials.n_candidates(style)
            n_own = self.clip_styles.count(style)
            recalls = {
                f"R@{k}": chance_recall(n_candidates, k) for k in self.ks
            }
            per_style[style] = {
                "clips": n_own,
                **recalls,
                **chance_metrics(n_own, n_clips),
            }
        return {"macro": _macro(per_style), "per_style": per_style}


def _single_prompts(clips, clip_styles, prompts, texts):
    """Average precision of each prompt alone: mean, best and worst."""
    of_clip = np.array(clip_styles, dtype=object)
    per_style = {}
    for style, vectors in prompts.items():
        if texts is not None and len(texts.get(style, ())) != len(vectors):
            raise ValueError(
                f"{len(texts.get(style, ()))} texts for {len(vectors)} "
                f"prompts of {style!r}"
            )
        scores = score_clips(clips, vectors).T
        positions = relevant_positions(scores, of_clip == style)
        values = ranking_metrics(positions)["AP"]

        def named(place, values=values, style=style):
            return {
                "style": style,
                "prompt": texts[style][place] if texts else f"number {place}",
                "AP": float(values[place]),
            }

        per_style[style] = {
            "prompts": len(values),
            "mean_AP": float(values.mean()),
            "best": named(int(values.argmax())),
            "worst": named(int(values.argmin())),
        }
    by_ap = {
        which: [each[which] for each in per_style.values()]
        for which in ("best", "worst")
    }
    return {
        "mAP": float(np.mean([each["mean_AP"] for each in per_style.values()])),
        "worst_mAP": float(np.mean([each["AP"] for each in by_ap["worst"]])),
        "best_mAP": float(np.mean([each["AP"] for each in by_ap["best"]])),
        "best": max(by_ap["best"], key=lambda each: each["AP"]),
        "worst": min(by_ap["worst"], key=lambda each: each["AP"]),
        "per_style": per_style,
    }


def _ratios(systems):
    """How much of the training bank's mAP is left with other banks."""
    if "train" not in systems:
        return {}
    train = systems["train"]["per_style"]
    ratios = {}
    for name, system in systems.items():
        shared = [style for style in system["per_style"] if style in train]
        if name == "train" or "single_prompts" not in system or not shared:
            continue
        before = np.mean([train[style]["AP"] for style in shared])
        after = np.mean([system["per_style"][s]["AP"] for s in shared])
        ratios[f"mAP {name} / train"] = float(after / before)
    return ratios


def _random_scores(n_clips, styles, clips, seed):
    """Cosines of random unit vectors in place of clips and queries."""
    width = 256 if clips is None else clips.shape[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    vectors = rng.standard_normal((n_clips + len(styles), width))
    vectors = unit_rows(vectors, "random vector")
    return {
        style: score_clips(vectors[:n_clips], vectors[n_clips + i])
        for i, style in enumerate(styles)
    }


def _check_trials(trials, clip_ids, clip_styles):
    """Refuses trials that call a clip by another style than the rows do."""
    of_row = dict(zip(clip_ids, clip_styles, strict=True))
    for name, style in zip(trials.clip_ids, trials.clip_styles, strict=True):
        if of_row.get(name, style) != style:
            raise ValueError(
                f"clip {name!r} is {style!r} in the trials and "
                f"{of_row[name]!r} in the manifest; make the trials again"
            )


def _ordered(values, order, name, style):
    """One system's scores for one style, in the order of clip names."""
    values = as_array(values)
    if values.shape != (len(order),):
        raise ValueError(
            f"scores of {name!r} for {style!r} have shape {values.shape}; "
            f"there are {len(order)} clips"
        )
    return values[order]


def _macro(per_style):
    """Means over styles under the names of the tables."""
    means = mean_over_styles(per_style)
    return {_mean_name(key): means[key] for key in means if key != "clips"}


def _mean_name(name):
    """The name of a figure's mean over styles."""
    return "mAP" if name == "AP" else name


def _system_parts(name, system, ks):
    """The section of one system, as a list of paragraphs."""
    names = [*(f"R@{k}" for k in ks), "AP", "R-precision", "P@10", "nDCG@10"]
    lines = []
    for style, figures in system["per_style"].items():
        cells = [f"{figures[column]:.4f}" for column in names]
        if "AP_interval" in figures:
            low, high = figures["AP_interval"]
            cells[len(ks)] += f" [{low:.2f}, {high:.2f}]"
        lines.append([style, str(figures["clips"]), *cells])
    parts = [f"## {name}", _table(["style", "clips", *names], lines)]
    if system["skipped"]:
        parts.append(
            "Not searched for: "
            + "; ".join(f"{s} ({why})" for s, why in system["skipped"].items())
        )
    single = system.get("single_prompts")
    if single:
        worst, best = single["worst"], single["best"]
        parts += [
            "### Single prompts",
            f"mAP of one prompt alone: {single['mAP']:.4f} in the mean, "
            f"{single['worst_mAP']:.4f} with the worst and "
            f"{single['best_mAP']:.4f} with the best prompt of each style. "
            f'The worst of all is "{worst["prompt"]}" ({worst["style"]}, '
            f'{worst["AP"]:.4f}), the best "{best["prompt"]}" '
            f"({best['style']}, {best['AP']:.4f}).",
            _table(
                ["style", "prompts", "mean AP", "worst AP", "worst prompt"],
                [
                    [
                        style,
                        str(each["prompts"]),
                        f"{each['mean_AP']:.4f}",
                        f"{each['worst']['AP']:.4f}",
                        each["worst"]["prompt"],
                    ]
                    for style, each in single["per_style"].items()
                ],
            ),
        ]
    if system["durations"]:
        parts += [
            "### Recall by duration",
            _duration_table(system["durations"]),
        ]
    return parts


def _duration_table(bins):
    """A table of recall by duration."""
    from esr_lobes.plots import bin_name

    recalls = [name for name in bins[0] if name.startswith("R@")]
    return _table(
        ["duration", "clips", "trials", *recalls],
        [
            [
                bin_name(each),
                str(each["clips"]),
                str(each["trials"]),
                *(f"{each[name]:.4f}" for name in recalls),
            ]
            for each in bins
        ],
    )


def _table(header, rows):
    """A Markdown table with aligned columns: text left, numbers right."""
    rows = [[_cell(cell) for cell in row] for row in rows]
    widths = [
        max(map(len, column)) for column in zip(header, *rows, strict=True)
    ]
    widths = [max(width, 3) for width in widths]
    is_number = [
        all(re.match(r"-?\d", row[i]) for row in rows)
        for i in range(len(header))
    ]

    def line(cells):
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_number, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, is_number, strict=True)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def _cell(text):
    """Text that cannot break a table: one line, no bare bar."""
    return " ".join(str(text).split()).replace("|", "\\|")
