"""Figures of an evaluation: maps, similarities, recall by duration.

Every function returns a matplotlib `Figure` that belongs to no window and no
global state; `save_figure` writes it. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart; where there are more styles than
colours, the shape of the dots changes too, and styles are named on the map.

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
SHAPES = ("o", "s", "^")
MAX_CLIPS = 1000
MAX_PROMPTS = 10
_MIN_POINTS = 12  # fewer make no neighbourhoods for t-SNE


def embedding_map(
    clips,
    clip_styles,
    prompts,
    title="Speech and text",
    max_clips=MAX_CLIPS,
    max_prompts=MAX_PROMPTS,
):
    """Returns a map of both modalities: clips as dots, prompts as stars.

    The map is a t-SNE of the unit vectors, or their first two principal
    components if there are very few.

    Arguments
    ---------
    clips : array
        Embeddings of clips, of shape [clip, dimension].
    clip_styles : list of str
        The style of each clip.
    prompts : dict
        Style to embeddings of its prompts, of shape [prompt, dimension].
    title : str
        What is shown; numbers and method are added.
    max_clips : int
        Show no more clips than this, drawn with a fixed seed.
    max_prompts : int
        Show no more prompts of a style than this, spread over its list.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    clips = np.asarray(clips, dtype=np.float64)
    of_clip = np.array(clip_styles, dtype=object)
    n_clips = len(clips)
    if n_clips > max_clips:
        rng = np.random.Generator(np.random.PCG64(0))
        shown = np.sort(rng.choice(n_clips, max_clips, replace=False))
        clips, of_clip = clips[shown], of_clip[shown]
    n_prompts = sum(map(len, prompts.values()))
    prompts = {s: _spread(prompts[s], max_prompts) for s in sorted(prompts)}
    of_prompt = np.array(
        [style for style in prompts for _ in prompts[style]], dtype=object
    )
    points = np.concatenate([clips, *prompts.values()])
    places, method = _flatten(points)
    dots, stars = places[: len(clips)], places[len(clips) :]
    figure = _figure(10.5, 7.5)
    axes = figure.add_subplot()
    styles = sorted(set(of_clip) | set(of_prompt))
    size = 16 if len(clips) > 300 else 36
    for number, style in enumerate(styles):
        colour = COLOURS[number % len(COLOURS)]
        shape = SHAPES[number // len(COLOURS) % len(SHAPES)]
        own = dots[of_clip == style]
        axes.scatter(
            *own.T,
            s=size,
            c=colour,
            marker=shape,
            alpha=0.65,
            linewidths=0,
            label=f"{style} ({len(own)})",
        )
        own = stars[of_prompt == style]
        axes.scatter(
            *own.T,
            s=45,
            c=colour,
            marker="*",
            edgecolors="black",
            linewidths=0.5,
            zorder=3,
        )
    _name_groups(axes, styles, dots, of_clip, stars, of_prompt)
    axes.scatter(
        [],
        [],
        s=90,
        c="white",
        marker="*",
        edgecolors="black",
        linewidths=0.7,
        label="prompts",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.08)
    axes.set_title(
        f"{title}\n{method} of {_part(len(clips), n_clips)} clips and "
        f"{_part(len(stars), n_prompts)} prompts"
    )
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=9,
        title="style (clips)",
        markerscale=1.3,
    )
    return figure


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
    figure = _figure(side + 3.2, 0.42 * len(queries) + 2.4)
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
    figure = _figure(max(5.0, 1.5 * len(bins) + 2.0), 4.4)
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


def _figure(width, height):
    """An empty figure of a size in inches, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _flatten(points):
    """Two coordinates a point, and the name of the method."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    norms = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.maximum(norms, 1e-12)
    if len(points) >= _MIN_POINTS and np.ptp(points, axis=0).max() > 1e-6:
        perplexity = min(30.0, (len(points) - 1) / 4)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
        return tsne.fit_transform(points), "t-SNE"
    places = np.zeros((len(points), 2))
    n_parts = min(2, *points.shape)
    if np.ptp(points, axis=0).max() > 0:
        places[:, :n_parts] = PCA(n_parts).fit_transform(points)
    return places, "principal components"


def _name_groups(axes, styles, dots, of_clip, stars, of_prompt):
    """Writes each style's name near the middle of its prompts or clips."""
    from matplotlib.patheffects import withStroke

    for style in styles:
        group = stars[of_prompt == style]
        if not len(group):
            group = dots[of_clip == style]
        # The point nearest the middle, so that a name is always on a point.
        middle = np.median(group, axis=0)
        at = group[np.argmin(((group - middle) ** 2).sum(axis=1))]
        axes.annotate(
            style,
            at,
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            weight="bold",
            zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _spread(rows, count):
    """At most `count` rows, evenly spread, float64."""
    rows = np.asarray(rows, dtype=np.float64)
    shown = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return rows[shown.round().astype(int)]


def _part(shown, total):
    """How many are shown, of how many if not all."""
    return f"{shown}" if shown == total else f"{shown} of {total}"


def _short(value):
    """Two decimals without the leading zero: `.25`, `-.03`."""
    return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")


def _count(number, word):
    """A number and its word, in the plural where it wants one."""
    return f"{number} {word}" + ("" if number == 1 else "s")
