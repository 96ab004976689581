"""Passages, handed on: to people as lines, to programs as JSON, to models as
waveforms.

Clips are cut to files by :func:`esr_lobes.highlights.cut_clips`.

Authors
 * The esr_lobes contributors
"""

import json
import time
from typing import NamedTuple

from esr_lobes import audio
from esr_lobes.highlights import as_dict


class Answer(NamedTuple):
    """A question, the passages found for it, and what a model made of them.

    ``text`` is None where no model was asked; ``seconds`` are those that it
    took.
    """

    question: str
    hits: list
    text: str | None = None
    seconds: float | None = None


def read_clips(hits):
    """Returns passages as waveforms, as an answerer takes them.

    Arguments
    ---------
    hits : list of Hit
        Best first.

    Returns
    -------
    list of torch.Tensor
        At 16 kHz, float32 of shape [time], in the same order.

    Raises
    ------
    AudioError
        If a recording is gone or cannot be read.
    """
    segments = [hit.segment for hit in hits]
    return [audio.read(s.path, s.start, s.stop, s.channel) for s in segments]


def ask(finder, question, k=5, answerer=None, n_clips=1, recordings=None):
    """Returns the passages for a question, and a model's answer to it.

    Arguments
    ---------
    finder : PassageFinder
        Finds the passages.
    question : str
        In words.
    k : int
        Passages at most.
    answerer : callable, optional
        ``answerer(question, clips)`` returns a text, see
        :mod:`esr_lobes.answering`.
    n_clips : int
        So many of the best passages it hears; one, as in CLSR's paper.
    recordings : str or list of str, optional
        Only these are looked at.

    Returns
    -------
    Answer
        With the hits, best first.

    Example
    -------
    Any function answers::

        def longest(question, clips):
            return f"{max(map(len, clips)) / 16000:.1f} s"

        ask(finder, "who built the mill?", answerer=longest).text
    """
    hits = finder.find(question, k, recordings)
    if answerer is None or not hits:
        return Answer(question, hits)
    begun = time.perf_counter()
    text = answerer(question, read_clips(hits[:n_clips]))
    return Answer(question, hits, text, time.perf_counter() - begun)


def hms(seconds):
    """Returns a time as hours, minutes and seconds.

    Arguments
    ---------
    seconds : float
        From the beginning.

    Returns
    -------
    str
        Whole seconds.

    Example
    -------
    >>> hms(4.2), hms(59.7), hms(3725.0)
    ('0:00:04', '0:01:00', '1:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def answer_lines(answer):
    """Returns a question with its passages, for the terminal.

    Arguments
    ---------
    answer : Answer
        From :func:`ask`.

    Returns
    -------
    str
        Lines: the question, a model's answer if there is one, a passage
        each.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> hits = [Hit(Segment("/talk.flac", 760.0, 800.0), 0.4321, 0)]
    >>> print(answer_lines(Answer("Who built it?", hits, "monks", 1.5)))
    Who built it?
      answer: monks
      1  0.432  0:12:40-0:13:20  /talk.flac
    """
    lines = [_shown(" ".join(answer.question.split()))]
    if answer.text is not None:
        lines.append(f"  answer: {_shown(' '.join(answer.text.split()))}")
    for hit in answer.hits:
        segment = hit.segment
        times = f"{hms(segment.start)}-{hms(segment.stop)}"
        channel = "" if segment.channel is None else f"  ch {segment.channel}"
        path = _shown(segment.path)
        lines.append(
            f"{hit.rank + 1:3d}  {hit.score:.3f}  {times}  {path}{channel}"
        )
    return "\n".join(lines)


def _shown(text):
    """Returns a text that a terminal takes for no command."""
    return "".join(c if c.isprintable() else "?" for c in text)


def answers_json(answers):
    """Returns questions, passages and answers as JSON.

    Arguments
    ---------
    answers : list of Answer
        From :func:`ask`.

    Returns
    -------
    str
        A list of objects with ``question``, ``answer``, ``seconds`` and
        ``passages``, which are those of
        :func:`esr_lobes.highlights.as_dict`.

    Example
    -------
    >>> print(answers_json([Answer("Who?", [])]))
    [
      {
        "question": "Who?",
        "answer": null,
        "seconds": null,
        "passages": []
      }
    ]
    """
    rows = [
        {
            "question": answer.question,
            "answer": answer.text,
            "seconds": answer.seconds,
            "passages": [as_dict(hit) for hit in answer.hits],
        }
        for answer in answers
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)
