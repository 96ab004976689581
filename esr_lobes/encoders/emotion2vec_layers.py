"""Parts of emotion2vec, under the names that FunASR gives their weights.

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# Kernels of the GPU read a bias without copying it if its rows are aligned.
ALIGNMENT = 8


def dropout(x, share, training):
    """Returns x with a share of its values blanked, the others grown.

    On the CPU 16 random bits a value decide, which is twice as fast as
    ``F.dropout`` and blanks the share to the nearest 1/65536.

    Arguments
    ---------
    x : torch.Tensor
        Of any shape.
    share : float
        What is blanked.
    training : bool
        Whether anything is.

    Returns
    -------
    torch.Tensor
        Of the same shape.

    Example
    -------
    >>> kept = dropout(torch.ones(10000), 0.5, training=True)
    >>> kept.unique().tolist()
    [0.0, 2.0]
    """
    if not training or not share:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, share)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    draws.random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    is_kept = bits >= round(share * 2**16) - 2**15
    return x * is_kept.to(x.dtype).mul_(1 / (1 - share))


def flat_conv(x, weight, stride):
    """Convolves over time as matrix products, without moving anything.

    Channels stay last and a whole batch is one long stream, so that every
    product reads its input where it lies. Frames whose kernel reaches over
    the end of the stream are there, but of no use.

    Arguments
    ---------
    x : torch.Tensor
        Of shape [time, in_channels]; time is a multiple of the stride.
    weight : torch.Tensor
        As of nn.Conv1d, [out_channels, in_channels, kernel].
    stride : int
        In frames.

    Returns
    -------
    torch.Tensor
        Of shape [time / stride, out_channels].

    Example
    -------
    >>> x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    >>> flat_conv(x, torch.ones(1, 1, 3), stride=2).flatten().tolist()
    [6.0, 7.0]
    """
    kernel = weight.shape[2]
    if x.shape[1] == 1:  # so few that they may as well be copied
        padded = F.pad(x[:, 0], (0, kernel - stride))
        return F.linear(padded.unfold(0, kernel, stride), weight.flatten(1))
    weight = weight.transpose(1, 2)
    x = x.reshape(-1, stride * x.shape[1])
    part = weight[:, :stride].flatten(1)
    y = F.linear(x[:, : part.shape[1]], part)
    for i in range(stride, kernel, stride):
        part = weight[:, i : i + stride].flatten(1)
        later = i // stride
        y[:-later] += F.linear(x[later:, : part.shape[1]], part)
    return y


def attend(q, k, v, bias, share):
    """Returns attention by scaled products and a bias.

    Arguments
    ---------
    q, k, v : torch.Tensor
        Of shape [batch, head, token, channel].
    bias : torch.Tensor
        Added to the products, in their dtype; [batch or 1, head, token,
        token].
    share : float
        What dropout blanks of the weights.

    Returns
    -------
    torch.Tensor
        Of shape [batch, head, token, channel].

    Example
    -------
    >>> x = torch.zeros(1, 1, 2, 4)
    >>> v = torch.arange(8.0).view(1, 1, 2, 4)
    >>> attend(x, x, v, torch.zeros(1, 1, 2, 2), 0.0)[0, 0, 0].tolist()
    [2.0, 3.0, 4.0, 5.0]
    """
    if share and q.device.type == "cpu":
        # SDPA has no fast way to blank on the CPU.
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        weights = (logits + bias).softmax(dim=-1).to(v.dtype)
        return dropout(weights, share, True) @ v
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, dropout_p=share
    )


def alibi_slopes(n_heads):
    """Returns by how much each head attends less a frame of distance.

    "Train Short, Test Long: Attention with Linear Biases Enables Input Length
    Extrapolation" (Press et al., 2022, https://arxiv.org/abs/2108.12409).

    Arguments
    ---------
    n_heads : int
        Number of heads. Where it is no power of two, the lower power comes
        first, then every other slope of the higher one.

    Returns
    -------
    list of float
        One slope a head.

    Example
    -------
    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> [round(math.log2(slope), 3) for slope in alibi_slopes(12)][7:]
    [-8.0, -0.5, -1.5, -2.5, -3.5]
    """
    power = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    if power < n_heads:
        slopes += alibi_slopes(2 * power)[::2][: n_heads - power]
    return slopes


class _LocalEncoder(nn.Module):
    """Convolutions over samples, each normalised over its channels."""

    def __init__(self, config):
        super().__init__()
        self.strides = [stride for _, _, stride in config.conv_layers]
        self.conv_layers = nn.ModuleList()
        in_channels = 1
        for channels, kernel, stride in config.conv_layers:
            conv = nn.Conv1d(
                in_channels, channels, kernel, stride=stride, bias=False
            )
            nn.init.kaiming_normal_(conv.weight)
            norm = nn.Sequential(nn.Identity(), nn.LayerNorm(channels))
            self.conv_layers.append(nn.Sequential(conv, nn.Identity(), norm))
            in_channels = channels

    def forward(self, wavs, run):
        """Returns [batch, frames, channel]; frames of padding are garbage."""
        hop = math.prod(self.strides)
        x = F.pad(wavs, (0, -wavs.shape[1] % hop)).reshape(-1, 1)
        for layer, stride in zip(self.conv_layers, self.strides, strict=True):
            x = run(self._layer, layer, x, stride)
        return x.view(len(wavs), -1, x.shape[1])

    @staticmethod
    def _layer(layer, x, stride):
        x = flat_conv(x, layer[0].weight, stride)
        return F.gelu(layer[2](x).to(x.dtype))


class _Attention(nn.Module):
    """Self-attention with a bias shared by all blocks."""

    def __init__(self, config, share):
        super().__init__()
        self.n_heads = config.num_heads
        self.share = share
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x, bias):
        """Returns [batch, token, channel]."""
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        share = self.share if self.training else 0.0
        x = attend(q, k, v, bias, share)
        x = self.proj(x.transpose(1, 2).flatten(2))
        return dropout(x, self.share, self.training)


class Block(nn.Module):
    """Attention and two linear layers, each normalised after its sum."""

    def __init__(self, config, share):
        super().__init__()
        width, hidden = (
            config.embed_dim,
            int(config.embed_dim * config.mlp_ratio),
        )
        self.share = share
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = _Attention(config, share)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)}
        )

    def forward(self, x, bias):
        """Returns the tokens, and what the linear layers said of them."""
        x = self.norm1(x + self.attn(x, bias))
        y = self.mlp["fc2"](F.gelu(self.mlp["fc1"](x)))
        return self.norm2(x + dropout(y, self.share, self.training)), y


class AudioEncoder(nn.Module):
    """From samples to tokens with positions, and the first blocks."""

    def __init__(self, config, share):
        super().__init__()
        width = config.embed_dim
        self.local_encoder = _LocalEncoder(config)
        channels = config.conv_layers[-1][0]
        self.project_features = nn.Sequential(
            nn.Identity(), nn.LayerNorm(channels), nn.Linear(channels, width)
        )
        kernel = max(3, config.conv_pos_width // config.conv_pos_depth)
        self.relative_positional_encoder = nn.Sequential(
            nn.Identity(),
            *(
                nn.Sequential(
                    nn.Conv1d(
                        width,
                        width,
                        kernel,
                        padding=kernel // 2,
                        groups=config.conv_pos_groups,
                    )
                )
                for _ in range(config.conv_pos_depth)
            ),
        )
        self.extra_tokens = nn.Parameter(
            torch.zeros(1, config.num_extra_tokens, width)
        )
        nn.init.normal_(self.extra_tokens[:, 1:])
        self.alibi_scale = nn.Parameter(
            torch.ones(1, 1, config.num_heads, 1, 1)
        )
        self.context_encoder = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width, eps=config.norm_eps),
                "blocks": nn.ModuleList(
                    Block(config, share) for _ in range(config.prenet_depth)
                ),
            }
        )

    def positions(self, x, is_padded):
        """Returns what tells each frame where it stands.

        FunASR lets these convolutions read frames of padding, which are not
        zero, and so gives a clip another answer in every batch. Here they
        read zeros, as beyond the end of a clip that is alone.
        """
        y = x
        for layer in self.relative_positional_encoder[1:]:
            if is_padded is not None:
                y = y.masked_fill(is_padded.unsqueeze(-1), 0.0)
            y = layer[0](y.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]
            y = F.gelu(F.layer_norm(y, y.shape[-1:]))
        return y

    def bias(self, x, is_padded):
        """Returns what all blocks add to their attention, in x's dtype.

        [1, head, token, token] where no frame is padded, else a copy a row.
        """
        n_frames, n_extra = x.shape[1], self.extra_tokens.shape[1]
        heads = self.alibi_scale.shape[2]
        slopes = torch.tensor(alibi_slopes(heads), device=x.device)
        slopes = slopes * self.alibi_scale.float().clamp(min=0).flatten()
        place = torch.arange(n_frames, device=x.device)
        distance = (place.unsqueeze(1) - place).abs()
        bias = -distance * slopes[:, None, None]
        # Extra tokens are near to all; what aligns the rows is cut off again.
        n_tokens = n_extra + n_frames
        unused = -n_tokens % ALIGNMENT
        bias = F.pad(bias, (n_extra, unused, n_extra, 0)).to(x.dtype)[None]
        if is_padded is not None:
            hidden = F.pad(is_padded, (n_extra, unused))
            bias = bias.masked_fill(hidden[:, None, None], -torch.inf)
        return bias[..., :n_tokens]


def init_linear(module):
    """Draws linear layers as pretraining did before its first step."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
