"""Glancing: some tokens are shown to the decoder while it learns.

"Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive
End-to-End Speech Recognition" (Gao et al., 2022,
https://arxiv.org/abs/2206.08317).

Authors
 * The esr_lobes contributors
"""

import torch

from esr_lobes.clsr.sanm import real_steps


def count_errors(ids, targets, target_lengths):
    """Returns how many tokens of each row are wrong.

    Arguments
    ---------
    ids, targets : torch.Tensor
        What was said and what is right, of shape [batch, token].
    target_lengths : torch.Tensor
        Number of real tokens of shape [batch].

    Returns
    -------
    torch.Tensor
        Long, of shape [batch].

    Example
    -------
    >>> said, right = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 7, 0]])
    >>> count_errors(said, right, torch.tensor([2])).tolist()
    [1]
    """
    is_real = real_steps(target_lengths, targets.shape[1])
    return ((ids != targets) & is_real).sum(dim=1)


def draw_positions(n_drawn, target_lengths, n_tokens):
    """Returns as many positions of each row as are asked for, at random.

    Draws are made on the CPU, so that a seed means the same everywhere.

    Arguments
    ---------
    n_drawn : torch.Tensor
        How many of each row, no more than it has, of shape [batch].
    target_lengths : torch.Tensor
        Number of real tokens of shape [batch]; only these are drawn.
    n_tokens : int
        Number of tokens, padding included.

    Returns
    -------
    torch.Tensor
        Booleans of shape [batch, n_tokens].

    Example
    -------
    >>> drawn = draw_positions(torch.tensor([2, 0]), torch.tensor([2, 3]), 3)
    >>> drawn.int().tolist()
    [[1, 1, 0], [0, 0, 0]]
    """
    scores = torch.rand(len(n_drawn), n_tokens).to(n_drawn.device)
    is_real = real_steps(target_lengths, n_tokens)
    order = scores.masked_fill(~is_real, 2.0).argsort(dim=1)
    return order.argsort(dim=1) < n_drawn.unsqueeze(1)


def glance(acoustic, embeddings, errors, target_lengths, ratio):
    """Returns CIF vectors of which some are the true tokens' embeddings.

    As many as a share of the errors of a first pass are replaced, cut to a
    whole number. Which, is drawn from all tokens of a row, not from the wrong
    ones alone: so does FunASR, and so the paper's algorithm, not its text.

    Arguments
    ---------
    acoustic : torch.Tensor
        CIF vectors of shape [batch, token, channel].
    embeddings : torch.Tensor
        Of the true tokens, of the same shape.
    errors : torch.Tensor
        How many tokens of each row were wrong, of shape [batch].
    target_lengths : torch.Tensor
        Number of real tokens of shape [batch].
    ratio : float
        Share of the errors, from 0 to 1.

    Returns
    -------
    torch.Tensor
        Of the same shape, 0 where padded.

    Example
    -------
    >>> zeros, ones = torch.zeros(1, 4, 1), torch.ones(1, 4, 1)
    >>> lengths = torch.tensor([3])
    >>> glance(zeros, ones, torch.tensor([3]), lengths, 0.75).sum().item()
    2.0
    """
    n_tokens = acoustic.shape[1]
    n_drawn = (errors.double() * ratio).long()
    is_drawn = draw_positions(n_drawn, target_lengths, n_tokens)
    is_real = real_steps(target_lengths, n_tokens).unsqueeze(2)
    mixed = torch.where(is_drawn.unsqueeze(2), embeddings, acoustic)
    return mixed.masked_fill(~is_real, 0.0)
