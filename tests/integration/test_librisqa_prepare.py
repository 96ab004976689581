"""LibriSQA on LibriSpeech: the releases' layout, and damaged ones.

Authors
 * The esr_lobes contributors
"""

import json
import logging
import shutil
from pathlib import Path

import pytest
from conftest import load_recipe
from tiny_content_corpora import write_librisqa

from esr_lobes.clsr.spoken_qa import QuestionFileError
from esr_lobes.content_manifests import read_content
from esr_lobes.preparation import PreparationError, read_skips

recipe = load_recipe("LibriSQA/librisqa_prepare.py")
TEST_FILE = "LibriSQA-PartI/LibriSQA-PartI-test.json"


@pytest.fixture
def corpus(tmp_path):
    """Four speakers to train on, two to test, three utterances each."""
    return write_librisqa(tmp_path / "LibriSpeech")


def prepare(corpus, save, **more):
    recipe.prepare_librisqa(corpus, save, progress=False, **more)
    return {
        split: read_content(save, split, corpus)
        for split in ("train", "valid", "test")
    }


def test_layout_of_the_releases(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(corpus, tmp_path)
    sizes = {s: (len(c), len(q)) for s, (c, q) in splits.items()}
    assert sizes == {"train": (9, 9), "valid": (3, 3), "test": (6, 6)}
    speakers = {
        split: {c["ID"].split("-")[0] for c in clips}
        for split, (clips, _) in splits.items()
    }
    assert not speakers["train"] & speakers["valid"]
    assert speakers["test"] == {"61", "121"}
    clips, questions = splits["test"]
    assert clips[0]["ID"] == clips[0]["context_id"] == "121-70121-0000"
    assert clips[0]["wav"] == str(
        corpus / "test-clean" / "121" / "70121" / "121-70121-0000.flac"
    )
    assert clips[0]["transcript"] == "the book of 121 has 0 pages"
    assert questions[0]["question"] == "How many pages has 121's book?"
    assert "test: 6 questions, published are 2620 (-2614)" in caplog.text


def test_the_files_lie_anywhere_near(corpus, tmp_path):
    """As cloned, or one by one from the hub with their folder in the name."""
    before = prepare(corpus, tmp_path / "a")
    shutil.move(corpus / "LibriSQA-PartI", tmp_path / "hub" / "LibriSQA-PartI")
    with pytest.raises(PreparationError, match="--librisqa_folder"):
        prepare(corpus, tmp_path / "b")
    more = {"librisqa_folder": tmp_path / "hub"}
    assert prepare(corpus, tmp_path / "c", **more) == before
    part = tmp_path / "hub" / "LibriSQA-PartI"
    for path in sorted(part.iterdir()):
        path.rename(tmp_path / "hub" / f"LibriSQA-PartI_{path.name}")
    assert prepare(corpus, tmp_path / "d", **more) == before


def test_an_utterance_may_be_asked_about_twice(corpus, tmp_path):
    records = json.loads((corpus / TEST_FILE).read_text())
    records += [records[0], {**records[1], "question": " "}]
    (corpus / TEST_FILE).write_text(json.dumps(records))
    clips, questions = prepare(corpus, tmp_path / "a")["test"]
    assert len(clips) == 6
    assert [
        q["ID"] for q in questions if q["context_id"] == "61-7061-0000"
    ] == [
        "61-7061-0000",
        "61-7061-0000_2",
    ]
    assert len(questions) == 7  # the blank one is left out
    _, questions = prepare(corpus, tmp_path / "b", one_question=True)["test"]
    assert len(questions) == 6


def test_missing_and_broken_clips_are_listed(corpus, tmp_path, caplog):
    folder = corpus / "test-clean" / "61" / "7061"
    (folder / "61-7061-0000.flac").unlink()
    flac = folder / "61-7061-0001.flac"
    flac.write_bytes(flac.read_bytes()[:200])
    clips, questions = prepare(corpus, tmp_path)["test"]
    assert len(clips) == len(questions) == 4
    skips = read_skips(tmp_path / "skipped.csv")
    assert [(Path(s.path).stem[-4:], s.reason) for s in skips] == [
        ("0000", "missing"),
        ("0001", "corrupt"),
    ]
    assert "test: left out 2 questions" in caplog.text


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not in the layout of LibriSQA"),
        ("3", "not in the layout of LibriSQA"),
        ('[{"speech_path": "a/61-70-1.wav", "text": "x"}]', "KeyError"),
        ('[{"speech_path": 1, "text": "x", "question": "y"}]', "layout"),
        (
            '[{"speech_path": "a/b.wav", "text": "x", "question": "y"}]',
            "does not end in an utterance",
        ),
    ],
)
def test_other_files_are_refused(corpus, tmp_path, text, message):
    (corpus / TEST_FILE).write_text(text)
    with pytest.raises(QuestionFileError, match=message):
        prepare(corpus, tmp_path)


def test_librispeech_must_be_there(corpus, tmp_path):
    (corpus / "train-clean-360").rename(corpus / "train")
    with pytest.raises(PreparationError, match="train-clean-360 is not there"):
        prepare(corpus, tmp_path)
