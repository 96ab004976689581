"""What all preparations of content share, on a corpus made by hand.

Authors
 * The esr_lobes contributors
"""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_content_corpora import write_speech

from esr_lobes.clsr.spoken_qa import Context, Question
from esr_lobes.content_manifests import read_content
from esr_lobes.content_parts import (
    Clip,
    Part,
    path_below,
    select,
    split_off,
    with_prefix,
)
from esr_lobes.content_preparation import digest, plain, prepare_content
from esr_lobes.preparation import PreparationError, read_skips


def question(name, context):
    return Question(name, f"Why {name}?", context, ("So.",))


def make_part(n_articles=4, folder=""):
    """Two contexts an article; the first has two questions, the other none."""
    contexts, clips, questions = [], [], []
    for i in range(n_articles):
        for j in range(2):
            name = f"{i}_{j}"
            contexts.append(Context(name, f"article {i}", f"words of {name}."))
            clips.append(Clip(f"clip_{name}", f"{folder}/{name}.wav", name))
        questions += [question(f"{i}a", f"{i}_0"), question(f"{i}b", f"{i}_0")]
    return Part(contexts, clips, questions)


@pytest.fixture
def corpus(tmp_path):
    """A folder of eight clips, and the part that they are."""
    part = make_part(folder=tmp_path / "wavs")
    for clip in part.clips:
        write_speech(tmp_path / "wavs" / f"{clip.context_id}.wav", "a b c d")
    return tmp_path, part


def test_ids_get_the_name_of_their_file_in_front():
    part = make_part(1)
    contexts, questions = with_prefix("test", part.contexts, part.questions)
    assert [c.id for c in contexts] == ["test_0_0", "test_0_1"]
    assert {q.context_id for q in questions} == {"test_0_0"}
    assert [q.id for q in questions] == ["0a", "0b"]


@pytest.mark.parametrize(
    "share, n_articles", [(0, 0), (0.01, 1), (0.25, 1), (0.26, 2), (0.7, 3)]
)
def test_whole_articles_are_split_off(share, n_articles):
    part = make_part()
    rest, held = split_off(part, share, seed=1)
    assert len(held.questions) == 2 * n_articles
    assert len(held.contexts) == len(held.clips) == 2 * n_articles
    articles = [{c.article for c in p.contexts} for p in (rest, held)]
    assert not articles[0] & articles[1]
    assert sorted(rest.contexts + held.contexts) == sorted(part.contexts)
    assert split_off(part, share, seed=1) == (rest, held)


def test_some_article_is_left():
    with pytest.raises(PreparationError, match="valid_share 0.9 leaves no"):
        split_off(make_part(), 0.9, seed=1)


@pytest.mark.parametrize(
    "one_question, keeps_unasked, n_contexts, n_questions",
    [(False, False, 4, 8), (True, False, 4, 4), (True, True, 8, 4)],
)
def test_what_is_used(
    one_question, keeps_unasked, n_contexts, n_questions, caplog
):
    with caplog.at_level(logging.INFO):
        used = select("test", make_part(), one_question, keeps_unasked)
    assert len(used.contexts) == len(used.clips) == n_contexts
    assert len(used.questions) == n_questions
    assert "test: 8 questions about 4 of 8 contexts" in caplog.text
    assert ("one a context: 4" in caplog.text) == one_question
    if one_question:
        assert [q.id for q in used.questions] == ["0a", "1a", "2a", "3a"]


def test_from_a_corpus_to_manifests(corpus):
    folder, part = corpus
    save = folder / "save"
    parts = {"train": part, "test": make_part(2, folder / "wavs")}
    parts["test"] = parts["test"]._replace(
        clips=[c._replace(id=f"test_{c.id}") for c in parts["test"].clips]
    )
    arguments = (folder / "wavs", save, parts, {"corpus": "x"})
    prepare_content(*arguments, unasked_in_training=True, progress=False)
    clips, questions = read_content(save, "train", folder / "wavs")
    assert len(clips) == 8 and len(questions) == 8
    assert clips[0] == {
        "ID": "clip_0_0",
        "duration": 0.4,
        "wav": str(folder / "wavs" / "0_0.wav"),
        "start": 0.0,
        "stop": 0.4,
        "channel": None,
        "context_id": "0_0",
        "transcript": "words of 0_0",
    }
    # What is tested is asked about.
    clips, questions = read_content(save, "test", folder / "wavs")
    assert [c["context_id"] for c in clips] == ["0_0", "1_0"]
    assert [q["ID"] for q in questions] == ["0a", "0b", "1a", "1b"]
    assert read_skips(save / "skipped.csv") == []


def test_bad_clips_are_listed_and_their_questions_counted(corpus, caplog):
    folder, part = corpus
    wavs = folder / "wavs"
    (wavs / "0_0.wav").unlink()
    (wavs / "1_0.wav").write_bytes(b"")
    (wavs / "0_1.wav").write_bytes((wavs / "0_1.wav").read_bytes()[:3000])
    soundfile.write(wavs / "1_1.wav", np.zeros(8000), 16000)
    write_speech(wavs / "2_1.wav", "a")
    contexts = [
        c._replace(text=" ...") if c.id == "3_1" else c for c in part[0]
    ]
    part = part._replace(contexts=contexts)
    # A constant has no sound; the others say in a word what is wrong.
    write_speech(wavs / "2_0.wav", " ".join("abcdefghijkl"))
    prepare_content(
        wavs,
        folder / "save",
        {"train": part},
        {},
        unasked_in_training=True,
        min_seconds=0.2,
        max_seconds=1.0,
        progress=False,
    )
    skips = read_skips(folder / "save" / "skipped.csv")
    assert {s.path[-7:]: s.reason for s in skips} == {
        "0_0.wav": "missing",
        "0_1.wav": "truncated",
        "1_0.wav": "empty",
        "1_1.wav": "silent",
        "2_0.wav": "too long",
        "2_1.wav": "too short",
        "3_1.wav": "no words",
    }
    clips, questions = read_content(folder / "save", "train", wavs)
    assert [c["context_id"] for c in clips] == ["3_0"]
    assert [q["ID"] for q in questions] == ["3a", "3b"]
    assert "left out 6 questions" in caplog.text
    assert "left out 7 files" in caplog.text


