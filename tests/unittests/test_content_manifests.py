"""Manifests of content: clips with transcripts, and questions on them.

Authors
 * The esr_lobes contributors
"""

import pytest

from esr_lobes.content_manifests import (
    CLIP_COLUMNS,
    questions_file,
    questions_text,
    read_content,
    read_questions_table,
)
from esr_lobes.manifests import ManifestError, read_manifest, write_manifest
from esr_lobes.preparation import is_prepared, write_splits


def clip(name, context="0_0", **more):
    """Returns a correct row of a clip, to be changed by keyword."""
    return {
        "ID": name,
        "duration": 2.0,
        "wav": f"{{data_root}}/{name}.wav",
        "start": 0.0,
        "stop": 2.0,
        "channel": None,
        "context_id": context,
        "transcript": "newton won, they say",
        **more,
    }


def question(name, context="0_0"):
    return {"ID": name, "question": "Who won?", "context_id": context}


@pytest.fixture
def write(tmp_path):
    """A function that writes a split, and the folder it is in."""

    def write_split(clips, questions):
        write_manifest(tmp_path / "test.csv", clips, CLIP_COLUMNS)
        path = tmp_path / questions_file("test")
        path.write_text(questions_text(path, questions))
        return tmp_path

    return write_split


def test_what_is_written_is_read(write):
    rows = [clip("a"), clip("b", "0_1", voice="m1")]
    rows[0]["voice"] = "f2"
    asked = [question("q1"), question("q2", "0_1")]
    folder = write(rows, asked)
    clips, questions = read_content(folder, "test", "/corpus", False)
    assert clips[0] == rows[0] | {"wav": "/corpus/a.wav"}
    assert questions == asked


def test_the_files_must_be_there(write):
    folder = write([clip("a")], [question("q1")])
    with pytest.raises(ManifestError, match="no such file"):
        read_content(folder, "test", folder)
    (folder / "a.wav").touch()
    assert len(read_content(folder, "test", folder)[0]) == 1


@pytest.mark.parametrize(
    "clips, questions, message",
    [
        ([clip("a", transcript="")], [], "no transcript"),
        ([clip("a", context="")], [], "no context_id"),
        ([clip("a"), clip("a")], [], "the ID a: 2 rows"),
        ([clip("a", transcript="it was $5")], [], "placeholder"),
        ([clip("a")], [question("q"), question("q")], "q comes twice"),
        ([clip("a")], [question(" ")], "a cell is blank"),
    ],
)
def test_wrong_rows_are_not_written(write, clips, questions, message):
    with pytest.raises(ManifestError, match=message):
        write(clips, questions)


def test_a_question_on_what_nobody_says_is_refused(write):
    folder = write([clip("a")], [question("q1", "9_9")])
    with pytest.raises(ManifestError, match="9_9, which no clip"):
        read_content(folder, "test", "/corpus", False)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such table of questions"),
        ("ID,question\n1,Who?\n", "the columns are 'ID,question'"),
        ("ID,question,context_id\n1,Who?\n", "line 2: a cell is blank"),
        ("ID,question,context_id\n1,a,b\n1,c,d\n", "line 3: the ID 1"),
        ("ID,question,context_id\n1,a,b\n2,c,d,e\n", "line 3: more cells"),
        (b"\xff\xfe", "not a CSV file in UTF-8"),
    ],
)
def test_broken_tables_say_where(tmp_path, text, message):
    path = tmp_path / "questions_test.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError, match=message):
        read_questions_table(path)


def test_a_manifest_of_styles_is_none_of_content(tmp_path):
    path = tmp_path / "train.csv"
    write_manifest(path, [clip("a")], CLIP_COLUMNS)
    with pytest.raises(ManifestError, match="speaker,style"):
        read_manifest(path, "/corpus", is_checked=False)


def test_tables_beside_the_manifests_count_for_whether_it_is_prepared(tmp_path):
    tables = {"questions_test.csv": questions_text("x", [question("q1")])}
    splits = {"test": [clip("a")]}
    write_splits(tmp_path, splits, (), {"n": 1}, CLIP_COLUMNS, tables)
    assert is_prepared(tmp_path, {"n": 1})
    assert read_questions_table(tmp_path / "questions_test.csv")
    (tmp_path / "questions_test.csv").unlink()
    assert not is_prepared(tmp_path, {"n": 1})


def spoken(name, **more):
    """A question that is a clip, too."""
    row = clip(name, **more)
    del row["transcript"]
    return row | {"question": "Who won?"}


def test_spoken_questions_have_the_keys_of_a_clip(write):
    asked = [spoken("q1"), spoken("q2", start=1.0, stop=3.0, channel=1)]
    folder = write([clip("a")], asked)
    _, questions = read_content(folder, "test", "/corpus", False)
    assert questions == [
        row | {"wav": f"/corpus/{row['ID']}.wav"} for row in asked
    ]
    (folder / "a.wav").touch()
    (folder / "q1.wav").touch()
    with pytest.raises(ManifestError, match=r"line 3: no such file: .*q2\.wav"):
        read_content(folder, "test", folder)


def test_questions_are_spoken_all_or_none(write):
    with pytest.raises(ManifestError, match="missing or additional"):
        write([clip("a")], [question("q1"), spoken("q2")])
    with pytest.raises(ManifestError, match="no question"):
        write([clip("a")], [spoken("q1") | {"question": ""}])
