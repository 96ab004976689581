"""How good a content retriever is, on contexts it has never heard.

Authors
 * The esr_lobes contributors
"""

import json
import time
from pathlib import Path

import torch

from esr_lobes.clsr.vocabulary import word_error_rate
from esr_lobes.content_metrics import content_recalls, pair_recalls
from esr_lobes.datasets import ClipReader
from esr_lobes.files import write_text

SYSTEM, CASCADE, BOUND = "system", "cascade", "text (upper bound)"


class ContentReport:
    """Figures of systems on one test set, as JSON and as tables.

    Arguments
    ---------
    settings : dict
        What was judged: numbers of clips, contexts and questions.
    systems : dict
        Figures by name, of each system by its name, judged by context.
    by_pair : dict
        The same by pairs of question and context.

    Example
    -------
    >>> figures = {"Q-C R@1": 50.0, "WER": 12.345}
    >>> print(ContentReport({"clips": 2}, {"mine": figures}, {}))
    | | Q-C R@1 | WER |
    |---|---|---|
    | mine | 50.00 | 12.35 |
    <BLANKLINE>
    clips: 2
    """

    def __init__(self, settings, systems, by_pair):
        self.settings = settings
        self.systems = systems
        self.by_pair = by_pair

    def __str__(self):
        """Returns tables in Markdown, and below them what was judged."""
        parts = [_table(self.systems)]
        if self.by_pair:
            # Else each context has one question, and the two agree.
            parts.append("A context as often as it is asked about:")
            parts.append(_table(self.by_pair))
        said = [f"{key}: {n}" for key, n in self.settings.items()]
        return "\n\n".join([*parts, ", ".join(said)])

    def to_json(self):
        """Returns settings and figures as text."""
        numbers = {
            "settings": self.settings,
            "systems": self.systems,
            "by_pair": self.by_pair,
        }
        return json.dumps(numbers, indent=2) + "\n"

    def save(self, folder):
        """Writes ``content.json`` and ``content.md``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        write_text(Path(folder) / "content.json", self.to_json())
        write_text(Path(folder) / "content.md", f"{self}\n")


def _table(systems):
    """Returns a table in Markdown, a system a row."""
    names = dict.fromkeys(n for figures in systems.values() for n in figures)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system, figures in systems.items():
        cells = [
            f"{figures[name]:.2f}" if name in figures else "" for name in names
        ]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def hear_clips(retriever, clips, batch_size=16):
    """Returns a vector a clip and, if the retriever writes, its words.

    Arguments
    ---------
    retriever : EncoderRetriever
        Of content.
    clips : list of dict
        Rows of a manifest.
    batch_size : int
        Most clips a pass; those of like length go together.

    Returns
    -------
    vectors : torch.Tensor
        Unit rows of shape [clip, embedding], in the order of the clips.
    texts : list of str or None
        What was recognised.
    seconds : float
        What the vectors took, reading the files not counted.
    """
    reader = ClipReader()
    transcribe = getattr(retriever.mods.speech_encoder, "transcribe", None)
    order = sorted(range(len(clips)), key=lambda i: clips[i]["duration"])
    vectors, texts, seconds = [None] * len(clips), [None] * len(clips), 0.0
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        waves = [
            reader(
                *(clips[i][key] for key in ("wav", "start", "stop", "channel"))
            )
            for i in places
        ]
        started = time.perf_counter()
        rows = retriever.encode_batch(waves).cpu()
        seconds += time.perf_counter() - started
        said = [None] * len(places)
        if transcribe is not None:
            lengths = torch.tensor([len(wave) for wave in waves])
            wavs = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
            said = transcribe(
                wavs.to(retriever.device),
                (lengths / wavs.shape[1]).to(retriever.device),
            )
        for i, row, text in zip(places, rows, said, strict=True):
            vectors[i], texts[i] = row, text
    texts = None if transcribe is None else texts
    return torch.stack(vectors), texts, seconds


def evaluate_content(retriever, clips, questions, name=SYSTEM):
    """Returns how well questions and contexts find each other.

    Beside the retriever stand its own text tower on the words that it
    recognised, as a cascade reads them, and on the true words.

    Arguments
    ---------
    retriever : EncoderRetriever
        Of content.
    clips : list of dict
        Rows of a manifest, from
        :func:`esr_lobes.content_manifests.read_content`.
    questions : list of dict
        Likewise.
    name : str
        What the retriever is called.

    Returns
    -------
    ContentReport
        Percentages: recalls and word error rate. By pair only where contexts
        do not have one question each.
    """
    asked = [row["context_id"] for row in questions]
    contexts = [clip["context_id"] for clip in clips]
    queries = retriever.encode_text([row["question"] for row in questions])
    vectors, texts, seconds = hear_clips(retriever, clips)
    found = {name: vectors}
    references = [clip["transcript"] for clip in clips]
    if texts is not None:
        # What is silent to the recogniser has no words to be read.
        found[CASCADE] = retriever.encode_text([text or "." for text in texts])
    found[BOUND] = retriever.encode_text(references)
    systems, by_pair = {}, {}
    is_shared = len(set(asked)) < len(asked) or len(set(contexts)) > len(asked)
    for system, rows in found.items():
        scores = queries.cpu() @ rows.cpu().t()
        systems[system] = content_recalls(scores, asked, contexts)
        if is_shared:
            by_pair[system] = pair_recalls(scores, asked, contexts)
        if system != BOUND and texts is not None:
            systems[system]["WER"] = word_error_rate(references, texts)
    heard = sum(clip["duration"] for clip in clips)
    settings = {
        "clips": len(clips),
        "contexts": len(set(contexts)),
        "questions": len(questions),
        "seconds of speech": round(heard, 1),
        "seconds of encoding": round(seconds, 2),
    }
    return ContentReport(settings, systems, by_pair)
