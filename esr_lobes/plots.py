"""Figures of an evaluation: similarities, recall by duration.

Every function returns a matplotlib `Figure` that belongs to no window and no
global state; `save_figure` writes it. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.files import replacing

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#8C6D1F",
    "#4D4D4D",
)


def similarity_map(scores, clip_styles, title="Queries and clips"):
    """Returns a heat map of each query's mean score over each style's clips.

    Arguments
    ---------
    scores : dict
        Style to the score of each clip, of shape [clip].
    clip_styles : list of str
        The style of each clip.
    title : str
        What is shown; the number of clips is added.

    Returns
    -------
    matplotlib.figure.Figure
        The figure: a row for each query, a column for each style of clips.
    """
    of_clip = np.array(clip_styles, dtype=object)
    table = style_similarities(scores, clip_styles)
    queries, styles = sorted(table), sorted(set(of_clip))
    cells = np.array([[table[q][s] for s in styles] for q in queries])
    side = 0.42 * len(styles)
    figure = empty_figure(side + 3.2, 0.42 * len(queries) + 2.4)
    axes = figure.add_subplot()
    image = axes.imshow(cells, cmap="cividis", aspect="equal")
    axes.set_xticks(
        range(len(styles)),
        [f"{style} ({np.sum(of_clip == style)})" for style in styles],
        rotation=90,
    )
    axes.set_yticks(range(len(queries)), queries)
    axes.set_xlabel("style of the clips (number)")
    axes.set_ylabel("query")
    middle = (cells.min() + cells.max()) / 2
    is_large = np.abs(cells).max() >= 10
    for row, column in np.ndindex(cells.shape):
        value = cells[row, column]
        text = f"{round(value)}" if is_large else _short(value)
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7,
            color="black" if value > middle else "white",
        )
    axes.set_title(f"{title}\nmean score, {len(of_clip)} clips")
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    return figure


def style_similarities(scores, clip_styles):
    """Returns the mean score of the clips of each style for each query.

    Arguments
    ---------
    scores : dict
        Style to the score of each clip, of shape [clip].
    clip_styles : list of str
        The style of each clip.

    Returns
    -------
    dict
        Query's style to a dict from the clips' style to a float.

    Example
    -------
    >>> style_similarities({"sad": [0.5, 0.0, 1.0]}, ["sad", "bored", "sad"])
    {'sad': {'bored': 0.0, 'sad': 0.75}}
    """
    of_clip = np.array(clip_styles, dtype=object)
    return {
        query: {
            style: float(np.asarray(scores[query])[of_clip == style].mean())
            for style in sorted(set(of_clip))
        }
        for query in sorted(scores)
    }


def duration_bars(bins, title="Recall by duration"):
    """Returns bars of recall for short and long clips.

    Arguments
    ---------
    bins : list of dict
        From `esr_lobes.metrics.recall_by_duration`.
    title : str
        What is shown; the number of trials is added.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, with clips and trials under each bin.
    """
    names = [name for name in bins[0] if name.startswith("R@")]
    figure = empty_figure(max(5.0, 1.5 * len(bins) + 2.0), 4.4)
    axes = figure.add_subplot()
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        heights = [each[name] for each in bins]
        left = np.arange(len(bins)) - 0.4 + width * (number + 0.5)
        bars = axes.bar(
            left,
            heights,
            width * 0.94,
            color=COLOURS[number % len(COLOURS)],
            label=name,
        )
        axes.bar_label(
            bars, [f"{value:.2f}" for value in heights], padding=2, fontsize=9
        )
    axes.set_xticks(
        range(len(bins)),
        [
            f"{bin_name(each)}\n{_count(each['clips'], 'clip')}\n"
            f"{_count(each['trials'], 'trial')}"
            for each in bins
        ],
    )
    axes.set_ylim(0, 1.08)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("recall")
    axes.spines[["top", "right"]].set_visible(False)
    n_trials = sum(each["trials"] for each in bins)
    axes.set_title(f"{title}\n{n_trials} trials, all styles together")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def duration_comparison(runs, title="Recall by duration"):
    """Returns bars of recall for short and long clips, of several runs.

    Arguments
    ---------
    runs : dict
        Name of a run to its bins, from
        `esr_lobes.metrics.recall_by_duration`, all on the same clips. A run
        without trials in a bin has no bar there.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure: a panel for each rank that counts as found, in it a
        group of bars for each bin and a bar for each run.
    """
    names = {
        each["from"]: f"{bin_name(each)}\n{_count(each['clips'], 'clip')}"
        for bins in runs.values()
        for each in bins
    }
    starts = sorted(names)
    recalls = [
        name for name in next(iter(runs.values()))[0] if name.startswith("R@")
    ]
    figure = empty_figure(
        max(6.5, (0.5 * len(runs) + 0.6) * len(starts) + 2.5),
        0.8 + 3.2 * len(recalls),
    )
    all_axes = figure.subplots(len(recalls), 1, squeeze=False)[:, 0]
    width = 0.85 / len(runs)
    for axes, recall in zip(all_axes, recalls, strict=True):
        for number, (run, bins) in enumerate(runs.items()):
            places = np.array([starts.index(each["from"]) for each in bins])
            heights = [each[recall] for each in bins]
            bars = axes.bar(
                places - 0.425 + width * (number + 0.5),
                heights,
                width * 0.94,
                color=COLOURS[number % len(COLOURS)],
                hatch=("", "//", "..")[number // len(COLOURS) % 3],
                label=run,
            )
            labels = [_short(value) for value in heights]
            axes.bar_label(bars, labels, padding=2, fontsize=8)
        axes.set_xticks(range(len(starts)), [names[each] for each in starts])
        axes.set_ylim(0, 1.08)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_ylabel(recall)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_title(f"{title}\nall styles together")
    all_axes[0].legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False
    )
    return figure


def bin_name(each):
    """Returns the seconds of a bin of durations in words.

    Arguments
    ---------
    each : dict
        A bin with `from` and `to`.

    Returns
    -------
    str
        The words.

    Example
    -------
    >>> bin_name({"from": 0.0, "to": 4.0}), bin_name({"from": 10.0, "to": None})
    ('< 4 s', '>= 10 s')
    """
    if each["to"] is None:
        return f">= {each['from']:g} s"
    if each["from"] == 0:
        return f"< {each['to']:g} s"
    return f"{each['from']:g}-{each['to']:g} s"


def save_figure(path, figure, dpi=150):
    """Writes a figure as PNG; the file appears when it is complete.

    Arguments
    ---------
    path : str
        File to write; its folder is made if needed.
    figure : matplotlib.figure.Figure
        What to write.
    dpi : int
        Points an inch.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, bbox_inches="tight")


def empty_figure(width, height):
    """Returns an empty figure that is drawn without a screen.

    Arguments
    ---------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _short(value):
    """Two decimals without the leading zero: `.25`, `-.03`."""
    return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")


def _count(number, word):
    """A number and its word, in the plural where it wants one."""
    return f"{number} {word}" + ("" if number == 1 else "s")
