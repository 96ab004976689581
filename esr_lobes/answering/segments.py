"""Short names for how recordings are cut into passages.

Authors
 * The esr_lobes contributors
"""

import re

from esr_lobes.indexing.cutting import Cutting, CuttingError

SEGMENTS = "40s"
"""Windows of 40 s without overlap, as CLSR's paper has them."""
_SECONDS = r"(\d+(?:\.\d+)?)s"
_WINDOWS = re.compile(f"{_SECONDS}(?:/{_SECONDS})?")
_VOICE = re.compile(f"vad(?:/{_SECONDS})?")


def read_segments(text):
    """Returns how recordings are cut, from a short name.

    Arguments
    ---------
    text : str
        ``40s``: windows of 40 s, one behind the other (the last is laid to
        the end, so that it overlaps the one before). ``40s/20s``: one every
        20 s. ``vad``: where somebody speaks, from pause to pause.
        ``vad/10s``: the same, spans shorter than 10 s joined with a
        neighbour that is at most a second away.

    Returns
    -------
    dict
        What differs from the usual, see
        :class:`esr_lobes.indexing.cutting.Cutting`.

    Raises
    ------
    CuttingError
        If it is none of these.

    Example
    -------
    >>> read_segments("40s")
    {'kind': 'windows', 'max_seconds': 40.0, 'hop_seconds': 40.0}
    >>> read_segments("40s/20s")["hop_seconds"], read_segments("vad/10s")
    (20.0, {'kind': 'voice', 'min_seconds': 10.0})
    """
    if match := _WINDOWS.fullmatch(text):
        seconds, hop = match[1], match[2] or match[1]
        return {
            "kind": "windows",
            "max_seconds": float(seconds),
            "hop_seconds": float(hop),
        }
    if match := _VOICE.fullmatch(text):
        least = float(match[1] or Cutting.min_seconds)
        return {"kind": "voice", "min_seconds": least}
    raise CuttingError(
        f"segments {text!r}: write 40s (windows of 40 s), 40s/20s (one every "
        "20 s), vad (by voice activity) or vad/10s (of at least 10 s)"
    )
