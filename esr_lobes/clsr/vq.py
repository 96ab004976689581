"""From scores over a vocabulary to the embeddings of its words, and back.

The VQ adaptor of "End-to-end Contrastive Language-Speech Pretraining Model
For Long-form Spoken Question Answering" (Hu et al., 2025,
https://arxiv.org/abs/2511.09282), which follows SpeechCLIP (Shih et al.,
2022, https://arxiv.org/abs/2210.00705).

Authors
 * The esr_lobes contributors
"""

import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable

INPUTS = ("logits", "probabilities")


class _StraightThroughLookup(torch.autograd.Function):
    """Looks words up; the gradient is that of a mixture by probability.

    The same as ``(onehot + p - p.detach()) @ table``, value and gradients,
    but neither the one-hot vectors nor their product with the table is made.
    """

    @staticmethod
    def forward(ctx, probabilities, ids, table):
        """Returns the rows of the table that the ids name."""
        ctx.save_for_backward(ids, table)
        ctx.type = probabilities.dtype
        return table[ids]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Returns gradients of the probabilities and of the table."""
        ids, table = ctx.saved_tensors
        of_probabilities = of_table = None
        if ctx.needs_input_grad[0]:
            of_probabilities = (gradient @ table.t()).to(ctx.type)
        if ctx.needs_input_grad[2]:
            of_table = torch.zeros_like(table).index_add_(
                0, ids.flatten(), gradient.reshape(-1, table.shape[1])
            )
        return of_probabilities, None, of_table


class VQAdaptor(nn.Module):
    """Gives each token the embedding of its best word, straight through.

    Forward it is a lookup: a text encoder reads the very embeddings that it
    has for the recognised words. Backward it is the mixture of all words by
    their probabilities, so that a loss behind the text encoder teaches the
    recogniser.

    Arguments
    ---------
    vq_temperature : float
        Divides what the softmax takes; the smaller, the more the gradient
        comes from the likeliest words alone.
    takes : str
        What the softmax takes: ``logits``, or ``probabilities``, their
        softmax. The paper's formula says the one, its words the other.
        Through logits, whose differences the temperature multiplies by ten,
        a recogniser that is sure of its words has next to no gradient.
    banned_ids : sequence of int
        Tokens that are never said, such as a tokenizer's padding
        (:attr:`~esr_lobes.clsr.vocabulary.Vocabulary.banned_ids`). They are
        neither chosen nor have a gradient.
    keeps_norms : bool
        Whether ``gradient_norms`` is filled in each backward pass: at the
        ``embeddings``, and of what passes through at the ``logits``.
    is_hard : bool
        Whether to choose. If not, it gives the mixture itself, which is
        CLSR without its VQ.

    Raises
    ------
    ValueError
        If ``takes`` is neither of the two.

    Example
    -------
    >>> vq = VQAdaptor(banned_ids=[0])
    >>> table = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    >>> logits = torch.tensor([[[9.0, 1.0, 2.0], [9.0, 2.0, 1.0]]])
    >>> vq.best(logits).tolist()
    [[2, 1]]
    >>> vq(logits, table).tolist()
    [[[3.0, 4.0], [1.0, 2.0]]]
    """

    def __init__(
        self,
        vq_temperature=0.1,
        takes="logits",
        banned_ids=(),
        keeps_norms=False,
        is_hard=True,
    ):
        super().__init__()
        if takes not in INPUTS:
            raise ValueError(f"takes is one of {INPUTS}, not {takes!r}")
        self.vq_temperature = vq_temperature
        self.takes = takes
        self.keeps_norms = keeps_norms
        self.is_hard = is_hard
        self.gradient_norms = {}
        # They follow from the text encoder: no checkpoint needs them.
        self.register_buffer("banned", torch.empty(0).long(), persistent=False)
        self.ban(banned_ids)

    def extra_repr(self):
        """Returns the settings that change what is learned."""
        return (
            f"vq_temperature={self.vq_temperature}, takes={self.takes}, "
            f"is_hard={self.is_hard}"
        )

    def ban(self, ids):
        """Sets the tokens that are never said.

        Arguments
        ---------
        ids : sequence of int
            In place of those banned so far.
        """
        ids = torch.as_tensor(list(ids), dtype=torch.long)
        self.banned = ids.to(self.banned.device)

    def _allowed(self, scores):
        """Returns scores in which nothing banned can win."""
        return scores.index_fill(-1, self.banned, -math.inf)

    def best(self, logits):
        """Returns the likeliest token of each position.

        Arguments
        ---------
        logits : torch.Tensor
            Shape [..., vocabulary].

        Returns
        -------
        torch.Tensor
            Ids, long, of shape [...]; none of them is banned.
        """
        return self._allowed(logits.detach()).argmax(dim=-1)

    def forward(self, logits, table):
        """Returns the embedding of each position's likeliest token.

        Arguments
        ---------
        logits : torch.Tensor
            Shape [batch, token, vocabulary].
        table : torch.Tensor
            Word embeddings of shape [vocabulary, channel].

        Returns
        -------
        torch.Tensor
            Rows of the table, of shape [batch, token, channel].
        """
        learns = torch.is_grad_enabled() and logits.requires_grad
        if self.is_hard and not learns:
            return table[self.best(logits)]
        # An alias: what reaches the logits by other ways is not counted.
        logits = self._watch(logits.view_as(logits), "logits")
        # Differences are multiplied by ten: half precision would blur them.
        wide = torch.promote_types(logits.dtype, torch.float32)
        scores = self._allowed(logits.to(wide))
        ids = scores.detach().argmax(dim=-1)
        if self.takes == "probabilities":
            scores = self._allowed(scores.softmax(dim=-1))
        p = (scores / self.vq_temperature).softmax(dim=-1)
        if self.is_hard:
            rows = _StraightThroughLookup.apply(p, ids, table)
        else:
            rows = p.to(table.dtype) @ table
        return self._watch(rows, "embeddings")

    def _watch(self, x, name):
        """Returns x; its gradient's norm will be kept, if so asked."""
        if self.keeps_norms and x.requires_grad:

            def keep(gradient):
                # Left where it is: a number would stop a GPU to wait.
                self.gradient_norms[name] = gradient.detach().norm()

            x.register_hook(keep)
        return x
