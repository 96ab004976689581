"""Ranked segments as HTML; every name and value in it is escaped.

Authors
 * The esr_lobes contributors
"""

import os
from html import escape

from esr_lobes.app.clips import CONTEXT_SECONDS, around
from esr_lobes.app.exporting import KINDS
from esr_lobes.audio import AudioError
from esr_lobes.highlights import clock

MOST_CHIPS = 8
EMPTY = (
    '<div class="esr-empty"><b>Nothing asked yet</b>'
    "Describe how somebody speaks; the segments that sound most like it "
    "appear here, the best first.</div>"
)


def results_html(token, hits, seconds, note=""):
    """Returns the answer to a search.

    Arguments
    ---------
    token : str
        Of the answer, see :class:`esr_lobes.app.answers.Answers`.
    hits : list of Hit
        Best first.
    seconds : float
        How long the search took.
    note : str
        What was searched for, as text.

    Returns
    -------
    str
        HTML.
    """
    about = f" for <q>{escape(note)}</q>" if note else ""
    if not hits:
        return (
            f'<div class="esr-empty"><b>Nothing found{about}</b>'
            "Lower the threshold or loosen the filters.</div>"
        )
    links = "".join(
        f'<a href="esr/exports/{token}/{kind}" download>{name}</a>'
        for kind, name in KINDS.items()
    )
    count = f"{len(hits)} segment{'s' if len(hits) > 1 else ''}"
    head = (
        f'<div class="esr-summary"><span>{count}{about}, {seconds:.2f} s</span>'
        f'<span class="esr-exports">Export {links}</span></div>'
    )
    items = "".join(_item(token, rank, hit) for rank, hit in enumerate(hits))
    return f'{head}<ol class="esr-hits">{items}</ol>'


def _item(token, rank, hit):
    segment = hit.segment
    name = escape(os.path.basename(segment.path))
    span = f"{clock(segment.start)} – {clock(segment.stop)}"
    if segment.channel is not None:
        span += f", channel {segment.channel}"
    return (
        f'<li class="esr-hit" data-rank="{rank}">'
        '<div class="esr-head">'
        f'<span class="esr-rank">{rank + 1}</span>'
        f'<span class="esr-name" title="{escape(segment.path)}">{name}</span>'
        f'<span class="esr-time">{span}</span>{_score(hit)}</div>'
        f"{_chips(segment.metadata)}{_player(token, rank, segment)}</li>"
    )


def _score(hit):
    """Returns how well a hit fits, calibrated first."""
    parts = [f"score {hit.score:.3f}"]
    if hit.percentile is not None:
        parts.append(f"at or above {hit.percentile:.1f} % of the index")
    shown = f"score {hit.score:.3f}" if hit.z is None else f"z {hit.z:.1f}"
    title = escape(", ".join(parts))
    return f'<span class="esr-score" title="{title}">{shown}</span>'


def _chips(metadata):
    shown = [(k, v) for k, v in metadata.items() if v is not None][:MOST_CHIPS]
    chips = "".join(
        f"<span>{escape(str(key))} <b>{escape(_short(value))}</b></span>"
        for key, value in shown
    )
    return f'<div class="esr-chips">{chips}</div>' if chips else ""


def _short(value):
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _player(token, rank, segment):
    """Returns picture and sound, or a note where the file is gone."""
    more = (
        '<button type="button" class="esr-more" '
        f'data-token="{token}" data-rank="{rank}">More like this</button>'
    )
    try:
        lead, trail = around(segment)
    except AudioError as error:
        return (
            f'<div class="esr-note">{escape(_trouble(error))}</div>'
            f'<div class="esr-actions">{more}</div>'
        )
    total = lead + segment.duration + trail
    clip = f"esr/clips/{token}/{rank}"
    shades = "".join(
        f'<i class="esr-shade" style="{side}:0;width:{100 * s / total:.2f}%">'
        "</i>"
        for side, s in (("left", lead), ("right", trail))
        if s
    )
    wider = (
        '<button type="button" class="esr-around">'
        f"Play with {CONTEXT_SECONDS:.0f} s around</button>"
        if lead or trail
        else ""
    )
    return (
        f'<div class="esr-player" data-lead="{lead:.3f}" '
        f'data-duration="{segment.duration:.3f}" data-total="{total:.3f}">'
        '<button type="button" class="esr-play" aria-label="Play the segment">'
        "</button>"
        '<div class="esr-picture" title="Click to listen from there">'
        f'<img loading="lazy" alt="Spectrogram" '
        f'src="esr/pictures/{token}/{rank}">{shades}'
        '<i class="esr-cursor"></i></div>'
        f'<audio preload="none" src="{clip}" data-plain="{clip}" '
        f'data-context="{clip}?context=1"></audio></div>'
        '<div class="esr-actions"><span class="esr-clock">'
        f"{segment.duration:.1f} s</span>{wider}{more}</div>"
    )


def _trouble(error):
    if error.reason == "missing":
        return (
            f"The recording is no longer at {error.path}; run esr index "
            "again to bring the index up to date."
        )
    return f"The recording cannot be played: {error}"


def example_html(text, source=""):
    """Returns what is used as an example clip, with a way to let it go.

    Arguments
    ---------
    text : str
        What it is.
    source : str
        Where its sound comes from; empty if it cannot be played.

    Returns
    -------
    str
        HTML.
    """
    sound = (
        f'<audio controls preload="none" src="{escape(source)}"></audio>'
        if source
        else ""
    )
    return (
        f'<div class="esr-example"><span>Sounds like <b>{escape(text)}</b>'
        f"</span>{sound}"
        '<button type="button" class="esr-clear">Remove</button></div>'
    )


def title_of(segment):
    """Returns one line that says what a segment is.

    Arguments
    ---------
    segment : Segment
        Of an index.

    Returns
    -------
    str
        Plain text, not escaped.

    Example
    -------
    >>> from esr_lobes.index import Segment
    >>> title_of(Segment("a/b.wav", 61.0, 62.5, metadata={"sex": "f"}))
    'b.wav, 1:01.0 – 1:02.5, sex f'
    """
    name = os.path.basename(segment.path)
    parts = [name, f"{clock(segment.start)} – {clock(segment.stop)}"]
    parts += [
        f"{key} {_short(value)}"
        for key, value in list(segment.metadata.items())[:MOST_CHIPS]
        if value is not None
    ]
    return ", ".join(parts)
