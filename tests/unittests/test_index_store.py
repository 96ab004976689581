"""The folder of an index: a commit is there whole or not at all.

Authors
 * The esr_lobes contributors
"""

import json
import os
import pkgutil
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tiny_index import MOODS, commit_rows, segment_table, unit_rows

from esr_lobes import __version__
from esr_lobes.index import local, store
from esr_lobes.index.local import LocalStore
from esr_lobes.index.store import (
    IndexBusyError,
    IndexFolderError,
    commit,
    read_info,
    read_skips,
    read_table,
    write_lock,
)
from esr_lobes.preparation import Skip


class Where:
    """A filter that was written as an expression already."""

    def __init__(self, expression):
        self.expression = expression

    def arrow(self):
        return self.expression


def files(folder):
    return sorted(os.listdir(folder))


def test_a_commit_and_what_it_says(tmp_path):
    skips = [
        (Skip("/corpus/b.wav", "silent", 'a, "b"'), "digest b"),
        (Skip("/corpus/ä.wav", "empty"), "digest a"),
    ]
    folder = tmp_path / "new" / "index"
    info = commit_rows(folder, unit_rows(7), skips, source="/retriever")
    assert info == read_info(folder)
    assert info["rows"] == 7 and info["files"] == 3 and info["seconds"] == 7
    assert info["format"] == 1 and info["generation"] == 1
    assert info["columns"] == ["mood"] and info["roots"] == ["/corpus"]
    assert info["version"] == __version__
    assert info["spaces"]["style"] == {
        "dimension": 8,
        "fingerprint": "f",
        "source": "/retriever",
        "vectors": "style.000001.faiss",
        "approximate": None,
    }
    assert files(folder) == [
        "index.json",
        "index.lock",
        "segments.000001.parquet",
        "skipped.000001.csv",
        "style.000001.faiss",
    ]
    assert read_skips(folder, info) == skips
    assert read_table(folder, info).equals(segment_table(7))
    assert read_table(folder, info, ["path"]).column_names == ["path"]


def test_the_next_commit_leaves_nothing_of_the_one_before(tmp_path):
    commit_rows(tmp_path, unit_rows(7))
    for name in "notes.txt", "my.000001.txt", "unfinished":
        (tmp_path / name).mkdir()
    (tmp_path / ".style.000009.faiss.123.tmp").touch()
    (tmp_path / "style.000004.ivf.faiss").touch()
    info = commit_rows(tmp_path, unit_rows(4, seed=1))
    assert info["generation"] == 5  # no name is used twice
    assert files(tmp_path) == [
        "index.json",
        "index.lock",
        "my.000001.txt",
        "notes.txt",
        "segments.000005.parquet",
        "skipped.000005.csv",
        "style.000005.faiss",
        "unfinished",
    ]


def test_files_of_the_user_are_neither_swept_nor_counted(tmp_path):
    """A table of hits with a date in its name went with the next commit; one
    with the time, too, made every later commit fail."""
    commit_rows(tmp_path, unit_rows(3))
    mine = {
        *("hits.20261121.csv", "hits.202611211903.csv", "skipped.csv"),
        *("segments.000001.csv", "segments.2147483647.parquet"),
        *("style.9999999999.faiss", "skipped.202611211903.csv"),
        *(".hits.20261121.csv.7.tmp", ".notes.7.tmp"),
    }
    left = {".index.json.7.tmp", ".segments.000009.parquet.7.tmp"}
    for name in mine | left | {"style.000041.ivf.faiss"}:
        (tmp_path / name).write_text("mine")
    info = commit_rows(tmp_path, unit_rows(4))
    assert info["generation"] == 42 and len(LocalStore(tmp_path)) == 4
    ours = {"index.json", "index.lock", "segments.000042.parquet"}
    ours |= {"skipped.000042.csv", "style.000042.faiss"}
    assert set(files(tmp_path)) == ours | mine


def test_a_commit_that_fails_leaves_nothing(tmp_path):
    commit_rows(tmp_path, unit_rows(3))
    before = files(tmp_path)
    for skips in ["no skip"], [(Skip("a", "b"), "\udcff")]:
        with pytest.raises((ValueError, AttributeError)):
            commit_rows(tmp_path, unit_rows(4), skips)
        assert files(tmp_path) == before
    with pytest.raises(IndexFolderError, match="fingerprint of style"):
        commit_rows(tmp_path, unit_rows(4), fingerprint=None)
    assert files(tmp_path) == before and len(LocalStore(tmp_path)) == 3


