"""Units of files become shards of an index: segments and their embeddings.

Authors
 * The esr_lobes contributors
"""

import json
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from esr_lobes.audio import SAMPLE_RATE, AudioError
from esr_lobes.batches import SILENCE
from esr_lobes.errors import MendableError
from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.indexing.chapters import CHAPTER_SECONDS, Chapter, read_chapters
from esr_lobes.indexing.cutting import make_cutter
from esr_lobes.indexing.digests import digest_of
from esr_lobes.indexing.voice_activity import VoiceActivity
from esr_lobes.preparation import Skip

SKIPS_KEY = b"esr_skips"
VECTORS_PREFIX = "vector:"
GROUP_CHAPTERS = 32
BUFFER_SEGMENTS = 128


@dataclass(frozen=True)
class Unit:
    """Files that are indexed in one go, and digests of their contents.

    Arguments
    ---------
    files : tuple of (str, str)
        Path and digest of each.
    """

    files: tuple


@dataclass
class Shard:
    """What a unit gave.

    Arguments
    ---------
    table : pyarrow.Table
        One row a segment, with the columns of ``esr_lobes.index.SCHEMA``,
        sorted by path, channel (the mix first), start and stop.
    vectors : dict
        From a space to float32 of shape [segments, dimension].
    skips : tuple of (Skip, str)
        Files that gave nothing, and their digests.

    Example
    -------
    >>> skip = (Skip("a.wav", "silent", ""), "d")
    >>> vectors = {"style": np.zeros((0, 4), dtype=np.float32)}
    >>> shard = Shard(SCHEMA.empty_table(), vectors, (skip,))
    >>> Shard.from_bytes(shard.to_bytes()).skips[0][0].reason
    'silent'
    """

    table: pa.Table
    vectors: dict
    skips: tuple = ()

    def to_bytes(self):
        """Returns a Parquet file: the vectors are columns of it."""
        table = self.table
        for space, rows in self.vectors.items():
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1)),
                rows.shape[1],
            )
            table = table.append_column(VECTORS_PREFIX + space, column)
        skips = [[*astuple(skip), digest] for skip, digest in self.skips]
        metadata = {SKIPS_KEY: json.dumps(skips)}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, data):
        """Returns the shard that :meth:`to_bytes` wrote.

        Arguments
        ---------
        data : bytes
            The whole of it.

        Returns
        -------
        Shard
            An equal one.
        """
        table = pq.read_table(pa.BufferReader(data))
        skips = json.loads(table.schema.metadata[SKIPS_KEY])
        vectors = {}
        for name in table.column_names:
            if name.startswith(VECTORS_PREFIX):
                rows = table[name].combine_chunks()
                vectors[name[len(VECTORS_PREFIX) :]] = (
                    rows.flatten()
                    .to_numpy()
                    .reshape(len(rows), rows.type.list_size)
                )
        return cls(
            table.select(SCHEMA.names).cast(SCHEMA),
            vectors,
            tuple((Skip(*skip), digest) for *skip, digest in skips),
        )


@dataclass
class _Piece:
    """A segment on its way: which file of the unit, where, what is heard."""

    file: int
    channel: int | None
    start: float
    stop: float
    wave: torch.Tensor


