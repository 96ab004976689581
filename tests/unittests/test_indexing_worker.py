"""The worker: each row is what the retriever says of that segment, bad files
harm no other, and a unit always gives the same bits.

Authors
 * The esr_lobes contributors
"""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from babble import babble, talk

from esr_lobes import audio
from esr_lobes.errors import MendableError
from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.indexing import worker as worker_module
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.digests import digest_of
from esr_lobes.indexing.worker import (
    Shard,
    Unit,
    Worker,
    one_thread,
    read_ahead,
)
from esr_lobes.inference import EncoderRetriever
from esr_lobes.preparation import Skip

VOICE = Cutting(min_seconds=1.0, max_seconds=2.0)
WINDOWS = Cutting("windows", max_seconds=2.0, hop_seconds=1.0)


@pytest.fixture(scope="module")
def retrievers(tiny_retriever):
    return {"style": EncoderRetriever.from_hparams(tiny_retriever)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Short files, a long one, one of two channels, and bad ones."""
    folder = tmp_path_factory.mktemp("audio")
    waves = {
        "a.wav": talk([-0.5, 1.2, -0.5]),
        "b.flac": talk([1.5, -2.5, 0.4, -2.5, 3.0, -1.0], seed=5),
        "stereo.wav": np.stack(
            [talk([1.5, -2.5], seed=1), talk([-2.5, 1.5], seed=2)], axis=1
        ),
        "noise.wav": np.random.default_rng(0).standard_normal(48000) * 0.05,
        "silent.wav": np.zeros(32000),
        "short.wav": babble(0.05),
    }
    for name, wave in waves.items():
        soundfile.write(folder / name, wave, 16000)
    late = talk([1.5, -1.0, 1.5], seed=3)
    late[-10] = np.nan
    soundfile.write(folder / "late.wav", late, 16000, subtype="FLOAT")
    (folder / "corrupt.wav").write_bytes(b"no audio" * 50)
    (folder / "empty.wav").write_bytes(b"")
    whole = (folder / "a.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    return folder


def unit_of(folder, *names):
    return Unit(tuple((str(folder / n), digest(folder / n)) for n in names))


def digest(path):
    return digest_of(path)[0] if path.exists() else "gone"


def check_rows(shard, retriever):
    """Every row is what the retriever says of that segment, read anew."""
    for row, vector in zip(
        shard.table.to_pylist(), shard.vectors["style"], strict=True
    ):
        place = row["path"], row["start"], row["stop"], row["channel"]
        expected = retriever.encode_batch(audio.read(*place))[0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-4)
        assert row["id"] == segment_id(*place, row["digest"])
        assert row["duration"] == row["stop"] - row["start"]
        assert row["digest"] == digest(Path(row["path"]))


def test_voice(retrievers, folder):
    worker = Worker(retrievers, VOICE, batch_size=2)
    shard = worker(unit_of(folder, "b.flac", "a.wav"))
    assert shard.skips == () and shard.table.schema.equals(SCHEMA)
    assert shard.vectors["style"].dtype == np.float32
    check_rows(shard, retrievers["style"])
    rows = shard.table.to_pylist()
    places = [(row["path"], row["start"]) for row in rows]
    assert places == sorted(places)
    assert all(1.0 <= row["duration"] <= 2.0 + 1e-9 for row in rows)
    # the short cry between two long pauses is there, and widened
    [cry] = [row for row in rows if row["start"] < 4.0 < row["stop"]]
    assert cry["duration"] == pytest.approx(1.0)
    assert worker.seconds["audio"] == pytest.approx(2.2 + 10.9)
    assert all(worker.seconds[part] > 0 for part in worker.seconds)


def test_windows_of_chapters(retrievers, folder):
    worker = Worker(retrievers, WINDOWS, chapter_seconds=1.6)
    shard = worker(unit_of(folder, "b.flac"))
    check_rows(shard, retrievers["style"])
    times = [(row["start"], row["stop"]) for row in shard.table.to_pylist()]
    windows = audio.cut_windows(10.9, 2.0, 1.0, 0.1)
    # the one in the pause is silent and is left out, as in encode_files
    _, segments = retrievers["style"].encode_files(
        folder / "b.flac", progress=False
    )
    assert times == [(s.start, s.stop) for s in segments]
    assert set(windows) - set(times) == {(2.0, 4.0)}


def test_channels(retrievers, folder):
    cutting = Cutting(min_seconds=1.0, max_seconds=2.0, channels="split")
    unit = unit_of(folder, "stereo.wav")
    for chapter_seconds in 300.0, 1.6:
        shard = Worker(retrievers, cutting, chapter_seconds=chapter_seconds)(
            unit
        )
        check_rows(shard, retrievers["style"])
        rows = shard.table.to_pylist()
        assert [row["channel"] for row in rows] == [0, 1]
        assert rows[0]["stop"] < 2.0 and rows[1]["start"] > 2.0
    mix = Worker(retrievers, VOICE)(unit)
    check_rows(mix, retrievers["style"])
    assert [row["channel"] for row in mix.table.to_pylist()] == [None, None]


@pytest.mark.parametrize("chapter_seconds", [300.0, 1.0])
def test_bad_files_harm_no_other(retrievers, folder, chapter_seconds):
    bad = {
        "corrupt.wav": "corrupt",
        "empty.wav": "empty",
        "late.wav": "not finite",
        "missing.wav": "missing",
        "noise.wav": "no voice",
        "short.wav": "too short",
        "silent.wav": "silent",
        "truncated.wav": "truncated",
    }
    worker = Worker(retrievers, VOICE, chapter_seconds=chapter_seconds)
    shard = worker(unit_of(folder, "a.wav", *bad, "b.flac"))
    found = {
        skip.path.rsplit("/", 1)[1]: (skip.reason, digest)
        for skip, digest in shard.skips
    }
    assert found == {name: (bad[name], digest(folder / name)) for name in bad}
    assert all(reason in audio.ADVICE for reason in bad.values())
    check_rows(shard, retrievers["style"])
    alone = Worker(retrievers, VOICE, chapter_seconds=chapter_seconds)(
        unit_of(folder, "a.wav", "b.flac")
    )
    assert shard.table.equals(alone.table)
    np.testing.assert_allclose(
        shard.vectors["style"], alone.vectors["style"], atol=1e-5
    )
    check_round_trip(shard)


@pytest.mark.parametrize("name", ["a.wav", "corrupt.wav"])
def test_a_file_that_changes_is_not_taken_for_what_it_was(
    retrievers, folder, tmp_path, name
):
    """Else other content has its vectors for ever."""
    for name_here in (name, "b.flac"):
        shutil.copy(folder / name_here, tmp_path)
    unit = unit_of(tmp_path, name, "b.flac")
    with open(tmp_path / name, "ab") as file:
        file.write(b"more")
    shard = Worker(retrievers, VOICE)(unit)
    assert [(s.path, s.reason, s.detail) for s, _ in shard.skips] == [
        (str(tmp_path / name), "changed", "while it was read")
    ]
    assert set(shard.table["path"].to_pylist()) == {str(tmp_path / "b.flac")}


def test_an_embedding_that_is_no_number_is_a_skip(retrievers, folder):
    class Odd:
        hparams = SimpleNamespace(sample_rate=16000, embedding_size=1)

        def encode_batch(self, waves):
            # only the cry in b.flac, after a pause, is widened to one second
            rows = [len(wave) == 16000 for wave in waves]
            return torch.tensor([[np.nan if r else 1.0] for r in rows])

    both = {**retrievers, "odd": Odd()}
    shard = Worker(both, VOICE)(unit_of(folder, "a.wav", "b.flac"))
    assert [(Path(s.path).name, s.reason) for s, _ in shard.skips] == [
        ("b.flac", "not finite")
    ]
    assert {Path(p).name for p in shard.table["path"].to_pylist()} == {"a.wav"}
    assert np.isfinite(shard.vectors["odd"]).all()


def test_windows_take_what_is_no_voice(retrievers, folder):
    shard = Worker(retrievers, WINDOWS)(unit_of(folder, "noise.wav"))
    assert len(shard.table) == 2 and shard.skips == ()


def check_round_trip(shard):
    again = Shard.from_bytes(shard.to_bytes())
    assert again.table.equals(shard.table)
    assert again.table.schema.equals(shard.table.schema)
    assert again.skips == shard.skips
    assert list(again.vectors) == list(shard.vectors)
    for space, rows in shard.vectors.items():
        assert again.vectors[space].shape == rows.shape
        assert again.vectors[space].tobytes() == rows.tobytes()


def test_shard_of_nothing_comes_back(retrievers):
    name = "odd\udcff.wav"  # bytes that are no Unicode
    shard = Worker(retrievers, VOICE)(Unit(((name, "d"), ("nowhere", "e"))))
    assert len(shard.skips) == 2
    assert shard.skips[1][0] == Skip(
        "nowhere", "missing", "no such file or folder"
    )
    assert shard.vectors["style"].shape == (0, 16)
    check_round_trip(shard)
    check_round_trip(Worker(retrievers, VOICE)(Unit(())))


def test_several_spaces(retrievers, folder):
    class Loudness:
        hparams = SimpleNamespace(sample_rate=16000, embedding_size=1)

        def encode_batch(self, waves):
            return torch.stack([wave.abs().max()[None] for wave in waves])

    both = {**retrievers, "loudness": Loudness()}
    shard = Worker(both, VOICE)(unit_of(folder, "a.wav", "b.flac"))
    check_rows(shard, retrievers["style"])
    for row, vector in zip(
        shard.table.to_pylist(), shard.vectors["loudness"], strict=True
    ):
        wave = audio.read(row["path"], row["start"], row["stop"])
        assert vector[0] == wave.abs().max()
    check_round_trip(shard)


def test_same_bits(retrievers, folder):
    """Again, beside others, and whatever the number of torch's threads."""
    worker = Worker(retrievers, VOICE)
    units = [unit_of(folder, "a.wav", "b.flac"), unit_of(folder, "stereo.wav")]
    expected = [worker(unit).to_bytes() for unit in units]
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(3) as pool:
            shards = list(pool.map(worker, units * 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
    assert [shard.to_bytes() for shard in shards] == expected * 2


def test_buffer_is_emptied(retrievers, folder, monkeypatch):
    """More segments than are held at a time: the same rows come out."""
    unit = unit_of(folder, "b.flac", "noise.wav", "a.wav")
    expected = Worker(retrievers, WINDOWS)(unit)
    monkeypatch.setattr(worker_module, "BUFFER_SEGMENTS", 3)
    monkeypatch.setattr(worker_module, "GROUP_CHAPTERS", 2)
    shard = Worker(retrievers, WINDOWS, batch_size=2, chapter_seconds=2.0)(unit)
    assert shard.table.equals(expected.table)
    np.testing.assert_allclose(
        shard.vectors["style"], expected.vectors["style"], atol=1e-5
    )


def test_no_error_of_the_model_is_swallowed(folder):
    class Broken:
        hparams = SimpleNamespace(sample_rate=16000, embedding_size=1)

        def encode_batch(self, waves):
            raise RuntimeError("out of memory")

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="out of memory"):
        Worker({"style": Broken()}, WINDOWS)(unit_of(folder, "b.flac"))
    assert set(threading.enumerate()) == before


def test_refused(retrievers):
    hparams = SimpleNamespace(sample_rate=8000, embedding_size=1)
    with pytest.raises(MendableError, match="8000 Hz"):
        Worker({"style": SimpleNamespace(hparams=hparams)}, WINDOWS)
    with pytest.raises(MendableError, match="batch_size"):
        Worker(retrievers, WINDOWS, batch_size=0)


def test_read_ahead_is_bounded_and_in_order():
    asked = []

    def items():
        for i in range(1, 10):
            asked.append(i)
            yield i

    for i in read_ahead(items(), size=2):
        assert max(asked) <= i + 2
    assert i == 9


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_read_ahead_leaves_no_thread(error):
    before = set(threading.enumerate())

    def items():
        yield 1
        raise ValueError("in the background")

    with pytest.raises(ValueError, match="in the background"):
        list(read_ahead(items()))
    assert set(threading.enumerate()) == before

    with pytest.raises(error):
        items = read_ahead(iter(range(1, 100)))
        try:
            for _ in items:
                raise error
        finally:
            items.close()
    assert set(threading.enumerate()) == before


def test_one_thread_is_put_back():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread:
            with one_thread:
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


PEAK = """
import resource, sys, types, torch
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.digests import digest_of
from esr_lobes.indexing.worker import Unit, Worker
class Loudness:
    hparams = types.SimpleNamespace(sample_rate=16000, embedding_size=1)
    def encode_batch(self, waves):
        return torch.stack([wave.abs().max()[None] for wave in waves])
worker = Worker({"loud": Loudness()}, Cutting("windows"), 4, 20)
for path in sys.argv[1:]:
    print(len(worker(Unit(((path, digest_of(path)[0]),))).table))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_stays_flat(tmp_path):
    """20 minutes more are 77 MB; what is held at a time is some minutes."""
    paths = []
    noise = np.random.default_rng(0).integers(-9999, 9999, 960000, np.int16)
    for minutes in 10, 30:
        paths.append(tmp_path / f"{minutes}.wav")
        with soundfile.SoundFile(paths[-1], "w", 16000, 1) as file:
            for _ in range(minutes):
                file.write(noise)
    answer = subprocess.run(
        [sys.executable, "-c", PEAK, *paths],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    n_short, before, n_long, after = map(float, answer.split())
    assert (n_short, n_long) == (149, 449)
    assert after - before < 20  # MiB