def test_blocks_of_the_state_before_make_the_next(tmp_path):
    """Also those of a reader whose files the commit deletes."""
    vectors = unit_rows(100)
    info = commit_rows(tmp_path, vectors)
    before = LocalStore(tmp_path)
    kept = np.arange(0, 100, 2)
    table = segment_table(100).take(kept)
    blocks = (before.take("style", kept[i : i + 7]) for i in range(0, 50, 7))
    with write_lock(tmp_path):
        commit(tmp_path, info, table, {"style": blocks}, [])
    after = LocalStore(tmp_path)
    np.testing.assert_array_equal(after.take("style", range(50)), vectors[kept])


@pytest.mark.parametrize(
    "table, vectors, message",
    [
        (segment_table(3).drop_columns(["id"]), {"style": 3}, "begins with"),
        (segment_table(3).select(["path", "id"]), {"style": 3}, "begins with"),
        (segment_table(3), {}, "vectors of"),
        (segment_table(3), {"style": 2}, "2 vectors for 3 segments"),
        (segment_table(3), {"style": 4}, "4 vectors for 3 segments"),
        (
            segment_table(3).append_column("mood", pa.array([1, 2, 3])),
            {"style": 3},
            "begins with",
        ),
    ],
)
def test_what_does_not_fit_is_not_committed(tmp_path, table, vectors, message):
    info = commit_rows(tmp_path, unit_rows(5))
    vectors = {name: unit_rows(n) for name, n in vectors.items()}
    with pytest.raises(ValueError, match=message), write_lock(tmp_path):
        commit(tmp_path, info, table, vectors, [])
    assert len(LocalStore(tmp_path)) == 5


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_a_commit_that_ends_at_any_step_leaves_a_whole_state(
    tmp_path, monkeypatch
):
    """Stopped at each call that changes the folder or waits for the disk."""
    count, limit = 0, None

    def stopping(function):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count == limit:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "replace", stopping(os.replace))
    monkeypatch.setattr(os, "fsync", stopping(os.fsync))
    monkeypatch.setattr(Path, "unlink", stopping(Path.unlink))
    old, new = unit_rows(5), unit_rows(9, seed=1)
    commit_rows(tmp_path / "whole", old)
    count = 0
    commit_rows(tmp_path / "whole", new)
    n_steps, sizes = count, []
    for step in range(1, n_steps + 1):
        folder = tmp_path / str(step)
        count, limit = 0, None
        commit_rows(folder, old)
        count, limit = 0, step
        with pytest.raises(Killed):
            commit_rows(folder, new)
        opened = LocalStore(folder)
        sizes.append(len(opened))
        wanted = {5: old, 9: new}[len(opened)]
        rows = np.arange(len(opened))
        np.testing.assert_array_equal(opened.take("style", rows), wanted)
        assert len(opened.segments(rows)) == len(rows)
        limit = None
        info = commit_rows(folder, new)
        assert len(LocalStore(folder)) == 9
        named = [info["spaces"]["style"]["vectors"], info["segments"]]
        named += [info["skipped"], "index.json", "index.lock"]
        assert files(folder) == sorted(named)
    assert sizes == sorted(sizes) and set(sizes) == {5, 9}


WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tiny_index import commit_rows, unit_rows
commit_rows(sys.argv[2], unit_rows(1, seed=1))  # what comes first is slow
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        n = int(line)
        while True:
            n = n % 300 + 1
            commit_rows(sys.argv[2], unit_rows(n, seed=n))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_state(tmp_path):
    """kill -9, twenty times, while it does nothing but commit."""
    tests = Path(__file__).resolve().parents[1]
    rng = random.Random(0)
    command = [sys.executable, "-c", WRITER, str(tests), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as writer:
        assert writer.stdout.readline() == "ready\n"
        for _ in range(20):
            before = read_info(tmp_path)
            writer.stdin.write(f"{before['rows']}\n")
            writer.stdin.flush()
            child = int(writer.stdout.readline())
            end = time.monotonic() + 60
            while read_info(tmp_path)["generation"] == before["generation"]:
                assert time.monotonic() < end, "it commits nothing"
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, 9)
            assert writer.stdout.readline() == "ended\n"
            opened = LocalStore(tmp_path)
            n, rows = len(opened), np.arange(len(opened))
            vectors = opened.take("style", rows)
            np.testing.assert_array_equal(vectors, unit_rows(n, seed=n))
            assert read_table(tmp_path, opened.info).equals(segment_table(n))
            assert read_skips(tmp_path, opened.info) == []
        writer.stdin.close()
    commit_rows(tmp_path, unit_rows(2))  # no lock is left, and no rubbish
    assert len(files(tmp_path)) == 5


