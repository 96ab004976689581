"""An index in Milvus answers as its folder does; publishing can be stopped.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from esr_lobes import EncoderRetriever
from esr_lobes.commands import publish as command
from esr_lobes.index import publishing
from esr_lobes.index.local import LocalStore
from esr_lobes.index.milvus import MilvusStore
from esr_lobes.index.milvus_address import (
    MilvusError,
    is_milvus,
    read_address,
)
from esr_lobes.index.milvus_client import Connection
from esr_lobes.index.publishing import publish
from esr_lobes.index.search import SearchIndex
from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.index.store import commit

pytestmark = pytest.mark.skipif(
    find_spec("pymilvus") is None or find_spec("milvus_lite") is None,
    reason="pip install 'esr_lobes[scale]'",
)
JOINED = {
    "actor": pa.int64(),
    "emotion": pa.string(),
    "größe": pa.float64(),
    "not_ok": pa.bool_(),
}
EMOTIONS = ["sad", None, 'a "b"%_\\', "calm"]


def make_index(folder, fingerprint="model", files=range(60), **changes):
    """Commits an index of three segments a file, random but for its files.

    Every tenth file sounds exactly like the file 0, and two channels of one
    recording have the same times.
    """
    columns = {name: [] for name in (*SCHEMA.names, *JOINED)}
    vectors = {"style": [], "content": []}
    for file in files:
        rng = np.random.default_rng(0 if file % 10 == 0 else file)
        for i in range(3):
            path, start = f"/speech/{file:04d}.wav", [0.0, 2.5, 2.5][i]
            channel = [None, 0, 1][i]
            values = [
                segment_id(path, start, start + 2, channel, "d"),
                *(path, start, start + 2 + i / 8, channel, 2 + i / 8, "d"),
                *(file % 7 if file % 5 else None, EMOTIONS[file % 4]),
                *(file / 7, None if file % 6 == 0 else file % 2 == 0),
            ]
            for name, value in zip(columns, values, strict=True):
                columns[name].append(changes.get(name, value))
            for rows in vectors.values():
                vector = rng.standard_normal(16)
                rows.append(vector / np.linalg.norm(vector))
    schema = SCHEMA
    for name, kind in JOINED.items():
        schema = schema.append(pa.field(name, kind))
    info = {
        "spaces": {
            space: {
                "dimension": 16,
                "fingerprint": fingerprint,
                "source": "/models/one",
            }
            for space in vectors
        },
        "preprocessing": {"kind": "windows"},
        "roots": ["/speech"],
    }
    vectors = {s: np.array(rows, np.float32) for s, rows in vectors.items()}
    os.makedirs(folder, exist_ok=True)
    commit(folder, info, pa.table(columns, schema), vectors, [])
    return folder


def everything(store):
    """Returns all rows of a store, in the order of the folder's table."""
    query = np.eye(16, dtype=np.float32)[:1]
    keys, scores = store.nearest("content", query, len(store), exact=True)
    return store.segments(keys[0]), scores[0].tolist()


def assert_same(where, folder):
    with MilvusStore(where) as there, LocalStore(folder) as here:
        assert len(there) == len(here)
        assert everything(there) == everything(here)
        for space in here.spaces:
            background = here.background(space)
            assert np.array_equal(there.background(space), background)


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return EncoderRetriever.from_hparams(str(tiny_retriever))


@pytest.fixture(scope="module")
def both(tmp_path_factory, retriever):
    """The same index in a folder and in Milvus, opened."""
    root = tmp_path_factory.mktemp("both")
    folder = make_index(root / "index", retriever.fingerprint())
    where = f"milvus://{root}/lite.db/speech"
    publish(folder, where, progress=False)
    encoders = {"style": retriever, "content": retriever}
    with (
        SearchIndex(LocalStore(folder), encoders) as here,
        SearchIndex(MilvusStore(where), encoders) as there,
    ):
        yield here, there


QUERIES = {
    "plain": {"query": "a tired voice"},
    "several": {"query": {"a tired voice": 2.0, "shouting": 0.5}},
    "negative": {"query": "excited", "minus": "angry"},
    "text": {"query": "calm", "where": "emotion == 'sad'"},
    "quotes": {"query": "calm", "where": """'"b"%_' in emotion"""},
    "numbers": {"query": "calm", "where": "actor > 2 and größe < 7.1"},
    "nulls": {"query": "calm", "where": "actor == None or emotion != 'sad'"},
    "lists": {"query": "calm", "where": {"actor": [1, 2], "channel": 1}},
    "not": {"query": "calm", "where": "not (not_ok or duration < 2.2)"},
    "nothing": {"query": "calm", "where": "emotion == 'bored'"},
    "merged": {"query": "calm", "merge": 1.0},
    "few of a file": {"query": "calm", "per_file": 1, "k": 40},
    "threshold": {"query": "calm", "threshold": 0.1},
    "z": {"query": "calm", "threshold": 1.0, "scale": "z"},
    "clip": {"clip": ("/speech/0007.wav", 0.0, 2.0)},
    "file": {"clip": "/speech/0020.wav"},
    "ranks": {"style": "calm", "content": "kids"},
    "scores": {"style": "calm", "content": "kids", "fusion": "score"},
    "all": {"query": "calm", "k": 500},
    "exact": {"query": "calm", "exact": True},
}


