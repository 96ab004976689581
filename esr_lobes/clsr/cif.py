"""Continuous integrate-and-fire: from encoder steps to one vector a token.

"CIF: Continuous Integrate-and-Fire for End-to-End Speech Recognition" (Dong
and Xu, 2020, https://arxiv.org/abs/1905.11235), as Paraformer uses it.

Authors
 * The esr_lobes contributors
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from esr_lobes.clsr.sanm import real_steps

TAIL = 0.45
LEAST = 1e-9


def cif_overlap(h, alphas, n_tokens):
    """Returns the weighted sum of steps that belong to each token.

    The weights laid end to end are a line; token j owns its stretch from j
    to j + 1. What a step gives to a token is how far their stretches overlap.
    This is the loop that collects weight and fires whenever it has one, as
    one matrix product, and right where a step alone weighs more than one.

    Arguments
    ---------
    h : torch.Tensor
        Steps of shape [batch, step, channel].
    alphas : torch.Tensor
        Their weights, none below 0, of shape [batch, step]; 0 where padded.
    n_tokens : int
        How many tokens to give. Those beyond the sum of a row's weights are
        incomplete, or 0.

    Returns
    -------
    torch.Tensor
        Of shape [batch, n_tokens, channel], in the dtype of ``h``.

    Example
    -------
    >>> h = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> cif_overlap(h, torch.tensor([[0.5, 1.0, 0.5]]), 2).flatten().tolist()
    [1.5, 2.5]
    """
    dtype = torch.promote_types(h.dtype, torch.float32)
    with torch.autocast(h.device.type, enabled=False):
        # Rounding in float32 would lose the last token of long rows.
        ends = alphas.double().cumsum(dim=1)
        return _Overlap.apply(h.to(dtype), ends, n_tokens).to(h.dtype)


class _Overlap(torch.autograd.Function):
    """The product of the overlaps with the steps, [batch, n_tokens, channel].

    A step's end lies in one token. Moved on, it gives that token more of its
    own step and less of the next, and nothing else changes: two numbers are
    its gradient, for which autograd would go through all of the matrix.
    """

    @staticmethod
    def forward(ctx, h, ends, n_tokens):
        """Returns the tokens of steps that end there on the line."""
        whole = ends.floor()
        part = (ends - whole).to(h.dtype)
        starts = torch.arange(n_tokens, device=h.device).unsqueeze(1)
        # Whole numbers apart from what is left: exact also in float32.
        filled = whole.unsqueeze(1).to(h.dtype) - starts
        filled = filled.add_(part.unsqueeze(1)).clamp_(0.0, 1.0)
        overlaps = filled.diff(dim=2, prepend=torch.zeros_like(filled[..., :1]))
        ctx.save_for_backward(h, whole.long(), overlaps)
        return overlaps @ h

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Returns gradients of the steps and of their ends."""
        h, places, overlaps = ctx.saved_tensors
        of_h = of_ends = None
        if ctx.needs_input_grad[0]:
            of_h = overlaps.transpose(1, 2) @ gradient
        if ctx.needs_input_grad[1]:
            # Behind the last token and the last step there is nothing.
            worth = F.pad(gradient @ h.transpose(1, 2), (0, 1, 0, 1))
            places = places.clamp(max=gradient.shape[1]).unsqueeze(1)
            own, next_one = (
                part.gather(1, places).squeeze(1).double()
                for part in (worth[..., :-1], worth[..., 1:])
            )
            of_ends = own - next_one
        return of_h, of_ends, None


class CifPredictor(nn.Module):
    """Predicts how many tokens there are, and a vector for each.

    Keys of its ``state_dict`` are those of FunASR's second version. All is
    computed in float32, sums of weights in float64, whatever autocast says.
    Padding is blanked first: FunASR's convolution reads it, which changes
    the last weight, and at times the number of tokens, with the batch.

    Arguments
    ---------
    width : int
        Channels of a step.
    tail : float
        What is added to the sum of the weights before it is cut to a whole
        number, where the true number is not known.

    Example
    -------
    >>> predictor = CifPredictor(8)
    >>> memory, lengths = torch.rand(2, 6, 8), torch.tensor([6, 3])
    >>> acoustic, counts, alphas, n_hat = predictor(
    ...     memory, lengths, torch.tensor([4, 2]))
    >>> acoustic.shape, counts.tolist(), alphas.shape
    (torch.Size([2, 4, 8]), [4, 2], torch.Size([2, 6]))
    """

    def __init__(self, width=512, tail=TAIL):
        super().__init__()
        self.tail = tail
        self.cif_conv1d = nn.Conv1d(width, width, 3, padding=1)
        self.cif_output = nn.Linear(width, 1)

    def weigh(self, memory, lengths):
        """Returns how much of a token each step is worth.

        Arguments
        ---------
        memory : torch.Tensor
            What the encoder gave, of shape [batch, step, width].
        lengths : torch.Tensor
            Number of real steps of shape [batch].

        Returns
        -------
        memory : torch.Tensor
            The same in float32, 0 where padded.
        alphas : torch.Tensor
            Weights from 0 to 1 of shape [batch, step], 0 where padded.
        """
        is_padded = ~real_steps(lengths, memory.shape[1])
        with torch.autocast(memory.device.type, enabled=False):
            memory = memory.float().masked_fill(is_padded.unsqueeze(2), 0.0)
            x = self.cif_conv1d(memory.transpose(1, 2)).relu()
            alphas = self.cif_output(x.transpose(1, 2)).squeeze(2).sigmoid()
        return memory, alphas.masked_fill(is_padded, 0.0)

    def forward(self, memory, lengths, target_lengths=None):
        """Returns a vector for each token.

        Arguments
        ---------
        memory : torch.Tensor
            What the encoder gave, of shape [batch, step, width].
        lengths : torch.Tensor
            Number of real steps of shape [batch].
        target_lengths : torch.Tensor, optional
            How many tokens there are, of shape [batch]; the weights are
            scaled to fit. If not given, as many as they come to.

        Returns
        -------
        acoustic : torch.Tensor
            Of shape [batch, token, width], 0 where padded; one token at
            least, even if all rows have none.
        counts : torch.Tensor
            Number of real tokens, long of shape [batch].
        alphas : torch.Tensor
            Weights of the steps before they are scaled, [batch, step].
        n_hat : torch.Tensor
            Their sums of shape [batch], to be taught the true numbers.
        """
        memory, alphas = self.weigh(memory, lengths)
        total = alphas.double().sum(dim=1)
        scaled = alphas.double()
        if target_lengths is None:
            # What the tail adds lies behind the end, where all is 0.
            counts = (total.detach() + self.tail).floor().long()
        else:
            counts = target_lengths
            # A row without any weight stays without, and is no NaN.
            scale = counts / total.clamp(min=LEAST)
            scaled = scaled * scale.unsqueeze(1)
        n_tokens = max(1, int(counts.max()))
        acoustic = cif_overlap(memory, scaled, n_tokens)
        is_padded = ~real_steps(counts, n_tokens)
        acoustic = acoustic.masked_fill(is_padded.unsqueeze(2), 0.0)
        return acoustic, counts, alphas, total.float()
