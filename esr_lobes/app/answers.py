"""What a page has shown, and the clips of it.

A browser asks for sound and pictures by the token of an answer and a rank in
it. So it can reach what a search has found, and nothing else on the disk.

Authors
 * The esr_lobes contributors
"""

import secrets
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import soundfile

from esr_lobes import audio
from esr_lobes.app.clips import CONTEXT_SECONDS, read_around
from esr_lobes.errors import MendableError

MAX_UPLOAD_BYTES = 20 * 1024 * 1024
MAX_UPLOAD_SECONDS = 300.0
"""A compressed file of a few megabytes may hold a day."""

PCM = "PCM_16"


class UploadError(MendableError):
    """A file that cannot be an example."""


class Answers:
    """Answers of searches and uploaded examples, by tokens nobody guesses.

    Clips are written when they are asked for, to a temporary folder that
    goes with :meth:`close`. The oldest answers are forgotten, and their
    clips removed.

    Arguments
    ---------
    most : int
        Answers, and uploads, to keep.

    Example
    -------
    >>> answers = Answers()
    >>> token = answers.put(["first", "second"])
    >>> answers.segment(token, 1)
    'second'
    >>> answers.segment(token, 2) is None, answers.segment("guess", 0) is None
    (True, True)
    >>> answers.close()
    """

    def __init__(self, most=64):
        self.most = most
        self._folder = tempfile.TemporaryDirectory(prefix="esr_app_")
        self._answers = OrderedDict()
        self._uploads = OrderedDict()
        self._lock = threading.Lock()

    @property
    def folder(self):
        """Where clips are written."""
        return Path(self._folder.name)

    def close(self):
        """Removes all clips."""
        self._folder.cleanup()

    def put(self, segments, hits=()):
        """Returns the token under which segments can be played.

        Arguments
        ---------
        segments : sequence of Segment
            In the order of their ranks.
        hits : sequence of Hit
            The same as answers, where there is something to export.

        Returns
        -------
        str
            Twenty-two characters.
        """
        return self._keep(self._answers, (tuple(segments), tuple(hits)))

    def _keep(self, kept, value):
        token = secrets.token_urlsafe(16)
        with self._lock:
            kept[token] = value
            old = kept.popitem(last=False)[0] if len(kept) > self.most else ""
        if old:
            for path in self.folder.glob(f"{old}*"):
                path.unlink(missing_ok=True)
        return token

    def segment(self, token, rank):
        """Returns one segment of an answer, or None.

        Arguments
        ---------
        token : str
            What :meth:`put` gave.
        rank : int
            From 0.

        Returns
        -------
        Segment or None
            None if there is no such answer (any more), or no such rank.
        """
        segments, _ = self._answer(token)
        is_rank = type(rank) is int and 0 <= rank < len(segments)
        return segments[rank] if is_rank else None

    def _answer(self, token):
        """Returns segments and hits; a client may send anything as token."""
        known = isinstance(token, str) and self._answers.get(token)
        return known or ((), ())

    def hits(self, token):
        """Returns the hits of an answer; none if it is forgotten.

        Arguments
        ---------
        token : str
            What :meth:`put` gave.

        Returns
        -------
        list of Hit
            Best first.
        """
        return list(self._answer(token)[1])

    def clip(self, token, rank, with_context=False):
        """Returns a WAV file of one segment.

        Arguments
        ---------
        token : str
            What :meth:`put` gave.
        rank : int
            From 0.
        with_context : bool
            Whether to add what stands before and behind.

        Returns
        -------
        Path or None
            None if there is no such segment.

        Raises
        ------
        AudioError
            If the recording is gone or cannot be read.
        """
        segment = self.segment(token, rank)
        if segment is None:
            return None
        kind = "context" if with_context else "clip"
        path = self.folder / f"{token}-{rank}-{kind}.wav"
        if not path.exists():
            seconds = CONTEXT_SECONDS if with_context else 0.0
            rate = audio.probe(segment.path).sample_rate
            wav = read_around(segment, seconds, rate).numpy()
            # Two threads may make the same clip: each its own file first.
            unfinished = path.with_suffix(f".{threading.get_ident()}")
            soundfile.write(unfinished, wav, rate, PCM, format="WAV")
            unfinished.replace(path)
        return path

    def keep_upload(self, data):
        """Returns the token of an uploaded example that can be decoded.

        Arguments
        ---------
        data : bytes
            The file, of any format that libsndfile reads.

        Returns
        -------
        str
            Its token.

        Raises
        ------
        UploadError
            If it is too large or too long, or no audio.
        """
        if len(data) > MAX_UPLOAD_BYTES:
            raise UploadError(
                f"the file is larger than {MAX_UPLOAD_BYTES >> 20} MB: "
                "cut out the part that sounds as you wish"
            )
        token = self._keep(self._uploads, True)
        path = self.folder / f"{token}-upload"
        path.write_bytes(data)
        try:
            seconds = audio.check(path).seconds
            if seconds > MAX_UPLOAD_SECONDS:
                raise UploadError(
                    f"the clip lasts {seconds:.0f} s, more than "
                    f"{MAX_UPLOAD_SECONDS:.0f}: cut out the part that sounds "
                    "as you wish"
                )
        except MendableError as error:
            self._uploads.pop(token, None)
            path.unlink(missing_ok=True)
            if isinstance(error, audio.AudioError):
                # Without our own path, which would tell nothing.
                detail = f" ({error.detail})" if error.detail else ""
                raise UploadError(
                    f"the file is no audio that can be used: {error.reason}"
                    f"{detail}; wav, flac, ogg, opus and mp3 can be read"
                ) from error
            raise
        return token

    def upload(self, token):
        """Returns the file of an uploaded example, or None.

        Arguments
        ---------
        token : str
            What :meth:`keep_upload` gave.

        Returns
        -------
        Path or None
            None if there is no such upload (any more).
        """
        known = isinstance(token, str) and token in self._uploads
        return self.folder / f"{token}-upload" if known else None
