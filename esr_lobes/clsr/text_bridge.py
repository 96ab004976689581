"""A text encoder that reads word embeddings where others read text.

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn

from esr_lobes.clsr.sanm import real_steps
from esr_lobes.clsr.vocabulary import Vocabulary


class TextBridge(nn.Module):
    """Leads embeddings of words through a text encoder, to one vector each.

    Each row is read as its text would be: with the encoder's own ``[CLS]``
    in front, its ``[SEP]`` right behind the last word, and nothing of what
    follows. So the vector of recognised words is that of the same words
    typed. Of a frozen encoder the parameters have no gradient; the embeddings
    always have theirs.

    Arguments
    ---------
    encoder : TextEncoder
        Of BERT's kind (BERT, BGE, MiniLM, ...). It says how states become
        one vector, whether it is frozen, and how long a text may be: of its
        ``max_tokens`` two are ``[CLS]`` and ``[SEP]``, and further words are
        left out. A BERT has 512 positions: ``max_tokens=512`` for 510 words.

    Raises
    ------
    MendableError
        If the encoder's vocabulary is not one of word pieces.

    Attributes
    ----------
    vocabulary : Vocabulary
        The words that it reads.
    width : int
        Channels of a vector, and of an embedding.
    max_words : int
        How many word pieces of a row are read.

    Example
    -------
    With an encoder opened from the package that carries it::

        bridge = TextBridge(TextEncoder("minilm"))
        ids, counts = bridge.vocabulary.encode_batch(["dogs are sitting"])
        vectors = bridge.forward_ids(ids, counts)
    """

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.vocabulary = Vocabulary(encoder.tokenizer, len(self.table))
        self.width = encoder.width
        self.max_words = encoder.max_tokens - 2

    @property
    def table(self):
        """Word embeddings, of shape [vocabulary, channel]."""
        return self.encoder.backbone.get_input_embeddings().weight

    def forward_ids(self, ids, counts):
        """Returns one vector for the words of each row.

        Arguments
        ---------
        ids : torch.Tensor
            Word pieces, long, of shape [batch, token]; anything that the
            table has behind the end of a row.
        counts : torch.Tensor
            Word pieces of each row, long, of shape [batch]; it may be 0.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, channel].
        """
        return self.forward_embeddings(self.table[ids], counts)

    def forward_embeddings(self, embeddings, counts):
        """Returns one vector for the embeddings of each row.

        Arguments
        ---------
        embeddings : torch.Tensor
            Word embeddings, with neither position nor norm, of shape [batch,
            token, channel]; anything behind the end of a row.
        counts : torch.Tensor
            Embeddings of each row, long, of shape [batch]; it may be 0.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, channel].
        """
        return self.read(embeddings, counts)[0]

    def read(self, embeddings, counts):
        """Returns a vector a row and, of the same pass, one a word.

        Arguments
        ---------
        embeddings : torch.Tensor
            As for :meth:`forward_embeddings`.
        counts : torch.Tensor
            Likewise.

        Returns
        -------
        vectors : torch.Tensor
            Float32 of shape [batch, channel].
        states : torch.Tensor
            Last states of the words, of shape [batch, token, channel];
            anything behind the end of a row.
        counts : torch.Tensor
            States of each row, long, of shape [batch].
        """
        states, counts = self.states(embeddings, counts)
        lengths = counts.float() / states.shape[1]
        vectors = self.encoder.pool(states.float(), lengths)
        return vectors, states[:, 1:-1], counts - 2

    def forward(self, embeddings, counts):
        """Same as :meth:`forward_embeddings`."""
        return self.forward_embeddings(embeddings, counts)

    def states(self, embeddings, counts):
        """Returns the encoder's last states, one a token.

        Arguments
        ---------
        embeddings : torch.Tensor
            Word embeddings of shape [batch, token, channel].
        counts : torch.Tensor
            Embeddings of each row, long, of shape [batch].

        Returns
        -------
        states : torch.Tensor
            Shape [batch, token + 2, channel], of ``[CLS]``, the words and
            ``[SEP]``; anything behind the end of a row.
        counts : torch.Tensor
            States of each row, long, of shape [batch].
        """
        n_words = min(embeddings.shape[1], self.max_words)
        counts = counts.clamp(max=n_words)
        rows = self._surround(embeddings[:, :n_words], counts)
        counts = counts + 2
        mask = real_steps(counts, rows.shape[1])
        output = self.encoder.backbone(
            inputs_embeds=rows, attention_mask=mask.long()
        )
        return output.last_hidden_state, counts

    def _surround(self, embeddings, counts):
        """Returns rows with [CLS] in front and [SEP] behind their end."""
        table = self.table
        is_word = real_steps(counts, embeddings.shape[1]).unsqueeze(-1)
        words = embeddings.to(table.dtype).masked_fill(~is_word, 0.0)
        first = table[self.vocabulary.cls_id].expand(len(words), 1, -1)
        rows = torch.cat([first, words, torch.zeros_like(first)], dim=1)
        places = torch.arange(rows.shape[1], device=rows.device)
        is_end = places == counts.unsqueeze(1) + 1
        last = table[self.vocabulary.sep_id]
        return torch.where(is_end.unsqueeze(-1), last, rows)
