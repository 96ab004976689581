"""How a recording is cut into segments: where somebody speaks, or in windows
of a fixed length.

Recordings come in chapters, so that one of hours needs no more memory than
one of minutes. A cutter takes a track's chapters one after the other and
gives the segments that are settled; what the next chapter may still change
it holds back.

Authors
 * The esr_lobes contributors
"""

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch

from esr_lobes.audio import SAMPLE_RATE, cut_windows
from esr_lobes.errors import MendableError
from esr_lobes.indexing.voice_activity import FRAME, speech_spans

KINDS = ("voice", "windows")
CHANNELS = ("mix", "split")
NEAR_SECONDS = 1.0
"""A span that is too short joins a neighbour across a pause up to this."""
FAINT = 0.1
"""Threshold for a short recording that would otherwise give nothing: somebody
has cut it out for what it holds. Noise and tones stay below."""


class CuttingError(MendableError):
    """Lengths that contradict each other, or an unknown way to cut."""


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut; part of what an index is built with.

    Arguments
    ---------
    kind : str
        ``voice`` cuts where voice activity is found, ``windows`` at fixed
        times.
    min_seconds : float
        With ``voice``: shorter spans are joined with a neighbour or
        widened, as far as there is room.
    max_seconds : float
        No segment is longer; the length of a window.
    hop_seconds : float
        With ``windows``: from one start to the next.
    channels : str
        ``mix`` averages them; ``split`` cuts each for itself, for
        recordings with one speaker a channel.
    shortest : float
        A shorter file is skipped, seconds.
    threshold : float
        With ``voice``: lowest probability that counts as voice. The usual
        0.5 takes screams and whispers for noise.

    Raises
    ------
    CuttingError
        If the numbers contradict each other.

    Example
    -------
    >>> Cutting("windows", max_seconds=4.0, hop_seconds=2.0).kind
    'windows'
    >>> Cutting(min_seconds=9.0)
    Traceback (most recent call last):
    esr_lobes.indexing.cutting.CuttingError: min_seconds is 9.0, but must \
