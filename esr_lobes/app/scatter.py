"""The map as a drawing that a browser scales, SVG.

Authors
 * The esr_lobes contributors
"""

from html import escape

import numpy as np

from esr_lobes.plots import COLOURS

WIDTH, MARGIN = 600, 24
LEAST_HEIGHT, MOST_HEIGHT = 260, 460
PLAIN = "var(--esr-dot)"
STAR = (
    "0,-12 3.2,-4 11.5,-3.7 5,1.5 7.2,9.8 0,5 -7.2,9.8 -5,1.5 -11.5,-3.7 "
    + ("-3.2,-4")
)


def draw_map(places, titles, groups=None, hits=None, query=None):
    """Returns dots, rings round the hits and a star for the query.

    Arguments
    ---------
    places : array
        Of the dots, of shape [dots, 2].
    titles : list of str
        What each dot is, as text; it is escaped here.
    groups : list, optional
        A value a dot, each of which gets a colour; None stays grey.
    hits : array, optional
        Places of the hits in the order of their ranks, of shape [hits, 2].
    query : array, optional
        Place of the query, of shape [2].

    Returns
    -------
    str
        An ``svg`` element.
    """
    places = np.asarray(places, np.float64).reshape(-1, 2)
    hits = np.zeros((0, 2)) if hits is None else np.asarray(hits)
    stars = np.zeros((0, 2)) if query is None else np.asarray(query)[None]
    scaled, height = _scaled(np.concatenate([places, hits, stars]))
    dots, hits, stars = np.split(scaled, np.cumsum([len(places), len(hits)]))
    colours = colours_of(groups)
    radius = 2.6 if len(dots) > 800 else 3.4 if len(dots) > 200 else 4.5
    parts = [
        f'<svg class="esr-map" viewBox="0 0 {WIDTH} {height:.0f}" '
        'role="img" aria-label="Map of the segments">'
    ]
    for i, (x, y) in enumerate(dots):
        value = groups[i] if groups is not None else None
        colour = colours.get(value, PLAIN)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" '
            f'fill="{colour}" data-rank="{i}">'
            f"<title>{escape(titles[i])}</title></circle>"
        )
    for x, y in stars:
        lines = "".join(f"M{x:.1f} {y:.1f}L{a:.1f} {b:.1f}" for a, b in hits)
        parts.append(f'<path class="esr-rays" d="{lines}"/>')
    for x, y in hits[::-1]:
        parts.append(f'<circle class="esr-ring" cx="{x:.1f}" cy="{y:.1f}" />')
    for x, y in stars:
        parts.append(
            f'<polygon class="esr-star" points="{STAR}" '
            f'transform="translate({x:.1f} {y:.1f})"/>'
        )
    return "".join([*parts, "</svg>"])


def draw_legend(groups):
    """Returns which colour stands for which value.

    Arguments
    ---------
    groups : list
        A value a dot.

    Returns
    -------
    str
        A list in HTML.

    Example
    -------
    >>> draw_legend(["<b>"]).partition("</i>")[2]
    '&lt;b&gt;</li></ul>'
    """
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(str(value))}</li>'
        for value, colour in colours_of(groups).items()
    )
    return f'<ul class="esr-legend">{items}</ul>'


def colours_of(groups):
    """Returns a colour for each value, the same in every drawing.

    Arguments
    ---------
    groups : list or None
        Values; None among them is left out.

    Returns
    -------
    dict
        Value to colour, in the order of the values.

    Example
    -------
    >>> colours_of(["b", "a", None])
    {'a': '#0072B2', 'b': '#E69F00'}
    """
    values = {value for value in groups or () if value is not None}
    values = sorted(values, key=lambda value: (str(type(value)), value))
    return {
        value: COLOURS[number % len(COLOURS)]
        for number, value in enumerate(values)
    }


def _scaled(points):
    """Returns points within the drawing, one scale for both axes.

    And its height, which is that of the points if they lie flat.
    """
    room = np.array([WIDTH, MOST_HEIGHT]) - 2 * MARGIN
    if not len(points):
        return points, LEAST_HEIGHT
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (room / np.maximum(high - low, 1e-9)).min()
    # A single point, or many equal ones, would be blown up without end.
    scale = min(scale, 1e6)
    height = max(LEAST_HEIGHT, (high - low)[1] * scale + 2 * MARGIN)
    middle = np.array([WIDTH, height]) / 2
    return (points - (low + high) / 2) * scale * [1, -1] + middle, height