def test_a_reader_goes_on_with_its_state(tmp_path):
    """Columns are read late; their file is deleted by then."""
    commit_rows(tmp_path, unit_rows(30))
    with LocalStore(tmp_path) as reader:
        for seed in 1, 2:
            commit_rows(tmp_path, unit_rows(3, seed=seed))
        query = unit_rows(30)[[4]]
        where = Where(pc.field("mood") == "calm")
        for each in None, where:
            keys, scores = reader.nearest("style", query, 3, each)
            assert keys[0, 0] == 4 and scores[0, 0] == pytest.approx(1)
        assert reader.segments([4])[0].path == "/corpus/00001.wav"
        assert reader.values("mood") == ["calm", "sad"]
        assert reader.find("/corpus/00001.wav").tolist() == [3, 4, 5]
    assert len(LocalStore(tmp_path)) == 3


def test_a_reader_that_comes_between_two_commits_looks_again(
    tmp_path, monkeypatch
):
    old = commit_rows(tmp_path, unit_rows(30))
    commit_rows(tmp_path, unit_rows(3))
    stale = iter([old])
    monkeypatch.setattr(
        local,
        "read_info",
        lambda folder: next(stale, None) or read_info(folder),
    )
    assert len(LocalStore(tmp_path)) == 3


@pytest.mark.parametrize(
    "name", ["faiss_files.beginning", "vectors.read_faiss"]
)
def test_a_reader_is_overtaken_while_it_opens(tmp_path, monkeypatch, name):
    """The header was read, then a commit deleted the file: one of 200 opens
    beside a busy writer ended with a FileNotFoundError."""
    commit_rows(tmp_path, unit_rows(30))
    name = f"esr_lobes.index.{name}"
    function, still = pkgutil.resolve_name(name), [5, 4, 3]

    def overtaken(path, *args):
        found = function(path, *args)
        if still:
            commit_rows(tmp_path, unit_rows(still.pop()))
        return found

    monkeypatch.setattr(name, overtaken)
    assert len(LocalStore(tmp_path)) == 5 and not still


def test_readers_open_while_a_writer_commits(tmp_path):
    commit_rows(tmp_path, unit_rows(1, seed=1))
    is_over = threading.Event()

    def write():
        n = 1
        while not is_over.is_set():
            n = n % 50 + 1
            commit_rows(tmp_path, unit_rows(n, seed=n))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            reader = LocalStore(tmp_path)
            n = len(reader)
            vectors = reader.take("style", np.arange(n))
            np.testing.assert_array_equal(vectors, unit_rows(n, seed=n))
    finally:
        is_over.set()
        writer.join()


def test_one_writer_at_a_time(tmp_path):
    with (
        write_lock(tmp_path),
        pytest.raises(IndexBusyError, match="another process is writing"),
        write_lock(tmp_path),
    ):
        raise AssertionError("two writers")
    with write_lock(tmp_path):
        pass


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(IndexFolderError, match="no such folder; make one with"):
        read_info(tmp_path / "nowhere")
    with pytest.raises(IndexFolderError, match="no index; make one with"):
        read_info(tmp_path)
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(IndexFolderError, match="run the same esr index again"):
        read_info(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(IndexFolderError, match="cannot be read"):
        read_info(tmp_path / "file")
    with (
        pytest.raises(IndexFolderError, match="cannot be written to"),
        write_lock(tmp_path / "file"),
    ):
        raise AssertionError("a file is no folder")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("\udcff", "no JSON"),
        ("[]", "has format None, not 1"),
        ('{"format": 2}', "has format 2, not 1: open it with the version"),
        ('{"format": 1}', "generation"),
    ],
)
def test_an_index_json_that_is_none(tmp_path, text, message):
    data = text.encode("utf-8", "surrogateescape")
    (tmp_path / "index.json").write_bytes(data)
    with pytest.raises(IndexFolderError, match=message):
        read_info(tmp_path)


PLACES = ["segments", "skipped", "spaces.style.vectors"]
PLACES += ["spaces.style.approximate.file"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name",
    ["../a", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "a\0b", 3]
    + ["a\n", None],
)
def test_names_that_lead_out_of_the_folder(tmp_path, place, name):
    info = commit_rows(tmp_path, unit_rows(3))
    info["spaces"]["style"]["approximate"] = {"file": "a.faiss", "nprobe": 1}
    refused(tmp_path, info, place, name)