def test_spoken_questions_are_clips_if_wanted(corpus):
    folder, part = corpus
    spoken = {}
    for asked in part.questions[1:]:
        spoken[asked.id] = str(folder / "elsewhere" / f"{asked.id}.wav")
        write_speech(folder / "elsewhere" / f"{asked.id}.wav", "why why")
    (folder / "elsewhere" / "0b.wav").write_bytes(b"")
    prepare_content(
        folder / "wavs",
        folder / "save",
        {"train": part._replace(spoken=spoken)},
        {},
        questions_in_training=True,
        progress=False,
    )
    clips, questions = read_content(folder / "save", "train", folder / "wavs")
    # 0a has no file, that of 0b is broken.
    assert [q["ID"] for q in questions] == ["1a", "1b", "2a", "2b", "3a", "3b"]
    assert questions[0]["wav"] == str(folder / "elsewhere" / "1a.wav")
    assert questions[0]["duration"] == questions[0]["stop"] == 0.2
    further = [c for c in clips if c["ID"].startswith("question_")]
    assert len(further) == 6 and len(clips) == 10
    assert further[0]["transcript"] == "Why 1a?"
    assert further[0]["context_id"] == further[0]["ID"] == "question_1a"
    skips = read_skips(folder / "save" / "skipped.csv")
    assert [(s.path[-6:], s.reason) for s in skips] == [("0b.wav", "empty")]


def test_questions_without_a_word_are_left_out(corpus, caplog):
    folder, part = corpus
    asked = [
        q._replace(text="...?") if q.id in ("0a", "1a", "1b") else q
        for q in part.questions
    ]
    spoken = {q.id: str(folder / f"{q.id}.wav") for q in asked}
    for path in spoken.values():
        write_speech(Path(path), "why why")
    part = part._replace(questions=asked, spoken=spoken)
    prepare_content(
        folder / "wavs",
        folder / "save",
        {"test": part},
        {},
        one_question=True,
        progress=False,
    )
    clips, questions = read_content(folder / "save", "test", folder / "wavs")
    # The next question takes the place of the first.
    assert [q["ID"] for q in questions] == ["0b", "2a", "3a"]
    assert [c["context_id"] for c in clips] == ["0_0", "2_0", "3_0"]
    skips = read_skips(folder / "save" / "skipped.csv")
    assert [(Path(s.path).stem, s.reason, s.detail) for s in skips] == [
        (name, "no words", "...?") for name in ("0a", "1a", "1b")
    ]
    assert "test: left out 3 questions without a word" in caplog.text


def test_questions_of_which_no_file_is_good_are_only_written(corpus, caplog):
    folder, part = corpus
    spoken = {q.id: str(folder / f"{q.id}.wav") for q in part.questions}
    prepare_content(
        folder / "wavs",
        folder / "save",
        {"test": part._replace(spoken=spoken)},
        {},
        progress=False,
    )
    _, questions = read_content(folder / "save", "test", folder / "wavs")
    assert len(questions) == 8 and "wav" not in questions[0]
    assert len(read_skips(folder / "save" / "skipped.csv")) == 8
    assert "test: no file of a spoken question can be used" in caplog.text


@pytest.mark.parametrize("name", ["../x.wav", "/x.wav", "a/../../x", "a\0"])
def test_a_file_named_after_an_id_is_below_its_folder(name):
    with pytest.raises(PreparationError, match="cannot name a file below"):
        path_below("audio", name)
    assert path_below("audio", "a/b..wav") == Path("audio/a/b..wav")


def test_a_digest_is_of_what_is_in_files(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    first = digest([one, two])
    os.utime(one, (0, 0))
    assert digest([one, two]) == first != digest([two, one])
    one.write_text("3")
    assert digest([one, two]) != first


def test_a_second_call_does_nothing(corpus, caplog):
    folder, part = corpus

    def prepare(**more):
        prepare_content(
            folder / "wavs", folder / "save", {"train": part}, {}, **more
        )
        return [
            (p.name, p.stat().st_mtime_ns, p.read_bytes())
            for p in sorted((folder / "save").iterdir())
        ]

    first = prepare(progress=False)
    with caplog.at_level(logging.INFO):
        assert prepare(progress=False) == first
    assert "prepared already, nothing to do" in caplog.text
    assert prepare(progress=False, one_question=True) != first
    # A file that came late is found.
    changed = prepare(progress=False)
    write_speech(folder / "wavs" / "0_0.wav", "a b c d e f")
    assert prepare(progress=False) != changed


@pytest.mark.parametrize(
    "text, kept",
    [("a\x00b\u2028c", "a b c"), ("it cost $5", "it cost $ 5"), (" a\n", "a")],
)
def test_texts_fit_a_manifest(text, kept):
    assert plain(text) == kept
