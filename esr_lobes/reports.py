"""What an evaluation has counted, and how it is shown and kept.

A report is a dict of plain numbers; tables and Markdown are made from it, so
that a ``report.json`` read back prints the same.

Authors
 * The esr_lobes contributors
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from esr_lobes.files import write_text
from esr_lobes.trial_files import write_trials

FORMAT = "esr_lobes report 1"
RANDOM = "random embeddings"
CHANCE = "chance"


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
            write_text(folder / name, text)
            written.append(folder / name)
        if self.trials is not None:
            write_trials(folder / "trials.txt.gz", self.trials)
            written.append(folder / "trials.txt.gz")
        return written + (self._draw(folder / "plots") if is_drawn else [])

    def _draw(self, folder):
        from esr_lobes import maps, plots

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
                figures["embeddings"] = maps.embedding_map(
                    self.clips,
                    self.clip_styles,
                    self.prompts[name],
                    f"Speech and text: {name}",
                )
        for name, figure in figures.items():
            plots.save_figure(folder / f"{name}.png", figure)
        return [folder / f"{name}.png" for name in figures]


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
    return markdown_table(["", "styles", *names], lines)


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


def mean_name(name):
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
    parts = [f"## {name}", markdown_table(["style", "clips", *names], lines)]
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
            markdown_table(
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
    return markdown_table(
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


def markdown_table(header, rows):
    """Returns a Markdown table with aligned columns.

    Arguments
    ---------
    header : list of str
        Names of the columns.
    rows : list of list of str
        Cells; a column of which all that is not empty begins like a number
        stands to the right.

    Returns
    -------
    str
        A table that is read as Markdown and on a terminal.

    Example
    -------
    >>> print(markdown_table(["style", "AP"], [["sad", "0.5"]]))
    | style |  AP |
    | ----- | --: |
    | sad   | 0.5 |
    """
    rows = [[_cell(cell) for cell in row] for row in rows]
    widths = [
        max(map(len, column)) for column in zip(header, *rows, strict=True)
    ]
    widths = [max(width, 3) for width in widths]
    is_number = [
        all(re.match(r"[-+]?\d|-?$", row[i]) for row in rows)
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
