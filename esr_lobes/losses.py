"""What the towers are taught with: one class or function a term.

The terms of "Expressive Speech Retrieval using Natural Language Descriptions
of Speaking Style" (Kang and Roy, 2025, https://arxiv.org/abs/2508.11187),
and a contrastive loss for batches in which styles repeat.

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from esr_lobes.heads import reverse_gradient


class LogitScale(nn.Module):
    """Multiplies cosines with a learned scale, which is 1 / temperature.

    It learns as its logarithm, so that it stays above zero, and is clamped,
    so that it does not run away. As a module it takes its place in
    ``modules``, where the optimiser finds it.

    Arguments
    ---------
    temperature : float
        Where it starts: the scale is 1 / temperature.
    maximum : float
        Largest scale.

    Example
    -------
    >>> scale = LogitScale(temperature=0.5)
    >>> scale(torch.tensor([1.0, -1.0])).tolist()
    [2.0, -2.0]
    """

    def __init__(self, temperature=0.07, maximum=100.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.maximum = maximum

    @property
    def value(self):
        """The scale, a tensor without dimensions."""
        return self.log_scale.exp().clamp(max=self.maximum)

    def forward(self, cosines):
        """Returns scaled cosines, of the same shape."""
        return self.value * cosines


def pairwise_positives(styles):
    """Returns which cells count as right if each row knows one partner.

    Arguments
    ---------
    styles : torch.Tensor
        Style indices of shape [batch]; only their number matters.

    Returns
    -------
    torch.Tensor
        The identity, booleans of shape [batch, batch].

    Example
    -------
    >>> pairwise_positives(torch.tensor([7, 7])).int().tolist()
    [[1, 0], [0, 1]]
    """
    return torch.eye(len(styles), dtype=torch.bool, device=styles.device)


def same_style_positives(styles):
    """Returns which cells count as right if styles repeat in a batch.

    Arguments
    ---------
    styles : torch.Tensor
        Style indices of shape [batch].

    Returns
    -------
    torch.Tensor
        Booleans of shape [batch, batch], True where row and column have the
        same style.

    Example
    -------
    >>> same_style_positives(torch.tensor([7, 7, 3])).int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    return styles.unsqueeze(0) == styles.unsqueeze(1)


def contrastive_loss(logits, positives):
    """Returns the symmetric cross-entropy of clips against prompts.

    In each row and in each column the target spreads evenly over the cells
    that count as right. With :func:`pairwise_positives` this is the loss of
    CLIP and of the paper; with :func:`same_style_positives` it is the
    L_out of "Supervised Contrastive Learning" (Khosla et al., 2020,
    https://arxiv.org/abs/2004.11362) between two modalities.

    Arguments
    ---------
    logits : torch.Tensor
        Scaled cosines of shape [clips, prompts].
    positives : torch.Tensor
        Booleans of the same shape; each row and column has one at least.

    Returns
    -------
    torch.Tensor
        The loss, without dimensions.

    Example
    -------
    >>> logits = torch.zeros(4, 4)
    >>> positives = pairwise_positives(torch.arange(4))
    >>> round(contrastive_loss(logits, positives).item(), 4)  # ln 4
    1.3863
    """
    targets = positives.to(logits.dtype)
    by_clip = F.cross_entropy(logits, targets / targets.sum(1, keepdim=True))
    targets = targets.t()
    by_prompt = F.cross_entropy(
        logits.t(), targets / targets.sum(1, keepdim=True)
    )
    return (by_clip + by_prompt) / 2


def adversarial_loss(discriminator, speech, text):
    """Returns how badly speech and text are told apart.

    The discriminator learns to tell them apart; the towers receive the
    gradient reversed, once. The weight of this term is the weight of both.

    Arguments
    ---------
    discriminator : ModalityDiscriminator
        Gives one logit a row, above zero for speech.
    speech, text : torch.Tensor
        Embeddings of shape [clips, channel] and [prompts, channel].

    Returns
    -------
    torch.Tensor
        Binary cross-entropy, without dimensions.

    Example
    -------
    >>> unsure = lambda x: x.sum(-1) * 0.0
    >>> loss = adversarial_loss(unsure, torch.ones(3, 2), torch.ones(2, 2))
    >>> round(loss.item(), 4)  # ln 2
    0.6931
    """
    rows = torch.cat([speech, text])
    truth = torch.zeros(len(rows), device=rows.device)
    truth[: len(speech)] = 1.0
    logits = discriminator(reverse_gradient(rows))
    return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
