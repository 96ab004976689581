"""What stands on the two encoders: projection, classifier, discriminator.

Sizes follow "Expressive Speech Retrieval using Natural Language Descriptions
of Speaking Style" (Kang and Roy, 2025, https://arxiv.org/abs/2508.11187).

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn


class Projection(nn.Linear):
    """Maps what an encoder gives into the space that both towers share.

    The result is not yet of unit length: the style classifier reads it as
    it is, retrieval normalises it.

    Arguments
    ---------
    in_features : int
        Width of the encoder.
    out_features : int
        Width of the shared space.

    Example
    -------
    >>> Projection(4, 2)(torch.ones(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)


class _TwoLayers(nn.Sequential):
    """Linear, ReLU, Linear."""

    def __init__(self, in_features, hidden, out_features):
        super().__init__(
            nn.Linear(in_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_features),
        )


class StyleClassifier(_TwoLayers):
    """Gives one logit a style, from the embedding of a clip.

    Arguments
    ---------
    in_features : int
        Width of the shared space.
    n_styles : int
        Number of styles.
    hidden : int
        Width of the hidden layer.

    Example
    -------
    >>> StyleClassifier(8, 22)(torch.zeros(5, 8)).shape
    torch.Size([5, 22])
    """

    def __init__(self, in_features, n_styles, hidden=128):
        super().__init__(in_features, hidden, n_styles)


class ModalityDiscriminator(_TwoLayers):
    """Gives one logit a row: above zero for speech, below for text.

    The towers see it through :func:`reverse_gradient`, so that what teaches
    the discriminator to tell the two apart teaches them to be alike.

    Arguments
    ---------
    in_features : int
        Width of the shared space.
    hidden : int
        Width of the hidden layer.

    Example
    -------
    >>> ModalityDiscriminator(8)(torch.zeros(5, 8)).shape
    torch.Size([5])
    """

    def __init__(self, in_features, hidden=128):
        super().__init__(in_features, hidden, 1)

    def forward(self, x):
        """Returns logits of shape [batch] for x of shape [batch, channel]."""
        return super().forward(x).squeeze(-1)


class _ReverseGradient(torch.autograd.Function):
    """Identity forward, minus the weight times the gradient backward."""

    @staticmethod
    def forward(ctx, x, weight):
        """Returns x and keeps the weight."""
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        """Returns the reversed gradient, none for the weight."""
        return -ctx.weight * gradient, None


def reverse_gradient(x, weight=1.0):
    """Returns x as it is, whose gradient comes back reversed.

    "Unsupervised Domain Adaptation by Backpropagation" (Ganin and
    Lempitsky, 2015, https://arxiv.org/abs/1409.7495).

    Arguments
    ---------
    x : torch.Tensor
        Anything.
    weight : float
        The reversed gradient is multiplied with it.

    Returns
    -------
    torch.Tensor
        The same values.

    Example
    -------
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> reverse_gradient(x, 0.5).sum().backward()
    >>> x.grad.tolist()
    [-0.5, -0.5]
    """
    return _ReverseGradient.apply(x, weight)
