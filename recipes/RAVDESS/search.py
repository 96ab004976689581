"""Asks a retriever for clips of actors it has not heard, in free words.

Indexes the actors' clips, joins what is known of each (actor, sex, emotion,
intensity, statement), asks ten queries and counts how many of the ten best
answers are what was asked for. Run it from the repository root::

    python recipes/RAVDESS/search.py results/RAVDESS/compact/1986/retriever \\
        --data_folder RAVDESS_FOLDER --out index

Authors
 * The esr_lobes contributors
"""

import argparse
import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from ravdess_prepare import prepare_ravdess

from esr_lobes import EncoderRetriever
from esr_lobes.errors import one_line_errors
from esr_lobes.files import write_text
from esr_lobes.manifests import read_manifest
from esr_lobes.reports import markdown_table

COLUMNS = ("actor", "sex", "emotion", "intensity", "statement")
K = 10


@dataclass(frozen=True)
class Question:
    """What is asked, and which clips answer it.

    Arguments
    ---------
    words : str
        As a user would type them.
    relevant : dict
        Column to the values that are right.
    more : dict
        Further arguments of the search.
    """

    words: str
    relevant: dict
    more: dict = field(default_factory=dict)

    def is_answered_by(self, metadata):
        """Whether a clip is what was asked for."""
        return all(metadata[key] in ok for key, ok in self.relevant.items())

    def __str__(self):
        more = ", ".join(f"{k} {v}" for k, v in self.more.items())
        return f'"{self.words}"' + (f" ({more})" if more else "")


QUESTIONS = (
    Question("somebody losing their temper", {"emotion": ["angry"]}),
    Question("scared to death, a trembling voice", {"emotion": ["fearful"]}),
    Question("close to tears, heartbroken", {"emotion": ["sad"]}),
    Question("I can hear that this person smiles", {"emotion": ["happy"]}),
    Question("yuck, how revolting", {"emotion": ["disgust"]}),
    Question("wow, I did not expect that at all", {"emotion": ["surprised"]}),
    Question("a soft voice that soothes you", {"emotion": ["calm"]}),
    Question("reading without any feeling", {"emotion": ["neutral", "calm"]}),
    Question(
        "full of energy",
        {"emotion": ["happy", "surprised"]},
        {"minus": "angry"},
    ),
    Question(
        "a woman in panic",
        {"emotion": ["fearful"], "intensity": ["strong"]},
        {"where": "sex == 'female' and intensity == 'strong'"},
    ),
)


def write_metadata(rows, path):
    """Writes what is known of each clip, as ``esr index --metadata`` takes it.

    Arguments
    ---------
    rows : list of dict
        Of a manifest of RAVDESS.
    path : Path
        The CSV file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", *COLUMNS))
    for row in rows:
        known = {**row, "actor": int(row["speaker"].removeprefix("Actor_"))}
        writer.writerow([row["wav"], *(known[key] for key in COLUMNS)])
    write_text(path, text.getvalue())


def manifest_of(actors, data_folder, folder):
    """Returns the rows of some actors' clips.

    Arguments
    ---------
    actors : list of int
        From 1 to 24.
    data_folder : str
        The corpus.
    folder : Path
        Where the manifest goes.

    Returns
    -------
    list of dict
        As from ``read_manifest``.
    """
    prepare_ravdess(
        data_folder,
        folder,
        valid_actors=[],
        test_actors=actors,
        train_actors=[],
    )
    return read_manifest(folder / "test.csv", data_root=data_folder)


def ask(index, questions=QUESTIONS, k=K):
    """Yields the figures of each question.

    Arguments
    ---------
    index : SearchIndex
        With the columns of :func:`write_metadata`.
    questions : list of Question
        What is asked.
    k : int
        How many answers are looked at.

    Yields
    ------
    question : Question
        The one asked.
    n_right : int
        How many of the answers are right.
    n_answers : int
        How many there are, k at most.
    chance : float
        Share of right ones in what is searched.
    """
    for question in questions:
        hits = index.search(question.words, k=k, **question.more)
        right = [question.is_answered_by(h.segment.metadata) for h in hits]
        where = question.more.get("where")
        everything = index.search(question.words, k=len(index), where=where)
        answers = [
            question.is_answered_by(h.segment.metadata) for h in everything
        ]
        yield question, sum(right), len(right), sum(answers) / len(answers)


@one_line_errors
def main():
    """Builds the index and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("retriever", help="folder of a trained retriever")
    parser.add_argument("--data_folder", required=True, help="RAVDESS")
    parser.add_argument("--out", required=True, help="folder of the index")
    parser.add_argument(
        "--actors", type=int, nargs="+", default=[1, 2, 3, 4], help="(1 2 3 4)"
    )
    parser.add_argument("--cut", default="voice", choices=("voice", "windows"))
    options = parser.parse_args()
    out = Path(options.out)
    rows = manifest_of(
        options.actors, options.data_folder, out.with_name(f"{out.name}-clips")
    )
    metadata = out.with_name(f"{out.name}-metadata.csv")
    write_metadata(rows, metadata)
    retriever = EncoderRetriever.from_hparams(source=options.retriever)
    index = retriever.build_index(
        [row["wav"] for row in rows],
        out,
        metadata=metadata,
        cutting={"kind": options.cut},
    )
    lines = [
        [str(question), f"{n_right} of {n_answers}", f"{chance:.0%}"]
        for question, n_right, n_answers, chance in ask(index)
    ]
    total = sum(int(line[1].split()[0]) for line in lines)
    lines.append(["all", f"{total} of {K * len(lines)}", ""])
    print(
        f"{len(rows)} clips of actors {options.actors}, {len(index)} segments\n"
    )
    print(markdown_table(["query", "right among the top 10", "chance"], lines))


if __name__ == "__main__":
    main()
