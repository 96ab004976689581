"""Exact match and F1: figures worked out by hand.

Authors
 * The esr_lobes contributors
"""

import pytest

from esr_lobes.answering.scoring import (
    exact_match,
    f1,
    holds_answer,
    mean_scores,
    normalised,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("The Cat, a dog and AN owl!", "cat dog and owl"),
        ("  theatre \n an-them ", "theatre anthem"),  # no article in a word
        ("$3.5 (U.S.)", "35 us"),
        ("the", ""),
        ("", ""),
        ("Düsseldorf’s", "düsseldorf’s"),  # only ASCII marks, as in SQuAD
    ],
)
def test_what_does_not_count(text, words):
    assert normalised(text) == words


def test_the_nearest_right_answer_counts():
    answers = ["Denver Broncos", "the Broncos", "Denver, Colorado"]
    assert exact_match("broncos", answers) == 1.0
    assert exact_match("the denver", answers) == 0.0
    # one of one word said, one of two found: 2 * 1 / (1 + 2)
    assert f1("the denver", answers) == pytest.approx(2 / 3)
    # "denver" and "broncos" of four words: 2 * 2 / (4 + 2)
    said = "Denver's team: denver broncos won"  # denvers team denver ...
    assert f1(said, answers) == pytest.approx(2 * 2 / (5 + 2))
    assert f1("panthers", answers) == 0.0


def test_words_count_as_often_as_they_come():
    # shared: "new" once, "york" once; 2 * 2 / (4 + 2)
    assert f1("new new york york", ["New York"]) == pytest.approx(2 / 3)


def test_texts_without_words():
    assert f1("", ["mill"]) == f1("mill", ["the"]) == f1("x", []) == 0.0
    assert f1("the", ["a"]) == exact_match("the", ["a"]) == 1.0
    assert exact_match("mill", []) == 0.0


def test_an_answer_stands_in_one_piece_of_a_text():
    text = "built by the Denver-based Broncos in 1960."
    assert holds_answer(text, ["a 1960"])
    assert holds_answer(text, ["nothing", "Broncos in 1960"])
    assert not holds_answer(text, ["built Broncos"])
    assert not holds_answer(text, ["960", "the", ""])
    assert not holds_answer("", ["mill"]) and not holds_answer(text, [])


def test_means_of_a_set():
    said = ["the mill", "a tower", "x"]
    right = [["mill"], ["old tower"], ["y", "z"]]
    scores = mean_scores(said, right)
    assert scores["EM"] == pytest.approx(100 / 3)
    assert scores["F1"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)
    for wrong in (([], []), (["a"], [])):
        with pytest.raises(ValueError, match="give no figures"):
            mean_scores(*wrong)
