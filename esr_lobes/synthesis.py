"""Speaking styles voiced by a synthesiser, for demonstrations and tests.

eSpeak NG says the words at the rate, pitch and pauses of a style; level,
spectral tilt and whispering are laid over its output here. It comes with the
package espeakng-loader (extra ``demo``), whose library is under GPL-3.0 or
later: nothing else in this package needs it.

The library remembers what it said before, so that the same sentence comes
out differently each time. Hence a helper process loads it once and speaks
every utterance in a fork of its own, which makes a clip depend on nothing
but its arguments.

Authors
 * The esr_lobes contributors
"""

import ctypes
import importlib.util
import json
import os
import struct
import subprocess
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

SAMPLE_RATE = 16000
FRAME = struct.Struct("<?I")  # whether it went well, number of bytes after it

# from speak_lib.h
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Delivery:
    """How a style is said; the defaults are the neutral one.

    Arguments
    ---------
    words_per_minute : float
        Rate of speech, 80 to 450.
    pitch : float
        0 to 99, where 50 is the voice's own.
    pitch_range : float
        0 (monotone) to 99, where 50 is the voice's own.
    gap_seconds : float
        Pause between words.
    level_db : float
        Level of the clip (root mean square) against full scale.
    fade_db : float
        What is added to the level from the first to the last sample.
    tilt_db : float
        What is added to the spectrum per octave: above zero sounds pressed
        and bright, below zero soft and muffled.
    is_whispered : bool
        Whether noise takes the place of the voice.
    """

    words_per_minute: float = 165.0
    pitch: float = 50.0
    pitch_range: float = 50.0
    gap_seconds: float = 0.0
    level_db: float = -26.0
    fade_db: float = 0.0
    tilt_db: float = 0.0
    is_whispered: bool = False

    def jitter(self, rng):
        """Returns the delivery of one clip, a little off that of the style.

        Arguments
        ---------
        rng : numpy.random.Generator
            Where the chance comes from.

        Returns
        -------
        Delivery
        """
        return replace(
            self,
            words_per_minute=self.words_per_minute
            * np.exp(rng.normal(0, 0.06)),
            pitch=self.pitch + rng.normal(0, 3),
            pitch_range=self.pitch_range * np.exp(rng.normal(0, 0.15)),
            gap_seconds=self.gap_seconds * np.exp(rng.normal(0, 0.2)),
            level_db=self.level_db + rng.normal(0, 1.5),
            tilt_db=self.tilt_db + rng.normal(0, 0.4),
        )


STYLES = {
    "bored": Delivery(130, 40, 4, level_db=-29, fade_db=-4),
    "calm": Delivery(132, 45, 36, level_db=-31, tilt_db=-2.5),
    "enunciated": Delivery(128, 50, 62, gap_seconds=0.1, tilt_db=1.5),
    "excited": Delivery(212, 76, 95, level_db=-23, tilt_db=1),
    "fast": Delivery(300),
    "neutral": Delivery(),
    "projected": Delivery(148, 66, 55, level_db=-19, tilt_db=3.5),
    "sleepy": Delivery(
        92, 26, 22, gap_seconds=0.04, level_db=-34, fade_db=-9, tilt_db=-4
    ),
    "whispered": Delivery(150, level_db=-38, tilt_db=1, is_whispered=True),
}
"""The styles that a synthesiser can really voice, nine of the 22."""


