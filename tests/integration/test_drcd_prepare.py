"""DRCD: Chinese that a synthesiser says, or recordings that one has.

Authors
 * The esr_lobes contributors
"""

import json
import logging
import os
from pathlib import Path

import pytest
from conftest import load_recipe
from tiny_content_corpora import write_drcd, write_speech

from esr_lobes.clsr.spoken_qa import (
    QuestionFileError,
    count_questions,
    read_questions,
)
from esr_lobes.content_manifests import read_content
from esr_lobes.preparation import PreparationError, read_skips

recipe = load_recipe("DRCD/drcd_prepare.py")
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def json_folder(tmp_path_factory):
    """Three files of three paragraphs, of which two sentences are asked."""
    return write_drcd(tmp_path_factory.mktemp("DRCD"))


@pytest.fixture(scope="module")
def prepared(json_folder, tmp_path_factory):
    """Folders of the clips and of the manifests."""
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    folder = tmp_path_factory.mktemp("speech")
    prepare(json_folder, folder, voices_per_context=2)
    return folder


def prepare(json_folder, folder, **more):
    recipe.prepare_drcd(
        folder / "clips", folder / "save", json_folder, progress=False, **more
    )
    return read_all(folder)


def read_all(folder):
    return {
        split: read_content(folder / "save", split, folder / "clips")
        for split in SPLITS
    }


def test_a_synthesiser_says_it(prepared):
    splits = read_all(prepared)
    sizes = {s: (len(c), len(q)) for s, (c, q) in splits.items()}
    # Two voices say what is trained on, and one question a sentence is kept.
    assert sizes == {"train": (12, 6), "valid": (6, 6), "test": (6, 6)}
    clips, questions = splits["train"]
    assert {c["context_id"] for c in clips} == {
        f"train_{i}_0_{j}" for i in range(3) for j in range(2)
    }
    assert clips[0]["transcript"] == "東京位於河邊，非常古老。"
    assert all(1.0 < clip["duration"] < 6.0 for clip in clips)
    assert "wav" not in questions[0]
    asked = splits["test"][1]
    assert all(0.5 < question["duration"] < 4.0 for question in asked)
    assert {q["question"] for q in asked} >= {"東京在哪裡？", "誰建了大橋？"}
    # Of the two questions on a first sentence one is kept, and said.
    assert len(list((prepared / "clips/test/question").iterdir())) == 6


def test_a_second_call_makes_nothing(prepared, json_folder, caplog):
    def times():
        return {p: p.stat().st_mtime_ns for p in sorted(prepared.rglob("*.*"))}

    before = times()
    with caplog.at_level(logging.INFO):
        prepare(json_folder, prepared, voices_per_context=2)
    assert times() == before
    assert "prepared already, nothing to do" in caplog.text


def test_pages_and_seeds_share_the_clips(json_folder, tmp_path):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    prepare(json_folder, tmp_path)

    def times():
        clips = (tmp_path / "clips").rglob("*.wav")
        return {path: path.stat().st_mtime_ns for path in clips}

    before = times()
    first = {p.name: p.read_bytes() for p in (tmp_path / "save").iterdir()}
    (tmp_path / "save").rename(tmp_path / "first")
    os.utime(json_folder / "DRCD_test.json")  # as another copy has it
    prepare(json_folder, tmp_path)
    assert first == {
        p.name: p.read_bytes() for p in (tmp_path / "save").iterdir()
    }
    few = prepare(json_folder, tmp_path, n_contexts=1, spoken_questions=False)
    assert len(few["train"][0]) == 1 and "wav" not in few["test"][1][0]
    assert times() == before
    read_content(tmp_path / "first", "test", tmp_path / "clips")


def change(json_folder, function):
    """Changes the first paragraph of the test."""
    path = json_folder / "DRCD_test.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    function(data["data"][0]["paragraphs"][0])
    path.write_text(json.dumps(data), encoding="utf-8")


def test_texts_without_a_word_are_left_out(tmp_path, caplog):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    write_drcd(tmp_path / "json")

    def blank(paragraph):
        paragraph["qas"][1]["question"] = "？"
        dots = "…" * 9 + "。"
        paragraph["context"] += dots
        answer = {"text": "…", "answer_start": len(paragraph["context"]) - 5}
        odd = {"id": "odd", "question": "為何？", "answers": [answer]}
        paragraph["qas"].append(odd)

    change(tmp_path / "json", blank)
    splits = prepare(tmp_path / "json", tmp_path)
    assert len(splits["test"][1]) == 5
    skips = read_skips(tmp_path / "save" / "skipped.csv")
    assert [(s.reason, s.detail) for s in skips] == [
        ("no words", "…" * 9 + "。")
    ]
    assert "test: left out 1 questions without a word" in caplog.text