@pytest.mark.parametrize(
    "place, value",
    [
        ("rows", -1),
        ("rows", "3"),
        ("rows", True),
        ("rows", 1 << 60),
        ("generation", None),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("roots", "/corpus"),
        ("roots", [1]),
        ("columns", None),
        ("preprocessing", []),
        ("spaces", {}),
        ("spaces", {"../style": {}}),
        ("spaces", {"style": []}),
        ("spaces.style.dimension", 0),
        ("spaces.style.dimension", 2.5),
        ("spaces.style.fingerprint", None),
        ("spaces.style.source", 1),
        ("spaces.style.approximate", "a.faiss"),
        ("spaces.style.approximate", {"file": "a.faiss", "nprobe": 0}),
    ],
)
def test_values_that_no_commit_wrote(tmp_path, place, value):
    refused(tmp_path, commit_rows(tmp_path, unit_rows(3)), place, value)


def refused(folder, info, place, value):
    *way, last = place.split(".")
    branch = info
    for key in way:
        branch = branch[key]
    branch[last] = value
    (folder / "index.json").write_text(json.dumps(info))
    for opener in read_info, LocalStore:
        with pytest.raises(IndexFolderError, match="index.json is damaged"):
            opener(folder)


def other_rows(path):
    pq.write_table(segment_table(4), path)


def other_columns(path):
    pq.write_table(segment_table(3).drop_columns(["mood"]), path)


