"""What Spoken-SQuAD's sentences say in SQuAD, instead of what was recognised.

Authors
 * The esr_lobes contributors
"""

import bisect
import re
from collections import defaultdict
from difflib import SequenceMatcher

from esr_lobes.clsr.spoken_qa import read_questions
from esr_lobes.clsr.vocabulary import normalize_text
from esr_lobes.preparation import PreparationError

MOST_WORDS = 3  # between where a sentence was heard to end and where it does
LEAST_RATIO = 0.4  # of a paragraph's words, else it is another
MOST_OTHERS = 0.1  # of the paragraphs
ENDS_SENTENCE = re.compile(r"[.!?][\"'”’)\]]*$")


def read_references(contexts, squad_json):
    """Returns contexts with the words of SQuAD.

    Arguments
    ---------
    contexts : list of Context
        The sentences of one of Spoken-SQuAD's files.
    squad_json : str or Path
        The file of SQuAD 1.1 that it was made of.

    Returns
    -------
    list of Context
        In the same order; ids and articles stay.

    Raises
    ------
    PreparationError
        If SQuAD lacks one of the paragraphs, or more than a tenth have
        other words.
    """
    written = {c.id: c.text for c in read_questions(squad_json)[0]}
    paragraphs = defaultdict(list)
    for context in contexts:
        paragraphs[context.id.rpartition("_")[0]].append(context)
    lacking = sorted(paragraphs.keys() - written.keys())
    if lacking:
        raise PreparationError(
            f"{squad_json} lacks {len(lacking)} of {len(paragraphs)} "
            f"paragraphs, such as {lacking[0]}: train-v1.1.json goes with "
            "spoken_train-v1.1.json, dev-v1.1.json with the tests"
        )
    texts, others = {}, []
    for name, sentences in paragraphs.items():
        heard = [context.text for context in sentences]
        parts, ratio = part_text(heard, written[name])
        texts |= zip([c.id for c in sentences], parts, strict=True)
        if ratio < LEAST_RATIO:
            others.append(name)
    if len(others) > MOST_OTHERS * len(paragraphs):
        raise PreparationError(
            f"{len(others)} of {len(paragraphs)} paragraphs say something else "
            f"in {squad_json}, such as {others[0]}: give the version 1.1 of "
            "SQuAD as released"
        )
    return [context._replace(text=texts[context.id]) for context in contexts]


def part_text(heard, written):
    """Returns a text, parted as its transcript is.

    Where a recognised sentence ends is looked up by the words that both have,
    and moved to an end of a sentence in the text if one is near.

    Arguments
    ---------
    heard : list of str
        Recognised sentences.
    written : str
        The text that was read.

    Returns
    -------
    parts : list of str
        As many as were recognised; one may be empty.
    ratio : float
        Share of the words, heard and written, that both have.

    Example
    -------
    >>> part_text(["denver one.", "a tie."], "Denver won! It was a tie.")
    (['Denver won!', 'It was a tie.'], 0.6)
    """
    words = written.split()
    said = [normalize_text(sentence).split() for sentence in heard]
    flat = [word for sentence in said for word in sentence]
    keys = [normalize_text(word) for word in words]
    matcher = SequenceMatcher(None, flat, keys, autojunk=False)
    opcodes = matcher.get_opcodes()
    ends = [
        place
        for place, word in enumerate(words, start=1)
        if ENDS_SENTENCE.search(word)
    ]
    parts, begin, n_said = [], 0, 0
    for i, sentence in enumerate(said):
        n_said += len(sentence)
        end = len(words)
        if i < len(said) - 1:
            place = _there(opcodes, n_said)
            end = max(begin, _nearest(ends, place))
        parts.append(" ".join(words[begin:end]))
        begin = end
    return parts, matcher.ratio()


def _there(opcodes, place):
    """Returns where a place among the recognised words is in the text."""
    for _, i1, i2, j1, j2 in opcodes:
        if place <= i2 and i2 > i1:
            return j1 + round((place - i1) * (j2 - j1) / (i2 - i1))
    return opcodes[-1][4] if opcodes else 0


def _nearest(ends, place):
    """Returns the end of a sentence that is near a place, or the place."""
    after = bisect.bisect_left(ends, place)
    near = ends[max(after - 1, 0) : after + 1]
    end = min(near, key=lambda end: abs(end - place), default=place)
    return end if abs(end - place) <= MOST_WORDS else place