class Worker:
    """Decodes, cuts and embeds the files of a unit.

    May be called from several threads at once; they share the models. What
    comes out depends on the unit alone: torch computes with one thread for
    so long, and what is batched with what follows from the unit.

    Arguments
    ---------
    retrievers : dict
        From the name of a space to what embeds it: anything with
        ``encode_batch`` and ``hparams`` like an ``EncoderRetriever``.
    cutting : Cutting
        How files are cut.
    batch_size : int
        Segments a pass of a model; those of like length go together.
    chapter_seconds : float
        How much of a long file is worked on at a time.

    Raises
    ------
    MendableError
        If a retriever listens at another rate, or a number is none.
    """

    def __init__(
        self,
        retrievers,
        cutting,
        batch_size=16,
        chapter_seconds=CHAPTER_SECONDS,
    ):
        for space, retriever in retrievers.items():
            rate = retriever.hparams.sample_rate
            if rate != SAMPLE_RATE:
                raise MendableError(
                    f"the retriever of {space} listens at {rate} Hz, but "
                    f"segments come at {SAMPLE_RATE} Hz: take another one"
                )
        if batch_size < 1:
            raise MendableError(
                f"batch_size is {batch_size}, but must be at least 1"
            )
        self.retrievers = retrievers
        self.cutting = cutting
        self.batch_size = batch_size
        self.chapter_seconds = chapter_seconds
        self.seconds = dict.fromkeys(
            ("audio", "decode", "voice", "encode"), 0.0
        )
        self._lock = threading.Lock()
        self._voice = VoiceActivity() if cutting.kind == "voice" else None

    def __call__(self, unit):
        """Returns the shard of a unit.

        A file that cannot be used is listed there and harms no other.

        Arguments
        ---------
        unit : Unit
            The files.

        Returns
        -------
        Shard
            Its segments and vectors, and what was skipped.
        """
        rows, errors, waiting = [], {}, []
        with (
            one_thread,
            closing(self._prepared(unit)) as groups,
            closing(read_ahead(groups)) as groups,
        ):
            for pieces, new_errors in groups:
                errors.update(new_errors)
                waiting += pieces
                while len(waiting) >= BUFFER_SEGMENTS:
                    rows += self._encoded(waiting[:BUFFER_SEGMENTS])
                    del waiting[:BUFFER_SEGMENTS]
            rows += self._encoded(waiting)
        return self._shard(unit, rows, errors)

    # In the background: from files to pieces

    def _prepared(self, unit):
        """Yields pieces, and errors by file, group by group."""
        cutters = {}
        for group in self._groups(unit):
            errors = {i: e for i, e in group if isinstance(e, AudioError)}
            chapters = [(i, c) for i, c in group if i not in errors]
            with self._timed("voice"):
                pieces = self._pieces(chapters, cutters)
            yield pieces, errors

    def _pieces(self, chapters, cutters):
        """Returns what chapters are cut into, but for silence.

        Arguments
        ---------
        chapters : list of (int, Chapter)
            Each with its file.
        cutters : dict
            Those at work, by file and channel.

        Returns
        -------
        list of _Piece
            In the order of the chapters.
        """
        probabilities = [None] * len(chapters)
        if self._voice:
            probabilities = self._voice(
                [(chapter.wave, chapter.run_up) for _, chapter in chapters]
            )
        pieces = []
        for (i, chapter), row in zip(chapters, probabilities, strict=True):
            key = i, chapter.channel
            if key not in cutters:
                cutters[key] = make_cutter(self.cutting)
            new = chapter.wave[chapter.run_up :]
            for start, stop, wave in cutters[key].push(new, chapter.end, row):
                if (wave.max() - wave.min()) / 2 >= SILENCE:
                    pieces.append(_Piece(i, chapter.channel, start, stop, wave))
            if chapter.end is not None:
                del cutters[key]
        return pieces

    def _groups(self, unit):
        """Yields lists of (file, Chapter or AudioError), to be heard at once.

        They come to about one chapter's length, or to `GROUP_CHAPTERS`.
        """
        group, seconds = [], 0.0
        for i, (path, digest) in enumerate(unit.files):
            for chapter in self._chapters(path, digest):
                if isinstance(chapter, Chapter):
                    n_samples = len(chapter.wave) - chapter.run_up
                    seconds += n_samples / SAMPLE_RATE
                group.append((i, chapter))
                if (
                    seconds >= self.chapter_seconds
                    or len(group) == GROUP_CHAPTERS
                ):
                    self._count("audio", seconds)
                    yield group
                    group, seconds = [], 0.0
        self._count("audio", seconds)
        yield group

    def _chapters(self, path, digest):
        """Yields the chapters of a file, and the error it ends with."""
        error = None
        chapters = read_chapters(
            path,
            self.cutting.channels,
            self.cutting.shortest,
            self.chapter_seconds,
        )
        with closing(chapters):
            while True:
                try:
                    with self._timed("decode"):
                        chapter = next(chapters, None)
                except AudioError as raised:
                    error = raised
                    break
                if chapter is None:
                    break
                yield chapter
        if error is None or error.reason != "missing":
            with self._timed("decode"):
                error = _changed(path, digest) or error
        if error:
            yield error

    # From pieces to rows

    def _encoded(self, pieces):
        """Returns pairs of a piece, without its waveform, and its vectors."""
        order = sorted(range(len(pieces)), key=lambda j: -len(pieces[j].wave))
        rows = []
        for first in range(0, len(order), self.batch_size):
            batch = [pieces[j] for j in order[first : first + self.batch_size]]
            waves = [piece.wave for piece in batch]
            with self._timed("encode"):
                vectors = {
                    space: retriever.encode_batch(waves).cpu().numpy()
                    for space, retriever in self.retrievers.items()
                }
            for j, piece in enumerate(batch):
                piece.wave = None
                row = {space: found[j] for space, found in vectors.items()}
                rows.append((piece, row))
        return rows

    def _shard(self, unit, rows, errors):
        """Returns rows in their order, without those of files in error."""
        for piece, row in rows:
            if not all(np.isfinite(vector).all() for vector in row.values()):
                path, detail = unit.files[piece.file][0], "in its embedding"
                errors[piece.file] = AudioError(path, "not finite", detail)
        rows = [(piece, row) for piece, row in rows if piece.file not in errors]
        found = {piece.file for piece, _ in rows}
        nothing = "no voice" if self.cutting.kind == "voice" else "silent"
        skips = []
        for i, (path, digest) in enumerate(unit.files):
            if i in errors:
                error = errors[i]
                skips.append((Skip(path, error.reason, error.detail), digest))
            elif i not in found:
                skips.append((Skip(path, nothing), digest))

        def place(row):
            piece = row[0]
            channel = -1 if piece.channel is None else piece.channel
            path = unit.files[piece.file][0]
            return path, channel, piece.start, piece.stop

        rows.sort(key=place)
        segments = []
        for piece, _ in rows:
            path, digest = unit.files[piece.file]
            times = piece.start, piece.stop
            segments.append(
                {
                    "id": segment_id(path, *times, piece.channel, digest),
                    "path": path,
                    "start": piece.start,
                    "stop": piece.stop,
                    "channel": piece.channel,
                    "duration": piece.stop - piece.start,
                    "digest": digest,
                }
            )
        vectors = {
            space: np.array(
                [row[space] for _, row in rows], np.float32
            ).reshape(len(rows), retriever.hparams.embedding_size)
            for space, retriever in self.retrievers.items()
        }
        table = pa.Table.from_pylist(segments, SCHEMA)
        return Shard(table, vectors, tuple(skips))

    # What it costs

    @contextmanager
    def _timed(self, part):
        start = time.perf_counter()
        try:
            yield
        finally:
            self._count(part, time.perf_counter() - start)

    def _count(self, part, seconds):
        with self._lock:
            self.seconds[part] += seconds


