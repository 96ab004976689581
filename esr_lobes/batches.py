"""Clips on their way from files to batches of an encoder.

Authors
 * The esr_lobes contributors
"""

from itertools import groupby

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from esr_lobes.audio import AudioError, read_windows

# A window whose peak stays below -60 dB holds nobody's voice.
SILENCE = 10 ** (-60 / 20)


def as_batch(wavs, wav_lens=None, device="cpu"):
    """Returns one padded batch of whatever clips are given as.

    Arguments
    ---------
    wavs : torch.Tensor or list of torch.Tensor
        Floating point, of shape [batch, time] or [time], or a list of [time].
    wav_lens : torch.Tensor, optional
        Relative lengths of shape [batch]; all full if not given.
    device : str
        Where the batch is needed.

    Returns
    -------
    wavs : torch.Tensor
        Float32 of shape [batch, time].
    wav_lens : torch.Tensor
        Relative lengths, float32 of shape [batch].

    Raises
    ------
    TypeError
        If samples are no floating point numbers.
    ValueError
        If shapes do not fit or a sample is not finite.

    Example
    -------
    >>> as_batch([torch.ones(2), torch.ones(4)])[1]
    tensor([0.5000, 1.0000])
    """
    if isinstance(wavs, (list, tuple)):
        if wav_lens is not None:
            raise ValueError("a list of clips brings its own lengths")
        wavs, wav_lens = _pad(wavs)
    wavs = _floating(wavs).to(device)
    if wavs.ndim == 1:
        wavs = wavs[None]
    if wavs.ndim != 2 or 0 in wavs.shape:
        raise ValueError(
            "waveforms need shape [batch, time] or [time], not "
            f"{list(wavs.shape)}; mix channels to mono first"
        )
    is_finite = wavs.isfinite().all(dim=1)
    if not is_finite.all():
        rows = (~is_finite).nonzero().flatten().tolist()
        raise ValueError(f"NaN or infinite samples in clips {rows}")
    if wav_lens is None:
        wav_lens = torch.ones(len(wavs))
    wav_lens = torch.as_tensor(wav_lens, dtype=torch.float32, device=device)
    is_good = wav_lens.shape == wavs.shape[:1] and bool(
        ((wav_lens > 0) & (wav_lens <= 1)).all()
    )
    if not is_good:
        raise ValueError(
            f"{len(wavs)} clips need as many relative lengths in (0, 1], "
            f"not {wav_lens.tolist()}"
        )
    return wavs, wav_lens


def _floating(wave):
    """Returns samples in float32; those of an integer scale are refused."""
    try:
        wave = torch.as_tensor(wave)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"waveforms need to be tensors: {error}") from error
    if not wave.is_floating_point():
        raise TypeError(
            f"waveforms need floating point samples in [-1, 1], not "
            f"{wave.dtype}: divide by the scale, 32768 for 16 bits"
        )
    return wave.float()


def _pad(waves):
    """Returns clips of shape [batch, time], and their relative lengths."""
    waves = [_floating(wave) for wave in waves]
    if not waves or any(w.ndim != 1 or len(w) == 0 for w in waves):
        raise ValueError(
            "a list of clips needs waveforms of shape [time], not "
            f"{[list(wave.shape) for wave in waves]}"
        )
    lengths = torch.tensor([float(len(wave)) for wave in waves])
    return pad_sequence(waves, batch_first=True), lengths / lengths.max()


def in_batches(segments, waves, batch_size, progress, on_error):
    """Yields batches of clips of like length, and what could not be read.

    Arguments
    ---------
    segments : list of Segment
        What is to be read.
    waves : callable
        Segments to an iterator over a waveform or an AudioError for each,
        such as :func:`read_segments`.
    batch_size : int
        Clips a batch.
    progress : bool
        Whether to show a bar.
    on_error : str
        ``raise`` stops at what cannot be used; ``skip`` reports it. Silence
        is never raised: a pause in a long recording is no fault.

    Yields
    ------
    positions : list of int
        Where in ``segments`` they are from.
    batch : list of torch.Tensor or AudioError
        Waveforms of shape [time], or for one position the error it gave.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    # Longest first: what does not fit in memory shows at once. Rounded, so
    # that the windows of one file stay together and in order.
    order = sorted(
        range(len(segments)),
        key=lambda i: -round(segments[i].stop - segments[i].start, 3),
    )
    batch, waiting = [], []
    read = waves([segments[i] for i in order])
    bar = tqdm(order, "embedding", unit="clip", disable=not progress)
    for i, wave in zip(bar, read, strict=True):
        if isinstance(wave, AudioError):
            if on_error == "raise" and wave.reason != "silent":
                raise wave
            yield [i], wave
            continue
        batch.append(wave)
        waiting.append(i)
        if len(batch) == batch_size:
            yield waiting, batch
            batch, waiting = [], []
    if batch:
        yield waiting, batch


def read_segments(segments, sample_rate, min_seconds):
    """Yields the waveform of each segment, or the AudioError it gave.

    Arguments
    ---------
    segments : list of Segment
        Those of one file in one go are read in one go.
    sample_rate : int
        Rate of the waveforms.
    min_seconds : float
        What is shorter is an error.

    Yields
    ------
    torch.Tensor or AudioError
        Float32 of shape [time], with something in it.
    """
    for (path, channel), group in groupby(
        segments, key=lambda segment: (segment.path, segment.channel)
    ):
        times = [(segment.start, segment.stop) for segment in group]
        while times:
            waves = read_windows(path, list(times), channel, sample_rate)
            try:
                for wave in waves:
                    times.pop(0)
                    yield _heard(path, wave, sample_rate, min_seconds)
            except AudioError as error:
                times.pop(0)  # and go on behind it
                yield error


def _heard(path, wave, sample_rate, min_seconds):
    """Returns a waveform with something in it, or an AudioError."""
    seconds = len(wave) / sample_rate
    if seconds < 0.999 * min_seconds:
        return AudioError(path, "too short", f"{seconds:.3f} s")
    if (wave.max() - wave.min()) / 2 < SILENCE:
        return AudioError(path, "silent", f"{seconds:.3f} s")
    return wave
