"""From descriptions and example clips to the one vector that is searched.

Authors
 * The esr_lobes contributors
"""

import os
from collections.abc import Mapping
from numbers import Real

import numpy as np

from esr_lobes.audio import AudioError, cut_windows, probe
from esr_lobes.batches import in_batches, read_segments
from esr_lobes.errors import MendableError
from esr_lobes.index.segments import Segment

# Times that were read off a table, where they have one decimal.
ROUNDED_SECONDS = 0.051
# Rows with less length point nowhere: what was asked for cancels out.
SHORTEST = 1e-4


class QueryError(MendableError):
    """A query that asks for nothing, and what to ask."""


def read_parts(query, sign=1):
    """Returns what a query is made of, each part with its weight.

    Arguments
    ---------
    query : str, list, dict, array or torch.Tensor
        A description; several that count alike; description to weight; or
        their embeddings, of shape [dimension] or [batch, dimension].
    sign : int
        -1 for what the answers should not be like.

    Returns
    -------
    list of (str or array, float)
        Descriptions or embeddings, and their weights.

    Raises
    ------
    QueryError
        If there is nothing in it, or a weight is no number.

    Example
    -------
    >>> read_parts({"excited": 2, "warm": 1})
    [('excited', 2.0), ('warm', 1.0)]
    >>> read_parts(["angry", "furious"], sign=-1)
    [('angry', -1.0), ('furious', -1.0)]
    """
    if isinstance(query, Mapping):
        items = list(query.items())
    else:
        if hasattr(query, "detach"):
            query = query.detach().cpu().float().numpy()
        is_one = isinstance(query, str) or (
            isinstance(query, np.ndarray) and query.ndim == 1
        )
        if not is_one and not isinstance(query, (list, tuple, np.ndarray)):
            raise QueryError(
                f"say in words what is searched for; got {query!r}"
            )
        items = [(part, 1.0) for part in ([query] if is_one else query)]
    if not items:
        raise QueryError("say in words what is searched for; got nothing")
    return [(_part(part), sign * _weight(w, part)) for part, w in items]


def _part(part):
    """Returns a description with something in it, or an embedding."""
    if isinstance(part, str):
        if not part.strip():
            raise QueryError(f"say in words what is searched for; got {part!r}")
        try:
            part.encode("utf-8")
        except UnicodeEncodeError as error:
            raise QueryError(f"{part!r} is no valid Unicode") from error
        return part
    if hasattr(part, "detach"):
        part = part.detach().cpu().float().numpy()
    vector = np.asarray(part)
    if vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise QueryError(f"say in words what is searched for; got {part!r}")
    return vector


def _weight(weight, part):
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not np.isfinite(weight):
        raise QueryError(f"the weight of {part!r} is no number: {weight!r}")
    return float(weight)


def compose(parts, encoder, dimension):
    """Returns one vector: sum of weight times embedding, over sum of |weight|.

    Its inner product with a segment is the weighted mean of the parts'
    cosines, what is not wanted counted negative.

    Arguments
    ---------
    parts : list of (str or array, float)
        Descriptions or embeddings, and their weights.
    encoder : object or None
        What has ``encode_text``; only descriptions need it.
    dimension : int
        Of the vectors that are searched.

    Returns
    -------
    array
        Float32 of shape [dimension].

    Raises
    ------
    QueryError
        If an embedding does not fit, or nothing is left of the sum.

    Example
    -------
    >>> east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> compose([(east, 3.0), (north, -1.0)], None, 2).tolist()
    [0.75, -0.25]
    """
    total = sum(abs(weight) for _, weight in parts)
    if total == 0:
        raise QueryError("all weights are 0: give one to what is wanted")
    texts = list(dict.fromkeys(p for p, _ in parts if isinstance(p, str)))
    rows = encode(texts, encoder) if texts else ()
    known = dict(zip(texts, rows, strict=True))
    summed = np.zeros(dimension)
    for part, weight in parts:
        vector = known[part] if isinstance(part, str) else part
        if vector.shape != (dimension,) or not np.isfinite(vector).all():
            raise QueryError(
                f"an embedding here has {dimension} finite numbers, not "
                f"shape {list(vector.shape)}: encode with the model that the "
                "index was built with"
            )
        summed += weight * vector
    if np.linalg.norm(summed) < SHORTEST * total:
        raise QueryError(
            "what is wanted and what is not cancel out: change a weight"
        )
    return (summed / total).astype(np.float32)


def encode(texts, encoder):
    """Returns the embeddings of descriptions.

    Arguments
    ---------
    texts : list of str
        One or more.
    encoder : object
        What has ``encode_text``.

    Returns
    -------
    array
        Unit-length rows of shape [texts, dimension].

    Raises
    ------
    QueryError
        If there is no encoder.
    """
    return _needed(encoder).encode_text(texts).cpu().numpy()


def _needed(encoder):
    if encoder is None:
        raise QueryError(
            "the index was opened without a model, so that it can be "
            "searched by embeddings only: open it with "
            "esr_lobes.searching.open_index"
        )
    return encoder


