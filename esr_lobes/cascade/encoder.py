"""A cascade as the speech side of a retriever: recognise, then read.

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn

from esr_lobes.cascade.recogniser import Recogniser
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.late_interaction import HeardWords


class CascadeEncoder(nn.Module):
    """Writes down the words of each clip and has a text encoder read them.

    Questions go through the same text encoder, so that nothing has to be
    learned, and a better recogniser is a better retriever.

    Where no word was recognised, the text encoder reads the empty text: its
    vector is that of ``[CLS]`` and ``[SEP]`` alone, as CLSR has it. That is
    far from a whole question, but not nothing, so that such a clip still has a
    place in an index.

    Arguments
    ---------
    recogniser : Recogniser
        What writes the words down.
    text_encoder : TextEncoder
        What reads them; the same object as the retriever's text encoder.

    Attributes
    ----------
    width : int
        Channels of a vector.

    Example
    -------
    With a recogniser and a text encoder that come as packages::

        encoder = CascadeEncoder(PocketSphinx(), TextEncoder("minilm"))
        encoder.transcribe(wavs, wav_lens)  # ["dogs are sitting by the door"]
        encoder(wavs, wav_lens)  # [1, 384]
    """

    def __init__(self, recogniser, text_encoder):
        super().__init__()
        for part, kind in (
            (recogniser, Recogniser),
            (text_encoder, TextEncoder),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"a cascade is made of a Recogniser and a TextEncoder, "
                    f"not of {type(part).__name__}"
                )
        self.recogniser = recogniser
        self.text_encoder = text_encoder
        self.width = text_encoder.width
        # A tokenizer is set up by its first call, which must not be that of
        # several threads of an index at once.
        text_encoder([""])

    def train(self, mode=True):
        """Sets the mode; the recogniser stays in evaluation mode."""
        super().train(mode)
        self.recogniser.eval()
        return self

    def transcribe(self, wavs, wav_lens):
        """Returns the words of each clip, see :meth:`Recogniser.transcribe`.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        list of str
            One a clip, empty where there are none.
        """
        return self.recogniser.transcribe(wavs, wav_lens)

    def forward(self, wavs, wav_lens=None):
        """Returns one vector a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor, optional
            Relative lengths of shape [batch]; all full if not given.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, width], not of unit length.
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs))
        return self.text_encoder(self.transcribe(wavs, wav_lens))

    @torch.no_grad()
    def hear_words(self, wavs, wav_lens):
        """Returns vectors, words, and a state a word piece, all of one pass.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        HeardWords
            The states are the text encoder's, of the words as text.
        """
        texts = self.transcribe(wavs, wav_lens)
        return HeardWords(*self.text_encoder.read(texts), texts)

    def save(self, folder):
        """Writes the recogniser, so that a page can name it as a source.

        Arguments
        ---------
        folder : str
            Where to.
        """
        self.recogniser.save(folder)
