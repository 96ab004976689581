"""PocketSphinx: recognition of American English with no download.

Authors
 * The esr_lobes contributors
"""

import hashlib
from collections import deque
from pathlib import Path

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.cascade.recogniser import Recogniser

PEAK = 32767  # of 16-bit samples


class PocketSphinx(Recogniser):
    """Writes down American English, on the CPU, with the package's own model.

    A recogniser of Gaussian mixtures and a trigram language model
    (https://github.com/cmusphinx/pocketsphinx): it needs no network and no
    GPU, takes about 0.3 s of a core for a second of speech, and garbles
    about half of all sentences. For quality take a neural one; this shows
    that a cascade works, and is a weak baseline that anyone can run.

    Threads may call it side by side: each call has a decoder of its own, of
    about 100 MB, which later calls use again. That is no faster, since the
    package lets one thread compute at a time; processes are (esr index
    --engine ray).

    Raises
    ------
    ImportError
        If the package is not installed.

    Example
    -------
    ::

        PocketSphinx().transcribe(wavs, wav_lens)
    """

    def __init__(self):
        folder = Path(_package().get_model_path())
        super().__init__({"model": _digest(folder)})
        self._idle = deque()  # safe among threads

    def arguments(self, source):
        """Returns none: the model comes with the package."""
        return {}

    def transcribe_clips(self, clips):
        """Returns the words of clips, in small letters."""
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = _new_decoder()
        words = [_words(decoder, clip) for clip in clips]
        # After an error it would be in the middle of a clip, and is dropped.
        self._idle.append(decoder)
        return words


def _package():
    """Returns the package, or says how to have it."""
    try:
        import pocketsphinx
    except ImportError as error:
        raise ImportError(
            "this recogniser needs the package pocketsphinx: "
            "pip install 'esr_lobes[pocketsphinx]'"
        ) from error
    return pocketsphinx


def _new_decoder():
    """Returns a decoder that hears each clip as if it were the first."""
    return _package().Decoder(
        samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL"
    )


def _words(decoder, clip):
    """Returns the words of one clip."""
    samples = (clip.cpu().clamp(-1, 1) * PEAK).round().short()
    decoder.start_utt()
    # Told that this is all of it, so that means are taken over the clip.
    decoder.process_raw(samples.numpy().tobytes(), full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return best.hypstr if best else ""


def _digest(folder):
    """Returns what tells the files of a folder from others."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
