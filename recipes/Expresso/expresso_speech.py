"""Where in Expresso's long recordings there is speech, and how it is cut.

``VAD_segments.txt`` holds the stretches of speech of each channel of a
conversation (``ex01-ex02_awe_001/channel1``), and of the long readings.

Authors
 * The esr_lobes contributors
"""

import math
import re
from pathlib import Path

from esr_lobes.preparation import PreparationError

SPEECH_FILE = "VAD_segments.txt"

_SECONDS = r"(\d+(?:\.\d+)?)"
_SEGMENT = re.compile(rf"\({_SECONDS}, *{_SECONDS}\) *")
_CHANNEL = re.compile(r"(?P<name>[^/]+)(?:/channel(?P<number>[12]))?")


def lines_of(path):
    """Yields the lines of an official list, without comments.

    Arguments
    ---------
    path : str or Path
        The list.

    Yields
    ------
    (str, str)
        File and line number, for messages, and the line.

    Raises
    ------
    PreparationError
        If it is no text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PreparationError(
            f"{path}: not a text in UTF-8 ({error}); fetch it again"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield f"{path}, line {number}", line.rstrip()


def read_speech(path):
    """Reads where in the long recordings there is speech.

    Arguments
    ---------
    path : str or Path
        ``VAD_segments.txt``.

    Returns
    -------
    dict
        From (name, channel), the channel 0, 1 or None, to (start, stop) in
        seconds, in their order.

    Raises
    ------
    PreparationError
        If a line cannot be read, or its segments are not in order.

    Example
    -------
    >>> path = getfixture("tmp_path") / "VAD_segments.txt"
    >>> _ = path.write_text("ex01-ex02_awe_001/channel2\\t(0.5, 2) (3, 4.5)\\n")
    >>> read_speech(path)
    {('ex01-ex02_awe_001', 1): [(0.5, 2.0), (3.0, 4.5)]}
    """
    speech = {}
    for where, line in lines_of(path):
        name, _, text = line.partition("\t")
        match = _CHANNEL.fullmatch(name)
        if match is None or _SEGMENT.sub("", text) or not text:
            raise PreparationError(
                f"{where}: not a recording (or recording/channel1), a tab "
                "and segments such as (0.0, 1.5) (2.0, 7.2); fetch the list "
                "again"
            )
        segments = [tuple(map(float, s)) for s in _SEGMENT.findall(text)]
        times = [time for segment in segments for time in segment]
        if times != sorted(times) or any(a == b for a, b in segments):
            raise PreparationError(
                f"{where}: the segments of {name} overlap or are not in the "
                "order of time; fetch the list again"
            )
        number = match["number"]
        key = match["name"], number and int(number) - 1
        if key in speech:
            raise PreparationError(
                f"{where}: {name} has a line above already; fetch the list "
                "again"
            )
        speech[key] = segments
    return speech


def cut_speech(segments, bounds, min_seconds, max_seconds, max_gap_seconds):
    """Cuts the speech of one channel into pieces of fitting length.

    Segments reach no further than the bounds. Neighbours are joined while
    the gap between them and the whole stay short enough; what is too long
    even alone is cut into equal pieces.

    Arguments
    ---------
    segments : list of (float, float)
        Start and stop of each stretch of speech, in seconds and in order.
    bounds : (float, float)
        The part of the recording that counts.
    min_seconds, max_seconds : float
        How long a piece may be.
    max_gap_seconds : float
        How long a pause within a piece may be.

    Returns
    -------
    list of (float, float)
        The pieces; they share no time and leave the bounds nowhere.
    list of (float, float)
        What was too short.

    Example
    -------
    >>> cut_speech([(0.5, 2), (3, 4), (9, 9.5)], (0, 60), 1, 10, 2)
    ([(0.5, 4.0)], [(9.0, 9.5)])
    >>> cut_speech([(50, 75)], (0, 65), 1, 10, 2)[0]
    [(50.0, 57.5), (57.5, 65.0)]
    """
    # Whole milliseconds, so that pieces meet exactly and no bound is passed.
    # (1000 * 16.49 is 16489.999..., hence the rounding.)
    first = math.ceil(round(1000 * bounds[0], 3))
    last = math.floor(round(1000 * bounds[1], 3))
    shortest, longest = round(1000 * min_seconds), round(1000 * max_seconds)
    joined = []
    for start, stop in segments:
        start = max(round(1000 * start), first)
        stop = min(round(1000 * stop), last)
        if start >= stop:
            continue
        gap = start - joined[-1][1] if joined else math.inf
        if gap <= 1000 * max_gap_seconds and stop - joined[-1][0] <= longest:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    pieces, dropped = [], []
    for start, stop in joined:
        length = stop - start
        n = math.ceil(length / longest)
        cuts = [start + length * i // n for i in range(n + 1)]
        for a, b in zip(cuts, cuts[1:], strict=False):
            kept = pieces if b - a >= shortest else dropped
            kept.append((a / 1000, b / 1000))
    return pieces, dropped
