"""Questions from a small file by hand, and from the real ones.

Authors
 * The esr_lobes contributors
"""

import json

import pytest

from esr_lobes.clsr.spoken_qa import (
    QuestionFileError,
    count_questions,
    one_question_a_context,
    read_questions,
    refuse_same_ids,
    split_sentences,
)
from esr_lobes.errors import MendableError

TEXT = "denver won. the score was 3.5 to one. newton lost."


def qa(name, *answers):
    """A question whose answers are where TEXT has them."""
    found = [{"text": a, "answer_start": TEXT.index(a)} for a in answers]
    return {"id": name, "question": f"{name}?", "answers": found}


@pytest.fixture
def write(tmp_path):
    """A function that writes paragraphs of questions, two articles."""

    def write_file(*qas):
        paragraphs = [{"context": TEXT, "qas": list(each)} for each in qas]
        articles = [{"title": "Empty", "paragraphs": []}]
        articles.append({"title": "Game", "paragraphs": paragraphs})
        path = tmp_path / "questions.json"
        path.write_text(json.dumps({"data": articles}), encoding="utf-8")
        return path

    return write_file


def test_paragraphs_by_hand(write):
    path = write([qa("who", "denver", "newton")], [qa("why", "one")])
    contexts, questions = read_questions(path)
    assert [c.id for c in contexts] == ["1_0", "1_1"]
    assert contexts[0].text == TEXT and contexts[0].article == "Game"
    assert [q.context_id for q in questions] == ["1_0", "1_1"]
    assert questions[0].answers == ("denver", "newton")
    assert questions[0].text == "who?"


def test_a_question_is_about_the_sentence_of_its_first_answer(write):
    path = write(
        [
            qa("a", "denver", "newton"),
            qa("b", "newton", "denver"),
            qa("c", "3.5"),
            qa("d", "the score"),
            qa("e", "denver won. the score"),
        ]
    )
    contexts, questions = read_questions(path, "sentence")
    assert [c.text for c in contexts] == [
        "denver won.",
        "the score was 3.5 to one.",
        "newton lost.",
    ]
    assert [c.id for c in contexts] == ["1_0_0", "1_0_1", "1_0_2"]
    places = [int(q.context_id[-1]) for q in questions]
    assert places == [0, 2, 1, 1, 0]
    kept, asked = one_question_a_context(contexts, questions)
    assert [c.id for c in kept] == [q.context_id for q in asked]
    assert [q.id for q in asked] == ["a", "c", "b"]
    assert count_questions(contexts, questions) == {
        "contexts": 3,
        "questions": 5,
        "asked": 3,
    }


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("", []),
        (" . one", [".", "one"]),
        ("no stop", ["no stop"]),
        ("one.  two", ["one.", "two"]),
        ("why?! so.", ["why?!", "so."]),
        ('he said "no." then.', ['he said "no."', "then."]),
        ("3.5 a.b", ["3.5 a.b"]),
        ("甲。乙！丙", ["甲。", "乙！", "丙"]),
        ("「甲。」乙。", ["「甲。」", "乙。"]),
    ],
)
def test_sentences(text, sentences):
    starts, found = split_sentences(text)
    assert found == sentences
    for start, sentence in zip(starts, found, strict=True):
        assert text[start:].startswith(sentence)


def test_what_has_no_answer_is_left_out(write):
    path = write([qa("a", "denver"), qa("b")])
    contexts, questions = read_questions(path)
    assert [q.id for q in questions] == ["a"]


@pytest.mark.parametrize("unit", ["paragraph", "sentence"])
def test_an_answer_outside_its_paragraph_is_named(write, unit):
    path = write([qa("a", "denver")])
    for wrong in (-1, len(TEXT)):
        data = json.loads(path.read_text())
        broken = data["data"][1]["paragraphs"][0]["qas"][0]
        broken["answers"][0]["answer_start"] = wrong
        path.write_text(json.dumps(data))
        with pytest.raises(QuestionFileError, match="question a begins at"):
            read_questions(path, unit)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"data": [{}]}', '{"data": [1]}', '{"data": 1}']
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(
        MendableError, match=r"other\.json is not in the layout"
    ):
        read_questions(path)


@pytest.mark.parametrize("value", [None, 5, ["a"]])
@pytest.mark.parametrize("key", ["title", "context", "question", "text"])
def test_what_is_no_text_is_refused(write, key, value):
    path = write([qa("a", "denver")])
    data = json.loads(path.read_text())
    article = data["data"][1]
    paragraph = article["paragraphs"][0]
    asked = paragraph["qas"][0]
    for place in (article, paragraph, asked, asked["answers"][0]):
        if key in place:
            place[key] = value
    path.write_text(json.dumps(data))
    if (key, value) == ("title", None):  # then it has none
        assert read_questions(path)[0][0].article == "1"
        return
    with pytest.raises(QuestionFileError, match="not in the layout.*no text"):
        read_questions(path)


def test_ids_are_not_blank_and_come_once(write):
    path = write([qa("a", "denver"), qa("b", "one"), qa("a", "newton")])
    with pytest.raises(QuestionFileError, match="1 ids .* such as 'a'"):
        refuse_same_ids(path, read_questions(path)[1])
    refuse_same_ids(path, read_questions(path)[1][:2])
    path = write([qa(" ", "denver")])
    with pytest.raises(QuestionFileError, match="not in the layout"):
        read_questions(path)


def test_units_are_checked(write):
    with pytest.raises(ValueError, match="paragraph"):
        read_questions(write(), "word")


# Real files: sizes as published


@pytest.mark.parametrize(
    "name, unit, n_contexts, n_questions, n_asked",
    [
        # 3,884 pairs is what CLSR's Spoken-SQuAD* has.
        ("spoken_squad/spoken_test-v1.1", "sentence", 10578, 5351, 3884),
        ("spoken_squad/spoken_test-v1.1", "paragraph", 2067, 5351, 1896),
        ("drcd/DRCD_dev", "sentence", 9989, 3524, 3332),
        ("drcd/DRCD_dev", "paragraph", 1000, 3524, 1000),
    ],
)
def test_real_sizes(real_file, name, unit, n_contexts, n_questions, n_asked):
    contexts, questions = read_questions(real_file(f"{name}.json"), unit)
    assert count_questions(contexts, questions) == {
        "contexts": n_contexts,
        "questions": n_questions,
        "asked": n_asked,
    }
    kept, asked = one_question_a_context(contexts, questions)
    assert len(kept) == len(asked) == len({c.id for c in kept}) == n_asked
    texts = {context.id: context.text for context in contexts}
    for question in questions:
        assert question.answers[0] in texts[question.context_id]
