"""A segment as sound, with what stands around it.

Authors
 * The esr_lobes contributors
"""

import functools
import os

from esr_lobes import audio

CONTEXT_SECONDS = 2.0
"""What may be heard before and behind a segment."""


def around(segment, seconds=CONTEXT_SECONDS):
    """Returns how much there is to hear before and behind a segment.

    Arguments
    ---------
    segment : Segment
        Of a recording that is there.
    seconds : float
        At most so much on either side.

    Returns
    -------
    lead : float
        Seconds before it.
    trail : float
        Seconds behind it.

    Raises
    ------
    AudioError
        If the recording is gone or cannot be read.
    """
    try:
        changed = os.stat(segment.path).st_mtime_ns
    except OSError:
        changed = None  # `probe` says what is wrong
    rest = _length(segment.path, changed) - segment.stop
    # Of less than this nothing would be heard; times are rounded.
    trail = rest if rest > 0.05 else 0.0
    return min(segment.start, seconds), min(trail, seconds)


@functools.lru_cache(4096)
def _length(path, changed):
    """Returns seconds; for MP3, to ask is to go through the whole file."""
    return audio.probe(path).seconds


def read_around(segment, seconds, sample_rate=audio.SAMPLE_RATE):
    """Returns a segment with what stands around it.

    Arguments
    ---------
    segment : Segment
        What to read.
    seconds : float
        How much to add on either side, where the recording has it.
    sample_rate : int
        Rate of what is returned, in Hz.

    Returns
    -------
    torch.Tensor
        Float32 of shape [time].

    Raises
    ------
    AudioError
        If the recording is gone or cannot be read.
    """
    lead, trail = around(segment, seconds) if seconds else (0.0, 0.0)
    return audio.read(
        segment.path,
        segment.start - lead,
        segment.stop + trail,
        segment.channel,
        sample_rate,
    )
