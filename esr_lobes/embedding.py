"""Embeddings of files and of manifests, with times and what was left out.

Authors
 * The esr_lobes contributors
"""

import os

import torch
from speechbrain.utils.logger import get_logger
from torch.nn.functional import normalize

from esr_lobes.audio import AudioError, cut_windows, find_audio
from esr_lobes.batches import in_batches, read_segments
from esr_lobes.index import Segment
from esr_lobes.preparation import Skip, check_clips

logger = get_logger(__name__)

WHOLE_SECONDS = 30.0
"""Clips of a manifest are heard whole up to this length; attention over more
costs too much memory."""


class FileEmbedder:
    """What a retriever does with files, given what it does with waveforms.

    For a class that has ``encode_batch``, ``hparams`` (``sample_rate``,
    ``embedding_size``, ``max_seconds``, ``hop_seconds``, ``min_seconds``),
    an ``index`` and a list ``skipped``.
    """

    def encode_files(
        self,
        paths,
        batch_size=16,
        progress=True,
        on_error="skip",
        n_workers=None,
    ):
        """Returns embeddings of files, and which segment each is of.

        Any format that soundfile reads, any rate, any number of channels
        (mixed to mono). A file longer than the page's ``max_seconds`` becomes
        overlapping windows, read one by one, so that memory does not grow
        with its length. What was embedded can be searched from then on.

        Arguments
        ---------
        paths : str or list of str
            Files, and folders for all audio in them.
        batch_size : int
            Clips a pass; those of like length go together.
        progress : bool
            Whether to show a bar.
        on_error : str
            ``skip`` lists what cannot be used in ``skipped``, ``raise``
            stops at it. Silent windows of a longer file are always skipped.
        n_workers : int, optional
            Threads that check the files beforehand; one a core if not given.

        Returns
        -------
        embeddings : torch.Tensor
            Unit-length rows on the CPU, of shape [segments, embedding].
        segments : list of Segment
            One a row: files in the order given, their paths made
            absolute, times rising.

        Raises
        ------
        AudioError
            With ``on_error="raise"``: the first file that cannot be used.
        """
        _check_on_error(on_error)
        paths = _expand(paths)
        infos, skips = check_clips(
            list(dict.fromkeys(paths)),
            self.hparams.min_seconds,
            n_workers,
            progress,
        )
        if skips and on_error == "raise":
            raise AudioError(skips[0].path, skips[0].reason, skips[0].detail)
        segments = [
            Segment(path, start, stop)
            for path in paths
            if path in infos
            for start, stop in self._windows(infos[path].seconds)
        ]
        rows, errors = self._encode(segments, batch_size, progress, on_error)
        self._list_skipped(skips + _as_skips(segments, errors), len(paths))
        kept = [i for i in range(len(segments)) if i not in errors]
        rows, segments = rows[kept], [segments[i] for i in kept]
        self.index.add(rows, segments)
        return rows, segments

    def encode_clips(
        self, rows, batch_size=16, progress=True, on_error="raise"
    ):
        """Returns one embedding a row of a manifest, and the rows it is of.

        A clip is heard whole, as in validation. One longer than
        ``WHOLE_SECONDS`` and ``max_seconds`` is heard window by window; its
        embedding is the direction of their mean. Nothing is added to the
        index.

        Arguments
        ---------
        rows : list of dict
            As from ``read_manifest``.
        batch_size : int
            Clips a pass; those of like length go together.
        progress : bool
            Whether to show a bar.
        on_error : str
            ``raise`` stops at a clip that cannot be used, ``skip`` leaves
            its row out and lists it in ``skipped``.

        Returns
        -------
        embeddings : torch.Tensor
            Unit-length rows on the CPU, of shape [clips, embedding].
        rows : list of dict
            Those embedded, in the order given: all, unless some are skipped.

        Raises
        ------
        AudioError
            With ``on_error="raise"``: the first clip that cannot be used.
        """
        _check_on_error(on_error)
        segments, owners, skips = [], [], []
        for i, row in enumerate(rows):
            start, channel = row["start"], row["channel"]
            seconds = row["stop"] - start
            windows = self._windows(seconds)
            if windows and seconds <= WHOLE_SECONDS:
                windows = [(0.0, seconds)]
            for first, last in windows:
                segments.append(
                    Segment(row["wav"], start + first, start + last, channel)
                )
                owners.append(i)
            if not windows:
                error = AudioError(
                    row["wav"],
                    "too short",
                    f"{start:.3f} s to {row['stop']:.3f} s",
                )
                if on_error == "raise":
                    raise error
                skips.append(Skip(error.path, error.reason, error.detail))
        windows, errors = self._encode(segments, batch_size, progress, on_error)
        sums = torch.zeros(len(rows), self.hparams.embedding_size)
        n_windows = torch.zeros(len(rows))
        for j, i in enumerate(owners):
            if j not in errors:
                sums[i] += windows[j]
                n_windows[i] += 1
        kept = n_windows.nonzero().flatten().tolist()
        if on_error == "raise" and len(kept) < len(rows):
            raise next(
                error for j, error in errors.items() if owners[j] not in kept
            )
        self._list_skipped(skips + _as_skips(segments, errors), len(rows))
        return normalize(sums[kept], dim=-1), [rows[i] for i in kept]

    def _windows(self, seconds):
        """Returns start and stop of each window of a clip."""
        return cut_windows(
            seconds,
            self.hparams.max_seconds,
            self.hparams.hop_seconds,
            self.hparams.min_seconds,
        )

    def _encode(self, segments, batch_size, progress, on_error):
        """Returns one row a segment, and position to AudioError of the bad."""
        rows = torch.zeros(len(segments), self.hparams.embedding_size)
        errors = {}
        for positions, batch in in_batches(
            segments, self._read, batch_size, progress, on_error
        ):
            if isinstance(batch, AudioError):
                errors[positions[0]] = batch
            else:
                rows[positions] = self.encode_batch(batch).cpu()
        return rows, errors

    def _read(self, segments):
        """Returns an iterator over waveforms, or the AudioErrors they gave."""
        rate, shortest = self.hparams.sample_rate, self.hparams.min_seconds
        return read_segments(segments, rate, shortest)

    def _list_skipped(self, skips, n_all):
        """Adds to ``skipped`` and says so once."""
        self.skipped.extend(skips)
        if skips:
            logger.warning(
                "left out %d times in %d files or clips, listed in "
                "`skipped`; the first is %s (%s)",
                len(skips),
                n_all,
                skips[0].path,
                skips[0].reason,
            )


def _expand(paths):
    """Returns absolute paths of files, those in a folder in its place.

    Absolute, so that a file is the same from every working directory.

    Arguments
    ---------
    paths : str or list of str
        Files, and folders for all audio in them.

    Returns
    -------
    list of str
        Files in the order given.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    expanded = []
    for path in map(os.path.abspath, map(os.fspath, paths)):
        expanded += find_audio(path) if os.path.isdir(path) else [path]
    return expanded


def _as_skips(segments, errors):
    """Returns what was left out, with the times of each segment.

    Arguments
    ---------
    segments : list of Segment
        All of them.
    errors : dict
        Position in ``segments`` to AudioError.

    Returns
    -------
    list of Skip
        One an error, in order.
    """
    return [
        Skip(
            error.path,
            error.reason,
            f"{segments[i].start:.2f} s to {segments[i].stop:.2f} s",
        )
        for i, error in sorted(errors.items())
    ]


def _check_on_error(on_error):
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error is 'skip' or 'raise', not {on_error!r}")