@pytest.mark.parametrize("name", QUERIES)
def test_hits_are_those_of_the_folder(both, name):
    """Segments, metadata, scores, z-scores and ranks, equal to the bit."""
    here, there = both
    wanted = here.search(**{"k": 30, **QUERIES[name]})
    hits = there.search(**{"k": 30, **QUERIES[name]})
    assert hits == wanted
    assert [h.segment.id for h in hits] == [h.segment.id for h in wanted]
    for hit, other in zip(hits, wanted, strict=True):
        assert hit.segment.metadata == other.segment.metadata
    assert bool(hits) == (name != "nothing")


def test_a_clip_that_is_not_in_the_index(both, write_tone, tmp_path):
    here, there = both
    clip = str(write_tone(tmp_path / "other.wav", seconds=1.5))
    assert there.search(clip=clip) == here.search(clip=clip)


def test_many_queries_at_once(both, monkeypatch):
    """However they are split over requests."""
    here, there = both
    queries = np.random.default_rng(3).standard_normal((20, 16))
    wanted = here.search_batch(queries, k=5)
    assert there.search_batch(queries, k=5) == wanted
    monkeypatch.setattr("esr_lobes.index.milvus_nearest.ANSWER", 5000)
    assert there.search_batch(queries, k=5) == wanted


def test_the_rest_of_the_interface(both):
    here, there = (index.store for index in both)
    assert there.columns == here.columns
    assert there.spaces == here.spaces
    for column in here.columns:
        assert there.values(column) == here.values(column)
    assert there.values("path", 3) == here.values("path", 3)
    for times in (), (1.0, 2.0), (2.1, None), (None, 2.5), (9.0, 10.0):
        found = there.find("/speech/0003.wav", *times)
        wanted = here.find("/speech/0003.wav", *times)
        assert there.segments(found) == here.segments(wanted)
    assert len(there.find("/speech/none.wav")) == 0
    few = here.background("style", 7)
    assert few.shape == (7, 16)
    assert there.background("style", 7).shape == (7, 16)
    # The same segments in every space, whose scores are fused.
    keys = there.sample(7)
    assert len(set(keys)) == 7
    for space in there.spaces:
        assert np.array_equal(
            there.background(space, 7), there.take(space, keys)
        )
    with pytest.raises(ValueError, match="no column 'emotoin'.*'emotion'"):
        there.values("emotoin")
    with pytest.raises(ValueError, match="no space 'speed'"):
        there.nearest("speed", np.ones((1, 16)), 3)
    with pytest.raises(ValueError, match="count must be positive"):
        there.nearest("style", np.ones((1, 16)), 0)
    with pytest.raises(MilvusError, match="no segment 'gone'"):
        there.segments(["gone"])


@pytest.mark.parametrize("kind", ["ivf_sq8", "hnsw"])
def test_an_approximate_collection(tmp_path, kind, monkeypatch):
    """Scores are exact, and so is the answer where few rows are left.

    HNSW alone finds hardly any row under a narrow filter.
    """
    folder = make_index(tmp_path / "index", files=range(700))
    where = f"milvus://{tmp_path}/lite.db/speech"
    assert publish(folder, where, kind, progress=False).kind == kind.upper()
    # What was asked for stays.
    assert publish(folder, where, progress=False).kind == kind.upper()
    query = np.random.default_rng(9).standard_normal(16)
    narrow = "größe > 99.3 and channel == 1"
    with (
        SearchIndex(LocalStore(folder)) as here,
        SearchIndex(MilvusStore(where)) as there,
    ):
        exact = here.search(query, 10)
        assert there.search(query, 10, exact=True) == exact
        approximate = there.search(query, 10)
        scores = {hit.segment: hit.score for hit in here.search(query, 2100)}
        assert all(h.score == scores[h.segment] for h in approximate)
        found = {h.segment for h in approximate} & {h.segment for h in exact}
        assert len(found) >= 5
        wanted = here.search(query, 10, where=narrow)
        assert 0 < len(wanted) < 10
        assert there.search(query, 10, where=narrow) == wanted


