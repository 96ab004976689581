"""Ways from many frames or tokens to one vector, blind to padding.

Authors
 * The esr_lobes contributors
"""

import torch


def length_to_mask(lengths, max_len):
    """Returns which positions are real, given relative lengths.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths of shape [batch]; a full row has 1.0.
    max_len : int
        Number of positions, padding included.

    Returns
    -------
    torch.Tensor
        Booleans of shape [batch, max_len], True where real. Every row has
        at least one real position.

    Example
    -------
    >>> length_to_mask(torch.tensor([1.0, 0.5]), 4).int().tolist()
    [[1, 1, 1, 1], [1, 1, 0, 0]]
    """
    counts = (lengths * max_len).round().clamp(min=1)
    positions = torch.arange(max_len, device=lengths.device)
    return positions.unsqueeze(0) < counts.unsqueeze(1)


def masked_mean(x, lengths):
    """Averages over time, leaving the padding out.

    Arguments
    ---------
    x : torch.Tensor
        Features of shape [batch, time, channel].
    lengths : torch.Tensor
        Relative lengths of shape [batch]; a full row has 1.0.

    Returns
    -------
    torch.Tensor
        One vector a row, of shape [batch, channel].

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0]], [[5.0], [9.0]]])
    >>> masked_mean(x, torch.tensor([1.0, 0.5])).flatten().tolist()
    [2.0, 5.0]
    """
    mask = length_to_mask(lengths, x.shape[1]).unsqueeze(-1)
    return x.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)


def first_token(x, lengths=None):
    """Returns the first position, where BERT-like models sum up a sentence.

    Arguments
    ---------
    x : torch.Tensor
        Features of shape [batch, time, channel].
    lengths : torch.Tensor
        Not used; here so that all poolings are called alike.

    Returns
    -------
    torch.Tensor
        One vector a row, of shape [batch, channel].

    Example
    -------
    >>> first_token(torch.tensor([[[1.0], [3.0]]])).tolist()
    [[1.0]]
    """
    return x[:, 0]
