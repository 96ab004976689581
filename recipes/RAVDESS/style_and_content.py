"""Asks for clips by how they are spoken and what they say, in one query.

RAVDESS has eight styles and two sentences, sixteen combinations. Indexes the
clips of actors that the style retriever has not heard with two vectors each,
style and content; asks for every combination in words; and compares style
alone, content alone and both. A clip is right if style and sentence are. Run
it from the repository root::

    python recipes/RAVDESS/style_and_content.py RETRIEVER \\
        --data_folder RAVDESS_FOLDER --out results/RAVDESS/style_and_content

Without ``--content`` the words come from PocketSphinx and are read by the
packaged sentence encoder (extras ``pocketsphinx`` and ``minilm``), and nothing
is downloaded. The index is in ``OUT/index``, for ``esr search OUT/index
--style "..." --content "..."``.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
from math import comb
from pathlib import Path

import numpy as np
from ravdess_prepare import STATEMENTS, STYLES
from search import manifest_of, write_metadata

from esr_lobes.cascading import MAX_TOKENS, open_recogniser, write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import one_line_errors
from esr_lobes.export import PAGE
from esr_lobes.index.fusion import reciprocal_ranks, weighted_scores
from esr_lobes.indexing.build import build_index
from esr_lobes.metrics import (
    chance_metrics,
    ranking_metrics,
    relevant_positions,
)
from esr_lobes.prompts import PromptBank
from esr_lobes.reports import markdown_table
from esr_lobes.searching import open_index

KIDS, DOGS = STATEMENTS.values()
# What is asked for each sentence: itself, and something that means the same.
WORDINGS = {
    "the sentence itself": {statement: statement for statement in (KIDS, DOGS)},
    "other words": {
        KIDS: "children having a chat near the entrance",
        DOGS: "puppies resting in front of the house",
    },
}
FUSIONS = ("rank", "score")
WAYS = (
    "chance",
    "style alone",
    "content alone",
    "both, by rank",
    "both, by calibrated score",
    "content alone, all words right",
    "both, by rank, all words right",
    "both, by calibrated score, all words right",
)
FIGURES = ("R@1", "R@10", "P@10", "mAP")
SEED = 1986
N_ORDERS = 100  # of clips that score alike


def figures(scores, is_right, rng):
    """Returns the figures of one query.

    Clips of which the same words were recognised have equal scores. Against
    the truth, as elsewhere, content alone would be far below chance, so the
    order of equal scores is drawn, many times.

    Arguments
    ---------
    scores : array
        Of each clip, of shape [clip]; minus infinity for one not found.
    is_right : array
        Booleans of shape [clip].
    rng : numpy.random.Generator
        What draws.

    Returns
    -------
    list of float
        ``FIGURES``; R@k is 1 if any of the k best clips is right.

    Example
    -------
    >>> scores, is_right = np.array([0.9, 0.5, 0.1]), np.array([0, 1, 0])
    >>> found = figures(scores, is_right, np.random.default_rng(0))
    >>> [round(figure, 3) for figure in found]
    [0.0, 1.0, 0.1, 0.5]
    """
    chance = rng.random((N_ORDERS, len(scores)))
    order = np.lexsort((chance, np.broadcast_to(scores, chance.shape)))
    positions = relevant_positions(np.argsort(order), is_right)
    found = ranking_metrics(positions)
    return [
        *(float((positions[:, 0] <= k).mean()) for k in (1, 10)),
        float(found["P@10"].mean()),
        float(found["AP"].mean()),
    ]


def chance_figures(n_right, n_clips):
    """Returns the figures expected of a random order.

    Arguments
    ---------
    n_right : int
        Right clips.
    n_clips : int
        All clips.

    Returns
    -------
    list of float
        ``FIGURES``.

    Example
    -------
    >>> chance_figures(1, 2)
    [0.5, 1.0, 0.1, 0.75]
    """
    found = chance_metrics(n_right, n_clips)
    hits = []
    for k in (1, 10):
        k = min(k, n_clips)
        hits.append(1 - comb(n_clips - n_right, k) / comb(n_clips, k))
    return [*hits, found["P@10"], found["AP"]]


def scores_of(index, places, **asked):
    """Returns the score of each clip, that of its best segment.

    Arguments
    ---------
    index : SearchIndex
        Of the clips.
    places : dict
        Path of a clip to its place in what is returned.
    **asked : dict
        For the search.

    Returns
    -------
    array
        Of shape [clip]; minus infinity where nothing of a clip is indexed.
    """
    scores = np.full(len(places), -np.inf)
    for hit in index.search(k=len(index), per_file=1, **asked):
        scores[places[hit.segment.path]] = hit.score
    return scores


def fused(style, content, fusion):
    """Returns scores of style and content as one, as the index fuses them.

    Arguments
    ---------
    style, content : array
        Of each clip, of shape [clip]; style has minus infinity for one that
        is not indexed.
    fusion : str
        ``rank`` or ``score``.

    Returns
    -------
    array
        Of shape [clip].
    """
    is_found = np.isfinite(style)
    both = np.stack([style[is_found], content[is_found]])
    if fusion == "score":
        spread = both.std(axis=1, keepdims=True)
        both = both - both.mean(axis=1, keepdims=True)
        both /= np.where(spread > 0, spread, 1.0)
    method = {"rank": reciprocal_ranks, "score": weighted_scores}[fusion]
    scores = np.full(len(style), -np.inf)
    scores[is_found] = method(both, [1, 1])
    return scores


def measure(index, rows, wording, bank):
    """Returns the mean figures of each way to ask.

    Arguments
    ---------
    index : SearchIndex
        With the spaces style and content.
    rows : list of dict
        The clips, of a manifest of RAVDESS.
    wording : dict
        Statement to the words that ask for it.
    bank : PromptBank
        Descriptions of styles. Each is asked by itself; all of a style count
        as much as all of another.

    Returns
    -------
    dict
        From ``WAYS`` to ``FIGURES``.
    """
    places = {os.path.abspath(row["wav"]): i for i, row in enumerate(rows)}
    styles = np.array([row["style"] for row in rows])
    said = np.array([row["statement"] for row in rows])
    encode = index.encoders["content"].encode_text
    sentences = encode(list(wording))
    by_style = {
        style: [
            (text, scores_of(index, places, style=text))
            for text in bank.prompts(style)
        ]
        for style in STYLES.values()
    }
    found, rng = [], np.random.default_rng(SEED)
    for statement, words in wording.items():
        content = scores_of(index, places, content=words)
        # As if every word had been recognised.
        similar = (sentences @ encode(words)[0]).tolist()
        ideal = np.array([similar[list(wording).index(text)] for text in said])
        for style, prompts in by_style.items():
            is_right = (styles == style) & (said == statement)
            if not is_right.any():
                continue
            of_prompts = []
            for text, scores in prompts:
                asked = {"style": text, "content": words}
                by_rank, by_score = (
                    scores_of(index, places, fusion=fusion, **asked)
                    for fusion in FUSIONS
                )
                ways = (scores, content, by_rank, by_score, ideal)
                ways += tuple(fused(scores, ideal, f) for f in FUSIONS)
                of_prompts.append([figures(way, is_right, rng) for way in ways])
            chance = chance_figures(int(is_right.sum()), len(rows))
            found.append([chance, *np.mean(of_prompts, axis=0)])
    return dict(zip(WAYS, np.mean(found, axis=0).tolist(), strict=True))


@one_line_errors
def main():
    """Builds the index and prints a table for each wording."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("retriever", help="folder of a trained retriever")
    parser.add_argument("--data_folder", required=True, help="RAVDESS")
    parser.add_argument("--out", required=True, help="folder for all of it")
    parser.add_argument(
        "--content",
        help="retriever of what is said, such as esr cascade makes "
        "(PocketSphinx and the packaged sentence encoder)",
    )
    parser.add_argument(
        "--actors", type=int, nargs="+", default=[1, 2, 3, 4], help="(1 2 3 4)"
    )
    parser.add_argument("--cut", default="voice", choices=("voice", "windows"))
    parser.add_argument("--bank", default="held_out", help="(held_out)")
    parser.add_argument("--workers", type=int, help="(one a core)")
    options = parser.parse_args()
    out = Path(options.out)
    content = options.content
    if content is None:
        content = str(out / "cascade")
        if not (out / "cascade" / PAGE).is_file():
            recogniser = open_recogniser("pocketsphinx")
            text = TextEncoder("minilm", max_tokens=MAX_TOKENS)
            write_cascade(content, recogniser, text)
    rows = manifest_of(options.actors, options.data_folder, out / "clips")
    write_metadata(rows, out / "metadata.csv")
    build_index(
        [row["wav"] for row in rows],
        out / "index",
        {"style": options.retriever, "content": content},
        metadata=out / "metadata.csv",
        cutting={"kind": options.cut},
        n_workers=options.workers,
    )
    bank = PromptBank.load(options.bank)
    with open_index(out / "index") as index:
        print(
            f"{len(rows)} clips of actors {options.actors}, {len(index)} "
            "segments\n"
        )
        for name, wording in WORDINGS.items():
            found = measure(index, rows, wording, bank)
            lines = [[way, *(f"{x:.3f}" for x in found[way])] for way in WAYS]
            print(f"Content asked in: {name}\n")
            print(markdown_table(["asked by", *FIGURES], lines))
            print()


if __name__ == "__main__":
    main()
