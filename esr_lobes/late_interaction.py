"""Late interaction: each word of a question looks for its like in a passage.

"ColBERT: Efficient and Effective Passage Search via Contextualized Late
Interaction over BERT" (Khattab and Zaharia, 2020,
https://arxiv.org/abs/2004.12832). A text has a vector a token here, not one
for all: what a passage says besides its answer is in nobody's way.

Vectors of tokens are a text encoder's last states, of unit length. ColBERT
trains them for this, and puts markers, masks and ``[CLS]`` among them;
nothing is trained here, so that only states of what was said or written take
part, and ``[CLS]`` and ``[SEP]``, which stand for no word, do not. (With
MiniLM on true words, all states find one to two contexts in a hundred less.)

Authors
 * The esr_lobes contributors
"""

from typing import NamedTuple

import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

LEAST = -1.0  # the lowest cosine: what a passage without words has
MOST_COSINES = 2**24  # held at once: 64 MiB
PASSAGES = 64


class HeardWords(NamedTuple):
    """What a speech side that knows words has heard, all in one pass.

    ``vectors`` [batch, channel] is what its ``forward`` gives, ``states``
    [batch, token, channel] are the text encoder's last states of the words
    (anything behind the end of a row), ``counts`` [batch] how many each clip
    has, ``texts`` the words as text.
    """

    vectors: torch.Tensor
    states: torch.Tensor
    counts: torch.Tensor
    texts: list


def maxsim(
    questions,
    question_counts,
    passages,
    passage_counts,
    most_cosines=MOST_COSINES,
):
    """Returns how well passages answer questions, token by token.

    The mean, over the tokens of a question, of the best cosine with a token
    of the passage. ColBERT takes the sum: the mean ranks passages alike, and
    is comparable between questions of different length.

    Arguments
    ---------
    questions : torch.Tensor
        Vectors of tokens of shape [question, token, channel], of any length;
        anything behind the end of a row.
    question_counts : torch.Tensor
        Tokens of each, long, of shape [question].
    passages : torch.Tensor
        Likewise, [passage, token, channel].
    passage_counts : torch.Tensor
        Likewise, [passage].
    most_cosines : int
        So many are in memory at once; at least those of one token with 64
        passages.

    Returns
    -------
    torch.Tensor
        Scores in [-1, 1], float32 of shape [question, passage]. A passage
        without tokens has -1, and a question without any 0 everywhere.

    Example
    -------
    The first token finds itself, the second one something at 45 degrees:

    >>> question = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    >>> passage = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 9.0]]])
    >>> one, two, three = (torch.tensor([n]) for n in (1, 2, 3))
    >>> round(maxsim(question, two, passage, two).item(), 3)
    0.854
    >>> maxsim(question, two, passage, three).item()
    1.0
    >>> maxsim(question, one, passage, 0 * one).item()
    -1.0
    """
    is_asked = _real(questions, question_counts)
    owners = is_asked.nonzero()[:, 0]
    tokens = normalize(questions[is_asked].float(), dim=-1)
    scores = tokens.new_zeros(len(questions), len(passages))
    if passages.shape[1] == 0:  # nothing to take a maximum of
        passages = passages.new_zeros(len(passages), 1, passages.shape[2])
    is_said = _real(passages, passage_counts)
    n_at_once = max(1, most_cosines // (PASSAGES * passages.shape[1]))
    for first in range(0, len(passages), PASSAGES):
        here = slice(first, first + PASSAGES)
        said = is_said[here]
        vectors = passages[here].float().masked_fill(~said.unsqueeze(-1), 0.0)
        vectors = normalize(vectors, dim=-1).flatten(0, 1)
        for begin in range(0, len(tokens), n_at_once):
            some = slice(begin, begin + n_at_once)
            cosines = (tokens[some] @ vectors.t()).unflatten(1, said.shape)
            best = cosines.masked_fill(~said, LEAST).amax(dim=-1)
            scores[:, here].index_add_(0, owners[some], best)
    return scores / question_counts.to(scores).clamp(min=1).unsqueeze(1)


def _real(rows, counts):
    """Returns which tokens are real, booleans of shape [batch, token]."""
    places = torch.arange(rows.shape[1], device=rows.device)
    return places < counts.to(rows.device).unsqueeze(1)


def unit_tokens(states, counts):
    """Returns the vectors of the tokens of each row, without padding.

    Arguments
    ---------
    states : torch.Tensor
        Of shape [batch, token, channel].
    counts : torch.Tensor
        Tokens of each row, long, of shape [batch].

    Returns
    -------
    list of torch.Tensor
        Unit-length rows, float32 of shape [token, channel] on the CPU.

    Example
    -------
    >>> rows = unit_tokens(torch.full((2, 3, 4), 5.0), torch.tensor([1, 0]))
    >>> [row.tolist() for row in rows]
    [[[0.5, 0.5, 0.5, 0.5]], []]
    """
    rows = zip(states.float().cpu(), counts.tolist(), strict=True)
    return [normalize(row[:n], dim=-1) for row, n in rows]


def score_tokens(questions, passages, device="cpu"):
    """Returns how well passages answer questions, as :func:`maxsim` does.

    Passages are padded a few at a time, so that one long passage does not
    make all others as long.

    Arguments
    ---------
    questions, passages : list of torch.Tensor
        Vectors of tokens of each, of shape [token, channel].
    device : str
        Where to compute.

    Returns
    -------
    torch.Tensor
        Of shape [question, passage], on the CPU.
    """
    asked = _padded(questions, device)
    order = sorted(range(len(passages)), key=lambda i: len(passages[i]))
    scores = torch.empty(len(questions), len(passages))
    for first in range(0, len(order), PASSAGES):
        places = order[first : first + PASSAGES]
        said = _padded([passages[i] for i in places], device)
        scores[:, places] = maxsim(*asked, *said).cpu()
    return scores


def _padded(rows, device):
    """Returns rows of vectors as one tensor, and how many each has."""
    counts = torch.tensor([len(row) for row in rows], device=device)
    return pad_sequence(rows, batch_first=True).to(device), counts
