"""SAN-M: attention with a memory of what stands near, and what goes with it.

"SAN-M: Memory Equipped Self-Attention for End-to-End Speech Recognition" (Gao
et al., 2020, https://arxiv.org/abs/2006.01713). Modules carry the names of
FunASR's, so that the keys of a ``state_dict`` are those of its checkpoints.

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from esr_lobes.encoders.emotion2vec_layers import attend, dropout

NORM_EPS = 1e-12


def real_steps(lengths, n_steps):
    """Returns which steps are real, given how many each row has.

    Arguments
    ---------
    lengths : torch.Tensor
        Number of real steps of shape [batch].
    n_steps : int
        Number of steps, padding included.

    Returns
    -------
    torch.Tensor
        Booleans of shape [batch, n_steps], True where real.

    Example
    -------
    >>> real_steps(torch.tensor([2, 0]), 3).int().tolist()
    [[1, 1, 0], [0, 0, 0]]
    """
    steps = torch.arange(n_steps, device=lengths.device)
    return steps < lengths.unsqueeze(1)


def key_bias(lengths, n_steps):
    """Returns what hides padding from attention.

    Arguments
    ---------
    lengths : torch.Tensor
        Number of real steps of shape [batch], one at least.
    n_steps : int
        Number of steps, padding included.

    Returns
    -------
    torch.Tensor
        0 where real and minus infinity where padded, of shape [batch, 1, 1,
        n_steps].

    Example
    -------
    >>> key_bias(torch.tensor([1]), 2).flatten().tolist()
    [0.0, -inf]
    """
    is_padded = ~real_steps(lengths, n_steps)
    bias = torch.zeros(is_padded.shape, device=lengths.device)
    return bias.masked_fill(is_padded, -torch.inf)[:, None, None]


def positions(n_steps, width, device="cpu"):
    """Returns sinusoids that tell where a step stands.

    Arguments
    ---------
    n_steps : int
        Number of steps; the first is step 1.
    width : int
        Channels: sines in the first half, cosines in the second.
    device : torch.device
        Where they are needed.

    Returns
    -------
    torch.Tensor
        Float32 of shape [n_steps, width].

    Example
    -------
    >>> [round(x, 4) for x in positions(2, 4)[0].tolist()]
    [0.8415, 0.0001, 0.5403, 1.0]
    """
    half = width // 2
    rates = torch.arange(half, device=device) / max(1, half - 1)
    rates = torch.exp(-math.log(10000.0) * rates)
    angles = torch.arange(1, n_steps + 1, device=device).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def layer_norm(width):
    """Returns a layer norm as all of Paraformer has them.

    Arguments
    ---------
    width : int
        Channels.

    Returns
    -------
    torch.nn.LayerNorm
        The norm.
    """
    return nn.LayerNorm(width, eps=NORM_EPS)


class Memory(nn.Module):
    """Adds to each step a weighted sum of its neighbours, by channel.

    Arguments
    ---------
    width : int
        Channels.
    kernel : int
        Steps that a step sees, itself in the middle.
    share : float
        What dropout blanks.

    Example
    -------
    >>> x = torch.ones(1, 2, 4)
    >>> Memory(4, 3)(x, torch.ones(1, 2, 1)).shape
    torch.Size([1, 2, 4])
    """

    def __init__(self, width, kernel, share=0.0):
        super().__init__()
        self.share = share
        self.fsmn_block = nn.Conv1d(
            width, width, kernel, groups=width, bias=False
        )
        self.ends = (kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2

    def forward(self, x, real):
        """Returns x with its neighbours.

        Arguments
        ---------
        x : torch.Tensor
            Of shape [batch, step, channel].
        real : torch.Tensor
            1 where a step is real, else 0, of shape [batch, step, 1].

        Returns
        -------
        torch.Tensor
            Of the same shape, 0 where padded.
        """
        real = real.to(x.dtype)
        x = x * real
        # In two dimensions, as torch is twice as fast there on the CPU.
        y = F.pad(x.transpose(1, 2), self.ends).unsqueeze(2)
        weight = self.fsmn_block.weight.unsqueeze(2)
        y = F.conv2d(y, weight, groups=len(weight)).squeeze(2).transpose(1, 2)
        return dropout(y + x, self.share, self.training) * real


class SelfAttention(Memory):
    """Attention of all steps to all, beside a memory of their values.

    The memory reads the values of all heads together, and is added behind
    the last linear layer.

    Arguments
    ---------
    in_width, width : int
        Channels before and after.
    n_heads : int
        Heads.
    kernel : int
        Steps that the memory sees.
    share : float
        What dropout blanks.
    """

    def __init__(self, in_width, width, n_heads, kernel, share):
        super().__init__(width, kernel, share)
        self.n_heads = n_heads
        self.linear_q_k_v = nn.Linear(in_width, 3 * width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x, real, bias):
        """Returns what each step gathers.

        Arguments
        ---------
        x : torch.Tensor
            Of shape [batch, step, in_width].
        real : torch.Tensor
            1 where a step is real, else 0, of shape [batch, step, 1].
        bias : torch.Tensor
            See :func:`key_bias`.

        Returns
        -------
        torch.Tensor
            Of shape [batch, step, width].
        """
        q, k, v = self.linear_q_k_v(x).chunk(3, dim=2)
        share = self.share if self.training else 0.0
        y = multi_head(q, k, v, bias, self.n_heads, share)
        return self.linear_out(y) + super().forward(v, real)


class CrossAttention(nn.Module):
    """Attention of tokens to steps.

    Arguments
    ---------
    width : int
        Channels.
    n_heads : int
        Heads.
    share : float
        What dropout blanks of the attention.
    """

    def __init__(self, width, n_heads, share):
        super().__init__()
        self.n_heads = n_heads
        self.share = share
        self.linear_q = nn.Linear(width, width)
        self.linear_k_v = nn.Linear(width, 2 * width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x, memory, bias):
        """Returns what each token gathers.

        Arguments
        ---------
        x : torch.Tensor
            Tokens of shape [batch, token, width].
        memory : torch.Tensor
            Steps of shape [batch, step, width].
        bias : torch.Tensor
            See :func:`key_bias`.

        Returns
        -------
        torch.Tensor
            Of shape [batch, token, width].
        """
        k, v = self.linear_k_v(memory).chunk(2, dim=2)
        share = self.share if self.training else 0.0
        y = multi_head(self.linear_q(x), k, v, bias, self.n_heads, share)
        return self.linear_out(y)


def multi_head(q, k, v, bias, n_heads, share):
    """Returns attention in heads, put together again.

    Arguments
    ---------
    q, k, v : torch.Tensor
        Of shape [batch, position, channel].
    bias : torch.Tensor
        See :func:`key_bias`.
    n_heads : int
        Heads.
    share : float
        What dropout blanks of the attention.

    Returns
    -------
    torch.Tensor
        Of shape [batch, position of q, channel].

    Example
    -------
    >>> x, v = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 4.0], [2.0, 8.0]]])
    >>> bias = key_bias(torch.tensor([2]), 2)
    >>> multi_head(x, x, v, bias, n_heads=1, share=0.0)[0, 0].tolist()
    [1.0, 6.0]
    """
    q, k, v = (x.unflatten(2, (n_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return attend(q, k, v, bias.to(q.dtype), share).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between.

    Arguments
    ---------
    in_width, hidden, width : int
        Channels before, between and after.
    share : float
        What dropout blanks between.
    is_normed : bool
        Whether there is a norm between as well, and then no bias behind.

    Example
    -------
    >>> FeedForward(4, 8, 2)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, in_width, hidden, width, share=0.0, is_normed=False):
        super().__init__()
        self.share = share
        self.w_1 = nn.Linear(in_width, hidden)
        self.norm = layer_norm(hidden) if is_normed else nn.Identity()
        self.w_2 = nn.Linear(hidden, width, bias=not is_normed)

    def forward(self, x):
        """Returns [batch, step, width] of x [batch, step, in_width]."""
        x = dropout(self.w_1(x).relu(), self.share, self.training)
        return self.w_2(self.norm(x))
