"""Which hits are shown: neighbours joined, a few of each recording.

Authors
 * The esr_lobes contributors
"""

from bisect import bisect_left, bisect_right
from dataclasses import replace
from numbers import Integral, Real

from esr_lobes.errors import MendableError

# Times went through a table of microseconds.
ROUNDING = 1e-6


def pick(hits, k, merge=None, per_file=None, is_whole=False):
    """Returns at most k hits, neighbours joined, a few of each recording.

    Hits of one recording and channel join if at most ``merge`` seconds lie
    between them: the score, the id and the metadata are those of the best,
    the times reach from the first to the last. Hits are taken in, the best
    first, only until k are to be shown: were all taken in, a whole recording
    would become one hit. If k cannot be reached, because what is taken in
    joins more than it adds, it ends where there were most.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    k : int
        At most so many.
    merge : float, optional
        Seconds between neighbours; None joins nothing.
    per_file : int, optional
        At most so many of one recording.
    is_whole : bool
        Whether all hits are to be joined before the best k are taken: those
        that reach a threshold, say.

    Returns
    -------
    list of Hit
        Best first, ranks from 0.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> times = [(0, 2), (8, 9), (2.5, 4)]
    >>> hits = [Hit(Segment("a", *t), 0.9 - i / 10, i)
    ...     for i, t in enumerate(times)]
    >>> [(h.segment.start, h.segment.stop) for h in pick(hits, 9, merge=1)]
    [(0, 2), (8, 9)]
    >>> picked = pick(hits, 9, merge=1, is_whole=True)
    >>> [(h.segment.start, h.segment.stop) for h in picked]
    [(0, 4), (8, 9)]
    """
    stretches, most, n_taken = _Stretches(merge, per_file), 0, len(hits)
    if not is_whole:
        for n, hit in enumerate(hits, start=1):
            stretches.add(hit)
            if len(stretches) > most:
                most, n_taken = len(stretches), n
            if most == k:
                break
        stretches = _Stretches(merge, per_file)
    for hit in hits[:n_taken]:
        stretches.add(hit)
    return [
        replace(hit, rank=rank) for rank, hit in enumerate(stretches.best()[:k])
    ]


class _Stretches:
    """Hits of which those that are close have become one."""

    def __init__(self, gap, per_file):
        self.gap, self.per_file = gap, per_file
        self._of = {}  # path -> channel -> hits in order of time
        self._count = {}  # path -> how many are to be shown
        self._total = 0

    def __len__(self):
        return self._total

    def add(self, hit):
        """Takes in a hit that is no better than those before."""
        path = hit.segment.path
        channels = self._of.setdefault(path, {})
        track = channels.setdefault(hit.segment.channel, [])
        if self.gap is None:
            track.append(hit)
        else:
            self._join(track, hit)
        count = sum(map(len, channels.values()))
        if self.per_file is not None:
            count = min(count, self.per_file)
        self._total += count - self._count.get(path, 0)
        self._count[path] = count

    def _join(self, track, hit):
        """Puts a hit in its place, united with those that are near."""
        room = self.gap + ROUNDING
        # Those in a track lie apart, so that both times rise.
        first = bisect_left(
            track, hit.segment.start - room, key=lambda h: h.segment.stop
        )
        last = bisect_right(
            track, hit.segment.stop + room, key=lambda h: h.segment.start
        )
        near = [*track[first:last], hit]
        best = min(near, key=lambda h: h.rank)
        segment = replace(
            best.segment,
            start=min(h.segment.start for h in near),
            stop=max(h.segment.stop for h in near),
        )
        track[first:last] = [replace(best, segment=segment)]

    def best(self):
        """Returns what is to be shown, best first."""
        shown = []
        for channels in self._of.values():
            hits = [hit for track in channels.values() for hit in track]
            shown += sorted(hits, key=lambda h: h.rank)[: self.per_file]
        return sorted(shown, key=lambda h: h.rank)


def check_picking(k, merge, per_file):
    """Raises a MendableError if these numbers ask for nothing.

    Arguments
    ---------
    k : int
        How many hits.
    merge : float or None
        Seconds.
    per_file : int or None
        How many of one recording.

    Example
    -------
    >>> check_picking(10, 0.5, None)
    >>> check_picking(0, None, None)
    Traceback (most recent call last):
    esr_lobes.errors.MendableError: k is a whole number from 1, not 0
    """
    for name, value in ("k", k), ("per_file", per_file):
        is_none = name != "k" and value is None
        is_good = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_none and (not is_good or value < 1):
            raise MendableError(
                f"{name} is a whole number from 1, not {value!r}"
            )
    is_good = isinstance(merge, Real) and not isinstance(merge, bool)
    if merge is not None and not (is_good and 0 <= merge < float("inf")):
        raise MendableError(
            f"merge is a number of seconds, 0 or more, not {merge!r}"
        )