lie between shortest (0.1) and max_seconds (8.0)
    """

    kind: str = "voice"
    min_seconds: float = 1.0
    max_seconds: float = 8.0
    hop_seconds: float = 4.0
    channels: str = "mix"
    shortest: float = 0.1
    threshold: float = 0.3

    def __post_init__(self):
        for name, known in ("kind", KINDS), ("channels", CHANNELS):
            value = getattr(self, name)
            if value not in known:
                raise CuttingError(
                    f"{name} is {' or '.join(known)}, not {value!r}"
                )
        for name in "shortest", "max_seconds", "hop_seconds", "min_seconds":
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value < math.inf):
                raise CuttingError(
                    f"{name} is {value!r}, but must be a number above 0"
                )
        if not (_is_number(self.threshold) and 0 < self.threshold < 1):
            raise CuttingError(
                f"threshold is {self.threshold!r}, but must lie between 0 and 1"
            )
        least = 1.0 if self.kind == "voice" else self.shortest
        if self.max_seconds < least:
            raise CuttingError(
                f"max_seconds is {self.max_seconds}, but must be at least "
                f"{least}"
            )
        if self.kind == "windows" and self.hop_seconds > self.max_seconds:
            raise CuttingError(
                f"hop_seconds is {self.hop_seconds}, longer than max_seconds "
                f"({self.max_seconds}): something would fall between"
            )
        is_between = self.shortest <= self.min_seconds <= self.max_seconds
        if self.kind == "voice" and not is_between:
            raise CuttingError(
                f"min_seconds is {self.min_seconds}, but must lie between "
                f"shortest ({self.shortest}) and max_seconds "
                f"({self.max_seconds})"
            )

    def as_dict(self):
        """Returns the fields as a dict that JSON can hold."""
        return asdict(self)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def join_short(spans, shortest, longest, near):
    """Returns spans of which the short ones are joined with a neighbour.

    Arguments
    ---------
    spans : list of (int, int)
        First sample and the one behind the last, rising.
    shortest : int
        What is shorter joins the nearer neighbour, if it can.
    longest : int
        No join gets longer.
    near : int
        Nor goes across a longer pause.

    Returns
    -------
    list of (int, int)
        As many spans or fewer.

    Example
    -------
    >>> join_short([(0, 3), (5, 20), (40, 41)], 4, 30, 10)
    [(0, 20), (40, 41)]
    """
    spans, i = list(spans), 0
    while i < len(spans):
        start, stop = spans[i]
        options = [
            (spans[j + 1][0] - spans[j][1], j)
            for j in (i - 1, i)
            if stop - start < shortest
            and 0 <= j < len(spans) - 1
            and spans[j + 1][0] - spans[j][1] <= near
            and spans[j + 1][1] - spans[j][0] <= longest
        ]
        if options:
            i = min(options)[1]
            spans[i : i + 2] = [(spans[i][0], spans[i + 1][1])]
        else:
            i += 1
    return spans


def widen_short(spans, shortest, n_samples):
    """Returns spans of which the short ones are widened to both sides.

    None goes beyond the middle of a pause, nor beyond the waveform; what
    one side has no room for goes to the other.

    Arguments
    ---------
    spans : list of (int, int)
        First sample and the one behind the last, rising.
    shortest : int
        What is shorter is widened to this, as far as there is room.
    n_samples : int
        Length of the waveform.

    Returns
    -------
    list of (int, int)
        As many spans.

    Example
    -------
    >>> widen_short([(1, 3), (9, 11), (20, 30)], 6, 30)
    [(0, 6), (7, 13), (20, 30)]
    """
    middles = [(a[1] + b[0]) // 2 for a, b in pairwise(spans)]
    lows, highs = [0, *middles], [*middles, n_samples]
    wider = []
    for (start, stop), low, high in zip(spans, lows, highs, strict=False):
        lack = shortest - (stop - start)
        if lack > 0:
            before = min(max(lack // 2, lack - (high - stop)), start - low)
            start, stop = start - before, min(stop + lack - before, high)
        wider.append((start, stop))
    return wider


class VoiceCutter:
    """Cuts one track where voice activity is found.

    Arguments
    ---------
    cutting : Cutting
        How to cut.
    """

    def __init__(self, cutting):
        self._cutting = cutting
        self._shortest = round(cutting.min_seconds * SAMPLE_RATE)
        self._longest = round(cutting.max_seconds * SAMPLE_RATE)
        self._near = round(NEAR_SECONDS * SAMPLE_RATE)
        # across such a pause nothing is joined, and into it each neighbour
        # may widen as if the other were not there
        self._wide = max(self._near, 2 * self._shortest)
        self._first = 0  # sample that what is held back begins with
        self._stop = 0  # of the last segment
        self._wave = torch.zeros(0)
        self._probabilities = torch.zeros(0)

    def push(self, wave, end, probabilities):
        """Returns the segments that are settled by another chapter.

        Arguments
        ---------
        wave : torch.Tensor
            The chapter, of shape [time], whole frames unless the last.
        end : float or None
            If the track ends with it: its length in seconds.
        probabilities : torch.Tensor
            Of a voice, of shape [frames].

        Returns
        -------
        list of (float, float, torch.Tensor)
            Start and stop in seconds of the track, and the waveform.
        """
        wave = torch.cat([self._wave, wave])
        probabilities = torch.cat([self._probabilities, probabilities])
        arguments = probabilities, len(wave), self._cutting.max_seconds
        spans = speech_spans(*arguments, self._cutting.threshold)
        is_whole = self._first == 0 and end is not None
        if not spans and is_whole and len(wave) <= self._longest:
            spans = speech_spans(*arguments, FAINT)
        spans = join_short(spans, self._shortest, self._longest, self._near)
        if end is None:
            settled = self._settled(spans, len(wave))
        else:
            settled = len(wave)
        wider = widen_short(spans, self._shortest, len(wave))
        segments = []
        for (start, stop), (first, _) in zip(wider, spans, strict=True):
            if first >= settled:
                break
            # the frame that parts two chapters' spans is not heard twice
            start = max(start, self._stop - self._first)
            self._stop = self._first + stop
            seconds = [(self._first + s) / SAMPLE_RATE for s in (start, stop)]
            if end is not None:
                seconds[1] = min(seconds[1], end)
            segments.append((*seconds, wave[start:stop]))
        self._first += settled
        self._wave = wave[settled:].clone()
        self._probabilities = probabilities[settled // FRAME :]
        return segments

    def _settled(self, spans, n_samples):
        """Returns the sample, whole frames, to go on from next time.

        In a wide pause that is as good as having heard all at once. Where
        speech leaves none, the last span is heard again.
        """
        starts = [start for start, _ in spans] + [n_samples - self._near // 2]
        stops = [0] + [stop for _, stop in spans]
        # the track may go on right away with the last span, or another one
        for i in range(len(spans), -1, -1):
            is_wide = starts[i] - stops[i] > self._wide
            if is_wide and starts[i] > n_samples // 2:
                return (starts[i] - self._wide // 2) // FRAME * FRAME
        if len(spans) > 1:
            return (stops[-2] + starts[-2]) // 2 // FRAME * FRAME
        return 0


class WindowCutter:
    """Cuts one track into the windows of :func:`esr_lobes.audio.cut_windows`.

    Arguments
    ---------
    cutting : Cutting
        How to cut.
    """

    def __init__(self, cutting):
        self._cutting = cutting
        self._first = 0
        self._n_windows = 0
        self._wave = torch.zeros(0)

    def push(self, wave, end, probabilities=None):
        """Returns the windows that are full after another chapter.

        Arguments
        ---------
        wave : torch.Tensor
            The chapter, of shape [time].
        end : float or None
            If the track ends with it: its length in seconds.
        probabilities : None
            Not needed here.

        Returns
        -------
        list of (float, float, torch.Tensor)
            Start and stop in seconds of the track, and the waveform.
        """
        cutting = self._cutting
        self._wave = torch.cat([self._wave, wave])
        so_far = (self._first + len(self._wave)) / SAMPLE_RATE
        windows = cut_windows(
            so_far if end is None else end,
            cutting.max_seconds,
            cutting.hop_seconds,
            cutting.shortest,
        )
        if end is None:
            windows = windows[:-1]  # it may stop there only for now
        segments = []
        for start, stop in windows[self._n_windows :]:
            first = round(start * SAMPLE_RATE) - self._first
            last = round(stop * SAMPLE_RATE) - self._first
            segments.append((start, stop, self._wave[first:last]))
        self._n_windows = max(self._n_windows, len(windows))
        # a last window, laid to the track's end, starts behind this one
        start = max(0, self._n_windows - 1) * cutting.hop_seconds
        n_done = round(start * SAMPLE_RATE) - self._first
        self._first += n_done
        self._wave = self._wave[n_done:].clone()
        return segments


def make_cutter(cutting):
    """Returns a cutter for one track.

    Arguments
    ---------
    cutting : Cutting
        How to cut.

    Returns
    -------
    VoiceCutter or WindowCutter
        Not used yet.
    """
    return (VoiceCutter if cutting.kind == "voice" else WindowCutter)(cutting)
