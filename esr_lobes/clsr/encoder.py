"""The encoder of Paraformer: layers of SAN-M over stacked frames.

Authors
 * The esr_lobes contributors
"""

from torch import nn

from esr_lobes.clsr.sanm import (
    FeedForward,
    SelfAttention,
    key_bias,
    layer_norm,
    positions,
    real_steps,
)
from esr_lobes.encoders.emotion2vec_layers import dropout


class _Layer(nn.Module):
    """Attention and two linear layers, each normalised before its sum."""

    def __init__(self, in_width, width, n_heads, ffn, kernel, share):
        super().__init__()
        self.share = share
        self.has_residual = in_width == width
        self.norm1 = layer_norm(in_width)
        self.self_attn = SelfAttention(in_width, width, n_heads, kernel, share)
        self.norm2 = layer_norm(width)
        self.feed_forward = FeedForward(width, ffn, width, share)

    def forward(self, x, real, bias):
        """Returns [batch, step, width]."""
        y = self.self_attn(self.norm1(x), real, bias)
        y = dropout(y, self.share, self.training)
        # The first layer changes the width: there is nothing to add to. What
        # layers add up stays float32 under autocast.
        x = x + y if self.has_residual else y.to(x.dtype)
        y = self.feed_forward(self.norm2(x))
        return x + dropout(y, self.share, self.training)


class SANMEncoder(nn.Module):
    """Turns stacked frames into steps that have heard the whole clip.

    Keys of its ``state_dict`` are those of FunASR's. A row gives the same
    whatever it shares a batch with.

    Arguments
    ---------
    input_size : int
        Channels of a stacked frame.
    width : int
        Channels of a step.
    n_heads : int
        Heads of attention.
    ffn : int
        Channels between the two linear layers.
    n_layers : int
        Number of layers.
    kernel : int
        Steps that a layer's memory sees.
    dropout : float
        Share of values that training blanks.

    Example
    -------
    >>> import torch
    >>> encoder = SANMEncoder(6, width=8, n_heads=2, ffn=16, n_layers=2)
    >>> encoder(torch.rand(2, 5, 6), torch.tensor([5, 3])).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        input_size=560,
        width=512,
        n_heads=4,
        ffn=2048,
        n_layers=50,
        kernel=11,
        dropout=0.1,
    ):
        super().__init__()
        self.width = width
        sizes = width, n_heads, ffn, kernel, dropout
        # FunASR keeps the first layer in a list of its own.
        self.encoders0 = nn.ModuleList([_Layer(input_size, *sizes)])
        self.encoders = nn.ModuleList(
            _Layer(width, *sizes) for _ in range(n_layers - 1)
        )
        self.after_norm = layer_norm(width)

    def forward(self, feats, lengths):
        """Returns a vector for each step.

        Arguments
        ---------
        feats : torch.Tensor
            Stacked frames of shape [batch, step, input_size].
        lengths : torch.Tensor
            Number of real steps of shape [batch], one at least.

        Returns
        -------
        torch.Tensor
            Of shape [batch, step, width], 0 where padded.
        """
        n_steps = feats.shape[1]
        real = real_steps(lengths, n_steps).unsqueeze(2).to(feats.dtype)
        bias = key_bias(lengths, n_steps)
        place = positions(n_steps, feats.shape[2], feats.device)
        x = feats * self.width**0.5 + place
        for layer in (*self.encoders0, *self.encoders):
            x = layer(x, real, bias)
        return self.after_norm(x) * real