def test_only_what_changed_travels(tmp_path):
    folder = make_index(tmp_path / "index")
    where = f"milvus://{tmp_path}/lite.db/speech"
    report = publish(folder, where, progress=False)
    assert (report.added, report.changed, report.deleted) == (180, 0, 0)
    assert_same(where, folder)
    report = publish(folder, where, progress=False)
    assert (report.added, report.changed, report.kept) == (0, 0, 180)
    # 3 files are gone, 5 are new, and all have another emotion.
    with MilvusStore(where) as reader:
        make_index(folder, files=range(3, 65))
        report = publish(folder, where, progress=False)
        assert (report.added, report.deleted) == (15, 9)
        assert report.kept == 180 - 9
        # Who has it open, searches on.
        assert len(everything(reader)[0]) == 180
    assert_same(where, folder)
    make_index(folder, files=range(3, 65), emotion="proud")
    report = publish(folder, where, progress=False)
    assert (report.added, report.changed, report.deleted) == (0, 186, 0)
    assert_same(where, folder)


def test_an_index_that_grows_while_it_is_published(tmp_path, monkeypatch):
    """The table was opened once more by its name, which was gone by then."""
    folder = make_index(tmp_path / "index")
    where = f"milvus://{tmp_path}/lite.db/speech"
    create = publishing._Publisher._create

    def overtaken(self, *args):
        create(self, *args)
        make_index(folder, files=range(65))

    monkeypatch.setattr(publishing._Publisher, "_create", overtaken)
    assert publish(folder, where, progress=False).added == 180
    assert publish(folder, where, progress=False).added == 15
    assert_same(where, folder)


KILLED = """
import os, signal, sys
from esr_lobes.index import publishing

publishing.REQUEST = 20_000
write = publishing._Publisher._write
n_written = 0

def write_or_die(self, *args):
    global n_written
    if n_written == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *args)
    n_written += 1

publishing._Publisher._write = write_or_die
publishing.publish(sys.argv[1], sys.argv[2], progress=False)
"""


def test_killed_publishing_goes_on(tmp_path):
    folder = make_index(tmp_path / "index")
    where = f"milvus://{tmp_path}/lite.db/speech"

    def publish_and_die(after):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), where, str(after)]
        )
        assert ended.returncode == -signal.SIGKILL

    publish_and_die(3)
    with pytest.raises(MilvusError, match="no index is published there"):
        MilvusStore(where)
    report = publish(folder, where, progress=False)
    assert report.kept > 0
    assert report.added > 0
    assert report.kept + report.added == 180
    assert_same(where, folder)
    # Killed while it changes what is there: that can be searched meanwhile.
    make_index(folder, emotion="proud")
    publish_and_die(2)
    with MilvusStore(where) as store:
        assert len(everything(store)[0]) == 180
    assert 0 < publish(folder, where, progress=False).changed < 180
    assert_same(where, folder)


def test_another_model_is_refused(tmp_path):
    folder = make_index(tmp_path / "index")
    other = make_index(tmp_path / "other", fingerprint="other")
    where = f"milvus://{tmp_path}/lite.db/speech"
    publish(folder, where, progress=False)
    with pytest.raises(MilvusError, match="another model.*--replace"):
        publish(other, where, progress=False)
    assert_same(where, folder)
    with MilvusStore(where) as reader:
        publish(other, where, replace=True, progress=False)
        with pytest.raises(MilvusError, match="open it again"):
            everything(reader)
    assert_same(where, other)
    connection = Connection(read_address(where))
    assert len(connection.ask("list_collections")) == 1
    connection.close()


def test_a_collection_of_others_is_refused(tmp_path):
    folder = make_index(tmp_path / "index")
    where = f"milvus://{tmp_path}/lite.db/speech"
    connection = Connection(read_address(where), create=True)
    connection.ask("create_collection", "speech", dimension=4)
    connection.ask("create_collection", "speech_12345678", dimension=4)
    try:
        with pytest.raises(MilvusError, match="no index is published there"):
            MilvusStore(where)
        with pytest.raises(MilvusError, match="not published.*--replace"):
            publish(folder, where, progress=False)
        assert connection.ask("has_collection", "speech")
        publish(folder, where, replace=True, progress=False)
        # Only what stood under the very name is dropped.
        assert connection.ask("has_collection", "speech_12345678")
    finally:
        connection.close()
    assert_same(where, folder)


def test_one_of_another_version_is_refused(tmp_path):
    """It could be replaced only after it had been understood."""
    folder = make_index(tmp_path / "index", files=range(2))
    where = f"milvus://{tmp_path}/lite.db/speech"
    collection = publish(folder, where, progress=False).collection
    for text in '{"format": 0}', "no JSON":
        connection = Connection(read_address(where))
        info = {"esr_lobes.info": text}
        connection.ask("alter_collection_properties", collection, info)
        connection.close()
        for use in MilvusStore, lambda to: publish(folder, to):
            with pytest.raises(MilvusError, match="another version"):
                use(where)
    other = make_index(tmp_path / "other", "other", files=range(2))
    publish(other, where, replace=True, progress=False)
    assert_same(where, other)
    connection = Connection(read_address(where))
    assert len(connection.ask("list_collections")) == 1
    connection.close()


