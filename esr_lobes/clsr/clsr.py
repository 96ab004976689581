"""CLSR: the speech side of content retrieval, from waveform to vector.

"End-to-end Contrastive Language-Speech Pretraining Model For Long-form Spoken
Question Answering" (Hu et al., 2025, https://arxiv.org/abs/2511.09282).

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn

from esr_lobes.errors import MendableError
from esr_lobes.late_interaction import HeardWords


class ClsrEncoder(nn.Module):
    """Recognises the words of each clip and has the text encoder read them.

    Words go as embeddings from the recogniser to the text encoder, so that
    what is learned behind the one reaches the other. After training that is
    the text encoder's vector of the recognised words, without writing them
    down and splitting them up again. A recogniser's end of sentence is not
    read: in its place the text encoder has its own ``[SEP]``.

    Arguments
    ---------
    paraformer : Paraformer
        The recogniser. Its tokens are the text encoder's word pieces.
    vq : VQAdaptor
        Turns its logits into word embeddings. What the text encoder's
        vocabulary never says is banned from it.
    text : TextBridge
        Reads them.

    Raises
    ------
    MendableError
        If recogniser and text encoder have not the same number of words.

    Attributes
    ----------
    width : int
        Channels of a vector.
    vocabulary : Vocabulary
        The words.
    """

    def __init__(self, paraformer, vq, text):
        super().__init__()
        n_said, n_read = paraformer.decoder.vocab, len(text.vocabulary)
        if n_said != n_read:
            raise MendableError(
                f"the recogniser has {n_said} tokens, but the text encoder "
                f"reads {n_read}: build or open the recogniser with a "
                f"vocabulary of {n_read}"
            )
        self.paraformer = paraformer
        self.vq = vq
        self.text = text
        self.vocabulary = text.vocabulary
        self.width = text.width
        vq.ban(self.vocabulary.banned_ids)

    def forward(self, wavs, wav_lens):
        """Returns one vector a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        torch.Tensor
            Of shape [batch, width], not of unit length.
        """
        output = self.paraformer(wavs, wav_lens)
        return self.read(output.logits, output.counts)

    def read(self, logits, counts):
        """Returns one vector for what was recognised in each clip.

        In training the logits are those that the recogniser is taught by,
        so that it runs once for both.

        Arguments
        ---------
        logits : torch.Tensor
            Of the recogniser, of shape [batch, token, vocabulary].
        counts : torch.Tensor
            Tokens of each clip, long, of shape [batch], as the recogniser's
            output has them, its end of sentence included.

        Returns
        -------
        torch.Tensor
            Of shape [batch, width].
        """
        embeddings = self.vq(logits, self.text.table)
        return self.text.forward_embeddings(embeddings, self._n_words(counts))

    def _n_words(self, counts):
        """Returns how many tokens stand before the end of sentence."""
        return (counts - self.paraformer.predictor_bias).clamp(min=0)

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
            Lower case, as the vocabulary has them.
        """
        return self._write(self.paraformer(wavs, wav_lens))

    def _write(self, output):
        """Returns the words of what was recognised."""
        ids = self.vq.best(output.logits)
        n_words = self._n_words(output.counts)
        return self.vocabulary.decode_batch(ids, n_words)

    @torch.no_grad()
    def hear_words(self, wavs, wav_lens):
        """Returns vectors, words, and a state a word, all of one pass.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        HeardWords
            The states are those that the text encoder has of the
            recognised embeddings.
        """
        output = self.paraformer(wavs, wav_lens)
        embeddings = self.vq(output.logits, self.text.table)
        read = self.text.read(embeddings, self._n_words(output.counts))
        return HeardWords(*read, self._write(output))


class Unprojected(nn.Identity):
    """Stands where a tower has its projection, and changes nothing.

    In CLSR both towers end in one text encoder, so that there is nothing to
    map.

    Arguments
    ---------
    width : int
        Channels of a vector.

    Example
    -------
    >>> projection = Unprojected(384)
    >>> projection.in_features, projection.out_features
    (384, 384)
    """

    def __init__(self, width):
        super().__init__()
        self.in_features = self.out_features = width