def read_clips(clip):
    """Returns example clips as segments.

    Arguments
    ---------
    clip : str, Path, tuple, Segment or list of them
        A file, ``(file, start, stop)`` with times in seconds, or a segment,
        such as that of a hit.

    Returns
    -------
    list of Segment
        With None for a ``stop`` at the end of the file.

    Raises
    ------
    QueryError
        If it is none of them.

    Example
    -------
    >>> [(c.start, c.stop) for c in read_clips(["/a.wav", ("/b.wav", 1, 2)])]
    [(0.0, None), (1.0, 2.0)]
    """
    clips = clip if isinstance(clip, list) else [clip]
    if not clips:
        raise QueryError("an example is a file or (file, start, stop); got []")
    return [_read_clip(each) for each in clips]


def _read_clip(clip):
    if isinstance(clip, Segment):
        return clip
    path, *times = clip if isinstance(clip, tuple) else (clip,)
    is_good = isinstance(path, (str, os.PathLike)) and len(times) in (0, 2)
    is_good &= all(isinstance(time, Real) for time in times)
    if not is_good:
        raise QueryError(
            f"an example is a file or (file, start, stop), not {clip!r}"
        )
    start, stop = map(float, times) if times else (0.0, None)
    if times and not 0 <= start < stop < np.inf:
        raise QueryError(f"{path}: {start} to {stop} s is no part of a file")
    return Segment(os.path.abspath(path), start, stop)


def embed_clip(clip, store, space, encoder):
    """Returns the embedding of an example clip.

    What the index holds is taken from there: a file as the direction of the
    mean of all its segments, a segment as it is. Anything else is read and
    heard, in windows if it is long. Of a part of a file that cannot be read
    any more, the segments of the index that overlap it stand for it.

    Arguments
    ---------
    clip : Segment
        As from :func:`read_clips`.
    store : object
        Such as ``esr_lobes.index.local.LocalStore``.
    space : str
        Which vectors.
    encoder : object or None
        What has ``encode_batch`` and ``hparams``.

    Returns
    -------
    array
        Of unit length, of shape [dimension].

    Raises
    ------
    AudioError
        If the file cannot be read and the index does not have it.
    QueryError
        If it has to be heard and there is no encoder.
    """
    times = () if clip.stop is None else (clip.start, clip.stop)
    keys = store.find(clip.path, *times)
    if not len(keys):
        keys = store.find(_behind_links(clip.path), *times)
    found = store.segments(keys)
    same = [key for key, s in zip(keys, found, strict=True) if _is(s, clip)]
    if not same and os.path.isfile(clip.path):
        rows = _heard(clip, _needed(encoder))
    elif same or len(keys):
        rows = store.take(space, same or keys)
    else:
        raise AudioError(clip.path, "missing", "and not in the index")
    mean = np.asarray(rows, np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


def _is(segment, clip):
    """Whether a segment is the clip, or a part of the file that it is."""
    if clip.channel is not None and clip.channel != segment.channel:
        return False
    if clip.stop is None:
        return True
    off = abs(segment.start - clip.start), abs(segment.stop - clip.stop)
    return max(off) < ROUNDED_SECONDS


def is_heard_in(segment, clip):
    """Returns whether a segment is of the same speech as an example clip.

    Arguments
    ---------
    segment : Segment
        One of an index.
    clip : Segment
        As from :func:`read_clips`.

    Returns
    -------
    bool
        Whether at least half of the shorter one is common to both.

    Example
    -------
    >>> clip = Segment("a.wav", 4.0, 8.0)
    >>> is_heard_in(Segment("a.wav", 5.0, 13.0), clip)
    True
    >>> is_heard_in(Segment("a.wav", 7.0, 15.0), clip)
    False
    """
    is_other = clip.channel is not None and clip.channel != segment.channel
    if is_other:
        return False
    stop = segment.stop if clip.stop is None else clip.stop
    common = min(segment.stop, stop) - max(segment.start, clip.start)
    shorter = min(segment.stop - segment.start, stop - clip.start)
    if common <= 0 or common < shorter / 2:
        return False
    # A file may be named through a link; to look that up takes its time.
    return segment.path == clip.path or (
        _behind_links(segment.path) == _behind_links(clip.path)
    )


def _behind_links(path):
    """Returns the file that a path leads to, or the path if it is none."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a name with a zero byte
        return path


def _heard(clip, encoder):
    """Returns one row a window of a clip that is read from its file."""
    numbers = encoder.hparams
    stop = probe(clip.path).seconds if clip.stop is None else clip.stop
    windows = cut_windows(
        stop - clip.start,
        numbers.max_seconds,
        numbers.hop_seconds,
        numbers.min_seconds,
    )
    if not windows:
        detail = f"{stop - clip.start:.3f} s"
        raise AudioError(clip.path, "too short", detail)
    segments = [
        Segment(clip.path, clip.start + a, clip.start + b, clip.channel)
        for a, b in windows
    ]

    def read(segments):
        return read_segments(segments, numbers.sample_rate, numbers.min_seconds)

    rows, errors = [], []
    for _, batch in in_batches(segments, read, 16, False, "skip"):
        if isinstance(batch, AudioError):
            errors.append(batch)
        else:
            rows.append(encoder.encode_batch(batch).cpu().numpy())
    if not rows:
        raise errors[0]
    return np.concatenate(rows)
