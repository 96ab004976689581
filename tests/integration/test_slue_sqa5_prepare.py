"""SLUE-SQA-5: the release's layout with spoken questions, and damaged ones.

Authors
 * The esr_lobes contributors
"""

import logging
import shutil
from pathlib import Path

import pytest
from conftest import load_recipe
from tiny_content_corpora import write_slue_sqa5

from esr_lobes.clsr.spoken_qa import QuestionFileError
from esr_lobes.content_manifests import read_content
from esr_lobes.preparation import PreparationError, read_skips

recipe = load_recipe("SLUE-SQA-5/slue_sqa5_prepare.py")
SPLITS = ("train", "valid", "test", "test_verified")


@pytest.fixture
def corpus(tmp_path):
    """Four splits of four documents and eight questions."""
    return write_slue_sqa5(tmp_path / "slue-sqa5")


def prepare(corpus, save, splits=SPLITS, **more):
    recipe.prepare_slue_sqa5(corpus, save, progress=False, **more)
    return {split: read_content(save, split, corpus) for split in splits}


def test_layout_of_the_release(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path)
    for clips, questions in splits.values():
        assert len(clips) == 4 and len(questions) == 8
    assert read_skips(tmp_path / "skipped.csv") == []
    clips, questions = splits["test"]
    assert clips[0]["ID"] == clips[0]["context_id"] == "test_Town_0"
    assert clips[0]["wav"] == str(corpus / "test" / "document" / "Town_0.wav")
    assert clips[0]["transcript"] == "in the test the town 0 has a mill"
    assert questions[0] == {
        "ID": "trivia-0",
        "question": "what has the town 0 for the 0 th time",
        "context_id": "test_Town_0",
        "duration": 1.0,
        "wav": str(corpus / "test" / "question" / "trivia-0.wav"),
        "start": 0.0,
        "stop": 1.0,
        "channel": None,
    }
    asked = [q["context_id"][-1] for q in questions]
    assert asked == list("00011123")
    assert "valid: 8 questions, published are 1939 (-1931)" in caplog.text
    assert "those of training" not in caplog.text


def test_one_question_a_document(corpus, tmp_path):
    splits = prepare(corpus, tmp_path, one_question=True)
    for _, questions in splits.values():
        assert [q["ID"][-1] for q in questions] == list("0367")


def test_a_recogniser_may_learn_from_the_questions(corpus, tmp_path):
    splits = prepare(corpus, tmp_path, questions_in_training=True)
    clips, questions = splits["train"]
    assert len(clips) == 12 and len(questions) == 8
    assert all(len(splits[split][0]) == 4 for split in SPLITS[1:])


def test_the_verified_test_may_be_absent_others_not(corpus, tmp_path):
    (corpus / "slue-sqa5_verified-test.tsv").unlink()
    prepare(corpus, tmp_path, splits=SPLITS[:3])
    assert not (tmp_path / "test_verified.csv").exists()
    (corpus / "slue-sqa5_dev.tsv").unlink()
    with pytest.raises(PreparationError, match=r"slue-sqa5_dev\.tsv is not"):
        prepare(corpus, tmp_path)


def test_missing_and_broken_clips_are_listed(corpus, tmp_path, caplog):
    (corpus / "test" / "document" / "Town_0.wav").unlink()
    (corpus / "test" / "question" / "trivia-3.wav").write_bytes(b"")
    (corpus / "dev" / "question" / "trivia-6.wav").unlink()
    splits = prepare(corpus, tmp_path)
    clips, questions = splits["test"]
    assert [c["ID"] for c in clips] == [f"test_Town_{i}" for i in (1, 2, 3)]
    assert [q["ID"][-1] for q in questions] == list("4567")
    # Its document is still one that is found, or not, by others.
    assert len(splits["valid"][0]) == 4 and len(splits["valid"][1]) == 7
    skips = read_skips(tmp_path / "skipped.csv")
    assert {(Path(s.path).stem, s.reason) for s in skips} == {
        ("Town_0", "missing"),
        ("trivia-3", "empty"),
        ("trivia-6", "missing"),
    }
    assert "test: left out 4 questions" in caplog.text
    assert "valid: left out 1 questions" in caplog.text


def test_without_spoken_questions_the_written_ones_stay(
    corpus, tmp_path, caplog
):
    shutil.rmtree(corpus / "test" / "question")
    splits = prepare(corpus, tmp_path)
    assert len(splits["test"][1]) == 8 and "wav" not in splits["test"][1][0]
    assert len(splits["valid"][1]) == 8 and "wav" in splits["valid"][1][0]
    assert "test: no file of a spoken question can be used" in caplog.text


@pytest.mark.parametrize("name", ["trivia-0", "Town_0"])
def test_ids_do_not_lead_out_of_the_folder(corpus, tmp_path, name):
    table = corpus / "slue-sqa5_test.tsv"
    table.write_text(table.read_text().replace(name, "../../x"))
    with pytest.raises(PreparationError, match=r"\.\./\.\./x.*cannot name"):
        prepare(corpus, tmp_path)


def test_documents_of_the_test_that_are_trained_on_are_told_of(
    corpus, tmp_path, caplog
):
    table = corpus / "slue-sqa5_test.tsv"
    text = table.read_text().replace("in the test the", "in the fine-tune the")
    table.write_text(text + text.splitlines()[1] + "\n")
    prepare(corpus, tmp_path)
    assert "test: 4 of 4 documents are those of training" in caplog.text
    assert "left out 1 lines of a question again" in caplog.text


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("normalized_document_text", "text", "no column normalized_document"),
        ("\tVP1\t", "\t", "line 2 has other cells"),
        ("\tVP1\t", "\ta\tb\t", "line 2 has other cells"),
        ("town", "t\xf6wn", "not a table in UTF-8"),
    ],
)
def test_broken_tables_are_refused(corpus, tmp_path, old, new, message):
    table = corpus / "slue-sqa5_dev.tsv"
    table.write_bytes(table.read_text().replace(old, new).encode("latin-1"))
    with pytest.raises(QuestionFileError, match=message):
        prepare(corpus, tmp_path)


def test_the_folder_must_be_that_of_the_tables(corpus, tmp_path):
    shutil.move(corpus, tmp_path / "outer" / "slue-sqa5")
    with pytest.raises(PreparationError, match=r"unpacked slue-sqa5\.zip"):
        prepare(tmp_path / "outer", tmp_path / "save")