def test_columns_of_another_kind(tmp_path):
    folder = make_index(tmp_path / "index", files=range(2))
    store = LocalStore(folder)
    table = store._table.read()
    rows = table.append_column("day", pa.array([0] * 6, pa.date32()))
    vectors = {s: store.take(s, range(6)) for s in store.spaces}
    commit(folder, store.info, rows, vectors, [])
    with pytest.raises(MilvusError, match="'day' holds date32"):
        publish(folder, f"milvus://{tmp_path}/a.db/b", progress=False)


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_milvus("milvus+https://h/c")
    assert not is_milvus(tmp_path)
    for text, uri in {
        "milvus://h:19530/c": "http://h:19530",
        "milvus://10.0.0.1:19530/c": "http://10.0.0.1:19530",
        "milvus://[::1]:19530/c": "http://[::1]:19530",
        "milvus+https://h.example.org/c": "https://h.example.org",
        "milvus:///a/b.db/c": "/a/b.db",
        "milvus://b.db/c": str(tmp_path / "b.db"),
        "milvus://./d/b.db/c": str(tmp_path / "d/b.db"),
    }.items():
        address = read_address(text)
        assert (address.uri, address.collection) == (uri, "c")
        assert address.is_lite == (not uri.startswith("http"))
    for text in (
        *("milvus://h:19530", "milvus://h/a-b", "milvus://h/1", "milvus:h/c"),
        *("milvus:///a/b/c", "milvus://a b/c", "milvus://user:pw@h/c"),
    ):
        with pytest.raises(MilvusError):
            read_address(text)


def test_what_cannot_be_opened(tmp_path):
    for where, words in {
        "no.db/speech": "there is no such Milvus Lite",
        "none/no.db/speech": "there is no such Milvus Lite",
        "file.db/speech": "there is no such Milvus Lite",
    }.items():
        (tmp_path / "file.db").write_text("something else")
        with pytest.raises(MilvusError, match=words):
            MilvusStore(f"milvus://{tmp_path}/{where}")
    folder = make_index(tmp_path / "index", files=range(2))
    for where, words in {
        "none/no.db/speech": "no such folder",
        "file.db/speech": "is a file",
    }.items():
        with pytest.raises(MilvusError, match=words):
            publish(folder, f"milvus://{tmp_path}/{where}", progress=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MilvusError, match="no Milvus answers"):
        MilvusStore(f"milvus://127.0.0.1:{port}/speech")
    with pytest.raises(ValueError, match="kind is one of"):
        publish(folder, "milvus://h/c", "ivf_pq")


ELSEWHERE = """
import sys
from esr_lobes.index.milvus import MilvusStore

try:
    MilvusStore(sys.argv[1])
except ValueError as error:
    print(error, flush=True)
input()
print(len(MilvusStore(sys.argv[1])))
"""


def test_a_lite_is_for_one_process_at_a_time(tmp_path):
    folder = make_index(tmp_path / "index", files=range(2))
    where = f"milvus://{tmp_path}/lite.db/speech"
    publish(folder, where, progress=False)
    first, second = MilvusStore(where), MilvusStore(where)
    first.close()
    first.close()
    other = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        said = other.stdout.readline()
        assert "cannot be opened: if another process has it open" in said
        assert len(everything(second)[0]) == 6
        second.close()
        assert other.communicate("go on\n", timeout=60)[0].strip() == "6"


def test_a_server_is_only_another_address(tmp_path):
    """The same calls over the network, to a server of its own."""
    folder = make_index(tmp_path / "index")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from milvus_lite.cmdline import main; main()"
    options = f"server --data-dir {tmp_path}/s.db --host 127.0.0.1 --port"
    server = subprocess.Popen(
        [sys.executable, "-c", code, *options.split(), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    where = f"milvus://127.0.0.1:{port}/speech"
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.2)
        assert publish(folder, where, progress=False).added == 180
        assert publish(folder, where, progress=False).kept == 180
        assert_same(where, folder)
    finally:
        server.terminate()
        server.wait(20)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_index(tmp_path / "index", files=range(2))
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    options = parser.parse_args("publish index --to milvus://a.db/b".split())
    options.run(options)
    shown = capsys.readouterr().out
    assert "6 segments added, 0 changed" in shown
    assert "index FLAT" in shown
    assert 'esr search milvus://a.db/b "' in shown
    assert command.KINDS == publishing.KINDS
    assert_same("milvus://a.db/b", "index")
