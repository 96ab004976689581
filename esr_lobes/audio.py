"""Audio files: what is in a folder, whether a file is sound, and one segment
of it as a mono waveform.

Everything that reads audio comes through here, so that a clip is decoded,
mixed to mono and resampled in one way only, and everything that cannot be
used is turned down with the same words: an :class:`AudioError` says which
file, what is wrong with it, and what to do.

Times are seconds, channels count from 0. The formats are those libsndfile
reads (wav, flac, ogg, opus, mp3, aiff, caf, w64, ...); others are to be
converted first.

Authors
 * The esr_lobes contributors
"""

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
import torch

from esr_lobes.errors import MendableError

SAMPLE_RATE = 16000
"""The rate every model here listens at, in Hz."""

SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .caf .w64 "
    ".rf64 .au".split()
)
"""What `find_audio` takes for audio in a folder."""

END_TOLERANCE = 0.05
"""Seconds a segment (or a header) may reach beyond the decoded end; written
times are rounded, and so are the lengths that some encoders note."""

LOUDEST = 1e10
"""Where samples stop being sound: full scale is 1, or 32768 in files that
mean integers. Far above, a sum of squares overflows."""

BLOCK_FRAMES = 1 << 16

# An MP3 frame leans on the ones before it: for up to a second after a seek
# the decoder gives garbage.
_RUN_UP_SECONDS = {"MP3": 1.0}

ADVICE = {
    "missing": "check the path",
    "changed": "run the same command again when nobody writes to it",
    "odd name": "rename it in UTF-8",
    "empty": "remove it or fetch it again",
    "corrupt": "fetch it again or convert it to WAV or FLAC "
    "(for example: ffmpeg -i FILE FILE.wav)",
    "truncated": "fetch or export it again, or correct the times asked for",
    "too short": "leave it out or lower min_seconds",
    "silent": "leave it out, or lower silence_db if it is only very quiet",
    "no voice": "if somebody speaks in it, or to find it all the same, cut it "
    "in windows (--cut windows)",
    "not finite": "export it again without NaN, infinite or giant samples",
    "no such channel": "channels count from 0; leave it empty to mix them",
}
"""The reasons an `AudioError` may give, and what to do about each."""

# libsndfile reads a cut-off file to its end without an error, but its log
# holds the size that the header promised. Writers to a pipe, who cannot know
# the size, promise (nearly) 2 or 4 GiB.
_SHORT_DATA = re.compile(
    r"^\s*(?:data|SSND|riff|Riff size|Data Size)\s*: (\d+) "
    r"\(should be (\d+)\)",
    re.MULTILINE,
)
_UNKNOWN_BYTES = 0x7FFFF000
_UNKNOWN_FRAMES = 1 << 62


class AudioError(MendableError):
    """An audio file that cannot be used, why, and what to do.

    Arguments
    ---------
    path : str
        The file (or folder).
    reason : str
        One of the keys of `ADVICE`.
    detail : str
        Figures or the decoder's own words.

    Example
    -------
    >>> error = AudioError("a.wav", "too short", "0.010 s")
    >>> error.reason
    'too short'
    >>> print(error)
    a.wav: too short (0.010 s); leave it out or lower min_seconds
    """

    def __init__(self, path, reason, detail=""):
        super().__init__(str(path), reason, detail)
        self.path, self.reason, self.detail = self.args

    def __str__(self):
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {self.reason}{detail}; {ADVICE[self.reason]}"


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: path, rate in Hz, channels, length in seconds."""

    path: str
    sample_rate: int
    channels: int
    seconds: float


class _Onward(soundfile.SoundFile):
    """A file that stays where reading has brought it.

    soundfile seeks after every read to where it already is, after which the
    next frame of an MP3 may lack what it leans on. It leaves that out where
    it must not seek.
    """

    def seekable(self):
        """Says no; `seek` works nevertheless."""
        return False


@contextmanager
def _opened(path):
    """Gives the open file; turns every failure to read into AudioError."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise AudioError(path, "missing", _what_instead(path))
    if not os.access(path, os.R_OK):
        raise AudioError(path, "missing", "no permission to read it")
    try:
        size = os.path.getsize(path)
    except OSError as error:  # gone since the first line
        raise AudioError(path, "missing", error.strerror) from error
    if size == 0:
        raise AudioError(path, "empty", "zero bytes")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        # libsndfile could open it, but no manifest or report could name it
        raise AudioError(path, "odd name", repr(os.fsencode(path))) from error
    try:
        file = _Onward(path)
    except (soundfile.SoundFileError, TypeError) as error:
        if not os.path.isfile(path):
            raise AudioError(path, "missing", _what_instead(path)) from error
        # TypeError: a suffix that means headerless data (.raw)
        raise AudioError(path, "corrupt", _words(error)) from error
    with file:
        if file.frames >= _UNKNOWN_FRAMES:
            raise AudioError(path, "corrupt", "its header has no length")
        if file.frames == 0:
            raise AudioError(path, "empty", "no samples")
        try:
            yield file
        except soundfile.SoundFileError as error:
            raise AudioError(path, "corrupt", _words(error)) from error