def test_ids_come_once_and_name_files(tmp_path):
    write_drcd(tmp_path / "json")
    change(tmp_path / "json", lambda p: p["qas"][0].update(id="../../../x"))
    with pytest.raises(PreparationError, match=r"\.\./\.\./x.*cannot name"):
        prepare(tmp_path / "json", tmp_path)
    (tmp_path / "audio" / "test" / "question").mkdir(parents=True)
    with pytest.raises(PreparationError, match=r"\.\./\.\./x.*cannot name"):
        prepare(tmp_path / "json", tmp_path, audio_folder=tmp_path / "audio")
    change(tmp_path / "json", lambda p: p["qas"][0].update(id="test-0-1"))
    with pytest.raises(QuestionFileError, match="more than once.*'test-0-1'"):
        prepare(tmp_path / "json", tmp_path)
    assert not (tmp_path / "clips").exists()


def test_lengths_and_numbers(json_folder, caplog):
    contexts, questions = read_questions(
        json_folder / "DRCD_dev.json", "sentence"
    )
    assert count_questions(contexts, questions) == {
        "contexts": 9,
        "questions": 9,
        "asked": 6,
    }

    def chosen(n_marks=(1, 99), keeps_unasked=False, n_most=None):
        kept, left = recipe.choose_contexts(
            "valid", contexts, questions, n_marks, keeps_unasked, n_most
        )
        return len(kept), len(left)

    assert chosen() == (6, 9)
    assert chosen(keeps_unasked=True) == (9, 9)
    assert chosen((10, 99)) == (3, 6)  # the second has nine characters
    assert chosen((1, 9)) == (3, 3)
    assert chosen(n_most=2) == (2, 3)


def record(folder, name):
    """Writes recordings of a file's sentences, and of its questions."""
    path = folder / "json" / f"DRCD_{name}.json"
    contexts, questions = read_questions(path, "sentence")
    audio = folder / "audio" / "test"
    for context in contexts:
        write_speech(audio / f"{context.id}.flac", context.text)
    for question in questions:
        write_speech(audio / "question" / f"{question.id}.wav", question.text)
    return audio


def test_recordings_take_the_synthesiser_s_place(tmp_path, caplog):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    write_drcd(tmp_path / "json")
    audio = record(tmp_path, "test")
    (audio / "0_0_0.flac").unlink()
    (audio / "question" / "test-1-0.wav").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        splits = prepare(
            tmp_path / "json", tmp_path, audio_folder=tmp_path / "audio"
        )
    assert "recorded: test; voiced by eSpeak NG: train, valid" in caplog.text
    assert splits["train"][0][0]["wav"].startswith(str(tmp_path / "clips"))
    clips, questions = splits["test"]
    assert clips[0]["wav"] == str(audio / "0_0_1.flac")
    assert clips[0]["duration"] == pytest.approx(0.9)  # nine characters
    assert len(clips) == 5
    assert {q["ID"] for q in questions} == {
        *("test-0-1", "test-1-1", "test-2-0", "test-2-1")
    }
    skips = read_skips(tmp_path / "save" / "skipped.csv")
    assert {(Path(s.path).stem, s.reason) for s in skips} == {
        ("0_0_0", "missing"),
        ("test-1-0", "empty"),
    }


def test_recordings_need_no_synthesiser_nor_spoken_questions(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    write_drcd(tmp_path / "json")
    record(tmp_path, "test")
    for split in ("train", "valid"):
        link = tmp_path / "audio" / split
        link.symlink_to(tmp_path / "audio" / "test")
    more = {"spoken_questions": False, "unasked_in_training": True}
    splits = prepare(
        tmp_path / "json", tmp_path, audio_folder=tmp_path / "audio", **more
    )
    # Of the three sentences the last has but three characters.
    assert [len(splits[split][0]) for split in SPLITS] == [6, 6, 6]
    assert "wav" not in splits["test"][1][0]


def test_what_fits_no_corpus(json_folder, tmp_path):
    with pytest.raises(PreparationError, match="from 1 to 8"):
        prepare(json_folder, tmp_path, voices_per_context=9)
    with pytest.raises(PreparationError, match=r"a\.json is not .*--test_json"):
        prepare(json_folder, tmp_path, test_json="a.json")


def test_recordings_that_are_not_there_are_not_voiced(json_folder, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(PreparationError, match="no folder that holds rec"):
            prepare(json_folder, tmp_path, audio_folder=folder)
    assert not (tmp_path / "clips").exists()


def test_counts_of_the_real_file(real_file):
    path = real_file("drcd/DRCD_dev.json")
    contexts, questions = read_questions(path, "sentence")
    assert len(questions) == recipe.QUESTIONS["valid"] == 3524
    kept, left = recipe.choose_contexts(
        "valid", contexts, questions, (1, 10**6), False, None
    )
    assert (len(kept), len(left)) == (3332, 3524)
    kept, left = recipe.choose_contexts(
        "valid", contexts, questions, (6, 120), False, None
    )
    assert (len(kept), len(left)) == (3204, 3357)
