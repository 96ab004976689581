"""What all recognisers have in common: clips in, words out.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
from abc import ABC, abstractmethod

import torch
from torch import nn

from esr_lobes.audio import SAMPLE_RATE

# So much of a recording is listened to when the quietest place is looked for.
PAUSE = SAMPLE_RATE // 5


class Recogniser(nn.Module, ABC):
    """Writes down what is said in clips.

    Each clip is heard as if it were alone. A subclass says how in
    :meth:`transcribe_clips`, which may be called from several threads at
    once.

    Arguments
    ---------
    settings : dict
        What changes the words and is no weight. It becomes part of the
        state, and by that of the fingerprint of a retriever: an index is not
        opened with a recogniser that would have written other words.

    Attributes
    ----------
    longest_seconds : float or None
        No more is heard in one go; None for any length.
    """

    longest_seconds = None

    def __init__(self, settings):
        super().__init__()
        text = json.dumps(settings, sort_keys=True).encode()
        digest = hashlib.blake2b(text, digest_size=16).digest()
        self.register_buffer("settings", torch.tensor(list(digest)).byte())

    @abstractmethod
    def transcribe_clips(self, clips):
        """Returns the words of clips.

        Arguments
        ---------
        clips : list of torch.Tensor
            Waveforms at 16 kHz in [-1, 1], float32 of shape [time], of at
            least one sample.

        Returns
        -------
        list of str
            One a clip, as the recogniser writes them.
        """

    @abstractmethod
    def arguments(self, source):
        """Returns the arguments that make the same recogniser again.

        Arguments
        ---------
        source : str
            The folder that :meth:`save` wrote.

        Returns
        -------
        dict
            Of plain values.
        """

    def save(self, folder):
        """Writes what :meth:`arguments` names; nothing if nothing is needed.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """

    @torch.no_grad()
    def transcribe(self, wavs, wav_lens):
        """Returns the words of each clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        list of str
            One a clip, empty where there are none; see :func:`plain`.
        """
        counts = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        clips = [wave[:n].float() for wave, n in zip(wavs, counts, strict=True)]
        return [plain(text) for text in self.transcribe_clips(clips)]


def plain(text):
    """Returns words with one blank between two, and not in capitals alone.

    Many recognisers write in capitals, which a text encoder that tells them
    from small letters takes for abbreviations.

    Arguments
    ---------
    text : str
        As a recogniser writes it.

    Returns
    -------
    str
        The same words.

    Example
    -------
    >>> plain(" DOGS  ARE SITTING"), plain("Tell NASA.")
    ('dogs are sitting', 'Tell NASA.')
    """
    text = " ".join(text.split())
    return text.lower() if text.isupper() else text


def cut_quietly(wave, longest):
    """Returns a clip in pieces that a recogniser can hear in one go.

    A cut is made in the quietest 0.2 s of the later half of what may be one
    piece, so that it rarely goes through a word.

    Arguments
    ---------
    wave : torch.Tensor
        Of shape [time].
    longest : int
        Samples that a piece may have; at least twice 0.2 s.

    Returns
    -------
    list of torch.Tensor
        In order; together they are the clip.

    Example
    -------
    >>> wave = torch.ones(40000)
    >>> wave[22400:25600] = 0.0  # at 1.4 s, 0.2 s of silence
    >>> [len(piece) for piece in cut_quietly(wave, 32000)]
    [24000, 16000]
    """
    pieces = []
    while len(wave) > longest:
        first = longest // 2
        parts = wave[first:longest].unfold(0, PAUSE, PAUSE)
        quietest = int(parts.square().sum(dim=1).argmin())
        cut = first + quietest * PAUSE + PAUSE // 2
        pieces.append(wave[:cut])
        wave = wave[cut:]
    return [*pieces, wave]