def _changed(path, digest):
    """Returns an error if a file is no longer what the plan has read.

    Else other content would stand under that digest for ever.
    """
    try:
        if digest_of(path)[0] == digest:
            return None
    except OSError as error:
        return AudioError(path, "missing", error.strerror or str(error))
    return AudioError(path, "changed", "while it was read")


def read_ahead(items, size=2):
    """Yields what an iterator gives, which goes on in a thread meanwhile.

    Arguments
    ---------
    items : iterator
        Of anything but None. What it raises is raised here.
    size : int
        How many items it may be ahead.

    Yields
    ------
    object
        Each item. No thread is left, whatever ends the reading.

    Example
    -------
    >>> list(read_ahead(iter([1, 2, 3])))
    [1, 2, 3]
    """
    with ThreadPoolExecutor(1, "read_ahead") as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(size))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, items, None))
                yield item
        finally:
            for future in waiting:
                future.cancel()


class _OneThread:
    """Lets torch compute with one thread; how many there are changes bits.

    Any number of threads may be within; the last one to leave puts back what
    the first one found.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before = None

    def __enter__(self):
        with self._lock:
            if self._n_inside == 0:
                self._before = torch.get_num_threads()
            self._n_inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *error):
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                torch.set_num_threads(self._before)


one_thread = _OneThread()
