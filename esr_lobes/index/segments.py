"""What an index says of a segment, and of an answer.

Authors
 * The esr_lobes contributors
"""

import hashlib
from dataclasses import dataclass, field

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("start", pa.float64(), False, {"unit": "seconds"}),
        pa.field("stop", pa.float64(), False, {"unit": "seconds"}),
        pa.field("channel", pa.int16(), metadata={"null": "mix of all"}),
        pa.field("duration", pa.float64(), False, {"unit": "seconds"}),
        pa.field("digest", pa.string(), nullable=False),
    ]
)
"""Columns that every table of segments has; those that a user joins stand
behind them."""

COLUMNS = tuple(SCHEMA.names)


@dataclass(frozen=True)
class Segment:
    """Where in which file something is said.

    Arguments
    ---------
    path : str
        The file.
    start : float
        First second.
    stop : float
        Second behind the last.
    channel : int, optional
        Which channel; None for the mix of all.
    id : str
        Its name in an index on disk, see :func:`segment_id`.
    metadata : dict
        What the user joined to it: column to value.
    """

    path: str
    start: float
    stop: float
    channel: int | None = None
    id: str = field(default="", compare=False)
    metadata: dict = field(default_factory=dict, compare=False)

    @property
    def duration(self):
        """Length in seconds."""
        return self.stop - self.start


@dataclass(frozen=True)
class Hit:
    """One answer to a query.

    Arguments
    ---------
    segment : Segment
        What was found.
    score : float
        Inner product with the query; of several queries that were fused,
        what the fusion gave.
    rank : int
        0 for the best.
    z : float, optional
        How many standard deviations the score lies above the mean of the
        index's own background.
    percentile : float, optional
        Share of the background that scores no more, from 0 to 100.
    """

    segment: Segment
    score: float
    rank: int
    z: float | None = None
    percentile: float | None = None


def segment_id(path, start, stop, channel, digest):
    """Returns the name of a segment, the same in every run.

    Arguments
    ---------
    path : str
        The file.
    start : float
        First second; a microsecond more or less is the same.
    stop : float
        Second behind the last.
    channel : int, optional
        Which channel; None for the mix.
    digest : str
        Of the file's content.

    Returns
    -------
    str
        Thirty-two hexadecimal digits.

    Example
    -------
    >>> segment_id("a.wav", 0.0, 1.5, None, "d") == segment_id(
    ...     "a.wav", 0, 1.5, None, "d"
    ... )
    True
    >>> len(segment_id("a.wav", 0.0, 1.5, 1, "d"))
    32
    """
    text = f"{path}\0{start:.6f}\0{stop:.6f}\0{channel}\0{digest}"
    data = text.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=16).hexdigest()
