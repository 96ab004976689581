"""A file as chapters: stretches short enough for memory, long enough to work
on, at 16 kHz, one track a channel or one for the mix.

Authors
 * The esr_lobes contributors
"""

from dataclasses import dataclass

import numpy as np
import torch

from esr_lobes.audio import SAMPLE_RATE, AudioStream
from esr_lobes.indexing.voice_activity import FRAME, RUN_UP

CHAPTER_SECONDS = 300.0


@dataclass
class Chapter:
    """A stretch of one track.

    Arguments
    ---------
    channel : int or None
        Which channel; None for the mix of all.
    wave : torch.Tensor
        Of shape [time]; whole frames of voice activity, unless it is the
        last.
    run_up : int
        How many of the first samples were in the chapter before, too.
    end : float or None
        In the last one: length of the file in seconds.
    """

    channel: int | None
    wave: torch.Tensor
    run_up: int
    end: float | None


def read_chapters(
    path, channels="mix", shortest=0.1, chapter_seconds=CHAPTER_SECONDS
):
    """Yields the chapters of a file, those of all its channels in turn.

    Arguments
    ---------
    path : str
        The file.
    channels : str
        ``mix`` or ``split``; a file of one channel is a mix in any case.
    shortest : float
        Seconds a file must have.
    chapter_seconds : float
        Length of a chapter, more or less.

    Yields
    ------
    Chapter
        Times rising.

    Raises
    ------
    AudioError
        What :func:`esr_lobes.audio.check` would raise, before the last
        chapter, so that what came of the ones before is to be thrown away.

    Example
    -------
    >>> from soundfile import write
    >>> path = str(getfixture("tmp_path") / "tone.wav")
    >>> write(path, np.eye(1, 16000)[0], 16000)
    >>> [(c.wave.shape, c.end) for c in read_chapters(path)]
    [(torch.Size([16000]), 1.0)]
    """
    length = max(1, round(chapter_seconds * SAMPLE_RATE / FRAME)) * FRAME
    stream = AudioStream(path, shortest)
    before, waves, n_samples = None, [], 0
    for wave in stream.waves(channels == "split"):
        # not at once: the last chapter has to know that it is
        while n_samples + wave.shape[1] > length:
            n_missing = length - n_samples
            waves.append(wave[:, :n_missing])
            wave = wave[:, n_missing:]
            before = yield from _chapters(before, waves, None)
            waves, n_samples = [], 0
        waves.append(wave)
        n_samples += wave.shape[1]
    yield from _chapters(before, waves, stream.info.seconds)


def _chapters(before, waves, end):
    """Yields one chapter a channel; returns the next ones' run-up."""
    run_up = 0 if before is None else before.shape[1]
    waves = np.concatenate(([] if run_up == 0 else [before]) + waves, axis=1)
    for i, wave in enumerate(np.ascontiguousarray(waves)):
        channel = i if len(waves) > 1 else None
        yield Chapter(channel, torch.from_numpy(wave), run_up, end)
    return waves[:, -RUN_UP:].copy()
