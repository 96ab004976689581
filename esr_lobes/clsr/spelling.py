"""Word pieces as their spelling, for a recogniser to begin with.

Authors
 * The esr_lobes contributors
"""

import hashlib
from collections import Counter

import numpy as np
import torch

LONGEST = 3  # letters that count together


def spelling_of(token):
    """Returns what a word piece is spelled with, and how often.

    Arguments
    ---------
    token : str
        Of WordPiece, ``##`` in front where it goes on a word.

    Returns
    -------
    Counter
        Runs of one to three letters, the first of a word marked; and each
        letter with its place, from the front and from the back.

    Example
    -------
    >>> sorted(spelling_of("##as"))
    ['-1:s', '-2:a', '0:a', '1:s', 'a', 'as', 'as$', 's', 's$']
    """
    goes_on = token.startswith("##") and len(token) > 2
    letters = token[2:] if goes_on else token
    marked = ("" if goes_on else "^") + letters + "$"
    runs = [
        marked[i : i + n]
        for n in range(1, LONGEST + 1)
        for i in range(len(marked) - n + 1)
    ]
    places = [f"{i}:{c}" for i, c in enumerate(letters)]
    places += [f"{i - len(letters)}:{c}" for i, c in enumerate(letters)]
    return Counter(run for run in runs if run not in "^$") + Counter(places)


def spelled_rows(tokens, width, scale=1.0):
    """Returns a vector a word piece, alike for what is spelled alike.

    As the first weights of an output layer they let a recogniser that has
    heard few words learn from each something of all that are spelled like
    it; drawn at random, the rows of rare words would be learned from their
    few examples alone. Each part of a spelling has a fixed random direction,
    and a row is their sum.

    Arguments
    ---------
    tokens : list of str
        Word pieces.
    width : int
        Channels.
    scale : float
        Norm of each row.

    Returns
    -------
    torch.Tensor
        Float32 of shape [token, width]; nothing in it depends on a seed.

    Example
    -------
    >>> rows = spelled_rows(["nation", "##nation", "nations", "fox"], 256)
    >>> cosines = rows @ rows[0]
    >>> [round(c) for c in cosines[[0, 3]].tolist()]
    [1, 0]
    >>> bool(min(cosines[1], cosines[2]) > 0.4)
    True
    """
    rows = np.zeros((len(tokens), width))
    directions = {}
    for row, token in zip(rows, tokens, strict=True):
        for part, count in spelling_of(token).items():
            if part not in directions:
                directions[part] = _direction(part, width)
            row += count * directions[part]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows *= scale / norms.clip(min=np.finfo(float).tiny)
    return torch.from_numpy(rows).float()


def _direction(part, width):
    """Returns a vector that depends on the text of a part alone."""
    digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    return np.random.default_rng(seed).standard_normal(width)