class Synthesizer:
    """Says sentences in a style; use it in a ``with`` block.

    Raises
    ------
    ImportError
        If espeakng-loader is not installed.
    OSError
        If the system cannot fork, as Windows.

    Example
    -------
    >>> with Synthesizer() as synthesizer:
    ...     wave = synthesizer.speak("Good morning.", "en-us+f2", "calm")
    >>> wave.dtype, wave.ndim
    (dtype('float32'), 1)
    """

    def __init__(self):
        if importlib.util.find_spec("espeakng_loader") is None:
            raise ImportError(
                "Synthesis needs espeakng-loader, which is not installed: "
                "pip install 'esr_lobes[demo]'"
            )
        if not hasattr(os, "fork"):
            raise OSError("Synthesis needs os.fork (Linux or macOS)")
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from esr_lobes import synthesis as s; s.serve()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
        )
        self._rate = int(self._receive())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the helper process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def speak(self, text, voice, style, seed=0):
        """Returns a sentence as it is said in a style.

        Arguments
        ---------
        text : str
            What to say, in the language of the voice.
        voice : str
            A voice of eSpeak NG with a variant, such as "en-us+f2".
        style : str or Delivery
            One of `STYLES`, said with some variation; or exact settings.
        seed : int or list of int
            Chooses the variation.

        Returns
        -------
        numpy.ndarray
            Wave at 16 kHz, float32 of shape [time], within -1 and 1; the
            same for the same arguments, whatever was said before.

        Raises
        ------
        ValueError
            If the style is unknown, or the synthesiser refuses the voice.
        """
        rng = np.random.default_rng(seed)
        if isinstance(style, Delivery):
            delivery = style
        elif style in STYLES:
            delivery = STYLES[style].jitter(rng)
        else:
            raise ValueError(
                f"style {style!r} cannot be voiced: choose one of "
                f"{', '.join(STYLES)}"
            )
        job = {
            "text": text,
            "voice": voice,
            _RATE: round(np.clip(delivery.words_per_minute, 80, 450)),
            _PITCH: round(np.clip(delivery.pitch, 0, 99)),
            _RANGE: round(np.clip(delivery.pitch_range, 0, 99)),
            _WORD_GAP: round(delivery.gap_seconds * 100),
        }
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        wave = np.frombuffer(self._receive(), np.int16) / 32768
        wave = soxr.resample(wave, self._rate, SAMPLE_RATE)
        return _finish(wave, delivery, rng).astype(np.float32)

    def _receive(self):
        """Returns the bytes of the next answer of the helper."""
        header = self._process.stdout.read(FRAME.size)
        if len(header) < FRAME.size:
            raise RuntimeError(
                "The synthesiser ended by itself; what it wrote to standard "
                "error says why"
            )
        is_fine, n_bytes = FRAME.unpack(header)
        content = self._process.stdout.read(n_bytes)
        if not is_fine:
            raise ValueError(content.decode())
        return content


def _finish(wave, delivery, rng):
    """Returns the wave with the phonation and levels of the delivery."""
    if not np.any(wave):
        raise ValueError("the synthesiser made no sound: is there any text?")
    if delivery.is_whispered:
        wave = _whisper(wave, rng)
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    octaves = np.log2(np.clip(hertz, 125, None) / 500)
    spectrum *= 10 ** (delivery.tilt_db * octaves / 20)
    wave = np.fft.irfft(spectrum, len(wave))
    wave *= 10 ** (np.linspace(0, delivery.fade_db, len(wave)) / 20)
    wave *= 10 ** (delivery.level_db / 20) / np.sqrt(np.mean(wave**2))
    return wave * min(1.0, 0.99 / np.max(np.abs(wave)))


def _whisper(wave, rng, n_fft=512, n_coefficients=24):
    """Returns noise under the spectral envelope of the wave."""
    from scipy import signal  # here, so that the helper starts sooner

    settings = {"fs": SAMPLE_RATE, "nperseg": n_fft, "noverlap": n_fft * 3 // 4}
    *_, spectrum = signal.stft(wave, **settings)
    *_, noise = signal.stft(rng.standard_normal(len(wave)), **settings)
    # the first cepstral coefficients know the formants, not the harmonics
    cepstrum = np.fft.irfft(np.log(np.abs(spectrum) + 1e-6), axis=0)
    cepstrum[n_coefficients : 1 - n_coefficients] = 0
    envelope = np.exp(np.fft.rfft(cepstrum, axis=0).real)
    _, whispered = signal.istft(noise * envelope, **settings)
    return whispered[: len(wave)]


def serve():
    """Speaks what standard input asks for; the life of the helper process.

    A request is one line of JSON, an answer is a `FRAME` and as many bytes:
    the sample rate first, then 16-bit samples, or the text of an error.
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    folder = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _DONT_EXIT)
    if rate <= 0:
        sys.exit(f"espeak_Initialize failed with {rate}")
    # breathy voices draw noise, from a seed that is the clock's otherwise
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    _send(True, str(rate).encode())
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _send(*_utter(library, json.loads(line)))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            _send(False, b"eSpeak NG broke off at " + line.strip())


def _utter(library, job):
    """Returns whether a job could be done, and the samples or the reason."""
    samples = []

    @_CALLBACK
    def collect(wave, n_samples, _):
        if wave and n_samples:
            samples.append(ctypes.string_at(wave, 2 * n_samples))
        return 0

    voice, text = job.pop("voice"), job.pop("text")
    if library.espeak_SetVoiceByName(voice.encode()):
        return False, f"eSpeak NG has no voice {voice!r}".encode()
    for parameter, value in job.items():
        library.espeak_SetParameter(int(parameter), value, 0)
    library.espeak_SetSynthCallback(collect)
    content = text.encode() + b"\0"
    size = ctypes.c_size_t(len(content))
    if library.espeak_Synth(content, size, 0, 0, 0, _UTF8, None, None):
        return False, f"eSpeak NG could not say {text!r}".encode()
    return True, b"".join(samples)


def _send(is_fine, content):
    """Writes one answer to standard output."""
    sys.stdout.buffer.write(FRAME.pack(is_fine, len(content)) + content)
    sys.stdout.buffer.flush()
