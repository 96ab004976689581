"""A build that is killed at any moment, and readers meanwhile.

Builds run in processes that a server forks, which has imported everything
beforehand, so that a kill falls into the build and not into its imports.

Authors
 * The esr_lobes contributors
"""

import multiprocessing
import os
import random
import sys
import time

import numpy as np
import pytest
import torch

from esr_lobes import EncoderRetriever
from esr_lobes.errors import MendableError
from esr_lobes.index.local import LocalStore
from esr_lobes.index.store import IndexFolderError, read_table
from esr_lobes.indexing import build as builder
from esr_lobes.indexing import plan
from esr_lobes.indexing.worker import Shard

N_FILES = 40
N_KILLS = 20
SETTINGS = {"kind": "windows"}


# Set where the server forks builders: the retriever is opened once, before.
RETRIEVER = os.environ.get("ESR_KILLED_RETRIEVER")
if RETRIEVER:
    torch.set_num_threads(1)
    RETRIEVER = EncoderRetriever.from_hparams(RETRIEVER)


@pytest.fixture(scope="module")
def processes(tiny_retriever):
    """A context whose processes begin with all that a build needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESR_KILLED_RETRIEVER", str(tiny_retriever))
        # The server itself does not take over sys.path before Python 3.12.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        warm = context.Process(target=os.getpid)
        warm.start()
        warm.join()
    return context


def build(corpus, out, log, begun=None):
    """Builds with units of two files; notes which files are listened to."""
    plan.MAX_FILES = 2
    engine = builder.local_engine

    def listening(units, worker, n_workers):
        with open(log, "w") as file:
            file.writelines(f"{p}\n" for unit in units for p, _ in unit.files)
        yield from engine(units, worker, n_workers)

    builder.local_engine = listening
    if begun:
        begun.set()
    builder.build_index(corpus, out, RETRIEVER, SETTINGS, progress=False)


def state(out):
    """Returns path to digest, and id to vector, of what is committed."""
    store = LocalStore(out)
    table = read_table(out, store.info)
    vectors = store.take("style", np.arange(len(store)))
    ids, paths, digests = (
        table[name].to_pylist() for name in ("id", "path", "digest")
    )
    assert len(set(ids)) == len(ids) == len(vectors)
    files = dict(zip(paths, digests, strict=True))
    return files, dict(zip(ids, vectors, strict=True))


def shards(out):
    """Returns (path, digest) of the files that unfinished shards hold."""
    done = set()
    for path in (out / "unfinished").glob("*.shard"):
        shard = Shard.from_bytes(path.read_bytes())  # whole, always
        columns = shard.table.select(["path", "digest"]).to_pydict()
        done.update(zip(*columns.values(), strict=True))
    return done


def digests(corpus):
    """Returns what a build that ends now has: path to digest."""
    paths = sorted(map(str, corpus.glob("*.wav")))
    return {path: d for path, (d, _) in plan.read_digests(paths)[0].items()}


def test_kill_9_at_any_moment(processes, tmp_path, write_tone):
    corpus, out, log = tmp_path / "audio", tmp_path / "index", tmp_path / "log"
    rng = random.Random(1986)

    def write(i, hertz):
        write_tone(corpus / f"{i:02d}.wav", 0.3, hertz, seed=i)

    def start(out=out):
        begun = processes.Event()
        arguments = (corpus, out, log, begun)
        process = processes.Process(target=build, args=arguments)
        process.start()
        assert begun.wait(120)
        return process

    for i in range(N_FILES):
        write(i, 200.0 + 10 * i)
    start(tmp_path / "undisturbed").join()  # and the server has started
    begin = time.monotonic()
    start(tmp_path / "timed").join()
    whole = time.monotonic() - begin
    committed, vectors_of = {}, {}
    n_kills = n_redone = 0
    kills_before, kills_within = 0, 0
    while n_kills < N_KILLS:
        target = digests(corpus)
        # A kill right behind a commit leaves shards of older contents.
        done = {
            path for path, digest in shards(out) if target.get(path) == digest
        }
        log.unlink(missing_ok=True)
        process = start()
        # Before the first commit sooner, so that it is not the first run's.
        process.join(rng.uniform(0, whole if committed else whole / 2))
        is_killed = process.is_alive()
        process.kill()
        process.join()
        assert is_killed or process.exitcode == 0
        n_kills += is_killed
        listened = set(log.read_text().split()) if log.exists() else set()
        n_redone += len(listened & done)
        kills_within += is_killed and bool(listened)
        try:
            files, vectors = state(out)
        except IndexFolderError as error:
            assert not committed and is_killed
            kills_before += 1
            text = str(error)
            assert "nothing committed yet" in text or "no index" in text
            continue
        # The last commit, or the next where it came before the kill.
        assert files in (committed, target) and files
        if files != committed:
            committed = files
            vectors_of.update(vectors)
        assert all((vectors_of[i] == v).all() for i, v in vectors.items())
        if files == target:
            for i in rng.sample(range(N_FILES), 12):
                write(i, rng.uniform(100, 4000))
            os.unlink(rng.choice(sorted(corpus.iterdir())))
    assert n_redone == 0
    process = start()
    process.join()
    assert process.exitcode == 0 and not (out / "unfinished").exists()
    start(tmp_path / "fresh").join()
    files, vectors = state(out)
    wanted_files, wanted = state(tmp_path / "fresh")
    assert files == wanted_files == digests(corpus)
    assert list(vectors) == list(wanted)
    for i, vector in vectors.items():
        np.testing.assert_allclose(vector, wanted[i], atol=1e-5)
    # Else this test has tested nothing.
    assert kills_before and kills_within >= N_KILLS // 4
    names = {path.name for path in out.iterdir()}
    generation = LocalStore(out).info["generation"]
    assert names == {
        "index.json",
        "index.lock",
        f"segments.{generation:06d}.parquet",
        f"skipped.{generation:06d}.csv",
        f"style.{generation:06d}.faiss",
    }


def test_readers_see_whole_commits_only(processes, tmp_path, write_tone):
    corpus, out = tmp_path / "audio", tmp_path / "index"
    arguments = (corpus, out, tmp_path / "log")
    for i in range(8):
        write_tone(corpus / f"{i}.wav", 0.3, 200.0 + 50 * i, seed=i)

    def start():
        process = processes.Process(target=build, args=arguments)
        process.start()
        return process

    start().join()
    first = LocalStore(out)
    query = first.take("style", [3])
    before = first.nearest("style", query, 8)
    generations, n_polls = set(), 0
    for i in range(4):
        os.unlink(corpus / f"{i}.wav")
        process = start()
        while process.is_alive():
            store = LocalStore(out)
            keys, scores = store.nearest("style", query, 8)
            # One file a segment; a commit drops one.
            assert keys.shape == (1, len(store))
            assert len(store) in (8 - i, 7 - i)
            assert len(store.segments(keys[0])) == len(store)
            assert len(set(keys[0].tolist())) == len(store)
            generations.add(store.info["generation"])
            n_polls += 1
        process.join()
        assert process.exitcode == 0
    assert len(generations) >= 4 and n_polls > 20
    keys, scores = first.nearest("style", query, 8)
    assert np.array_equal(keys, before[0])
    assert np.array_equal(scores, before[1])


def test_of_two_writers_one_is_told_to_wait(processes, tmp_path, write_tone):
    corpus, out = tmp_path / "audio", tmp_path / "index"
    for i in range(16):
        write_tone(corpus / f"{i}.wav", 0.3, 200.0 + 50 * i, seed=i)
    results = processes.Queue()
    arguments = (corpus, out, results)
    pair = [
        processes.Process(target=tell, args=arguments, daemon=True)
        for _ in range(2)
    ]
    for process in pair:
        process.start()
    told = [results.get(timeout=120) for _ in pair]
    for process in pair:
        process.join()
    told.remove("16 new")
    # They may also have come one after the other.
    assert "another process is writing" in told[0] or told[0] == "0 new"
    assert len(state(out)[0]) == 16


def tell(corpus, out, results):
    """Builds, and tells the number of new files, or the error."""
    try:
        report = builder.build_index(
            corpus, out, RETRIEVER, SETTINGS, progress=False
        )
        results.put(f"{report.new} new")
    except MendableError as error:
        results.put(str(error))