def _what_instead(path):
    """What is where a file should be."""
    if os.path.isdir(path):
        return "it is a folder"
    if os.path.exists(path):
        return "a pipe or device, no regular file"
    if os.path.islink(path):
        return f"a link to {os.readlink(path)}, where nothing is"
    return "no such file or folder"


def _words(error):
    """What the decoder said, without its own full stop."""
    return getattr(error, "error_string", str(error)).strip(" .")


def _info(path, file, frames=None):
    """What is in an open file, with its header's length or a counted one."""
    frames = file.frames if frames is None else frames
    return AudioInfo(
        os.fspath(path),
        file.samplerate,
        file.channels,
        frames / file.samplerate,
    )


def _promised_seconds(file):
    """Length of the recording as its header promised it, in seconds.

    Known for WAV, AIFF, W64, RF64 and AU also when the file was cut off;
    an Ogg file does not tell.
    """
    seconds = file.frames / file.samplerate
    for promised, there in _SHORT_DATA.findall(file.extra_info):
        if int(there) < int(promised) < _UNKNOWN_BYTES:
            seconds = max(seconds, seconds * int(promised) / int(there))
    return seconds


def probe(path):
    """Gives rate, channels and length of a file from its header alone.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    AudioInfo
        As the header has it; `check` counts instead.

    Raises
    ------
    AudioError
        If there is no such file, or nothing in it that can be read.
    """
    with _opened(path) as file:
        return _info(path, file)


def _segment(file, path, start, stop, channel, sample_rate):
    """Reads one segment of an open file; see `read`."""
    rate, frames = file.samplerate, file.frames
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(
            f"{path}: the segment from {start} to {stop} s is no segment; "
            "give 0 <= start < stop"
        )
    if channel is not None and not 0 <= channel < file.channels:
        detail = f"{channel} asked for, it has {file.channels}"
        raise AudioError(path, "no such channel", detail)
    first = round(start * rate)
    last = frames if stop is None else round(stop * rate)
    if max(first, last) - frames > END_TOLERANCE * rate:
        end = "the end" if stop is None else f"{stop:.3f} s"
        detail = f"{start:.3f} s to {end} of {frames / rate:.3f} s"
        raise AudioError(path, "truncated", detail)
    last = min(last, frames)
    if last <= first:
        raise AudioError(path, "empty", f"no samples after {start:.3f} s")

    run_up = round(_RUN_UP_SECONDS.get(file.format, 0.0) * rate)
    run_up = min(run_up, first)
    file.seek(first - run_up)
    wav = file.read(last - first + run_up, dtype="float32", always_2d=True)
    wav = wav[run_up:]
    if last - first - len(wav) > END_TOLERANCE * rate:
        detail = f"decoding ended at {start + len(wav) / rate:.3f} s"
        raise AudioError(path, "truncated", detail)
    if channel is not None:
        wav = wav[:, channel : channel + 1]
    # before they are mixed, which may overflow
    if not (np.abs(wav) < LOUDEST).all():
        raise AudioError(path, "not finite", "NaN, infinite or giant samples")
    wav = soxr.resample(wav.mean(axis=1), rate, sample_rate, quality="HQ")
    if len(wav) == 0:
        raise AudioError(path, "empty", f"{last - first} samples at {rate} Hz")
    return torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))


def read(path, start=0.0, stop=None, channel=None, sample_rate=SAMPLE_RATE):
    """Gives one segment of a file as a mono waveform.

    Only the segment is decoded. Its ends are rounded to whole frames of the
    file's own rate.

    Arguments
    ---------
    path : str or Path
        The file.
    start : float
        Where the segment begins, in seconds.
    stop : float or None
        Where it ends; None stands for the end of the file.
    channel : int or None
        The channel to take, from 0; None mixes all channels.
    sample_rate : int
        Rate of what is returned, in Hz.

    Returns
    -------
    torch.Tensor
        Waveform of shape [time], float32.

    Raises
    ------
    AudioError
        If the file cannot be read, ends before `stop`, has no such channel,
        or holds NaN or infinite samples there.
    ValueError
        If start and stop are no segment.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "tone.wav")
    >>> soundfile.write(path, np.zeros((48000, 2)), 48000)
    >>> read(path, start=0.25, stop=0.75).shape
    torch.Size([8000])
    """
    with _opened(path) as file:
        return _segment(file, path, start, stop, channel, sample_rate)