def other_types(path):
    table = segment_table(3)
    paths = pa.array([1, 2, 3])
    pq.write_table(table.set_column(1, "path", paths), path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", ["segments", "vectors"])
@pytest.mark.parametrize("harm", [cut, os.remove, other_rows])
def test_a_damaged_file_is_named(tmp_path, name, harm):
    info = commit_rows(tmp_path, unit_rows(3))
    file = {**info, **info["spaces"]["style"]}[name]
    harm(tmp_path / file)
    with pytest.raises(IndexFolderError, match=f"{file} .*build it anew"):
        LocalStore(tmp_path)


@pytest.mark.parametrize("harm", [other_columns, other_types])
def test_another_table_is_refused(tmp_path, harm):
    info = commit_rows(tmp_path, unit_rows(3))
    harm(tmp_path / info["segments"])
    with pytest.raises(IndexFolderError, match="not the 3 segments"):
        read_table(tmp_path, info)


@pytest.mark.parametrize(
    "column, value",
    [
        *(("start", value) for value in (-5.0, 1.0, np.nan, None)),
        *(("stop", value) for value in (0.0, np.inf, np.nan)),
        *(("channel", -3), ("path", "/a\0b"), ("id", None)),
    ],
)
def test_segments_that_are_none(tmp_path, column, value):
    """Times of a stranger's table ended in labels, and in names of files."""
    info = commit_rows(tmp_path, unit_rows(1))
    path = tmp_path / info["segments"]
    table = pq.read_table(path)
    i = table.schema.get_field_index(column)
    field = table.schema.field(i).with_nullable(True)
    table = table.set_column(i, field, pa.array([value], field.type))
    pq.write_table(table, path)
    opened = LocalStore(tmp_path)
    with pytest.raises(IndexFolderError, match="parquet is damaged"):
        opened.segments([0])


@pytest.mark.parametrize("value", [b"x", [1], {"a": 1}])
def test_columns_hold_what_a_table_of_hits_can_show(tmp_path, value):
    info = commit_rows(tmp_path, unit_rows(3))
    path = tmp_path / info["segments"]
    table = pq.read_table(path).drop_columns("mood")
    table = table.append_column("mood", pa.array([value] * 3))
    pq.write_table(table, path)
    with pytest.raises(IndexFolderError, match="not the 3 segments"):
        LocalStore(tmp_path)


def test_damage_that_is_seen_late_is_named_too(tmp_path):
    info = commit_rows(tmp_path, unit_rows(300))
    path = tmp_path / info["segments"]
    data = bytearray(path.read_bytes())
    data[4:3000] = b"\xff" * 2996
    path.write_bytes(data)
    opened = LocalStore(tmp_path)
    wheres = Where(pc.field("id") == "x")
    for ask in (
        lambda: opened.segments([1]),
        lambda: opened.values("id"),
        lambda: opened.nearest("style", unit_rows(1), 1, wheres),
        lambda: read_table(tmp_path, info),
    ):
        with pytest.raises(IndexFolderError, match="parquet cannot be read"):
            ask()


@pytest.mark.parametrize("text", ["path,reason\na,b\n", "a,b\n1,2,3\n", "\xff"])
def test_a_damaged_list_of_skips(tmp_path, text):
    info = commit_rows(tmp_path, unit_rows(3), [(Skip("a", "b"), "c")])
    (tmp_path / info["skipped"]).write_bytes(text.encode("latin-1"))
    with pytest.raises(IndexFolderError, match="csv is damaged"):
        read_skips(tmp_path, info)


def test_local_store(tmp_path):
    vectors = unit_rows(60)
    commit_rows(tmp_path, vectors)
    opened = LocalStore(tmp_path)
    assert len(opened) == 60 and opened.spaces == {"style": 8}
    assert opened.columns["mood"] == "string"
    assert opened.columns["channel"] == "int16"
    queries = unit_rows(2, seed=9)
    keys, scores = opened.nearest("style", queries, 100)
    assert keys.shape == scores.shape == (2, 60)
    truth = np.argsort(-(queries @ vectors.T), axis=1)
    np.testing.assert_array_equal(keys, truth)
    for mood in "sad", "calm":
        where = Where(pc.field("mood") == mood)
        keys, _ = opened.nearest("style", queries, 5, where)
        is_wanted = np.array(MOODS)[truth % 3] == mood
        assert keys[0].tolist() == truth[0][is_wanted[0]][:5].tolist()
    with pytest.raises(ValueError, match="no space 'content', but: style"):
        opened.nearest("content", queries, 5)
    for count in 0, 2.5, None:
        with pytest.raises(ValueError, match="count must be positive"):
            opened.nearest("style", queries, count)
    np.testing.assert_array_equal(
        opened.scores("style", queries[0], [3, 1]),
        (queries[:1].astype("f8") @ vectors[[3, 1]].astype("f8").T)[0].astype(
            "f4"
        ),
    )


def test_segments_of_a_store(tmp_path, monkeypatch):
    """In any order, any number of times, from several groups of rows."""
    monkeypatch.setattr(store, "ROWS_IN_GROUP", 7)
    table = segment_table(60)
    commit_rows(tmp_path, unit_rows(60))
    opened = LocalStore(tmp_path)
    keys = [59, 0, 7, 6, 59]
    segments = opened.segments(keys)
    for key, segment in zip(keys, segments, strict=True):
        assert segment.path == f"/corpus/{key // 3:05d}.wav"
        assert (segment.start, segment.stop) == (key % 3, key % 3 + 1)
        assert segment.channel is None
        assert segment.id == table["id"][key].as_py()
        assert segment.metadata == {"mood": MOODS[key % 3]}
    assert opened.segments([]) == []
    for key in -1, 60:
        with pytest.raises(IndexError, match="0 to 59"):
            opened.segments([key])
    assert opened.find("/corpus/00003.wav").tolist() == [9, 10, 11]
    assert opened.find("/corpus/00003.wav", 0.5, 1.5).tolist() == [9, 10]
    assert opened.find("/corpus/00003.wav", start=1).tolist() == [10, 11]
    assert opened.find("elsewhere").tolist() == []
    assert opened.values("start") == [0, 1, 2]
    assert opened.values("path", 2) == ["/corpus/00000.wav"] + [
        "/corpus/00001.wav"
    ]
    with pytest.raises(ValueError, match="'moods', did you mean 'mood'"):
        opened.values("moods")
    everything = opened.background("style")
    assert everything.shape == (60, 8)
    some = opened.background("style", 3)
    np.testing.assert_array_equal(some, everything[[0, 20, 40]])
    assert opened.sample(3).tolist() == [0, 20, 40]
    assert opened.sample(99).tolist() == list(range(60))
    # What is published is what was opened, also after another commit.
    commit_rows(tmp_path, unit_rows(2))
    lines = list(opened.lines(25))
    assert sum(lines, []) == table.to_pylist()


def test_an_empty_index_opens(tmp_path):
    commit_rows(tmp_path, np.empty((0, 8), np.float32))
    opened = LocalStore(tmp_path)
    where = Where(pc.field("mood") == "sad")
    for each in None, where:
        keys, scores = opened.nearest("style", unit_rows(2), 5, each)
        assert keys.shape == scores.shape == (2, 0)
    assert len(opened) == 0 and opened.values("mood") == []
    assert opened.background("style").shape == (0, 8)
    assert opened.find("a").tolist() == []
