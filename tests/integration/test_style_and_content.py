"""Style and content of RAVDESS in one query: the figures and the table.

Authors
 * The esr_lobes contributors
"""

import os
import re
import sys

import numpy as np
import pytest
import torch
from conftest import load_recipe
from tiny_corpora import RAVDESS_LABELS, write_tone
from tiny_recognisers import make_tiny_ctc

from esr_lobes import cli
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascading import write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.index.segments import Hit, Segment
from esr_lobes.prompts import PromptBank

STATEMENTS = "Kids are talking by the door", "Dogs are sitting by the door"


@pytest.fixture(scope="module")
def recipe():
    """The script, as a module."""
    return load_recipe("RAVDESS/style_and_content.py")


class Listening:
    """An index of two actors that knows all; content with a flaw.

    A clip is as near to a style as its style is, 1 or 0, and likewise to a
    sentence; the first clip is taken for the other sentence.
    """

    def __init__(self, rows):
        self.rows = rows
        self.encoders = {"content": self}

    def __len__(self):
        return len(self.rows)

    def encode_text(self, texts):
        """Returns [1, 0] for kids and [0, 1] for dogs."""
        texts = [texts] if isinstance(texts, str) else texts
        is_dogs = torch.tensor(["dogs" in text.lower() for text in texts])
        return torch.stack([~is_dogs, is_dogs], dim=1).float()

    def search(self, k, per_file, style=None, content=None, fusion="rank"):
        """Returns all clips; both together have the sum of both scores."""
        assert k == len(self.rows) and per_file == 1
        hits = []
        for i, row in enumerate(self.rows):
            score = 0.0
            if style is not None:
                score += row["style"] == style
            if content is not None:
                is_same = row["statement"].lower() == content.lower()
                score += is_same != (i == 0)
            segment = Segment(os.path.abspath(row["wav"]), 0.0, 1.0)
            hits.append(Hit(segment, score, i, None, None))
        return sorted(hits, key=lambda hit: -hit.score)


def by_places(*queries):
    """Returns the figures of queries whose one right clip is in some places.

    Each is a list of places that are equally likely.
    """
    rows = []
    for places in map(np.array, queries):
        in_ten = np.mean(places <= 10)
        ones, inverse = np.mean(places == 1), np.mean(1 / places)
        rows.append([ones, in_ten, in_ten / 10, inverse])
    return np.mean(rows, axis=0)


def test_the_figures_are_those_worked_out_by_hand(recipe):
    styles = list(recipe.STYLES.values())
    rows = [
        {"wav": f"{style}-{i}.wav", "style": style, "statement": statement}
        for style in styles
        for i, statement in enumerate(STATEMENTS)
    ]
    bank = PromptBank(["{}"], {style: [style] for style in styles})
    wording = {statement: statement for statement in STATEMENTS}
    found = recipe.measure(Listening(rows), rows, wording, bank)

    def up_to(*lasts):
        """Returns the places from 1 to each of these."""
        return [range(1, last + 1) for last in lasts]

    wanted = {
        "chance": up_to(16),
        "style alone": up_to(2),  # both sentences tie
        # Kids: seven tie, or it is the first clip, which comes after them
        # with the dogs. Dogs: the first clip ties with the eight of them.
        "content alone": [range(8, 17), *up_to(*7 * [7], *8 * [9])],
        # The first clip has its style alone, as the dogs of its style have,
        # and seven other kids their words alone. Those dogs tie with it.
        "both, by rank": [range(1, 10), *up_to(2, *14 * [1])],
        "content alone, all words right": up_to(8),
        "both, by rank, all words right": up_to(1),
    }
    for way in "both, by rank", "both, by rank, all words right":
        wanted[way.replace("rank", "calibrated score")] = wanted[way]
    for way in recipe.WAYS:
        expected = by_places(*wanted[way])
        assert found[way] == pytest.approx(expected, abs=0.05), way
    exact = "both, by rank, all words right"
    assert found[exact] == pytest.approx(by_places([1]))


def test_chance_is_what_random_orders_give(recipe):
    rng = np.random.default_rng(0)
    is_right = np.arange(30) < 4
    drawn = [
        recipe.figures(scores, is_right, rng)
        for scores in (*rng.random((2000, 30)), *np.zeros((20, 30)))
    ]
    wanted = recipe.chance_figures(4, 30)
    assert np.mean(drawn, axis=0) == pytest.approx(wanted, abs=0.03)


def test_a_clip_that_was_not_indexed_is_found_last(recipe):
    scores = np.array([-np.inf, 0.1, 0.5])
    assert recipe.figures(
        scores, np.array([1, 0, 0]), np.random.default_rng(0)
    )[3] == pytest.approx(1 / 3)
    both = recipe.fused(scores, np.array([0.9, 0.1, 0.2]), "score")
    assert both.argmin() == 0 and both.argmax() == 2


def test_the_recipe_runs(
    recipe,
    tiny_retriever,
    tiny_text_backbone,
    tmp_path,
    monkeypatch,
    capsys,
):
    for actor in 1, 2:
        for emotion, label in enumerate(RAVDESS_LABELS, start=1):
            for statement in 1, 2:
                name = f"03-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}"
                write_tone(
                    tmp_path / f"RAVDESS/Actor_{actor:02d}/{name}.wav", label
                )
    cascade, out = tmp_path / "cascade", tmp_path / "out"
    write_cascade(
        cascade,
        HuggingFaceRecogniser(make_tiny_ctc(tmp_path / "ctc")),
        TextEncoder(tiny_text_backbone),
    )
    argv = f"x {tiny_retriever} --data_folder {tmp_path}/RAVDESS --out {out} "
    argv += f"--content {cascade} --actors 1 2 --cut windows --workers 1"
    monkeypatch.setattr(sys, "argv", argv.split())
    monkeypatch.setattr(PromptBank, "prompts", lambda bank, style: ["sad"])
    recipe.main()
    shown = capsys.readouterr().out
    assert "32 clips of actors [1, 2], 32 segments" in shown
    for way in recipe.WAYS:
        rows = re.findall(rf"(?m)^\| {way} +\|(.*)\|$", shown)
        assert len(rows) == len(recipe.WORDINGS) == 2
        figures = [float(cell) for row in rows for cell in row.split("|")]
        assert len(figures) == 8 and all(0 <= x <= 1 for x in figures)
    # The same from the command line, on the index that was left.
    cli.main(
        f"search {out}/index --style sad --content door -k 3".split()
        + ["--where", "statement == 'Dogs are sitting by the door'"]
    )
    shown = capsys.readouterr().out
    assert len(re.findall(r"-02-01-0[12]\.wav", shown)) == 3