def read_windows(path, windows, channel=None, sample_rate=SAMPLE_RATE):
    """Yields several segments of one file, which is opened only once.

    The waveforms `read` gives, one at a time, so that memory stays flat for
    a recording of hours; for MP3, where opening means going through
    the whole file, many times faster.

    Arguments
    ---------
    path : str or Path
        The file.
    windows : iterable of (float, float)
        Start and stop in seconds, as from `cut_windows`.
    channel : int or None
        The channel to take, from 0; None mixes all channels.
    sample_rate : int
        Rate of what is yielded, in Hz.

    Yields
    ------
    torch.Tensor
        Waveform of shape [time], float32, one for each window.

    Raises
    ------
    AudioError
        As `read`.
    """
    with _opened(path) as file:
        for start, stop in windows:
            yield _segment(file, path, start, stop, channel, sample_rate)


def check(path, min_seconds=0.1, silence_db=-60.0):
    """Decodes a whole file and tells what is in it, or why it is no use.

    Memory does not grow with the length of the file. Two things libsndfile
    passes over are found here: a WAV (or AIFF, W64, AU) cut off behind its
    header, and an MP3 that ends before its time. An Ogg file that was cut
    between two pages is a valid shorter one and passes.

    Arguments
    ---------
    path : str or Path
        The file.
    min_seconds : float
        Shorter files are turned down.
    silence_db : float
        A file is silent if no channel's peak, its constant part left out,
        reaches this level; in dB below full scale. Real speech recorded at a
        distance peaks at -45 dB, the noise of 16 bits at -90 dB.

    Returns
    -------
    AudioInfo
        With the length that was really decoded.

    Raises
    ------
    AudioError
        The first of: missing, empty, odd name, corrupt, not finite,
        truncated, too short, silent.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "click.wav")
    >>> soundfile.write(path, np.eye(1, 4000)[0], 8000)
    >>> check(path).seconds
    0.5
    """
    stream = AudioStream(path, min_seconds, silence_db)
    for _ in stream.blocks():
        pass
    return stream.info


class AudioStream:
    """A whole file, decoded bit by bit and checked on the way.

    Memory does not grow with the length of the file. What `check` would
    turn down raises the same error, at the latest behind the last bit.
    ``info`` has the `AudioInfo` then.

    Arguments
    ---------
    path : str or Path
        The file.
    min_seconds, silence_db : float
        As for `check`.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "tone.wav")
    >>> soundfile.write(path, np.eye(1, 48000)[0], 48000)
    >>> stream = AudioStream(path)
    >>> sum(wave.shape[1] for wave in stream.waves())
    16000
    >>> stream.info.seconds
    1.0
    """

    def __init__(self, path, min_seconds=0.1, silence_db=-60.0):
        self.path = path
        self.info = None
        self._min_seconds = min_seconds
        self._silence_db = silence_db

    def blocks(self):
        """Yields what is in the file, at its own rate.

        Yields
        ------
        numpy.ndarray
            Float32 of shape [time, channel].
        """
        with _opened(self.path) as file:
            yield from self._checked_blocks(file)

    def waves(self, split=False, sample_rate=SAMPLE_RATE):
        """Yields what is in the file, as `read` would give it.

        Arguments
        ---------
        split : bool
            Whether to keep the channels apart; else they are mixed.
        sample_rate : int
            Rate of what is yielded, in Hz.

        Yields
        ------
        numpy.ndarray
            Float32 of shape [channel, time].
        """
        with _opened(self.path) as file:
            n_channels = file.channels if split else 1
            resampler = None
            if file.samplerate != sample_rate:
                resampler = soxr.ResampleStream(
                    file.samplerate, sample_rate, n_channels, quality="HQ"
                )
            for wave in self._checked_blocks(file):
                if not split:
                    wave = wave.mean(axis=1, keepdims=True)
                if resampler:
                    wave = resampler.resample_chunk(wave)
                yield wave.T
            if resampler:
                rest = np.zeros((0, n_channels), dtype=np.float32)
                yield resampler.resample_chunk(rest, last=True).T

    def _checked_blocks(self, file):
        """Yields what is in an open file; see `blocks`."""
        frames, rate = 0, file.samplerate
        low = np.full(file.channels, np.inf, dtype=np.float32)
        high = -low
        while len(
            block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        ):
            frames += len(block)
            # minimum and maximum carry a NaN along
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
            if not ((low > -LOUDEST).all() and (high < LOUDEST).all()):
                detail = f"before {frames / rate:.3f} s"
                raise AudioError(self.path, "not finite", detail)
            yield block
        info = _info(self.path, file, frames)
        self._judge(
            info, _promised_seconds(file), float((high - low).max()) / 2
        )
        self.info = info

    def _judge(self, info, promised, peak):
        """Raises what only the end of a file can tell."""
        if info.seconds == 0:
            raise AudioError(self.path, "empty", "no samples")
        if promised - info.seconds > END_TOLERANCE:
            detail = f"{info.seconds:.3f} s of {promised:.3f} s are there"
            raise AudioError(self.path, "truncated", detail)
        if info.seconds < self._min_seconds:
            detail = (
                f"{info.seconds:.3f} s, at least {self._min_seconds:.3f} s "
                "wanted"
            )
            raise AudioError(self.path, "too short", detail)
        if peak < 10 ** (self._silence_db / 20):
            detail = f"20 * log10({peak:.1e}) < {self._silence_db:.0f} dB"
            raise AudioError(self.path, "silent", detail)


