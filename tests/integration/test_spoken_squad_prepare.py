"""Spoken-SQuAD: the release's layout, damaged ones, and the real questions.

Authors
 * The esr_lobes contributors
"""

import json
import logging
import shutil
from pathlib import Path

import pytest
from conftest import load_recipe
from tiny_content_corpora import write_speech, write_spoken_squad

from esr_lobes.clsr.spoken_qa import QuestionFileError
from esr_lobes.content_manifests import read_content
from esr_lobes.content_parts import select
from esr_lobes.preparation import PreparationError, read_skips

recipe = load_recipe("SpokenSQuAD/spoken_squad_prepare.py")
references = load_recipe("SpokenSQuAD/squad_references.py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four articles to train on, two to test, all WAVs."""
    return write_spoken_squad(tmp_path_factory.mktemp("Spoken-SQuAD"))


@pytest.fixture
def corpus(whole, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(whole, tmp_path / "corpus")
    return tmp_path / "corpus"


def prepare(corpus, save, **more):
    recipe.prepare_spoken_squad(corpus, save, progress=False, **more)
    return {
        split: read_content(save, split, corpus)
        for split in ("train", "valid", "test")
    }


def test_layout_of_the_release(whole, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = prepare(whole, tmp_path)
    sizes = {s: (len(c), len(q)) for s, (c, q) in splits.items()}
    # Two of three sentences are asked about; those of valid and test alone.
    assert sizes == {"train": (18, 12), "valid": (4, 4), "test": (8, 8)}
    assert read_skips(tmp_path / "skipped.csv") == []
    assert "test: 8 questions about 8 of 12 contexts" in caplog.text
    assert "train: 16 questions, published are 37111 (-37095)" in caplog.text
    clips, questions = splits["test"]
    assert clips[0]["ID"] == clips[0]["context_id"] == "test_0_0_0"
    assert clips[0]["wav"] == str(
        whole / "Spoken-SQuAD_audio" / "dev_wav" / "0_0_0.wav"
    )
    assert clips[0]["transcript"] == "the mill of leeds was built in 1800"
    about = {q["context_id"]: q["question"] for q in questions}
    assert about["test_0_0_0"] == "What was built in leeds?"

    def article(row):
        return row["context_id"].rsplit("_", 2)[0]

    assert not {article(c) for c in splits["valid"][0]} & {
        article(c) for c in splits["train"][0]
    }


def test_unasked_sentences_and_all_questions_are_options(whole, tmp_path):
    path = whole / "spoken_test-v1.1.json"
    data = json.loads(path.read_text())
    qas = data["data"][0]["paragraphs"][0]["qas"]
    qas.append(qas[0] | {"id": "again"})
    other = tmp_path / "again.json"
    other.write_text(json.dumps(data))
    more = {"test_json": str(other), "unasked_in_training": False}
    splits = prepare(whole, tmp_path / "a", **more)
    assert len(splits["train"][0]) == 12 and len(splits["test"][1]) == 8
    splits = prepare(whole, tmp_path / "b", one_question=False, **more)
    assert len(splits["test"][0]) == 8 and len(splits["test"][1]) == 9


def test_missing_and_broken_wavs_are_listed(corpus, tmp_path, caplog):
    wavs = corpus / "Spoken-SQuAD_audio" / "dev_wav"
    (wavs / "0_0_0.wav").unlink()
    (wavs / "0_0_1.wav").write_bytes(b"RIFF")
    (wavs / "0_1_0.wav").write_bytes(b"")
    write_speech(wavs / "0_1_1.wav", "well " * 30)
    splits = prepare(corpus, tmp_path, max_seconds=2.0)
    assert len(splits["test"][0]) == len(splits["test"][1]) == 4
    skips = read_skips(tmp_path / "skipped.csv")
    assert {Path(s.path).stem: s.reason for s in skips} == {
        "0_0_0": "missing",
        "0_0_1": "corrupt",
        "0_1_0": "empty",
        "0_1_1": "too long",
    }
    assert "test: left out 4 questions" in caplog.text


def test_more_wavs_than_sentences_are_told_of(corpus, tmp_path, caplog):
    write_speech(corpus / "Spoken-SQuAD_audio/dev_wav/1_0_3.wav", "unheard")
    prepare(corpus, tmp_path)
    assert "1 of 4 paragraphs have more WAVs than sentences" in caplog.text
    assert "1_0: what follows" in caplog.text


def test_wrong_folders_and_files(corpus, tmp_path):
    shutil.rmtree(corpus / "Spoken-SQuAD_audio" / "dev_wav")
    with pytest.raises(PreparationError, match=r"dev_wav is not there.*--test"):
        prepare(corpus, tmp_path)
    (corpus / "spoken_train-v1.1.json").write_text("{}")
    with pytest.raises(QuestionFileError, match="not in the layout of SQuAD"):
        prepare(corpus, tmp_path)
    with pytest.raises(PreparationError, match="spoken_train"):
        prepare(tmp_path / "nowhere", tmp_path)


def test_squad_says_what_was_said(corpus, tmp_path):
    """The text is SQuAD's, the sentences are Spoken-SQuAD's."""
    squad = tmp_path / "squad"
    squad.mkdir()
    for ours, theirs in (("train", "train"), ("test", "dev")):
        text = (corpus / f"spoken_{ours}-v1.1.json").read_text()
        data = json.loads(text)
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"].replace(
                    "the mill", "The $5 mill"
                )
                context = context.replace(". people", ".) People")
                paragraph["context"], paragraph["qas"] = context, []
        (squad / f"{theirs}-v1.1.json").write_text(json.dumps(data))
    splits = prepare(corpus, tmp_path / "out", squad_folder=squad)
    texts = {c["context_id"]: c["transcript"] for c in splits["test"][0]}
    assert texts["test_0_0_0"] == "The $ 5 mill of leeds was built in 1800.)"
    assert texts["test_0_0_1"].startswith("People walk from leeds to")
    # A corrected text is read, and one of another corpus refused.
    path = squad / "dev-v1.1.json"
    path.write_text(path.read_text().replace("The $5 mill", "The old mill"))
    splits = prepare(corpus, tmp_path / "out", squad_folder=squad)
    assert splits["test"][0][0]["transcript"].startswith("The old mill of")
    data = json.loads(path.read_text())
    data["data"][0]["paragraphs"][1]["context"] = "Nothing of that is here."
    path.write_text(json.dumps(data))
    with pytest.raises(PreparationError, match="1 of 4 paragraphs.*as 0_1"):
        prepare(corpus, tmp_path / "other", squad_folder=squad)
    path.write_text('{"data": []}')
    with pytest.raises(PreparationError, match="lacks 4 of 4 paragraphs"):
        prepare(corpus, tmp_path / "other", squad_folder=squad)


@pytest.mark.parametrize(
    "heard, written, parts",
    [
        (["one two."], "One, two!", ["One, two!"]),
        # The end of a sentence is misheard, and the beginning of the next.
        (
            ["he left in may teen.", "john ruled next."],
            "He left in 1815. Joan ruled next.",
            ["He left in 1815.", "Joan ruled next."],
        ),
        # No end of a sentence is near: where it was heard to end.
        (["a b", "c d"], "a b c d", ["a b", "c d"]),
        (["a b", "c d e f"], "a b c d e f.", ["a b", "c d e f."]),
        (["a b", "c d e"], "a b c d e.", ["a b c d e.", ""]),
        (["a b.", "", "c d."], "A b. C d.", ["A b.", "", "C d."]),
        (["a.", "b."], "", ["", ""]),
    ],
)
def test_a_text_is_parted_as_it_was_heard(heard, written, parts):
    assert references.part_text(heard, written)[0] == parts


def test_how_well_a_text_is_what_was_heard():
    assert references.part_text(["a b", "c d"], "A b. C d.")[1] == 1.0
    assert references.part_text(["a b", "c d"], "a x y d")[1] == 0.5
    assert references.part_text(["a b"], "x y")[1] == 0.0


def test_the_real_questions_give_the_paper_s_pairs(real_file, tmp_path):
    path = real_file("spoken_squad/spoken_test-v1.1.json")
    part = recipe.read_part("test", path, tmp_path)
    assert (len(part.contexts), len(part.questions)) == (10578, 5351)
    # Spoken-SQuAD* of Hu et al. (2025)
    used = select("test", part, one_question=True, keeps_unasked=False)
    assert len(used.contexts) == len(used.clips) == len(used.questions) == 3884
