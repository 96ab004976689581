"""Maps of speech and text in one space: clips as dots, prompts as stars.

Colours repeat where there are more styles than colours: then the shape of the
dots changes too, and styles are named on the map.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.plots import COLOURS, empty_figure

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
    panels = {title: (clips, prompts)}
    return embedding_maps(panels, clip_styles, max_clips, max_prompts)


def embedding_maps(
    panels, clip_styles, max_clips=MAX_CLIPS, max_prompts=MAX_PROMPTS
):
    """Returns maps of the same clips and prompts in several spaces.

    Arguments
    ---------
    panels : dict
        Title to the embeddings of the clips, of shape [clip, dimension], and
        a dict from style to those of its prompts. Each panel has a map of
        its own: distances may be compared within a panel only.
    clip_styles : list of str
        The style of each clip, the same in all panels.
    max_clips, max_prompts : int
        As for :func:`embedding_map`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure: one panel beside the other, and one legend.
    """
    of_clip = np.array(clip_styles, dtype=object)
    n_clips = len(of_clip)
    shown = np.arange(n_clips)
    if n_clips > max_clips:
        rng = np.random.Generator(np.random.PCG64(0))
        shown = np.sort(rng.choice(n_clips, max_clips, replace=False))
    figure = empty_figure(7.5 * len(panels) + 3.0, 7.5)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (clips, prompts)) in zip(
        all_axes, panels.items(), strict=True
    ):
        clips = np.asarray(clips, dtype=np.float64)[shown]
        _draw_map(axes, clips, of_clip[shown], prompts, max_prompts)
        n_prompts = sum(map(len, prompts.values()))
        n_stars = sum(min(len(rows), max_prompts) for rows in prompts.values())
        axes.set_title(
            f"{title}\n{axes.get_title()} of {_part(len(shown), n_clips)} "
            f"clips and {_part(n_stars, n_prompts)} prompts"
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


def _draw_map(axes, clips, of_clip, prompts, max_prompts):
    """Draws dots and stars; the title is the name of the method."""
    prompts = {s: _spread(prompts[s], max_prompts) for s in sorted(prompts)}
    of_prompt = np.array(
        [style for style in prompts for _ in prompts[style]], dtype=object
    )
    places, method = _flatten(np.concatenate([clips, *prompts.values()]))
    dots, stars = places[: len(clips)], places[len(clips) :]
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
    axes.set_title(method)


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
