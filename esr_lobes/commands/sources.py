"""Where the retrievers of an index are, as written on the command line.

Authors
 * The esr_lobes contributors
"""

import os

from esr_lobes.errors import MendableError


def read_sources(words):
    """Returns where the retrievers are: one, or of each space one.

    Arguments
    ---------
    words : list of str or None
        One folder or hub id, or such with the name of its space before.

    Returns
    -------
    str or dict or None
        What :func:`esr_lobes.searching.open_index` takes as sources.

    Raises
    ------
    MendableError
        If of several one has no name, or a name stands twice.

    Example
    -------
    >>> read_sources(["style=how", "content=what"])
    {'style': 'how', 'content': 'what'}
    >>> read_sources(["how"]), read_sources(None)
    ('how', None)
    """
    if not words:
        return None
    if len(words) == 1 and not _is_named(words[0]):
        return words[0]
    sources = {}
    for word in words:
        space, _, source = word.partition("=")
        if not _is_named(word) or space in sources:
            raise MendableError(
                f"--source {' '.join(words)}: give one retriever, or each "
                "with the name of its space once: style=R content=R2"
            )
        sources[space] = source
    return sources


def _is_named(word):
    """Whether it is space=retriever, and no folder with = in its name."""
    space, _, source = word.partition("=")
    return bool(source and space.isidentifier()) and not os.path.exists(word)
