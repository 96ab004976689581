"""Words and their errors, by hand.

Authors
 * The esr_lobes contributors
"""

import math

import pytest
from tiny_content_corpora import make_chinese_bert

from esr_lobes.clsr.vocabulary import (
    Vocabulary,
    join_pieces,
    normalize_text,
    word_error_rate,
    word_errors,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("The Broncos won!", "the broncos won"),
        ("didn't", "didn t"),
        ("didn ' t", "didn t"),  # as BERT's pieces come back
        ("$3,000 (C++)", "3 000 c"),
        ("Beyoncé", "beyonce"),
        ("１２", "12"),
        ("北京2008年，NBA！", "北 京 2008 年 nba"),
        ("北 京 2008 年 nba", "北 京 2008 年 nba"),
        ("한국어", "한국어"),
        ("हिन्दी", "हिनदी"),  # vowels that take room stay
        (" \n", ""),
    ],
)
def test_texts_are_compared_by_their_words(text, words):
    assert normalize_text(text) == words
    assert normalize_text(words) == words


def test_pieces_are_joined():
    assert join_pieces(["un", "##bel", "##ie", "##vably", "so"]) == (
        "unbelievably so"
    )
    assert join_pieces([]) == ""


@pytest.mark.parametrize(
    "pieces, text",
    [
        (["梵", "語", "非", "常"], "梵語非常"),
        (["在", "nba", "##s", "打"], "在 nbas 打"),
        (["1786", "年", "2", "月"], "1786 年 2 月"),
        (["梵", "##語"], "梵語"),
        (["𠀀", "語"], "𠀀語"),
    ],
)
def test_chinese_is_written_without_blanks(pieces, text):
    assert join_pieces(pieces) == text


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """The vocabulary of a tiny Chinese BERT."""
    from transformers import AutoTokenizer

    folder = make_chinese_bert(tmp_path_factory.mktemp("chinese"))
    return Vocabulary(AutoTokenizer.from_pretrained(folder))


def test_chinese_is_recognised_by_characters(chinese):
    text = "東京在NBA位於河邊，非常古老。"
    ids = chinese.encode(text)
    assert len(ids) == 14  # 11 characters, nba, and two marks unknown to it
    assert chinese.decode(ids) == "東京在 nba 位於河邊 [UNK] 非常古老 [UNK]"
    # What was written is read as the same tokens.
    said = chinese.decode(ids[:8])
    assert said == "東京在 nba 位於河邊"
    assert chinese.encode(said).tolist() == ids[:8].tolist()
    # One of seven characters is another, one is missing.
    assert word_errors("東京在河邊，古老。", "東京在河橋古") == (2, 7)
    assert word_error_rate(["東京 在河邊"], ["東京在河邊"]) == 0.0


@pytest.mark.parametrize(
    "reference, hypothesis, n_errors, n_words",
    [
        ("one two three", "One, two, three.", 0, 3),
        ("one two three", "one three", 1, 3),
        ("one two three", "one too three four", 2, 3),
        ("one two", "", 2, 2),
        ("", "one", 1, 0),
        ("梵語非常古老", "梵语非常老", 2, 6),
    ],
)
def test_errors_on_paper(reference, hypothesis, n_errors, n_words):
    assert word_errors(reference, hypothesis) == (n_errors, n_words)


def test_the_rate_counts_words_not_sentences():
    # 1 of 2 and 0 of 8.
    references = ["one two", "a b c d e f g h"]
    assert word_error_rate(references, ["one", references[1]]) == 10.0
    assert math.isnan(word_error_rate([""], [""]))
    with pytest.raises(ValueError, match="1 references for 2"):
        word_error_rate(["a"], ["a", "b"])