def find_audio(sources):
    """Gives the paths of all audio files, sorted and each only once.

    Arguments
    ---------
    sources : str or Path or list of them
        Files, taken whatever their suffix, and folders, searched to any
        depth for the suffixes in `SUFFIXES` (upper case too). Hidden files
        and folders are passed over, and with them the "._x" that macOS
        leaves beside x. Links are followed.

    Returns
    -------
    list of str
        The paths, beginning as the source was given.

    Raises
    ------
    AudioError
        If a source is neither file nor folder, or a folder holds no audio or
        cannot be searched.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.WAV", "a.mp3", "._a.mp3", "notes.txt"):
    ...     (folder / name).touch()
    >>> [os.path.basename(path) for path in find_audio(folder)]
    ['a.mp3', 'b.WAV']
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    found = {}
    for source in map(os.fspath, sources):
        if os.path.isdir(source):
            paths = list(_walk(source))
            if not paths:
                suffixes = " ".join(sorted(SUFFIXES))
                detail = f"no file in this folder ends in {suffixes}"
                raise AudioError(source, "missing", detail)
        elif os.path.isfile(source):
            paths = [source]
        else:
            raise AudioError(source, "missing", _what_instead(source))
        for path in paths:
            found.setdefault(os.path.abspath(path), os.path.normpath(path))
    return sorted(found.values())


def _walk(folder):
    """Yields the audio files below a folder, round no loop of links."""

    def refuse(error):
        # What is below would else pass for deleted.
        raise AudioError(error.filename, "missing", error.strerror) from error

    seen = set()
    for parent, folders, names in os.walk(
        folder, onerror=refuse, followlinks=True
    ):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # What a file system keeps in lost+found nobody else may look at.
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f != "lost+found"
        )
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)


def cut_windows(seconds, max_seconds, hop_seconds, min_seconds):
    """Gives the windows that a recording is listened to in.

    A recording of up to `max_seconds` is one window. A longer one is cut
    into windows of exactly `max_seconds`, one every `hop_seconds`; if the
    last of them stops before the end, one more is laid so that it stops at
    the end, unless what is left is shorter than `min_seconds`.

    Arguments
    ---------
    seconds : float
        Length of the recording.
    max_seconds : float
        Length of a window.
    hop_seconds : float
        From one window's start to the next one's; at most `max_seconds`.
    min_seconds : float
        A recording shorter than this has no window.

    Returns
    -------
    list of (float, float)
        Start and stop of each window in seconds.

    Example
    -------
    >>> cut_windows(3.5, 10.0, 5.0, 0.2)
    [(0.0, 3.5)]
    >>> cut_windows(17.0, 10.0, 5.0, 0.2)
    [(0.0, 10.0), (5.0, 15.0), (7.0, 17.0)]
    """
    if not (0 < hop_seconds <= max_seconds and min_seconds <= max_seconds):
        raise ValueError(
            "Windows need 0 < hop_seconds <= max_seconds and min_seconds <= "
            f"max_seconds; got hop_seconds={hop_seconds}, "
            f"max_seconds={max_seconds}, min_seconds={min_seconds}"
        )
    if seconds < min_seconds:
        return []
    if seconds <= max_seconds:
        return [(0.0, float(seconds))]
    n_windows = int((seconds - max_seconds) / hop_seconds + 1e-9) + 1
    starts = [i * hop_seconds for i in range(n_windows)]
    windows = [(float(s), float(s + max_seconds)) for s in starts]
    rest = seconds - windows[-1][1]
    if rest >= max(min_seconds, 1e-6):
        windows.append((float(seconds - max_seconds), float(seconds)))
    return windows
