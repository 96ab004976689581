"""The preparation of SyntheticSQA, on a file in the layout of SQuAD.

Authors
 * The esr_lobes contributors
"""

import hashlib

import pytest
import soundfile
from conftest import load_recipe
from tiny_content import write_squad

from esr_lobes.clsr.spoken_qa import QuestionFileError, read_questions
from esr_lobes.content_manifests import read_content
from esr_lobes.preparation import PreparationError

recipe = load_recipe("SyntheticSQA/synthetic_sqa_prepare.py")


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    """Four articles of two paragraphs of three sentences."""
    return write_squad(tmp_path_factory.mktemp("squad") / "questions.json")


SMALL = {
    "voices_per_context": 2,
    "voices": ("en-us+m1", "en-us+f1", "en-us+f3"),
    "min_words": 4,
    "valid_share": 0.25,
    "test_share": 0.25,
    "n_test_articles": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def prepared(squad, tmp_path_factory):
    """Folders of the clips and of the manifests."""
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    data = tmp_path_factory.mktemp("speech")
    saved = tmp_path_factory.mktemp("manifests")
    recipe.prepare_synthetic_sqa(data, saved, squad, **SMALL)
    return data, saved


def contexts_of(prepared, split):
    data, saved = prepared
    clips, questions = read_content(saved, split, data)
    return {c["context_id"] for c in clips}, clips, questions


def test_no_context_is_in_two_splits_and_no_held_out_article_is_heard(
    prepared, squad
):
    article_of = {c.id: c.article for c in read_questions(squad, "sentence")[0]}
    of = {s: contexts_of(prepared, s)[0] for s in recipe.SPLITS}
    assert all(of.values())
    assert sum(map(len, of.values())) == len(set().union(*of.values()))
    articles = {s: {article_of[c] for c in of[s]} for s in of}
    assert len(articles["test_articles"]) == 1
    for split in ("train", "valid", "test"):
        assert not articles[split] & articles["test_articles"]
    assert articles["test"] <= articles["train"]


def test_all_that_is_tested_is_asked_about(prepared):
    for split in ("valid", "test", "test_articles"):
        contexts, clips, questions = contexts_of(prepared, split)
        assert {row["context_id"] for row in questions} == contexts
        assert len(clips) == len(contexts)
    contexts, clips, questions = contexts_of(prepared, "train")
    assert len(clips) == 2 * len(contexts)
    assert {row["context_id"] for row in questions} < contexts


def test_clips_say_their_transcripts(prepared, squad):
    texts = {c.id: c.text for c in read_questions(squad, "sentence")[0]}
    _, clips, _ = contexts_of(prepared, "train")
    for row in clips:
        assert row["transcript"] == texts[row["context_id"]].rstrip(".")
        info = soundfile.info(row["wav"])
        assert info.samplerate == 16000 and info.channels == 1
        assert info.duration == pytest.approx(row["duration"], abs=1e-4)
    voices = {}
    for row in clips:
        _, voice = row["ID"].split("_en-")
        voices.setdefault(row["context_id"], set()).add(voice)
    assert all(len(own) == 2 for own in voices.values())


def digests(folder, pattern="*"):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def test_it_goes_on_where_it_stopped_to_the_same_files(
    prepared, squad, tmp_path
):
    data, saved = prepared
    whole, tables = digests(data), digests(saved, "*.csv")
    for path in sorted(data.rglob("*.wav"))[3:8]:
        path.unlink()
    recipe.prepare_synthetic_sqa(data, saved, squad, **SMALL)
    assert digests(data) == whole and digests(saved, "*.csv") == tables
    before = [p.stat().st_mtime_ns for p in sorted(data.rglob("*"))]
    recipe.prepare_synthetic_sqa(data, saved, squad, **SMALL)
    assert [p.stat().st_mtime_ns for p in sorted(data.rglob("*"))] == before


def test_phrases_stand_for_what_is_trained_on(prepared, squad, tmp_path):
    folders = tmp_path / "speech", tmp_path / "manifests"
    asked = SMALL | {"n_phrases": 20, "phrase_words": 2}
    recipe.prepare_synthetic_sqa(*folders, squad, **asked)
    contexts, clips, questions = contexts_of(folders, "train")
    assert len(contexts) == 20 and len(clips) == 40 and not questions
    assert {len(row["transcript"].split()) for row in clips} == {1, 2}
    texts = {c.id: c.text for c in read_questions(squad, "sentence")[0]}
    whole = contexts_of(prepared, "train")[0]
    for row in clips:
        context, _, place = row["context_id"].rpartition("_p")
        assert context in whole
        words = texts[context].split()[int(place) :]
        assert " ".join(words).startswith(row["transcript"])
    for split in ("valid", "test", "test_articles"):
        assert contexts_of(folders, split)[0] == contexts_of(prepared, split)[0]


def test_other_settings_leave_the_clips(prepared, squad, tmp_path):
    data, saved = prepared
    before = digests(data)
    few = SMALL | {"n_contexts": 8}
    recipe.prepare_synthetic_sqa(data, tmp_path, squad, **few)
    named = [
        row["wav"]
        for split in recipe.SPLITS
        for row in read_content(tmp_path, split, data)[0]
    ]
    assert 4 <= len(named) < len(before) - 1
    assert digests(data) == before
    for split in recipe.SPLITS:
        read_content(saved, split, data)


def test_questions_without_a_word_and_ids_again(squad, tmp_path, caplog):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    text = squad.read_text()
    odd = tmp_path / "odd.json"
    odd.write_text(text.replace("What was built in leeds?", " $? "))
    folders = tmp_path / "speech", tmp_path / "manifests"
    recipe.prepare_synthetic_sqa(*folders, odd, **SMALL)
    asked = [q for s in recipe.SPLITS for q in contexts_of(folders, s)[2]]
    assert len(asked) == 14
    assert "left out" in caplog.text and "without a word" in caplog.text
    odd.write_text(text.replace('"id": "001"', '"id": "000"'))
    with pytest.raises(QuestionFileError, match="more than once.*'000'"):
        recipe.prepare_synthetic_sqa(tmp_path / "none", tmp_path, odd, **SMALL)
    assert not (tmp_path / "none").exists()


def test_what_is_too_short_too_long_or_said_twice_is_left_out(squad):
    contexts, questions = read_questions(squad, "sentence")
    kept = recipe.choose_contexts(contexts, questions, 4, 50, True)
    assert all(4 <= len(c.text.split()) <= 50 for c in kept)
    assert len({c.text for c in kept}) == len(kept) < len(contexts)
    asked = recipe.choose_contexts(contexts, questions, 4, 50, False)
    assert {c.id for c in asked} < {c.id for c in kept}
    assert {c.id for c in asked} <= {q.context_id for q in questions}


def test_another_seed_is_another_split(squad):
    contexts, questions = read_questions(squad, "sentence")
    splits = [
        recipe.split_contexts(contexts, questions, 0.25, 0.25, 1, seed)
        for seed in (1, 1, 2)
    ]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"voices_per_context": 4}, "from 1 to 3"),
        ({"n_test_articles": 4}, "of 4 articles 4 cannot be held out"),
        ({"test_share": 0.9}, "leave nothing to train on"),
    ],
)
def test_numbers_that_fit_no_corpus(squad, tmp_path, wrong, message):
    with pytest.raises(PreparationError, match=message):
        recipe.prepare_synthetic_sqa(tmp_path, tmp_path, squad, **SMALL | wrong)
