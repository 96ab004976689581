"""Parts of transformers' speech models, computed faster to the same end.

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from esr_lobes.encoders.emotion2vec_layers import attend, dropout, flat_conv


def convolve(layers, wavs, counts, is_checkpointed=False):
    """Returns what a convolutional front end makes of waveforms.

    A group norm over time counts the real samples of each clip only.

    Arguments
    ---------
    layers : torch.nn.ModuleList
        The ``conv_layers`` of a feature encoder.
    wavs : torch.Tensor
        Float32 of shape [batch, time], 0 where padded.
    counts : torch.Tensor
        Number of real samples of each row.
    is_checkpointed : bool
        Whether the backward pass computes each layer again.

    Returns
    -------
    torch.Tensor
        Of shape [batch, frame, channel]; frames that reach into padding are
        garbage.
    """
    hop = math.prod(layer.conv.stride[0] for layer in layers)
    n_frames = wavs.shape[1]
    for layer in layers:
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        n_frames = (n_frames - kernel) // stride + 1
    wavs = F.pad(wavs, (0, -wavs.shape[1] % hop))
    x = wavs.reshape(-1, 1)
    for layer in layers:
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            step, args = _normalised, (layer, wavs, counts)
        else:
            step, args = _convolved, (layer, x)
        if is_checkpointed and torch.is_grad_enabled():
            x = checkpoint(step, *args, use_reentrant=False)
        else:
            x = step(*args)
    return x.view(len(wavs), -1, x.shape[1])[:, :n_frames]


def _convolved(layer, x):
    """Returns a stream of [time, channel] behind one layer."""
    x = flat_conv(x, layer.conv.weight, layer.conv.stride[0])
    if layer.conv.bias is not None:
        x = x + layer.conv.bias.to(x.dtype)
    norm = getattr(layer, "layer_norm", None)
    if norm is not None:
        x = norm(x).to(x.dtype)
    return layer.activation(x)


def _normalised(layer, wavs, counts):
    """Returns a stream behind a first layer with a group norm over time.

    What the convolution gives is linear in the few samples that its kernel
    hears. So mean and variance of each channel follow from those of the
    samples, and the norm is put into the weights, for each clip its own:
    nothing of the length of a clip is read twice.
    """
    conv, norm = layer.conv, layer.layer_norm
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    with torch.autocast(wavs.device.type, enabled=False):
        # A constant is what the norm takes away; better before any rounding.
        wavs = wavs - wavs.sum(dim=1, keepdim=True) / counts.unsqueeze(1)
        patches = F.pad(wavs, (0, kernel - stride)).unfold(1, kernel, stride)
        n_real = (counts - kernel) // stride + 1
        place = torch.arange(patches.shape[1], device=wavs.device)
        is_real = (place < n_real.unsqueeze(1)).unsqueeze(-1)
        heard = patches.double() * is_real
        n_real = n_real.view(-1, 1, 1)
        mean = heard.sum(dim=1, keepdim=True) / n_real
        spread = heard.transpose(1, 2) @ heard / n_real
        spread = spread - mean.transpose(1, 2) * mean
        weight = conv.weight.squeeze(1).double()
        variance = ((weight @ spread) * weight).sum(-1).clamp(min=0)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        weight = scale.unsqueeze(-1) * weight
        bias = norm.bias.unsqueeze(-1) - weight @ mean.transpose(1, 2)
        weight = torch.cat([weight, bias], dim=-1).float()
    patches = F.pad(patches, (0, 1), value=1.0)  # what the bias multiplies
    x = torch.bmm(patches, weight.transpose(1, 2))
    return layer.activation(x.flatten(0, 1))


class Attention(WavLMAttention):
    """WavLM's attention, whose position bias all rows of a batch share.

    What transformers computes beside it, the mean weights of the heads, has
    no reader here.
    """

    def forward(
        self, hidden_states, attention_mask=None, position_bias=None, **unused
    ):
        """Returns tokens, None, and the position bias for later layers.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Of shape [batch, token, channel].
        attention_mask : torch.Tensor, optional
            Booleans of shape [batch, token], False where padded.
        position_bias : torch.Tensor, optional
            What the first layer returned; that layer is given none.
        **unused : dict
            What transformers hands to attention beside that.

        Returns
        -------
        tuple
            As of ``WavLMAttention``.
        """
        x = hidden_states
        if position_bias is None:
            position_bias = self.compute_bias(x.shape[1], x.shape[1])
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = self._gate(x).to(q.dtype) * position_bias.to(q.dtype)
        if attention_mask is not None:
            is_padded = ~attention_mask[:, None, None]
            bias = bias.masked_fill(is_padded, -torch.inf)
        share = self.dropout if self.training else 0.0
        x = attend(q, k, v, bias, share).transpose(1, 2).flatten(2)
        return self.out_proj(x), None, position_bias

    def _gate(self, x):
        """Returns by how much each query heeds positions, [b, h, t, 1]."""
        linear = self.gru_rel_pos_linear
        # Sums of four outputs each: one output of the summed weights.
        weight = linear.weight.view(2, 4, -1).sum(dim=1)
        bias = linear.bias.view(2, 4).sum(dim=1)
        x = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        a, b = F.linear(x, weight, bias).sigmoid().chunk(2, dim=-1)
        return a * (b * self.gru_rel_pos_const - 1.0) + 2.0


class Dropout(nn.Dropout):
    """Dropout with few random bits on the CPU, see :func:`dropout`."""

    def forward(self, x):
        """Returns x with a share of its values blanked while training."""
        return dropout(x, self.p, self.training)


FASTER = {WavLMAttention: Attention, nn.Dropout: Dropout}


def make_faster(model):
    """Lets parts of a model compute as above; weights and names stay.

    Arguments
    ---------
    model : torch.nn.Module
        A speech model of transformers.
    """
    for module in model.modules():
        module.__class__ = FASTER.get(type(module), type(module))
