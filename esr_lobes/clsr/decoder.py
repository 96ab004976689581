"""The decoder of Paraformer: all tokens at once, from their CIF vectors.

Authors
 * The esr_lobes contributors
"""

import torch.nn.functional as F
from torch import nn

from esr_lobes.clsr.sanm import (
    CrossAttention,
    FeedForward,
    Memory,
    key_bias,
    layer_norm,
    real_steps,
)
from esr_lobes.encoders.emotion2vec_layers import dropout


class _Layer(nn.Module):
    """Linear layers and memory under one sum, then attention to the steps."""

    def __init__(self, width, n_heads, ffn, kernel, share):
        super().__init__()
        self.share = share
        self.norm1 = layer_norm(width)
        self.feed_forward = FeedForward(width, ffn, width, share, True)
        self.norm2 = layer_norm(width)
        self.self_attn = Memory(width, kernel, share)
        self.norm3 = layer_norm(width)
        self.src_attn = CrossAttention(width, n_heads, share)

    def forward(self, x, real, memory, bias):
        """Returns [batch, token, width]."""
        y = self.norm2(self.feed_forward(self.norm1(x)))
        y = self.self_attn(y, real)
        x = x + dropout(y, self.share, self.training)
        y = self.src_attn(self.norm3(x), memory, bias)
        return x + dropout(y, self.share, self.training)


class SANMDecoder(nn.Module):
    """Turns CIF vectors, or embeddings in their place, into logits.

    Keys of its ``state_dict`` are those of FunASR's. A row gives the same
    whatever it shares a batch with.

    Arguments
    ---------
    vocab : int
        Number of tokens.
    width : int
        Channels of a CIF vector and of a step.
    n_heads : int
        Heads of attention.
    ffn : int
        Channels between two linear layers.
    n_layers : int
        Number of layers, not counting a last one without attention.
    kernel : int
        Tokens that a layer's memory sees.
    share_embedding : bool
        Whether a token's embedding is its row of the output layer, rather
        than one of its own.
    dropout : float
        Share of values that training blanks.

    Example
    -------
    >>> import torch
    >>> decoder = SANMDecoder(20, width=8, n_heads=2, ffn=16, n_layers=1)
    >>> tokens, counts = torch.rand(2, 3, 8), torch.tensor([3, 1])
    >>> memory, lengths = torch.rand(2, 5, 8), torch.tensor([5, 4])
    >>> decoder(tokens, counts, memory, lengths).shape
    torch.Size([2, 3, 20])
    >>> decoder.embed_tokens(torch.tensor([[7, 0]])).shape
    torch.Size([1, 2, 8])
    """

    def __init__(
        self,
        vocab,
        width=512,
        n_heads=4,
        ffn=2048,
        n_layers=16,
        kernel=11,
        share_embedding=True,
        dropout=0.1,
    ):
        super().__init__()
        self.vocab = vocab
        if not share_embedding:
            self.embed = nn.ModuleList([nn.Embedding(vocab, width)])
        self.share_embedding = share_embedding
        self.decoders = nn.ModuleList(
            _Layer(width, n_heads, ffn, kernel, dropout)
            for _ in range(n_layers)
        )
        last = nn.ModuleDict(
            {
                "norm1": layer_norm(width),
                "feed_forward": FeedForward(width, ffn, width, dropout, True),
            }
        )
        self.decoders3 = nn.ModuleList([last])
        self.after_norm = layer_norm(width)
        self.output_layer = nn.Linear(width, vocab)

    def embed_tokens(self, ids):
        """Returns the embeddings of tokens.

        Arguments
        ---------
        ids : torch.Tensor
            Of shape [batch, token].

        Returns
        -------
        torch.Tensor
            Of shape [batch, token, width].
        """
        if self.share_embedding:
            return F.embedding(ids, self.output_layer.weight)
        return self.embed[0](ids)

    def forward(self, acoustic, counts, memory, memory_lengths):
        """Returns what each token may be.

        Arguments
        ---------
        acoustic : torch.Tensor
            CIF vectors, or embeddings, of shape [batch, token, width].
        counts : torch.Tensor
            Number of real tokens of shape [batch].
        memory : torch.Tensor
            What the encoder gave, of shape [batch, step, width].
        memory_lengths : torch.Tensor
            Number of real steps of shape [batch], one at least.

        Returns
        -------
        torch.Tensor
            Logits of shape [batch, token, vocab]; of no use where padded.
        """
        real = real_steps(counts, acoustic.shape[1]).unsqueeze(2)
        real = real.to(acoustic.dtype)
        bias = key_bias(memory_lengths, memory.shape[1])
        x = acoustic
        for layer in self.decoders:
            x = layer(x, real, memory, bias)
        last = self.decoders3[0]
        x = last["feed_forward"](last["norm1"](x))
        return self.output_layer(self.after_norm(x))
