"""What is measured of questions to long recordings, and the tables of it.

Authors
 * The esr_lobes contributors
"""

import math
import time

import numpy as np
from long_speech import share_within, words_within

from esr_lobes.answering.scoring import holds_answer
from esr_lobes.reports import markdown_table

CUTOFFS = (1, 3, 5)
KEYS = ("hit", "chance", "true words hit", "answer")
HALF = 0.5


def measure(finder, asked, recordings, retriever):
    """Returns the figures of one way to cut.

    Arguments
    ---------
    finder : PassageFinder
        Of all recordings.
    asked : list of dict
        From :func:`read_asked`.
    recordings : dict
        Path to what is said.
    retriever : EncoderRetriever
        Reads the true words.

    Returns
    -------
    dict
        Percentages (``hit@k``, ``true words hit@k``, ``chance@k``,
        ``answer@k``), counts and seconds.
    """
    finder.find(asked[0]["question"])  # the first one loads
    store = finder.index.store
    segments = {path: store.segments(store.find(path)) for path in recordings}
    truth = {
        path: TrueWords(retriever, own, recordings[path])
        for path, own in segments.items()
    }
    found, true, chances, seconds = [], [], [], []
    for row in asked:
        path, question = row["recording"], row["question"]
        begun = time.perf_counter()
        hits = finder.find(question, max(CUTOFFS), [path])
        seconds.append(time.perf_counter() - begun)
        found.append([hit.segment for hit in hits])
        true.append(truth[path].ranked(question))
        n_right = sum(is_hit(segment, row) for segment in segments[path])
        chances.append((len(segments[path]), n_right))
    lengths = [s.duration for own in segments.values() for s in own]
    figures = {
        "segments": len(lengths),
        "segment_seconds": float(np.median(lengths)),
        "question_ms": 1000 * float(np.median(seconds)),
    }
    for k in CUTOFFS:
        for name, lists in (("hit", found), ("true words hit", true)):
            figures[f"{name}@{k}"] = percent(
                any(is_hit(segment, row) for segment in own[:k])
                for row, own in zip(asked, lists, strict=True)
            )
        figures[f"chance@{k}"] = percent(by_chance(*n, k) for n in chances)
        known = [
            (row, own)
            for row, own in zip(asked, found, strict=True)
            if row["answers"]
        ]
        figures[f"answer@{k}"] = percent(
            any(
                holds_answer(
                    words_within(recordings[s.path], s.start, s.stop),
                    row["answers"],
                )
                for s in own[:k]
            )
            for row, own in known
        )
    return figures


def is_hit(segment, row):
    """Returns whether a segment holds half of the clip that answers."""
    if segment.path != row["recording"]:
        return False
    return share_within(row["clip"], segment.start, segment.stop) >= HALF


def percent(values):
    """Returns the mean of truths or shares in percent; None of nothing."""
    values = list(values)
    return 100.0 * float(np.mean(values)) if values else None


def by_chance(n, n_right, k):
    """Returns how probably k segments of n, drawn, hold a right one.

    Arguments
    ---------
    n, n_right, k : int
        Segments, those that are right, and those drawn.

    Returns
    -------
    float
        From 0 to 1.

    Example
    -------
    >>> by_chance(4, 1, 1), by_chance(4, 2, 3)
    (0.25, 1.0)
    """
    k = min(k, n)
    return 1.0 - math.comb(n - n_right, k) / math.comb(n, k)


class TrueWords:
    """Ranks segments by their true words, as if nothing were misheard.

    Arguments
    ---------
    retriever : EncoderRetriever
        Its text encoder reads words and questions.
    segments : list of Segment
        Of one recording; those without a word are never found.
    spoken : list of dict
        What is said in it.
    """

    def __init__(self, retriever, segments, spoken):
        texts = [words_within(spoken, s.start, s.stop) for s in segments]
        self.segments = [s for s, t in zip(segments, texts, strict=True) if t]
        self.retriever, self.vectors = retriever, None
        if self.segments:
            self.vectors = retriever.encode_text([t for t in texts if t])

    def ranked(self, question):
        """Returns the best segments for a question, best first."""
        if not self.segments:
            return []
        scores = self.vectors @ self.retriever.encode_text(question)[0]
        best = scores.argsort(descending=True)[: max(CUTOFFS)]
        return [self.segments[i] for i in best.tolist()]


def to_markdown(report):
    """Returns the figures as Markdown.

    Arguments
    ---------
    report : dict
        As ``long_recordings.json`` has it.

    Returns
    -------
    str
        A line of settings, and tables.
    """
    about = report["settings"]
    lines = [
        f"{report['questions']} questions in {len(report['minutes'])} "
        f"recordings ({', '.join(f'{m:.1f}' for m in report['minutes'])} "
        f"minutes), set {about['set']}, seed {about['seed']}, retriever "
        f"{about['source']}, {report['threads']} threads on "
        f"{about['device']}.",
        "",
    ]
    header = ["cut by", "segments", "hit at 1 / 3 / 5", "by chance"]
    header += ["by the true words", "answer's words in them"]
    header += ["indexing (s)", "a question (ms)"]
    rows = [
        [name, str(figures["segments"])]
        + [_three(figures, key) for key in KEYS]
        + [_whole(figures["indexing_seconds"]), _whole(figures["question_ms"])]
        for name, figures in report["segments"].items()
    ]
    lines.append(markdown_table(header, rows))
    if report["answers"]:
        header = ["heard", "EM", "F1", "seconds", "seconds heard, mean"]
        rows = [
            [way["way"]]
            + [f"{way[key]:.2f}" for key in ("EM", "F1")]
            + [f"{way[key]:.0f}" for key in ("seconds", "heard")]
            for way in report["answers"]
        ]
        lines += [
            "",
            f"{len(report['answers'][0]['answers'])} of the questions "
            f"answered by {about['answer_with']}, passages of "
            f"{about['segments'][0]}.",
            "",
            markdown_table(header, rows),
        ]
    return "\n".join(lines) + "\n"


def _three(figures, key):
    """Returns the percentages at the cutoffs, as a cell."""
    values = [figures[f"{key}@{k}"] for k in CUTOFFS]
    return " / ".join("-" if x is None else f"{x:.1f}" for x in values)


def _whole(number):
    """Returns a number without its fraction, as a cell."""
    return "-" if number is None else f"{number:.0f}"
