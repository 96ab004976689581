"""What teaches content retrieval: recognition, its length, and retrieval.

The terms of "End-to-end Contrastive Language-Speech Pretraining Model For
Long-form Spoken Question Answering" (Hu et al., 2025,
https://arxiv.org/abs/2511.09282) and of "Paraformer: Fast and Accurate
Parallel Transformer for Non-autoregressive End-to-End Speech Recognition"
(Gao et al., 2022, https://arxiv.org/abs/2206.08317).

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F

from esr_lobes.clsr.sanm import real_steps


def label_smoothed_cross_entropy(logits, targets, lengths, smoothing=0.1):
    """Returns how far predictions are from smoothed targets, per token.

    It is the Kullback-Leibler divergence, as in Paraformer: 0 where the
    right token has a probability of 1 - smoothing and all others share the
    rest.

    Arguments
    ---------
    logits : torch.Tensor
        Shape [batch, token, vocabulary].
    targets : torch.Tensor
        Right tokens, long, of shape [batch, token]; anything behind the end.
    lengths : torch.Tensor
        Tokens in each row, long, of shape [batch].
    smoothing : float
        What the wrong tokens share of the target, evenly.

    Returns
    -------
    torch.Tensor
        The mean over all tokens of the batch, without dimensions; 0 where
        there is none.

    Example
    -------
    >>> logits = torch.tensor([[[0.75, 0.25]]]).log()
    >>> target, length = torch.tensor([[0]]), torch.tensor([1])
    >>> loss = label_smoothed_cross_entropy(logits, target, length, 0.25)
    >>> round(loss.item(), 4)
    0.0
    >>> loss = label_smoothed_cross_entropy(logits, target, length, 0.0)
    >>> round(loss.item(), 4)  # -ln 0.75
    0.2877
    """
    is_real = real_steps(lengths, targets.shape[1])
    # Padding may be marked by an id that no table has a row for.
    targets = targets.masked_fill(~is_real, 0)
    scores = _at_least_float(logits).log_softmax(dim=-1)
    of_right = scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    share = smoothing / (logits.shape[-1] - 1)
    # Written out, so that no table of smoothed targets is made.
    cross = (1 - smoothing) * of_right + share * (scores.sum(-1) - of_right)
    certainty = _plogp(1 - smoothing)
    if smoothing:
        certainty += smoothing * math.log(share)
    losses = (certainty - cross).masked_fill(~is_real, 0.0)
    return losses.sum() / is_real.sum().clamp(min=1)


def _at_least_float(x):
    """Half precision would blur sums over a vocabulary."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _plogp(p):
    return p * math.log(p) if p else 0.0


def quantity_loss(n_predicted, lengths, is_normalized=True):
    """Returns by how much the number of tokens is missed.

    Arguments
    ---------
    n_predicted : torch.Tensor
        Sums of the predictor's weights before any scaling, of shape [batch].
    lengths : torch.Tensor
        True numbers of tokens, of shape [batch].
    is_normalized : bool
        Whether to divide by the number of tokens rather than of rows.

    Returns
    -------
    torch.Tensor
        Mean absolute error, without dimensions.

    Example
    -------
    >>> n_predicted, lengths = torch.tensor([2.5, 4.5]), torch.tensor([3, 5])
    >>> quantity_loss(n_predicted, lengths).item()  # (0.5 + 0.5) / 8
    0.125
    >>> quantity_loss(n_predicted, lengths, is_normalized=False).item()
    0.5
    """
    missed = (n_predicted - lengths).abs().sum()
    if is_normalized:
        return missed / lengths.sum().clamp(min=1)
    return missed / len(lengths)


def mwer_loss(
    logits,
    targets,
    lengths,
    n_candidates=4,
    mask_probability=0.5,
    generator=None,
):
    """Returns the expected number of word errors over sampled candidates.

    Minimum word error rate training with negative sampling, as Paraformer
    does it: a candidate is the best token at each position, or, where a coin
    says so, the next best. Candidates are as long as the target, so that
    errors are counted position by position. The mean of the errors is taken
    off, which leaves the gradient's direction: the loss may be negative.

    Arguments
    ---------
    logits : torch.Tensor
        Shape [batch, token, vocabulary].
    targets : torch.Tensor
        Right tokens, long, of shape [batch, token]; anything behind the end.
    lengths : torch.Tensor
        Tokens in each row, long, of shape [batch].
    n_candidates : int
        Candidates of each row.
    mask_probability : float
        How often the best token of a position is passed over.
    generator : torch.Generator, optional
        Where the coins come from. It is one of the CPU, so that a seed means
        the same everywhere.

    Returns
    -------
    torch.Tensor
        The mean over rows, without dimensions.

    Example
    -------
    Where all candidates are the same there is nothing to prefer:

    >>> logits = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]])
    >>> mwer_loss(logits, torch.tensor([[0, 1]]), torch.tensor([2]),
    ...     mask_probability=0.0).item()
    0.0
    """
    is_real = real_steps(lengths, targets.shape[1])
    logits = _at_least_float(logits)
    best, ids = logits.topk(2, dim=-1)
    scores = best - logits.logsumexp(dim=-1, keepdim=True)
    coins = torch.rand((n_candidates, *targets.shape), generator=generator)
    takes_second = coins.to(logits.device) < mask_probability
    scores = torch.where(takes_second, scores[..., 1], scores[..., 0])
    ids = torch.where(takes_second, ids[..., 1], ids[..., 0])
    # [candidate, batch]
    scores = scores.masked_fill(~is_real, 0.0).sum(dim=-1)
    n_errors = ((ids != targets) & is_real).sum(dim=-1).to(scores.dtype)
    excess = n_errors - n_errors.mean(dim=0)
    return (scores.softmax(dim=0) * excess).sum(dim=0).mean()


def content_contrastive_loss(logits, context_ids):
    """Returns how badly contexts and questions find each other.

    Symmetric cross-entropy over the batch, as CLSR's NLL is meant. Several
    questions may be about one context: then the batch holds that context
    several times, and these are left out of each other's rivals.

    Arguments
    ---------
    logits : torch.Tensor
        Cosines of shape [contexts, questions], scaled by a
        :class:`~esr_lobes.losses.LogitScale`, which may learn or be fixed
        (``requires_grad_(False)``). The partner of context i is question i.
    context_ids : torch.Tensor
        What tells contexts apart, long, of shape [contexts].

    Returns
    -------
    torch.Tensor
        The loss, without dimensions.

    Example
    -------
    >>> loss = content_contrastive_loss(torch.zeros(4, 4), torch.arange(4))
    >>> round(loss.item(), 4)  # ln 4
    1.3863
    >>> loss = content_contrastive_loss(
    ...     torch.zeros(4, 4), torch.tensor([7, 7, 8, 8]))
    >>> round(loss.item(), 4)  # ln 3
    1.0986
    """
    partner = torch.arange(len(logits), device=logits.device)
    is_twin = context_ids.unsqueeze(0) == context_ids.unsqueeze(1)
    is_twin = is_twin & (partner.unsqueeze(0) != partner.unsqueeze(1))
    logits = _at_least_float(logits).masked_fill(is_twin, -math.inf)
    by_context = F.cross_entropy(logits, partner)
    by_question = F.cross_entropy(logits.t(), partner)
    return (by_context + by_question) / 2
