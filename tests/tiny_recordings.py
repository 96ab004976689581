"""Long recordings of tones that stand for words, and who understands them.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import soundfile
import torch
from tiny_content import HERTZ, SAID, TOKEN_SECONDS, say

from esr_lobes.cascade.recogniser import Recogniser

TOKEN = round(TOKEN_SECONDS * 16000)


class Tones(Recogniser):
    """Knows each tone of a quarter second by its height; counts the clips."""

    def __init__(self):
        super().__init__({})
        self.n_heard = 0

    def transcribe_clips(self, clips):
        """Returns a word for each tone that is loud enough."""
        self.n_heard += len(clips)
        return [" ".join(map(_word, filter(_is_loud, _cut(c)))) for c in clips]

    def arguments(self, source):
        """It has none."""
        return {}


def _cut(clip):
    n_tones = max(1, len(clip) // TOKEN)
    return [clip[i * TOKEN : (i + 1) * TOKEN] for i in range(n_tones)]


def _is_loud(tone):
    return tone.square().mean().sqrt() > 0.05


def _word(tone):
    spectrum = torch.fft.rfft(tone).abs()
    hertz = int(spectrum.argmax()) * 16000 / len(tone)
    return SAID[min(max(0, round(hertz / HERTZ) - 3), len(SAID) - 1)]


def write_recording(path, passages):
    """Writes passages of as many words each, one behind the other.

    Arguments
    ---------
    path : Path
        A WAV file.
    passages : list of str
        What is said.

    Returns
    -------
    str
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.concatenate([say(passage.split()) for passage in passages])
    soundfile.write(path, wave, 16000)
    return str(path)
