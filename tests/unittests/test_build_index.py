"""Building an index and bringing it up to date, on tones.

Authors
 * The esr_lobes contributors
"""

import csv
import errno
import json
import os
import resource
import shutil

import numpy as np
import pytest
import soundfile
import torch
from tiny_retriever import make_tiny_retriever

from esr_lobes import EncoderRetriever, audio
from esr_lobes.errors import MendableError
from esr_lobes.index.local import LocalStore
from esr_lobes.index.segments import segment_id
from esr_lobes.index.store import (
    IndexBusyError,
    IndexFolderError,
    read_skips,
    read_table,
    replace_info,
    write_lock,
)
from esr_lobes.indexing import build, plan
from esr_lobes.indexing.build import BuildError, build_index
from esr_lobes.indexing.cutting import Cutting, CuttingError
from esr_lobes.indexing.metadata import MetadataError
from esr_lobes.indexing.plan import PlanError
from esr_lobes.indexing.settings import SettingsError

WINDOWS = {"kind": "windows"}


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return EncoderRetriever.from_hparams(str(tiny_retriever))


@pytest.fixture
def corpus(tmp_path, write_tone):
    """A folder of four tones of 0.5 to 3.5 s."""
    for i in range(4):
        path = tmp_path / "audio" / f"{i}.wav"
        write_tone(path, 0.5 + i, 200.0 + 100 * i, seed=i)
    return tmp_path / "audio"


@pytest.fixture
def heard(monkeypatch):
    """Names of the files that the engine was given, in all builds."""
    names, engine = [], build.local_engine

    def listening(units, worker, n_workers):
        for unit in units:
            names.extend(os.path.basename(path) for path, _ in unit.files)
        yield from engine(units, worker, n_workers)

    monkeypatch.setattr(build, "local_engine", listening)
    return names


@pytest.fixture
def index(corpus, retriever, tmp_path):
    """A function that builds the corpus' index; options by keyword."""

    def call(audio=corpus, retriever=retriever, cutting=WINDOWS, **more):
        out = tmp_path / "index"
        return build_index(
            audio, out, retriever, cutting, progress=False, **more
        )

    return call


def rows_of(report):
    """Returns (file name, start, stop) of all segments, and their vectors."""
    store = LocalStore(report.folder)
    rows = [
        (os.path.basename(segment.path), segment.start, segment.stop)
        for segment in store.segments(range(len(store)))
    ]
    return rows, store.take("style", np.arange(len(store)))


def test_a_folder_becomes_an_index(index, corpus, retriever):
    report = index()
    assert report.new == report.files == 4 and report.skipped == 0
    rows, vectors = rows_of(report)
    assert rows == [
        ("0.wav", 0.0, 0.5),
        ("1.wav", 0.0, 1.5),
        ("2.wav", 0.0, 2.0),
        ("2.wav", 0.5, 2.5),
        ("3.wav", 0.0, 2.0),
        ("3.wav", 1.0, 3.0),
        ("3.wav", 1.5, 3.5),
    ]
    assert report.segments == 7
    assert report.hours * 3600 == pytest.approx(0.5 + 1.5 + 2 * 2 + 3 * 2)
    for (name, start, stop), vector in zip(rows, vectors, strict=True):
        wave = audio.read(corpus / name, start, stop)
        alone = retriever.encode_batch(wave)[0].numpy()
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    for segment in LocalStore(report.folder).segments(range(7)):
        digest = plan.digest_of(segment.path)[0]
        place = segment.path, segment.start, segment.stop, None
        assert segment.id == segment_id(*place, digest)
    assert not os.path.exists(os.path.join(report.folder, "unfinished"))


def test_what_has_not_changed_is_not_heard_again(index, heard):
    index()
    before = sorted(os.listdir(index().folder))
    assert sorted(heard) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    report = build_index(None, index().folder, progress=False)
    assert (report.kept, report.files, report.segments) == (4, 4, 7)
    assert sorted(os.listdir(report.folder)) == before  # no new commit


def test_an_index_follows_its_folder(index, corpus, heard, write_tone):
    _, before = rows_of(index())
    heard.clear()
    os.unlink(corpus / "0.wav")
    (corpus / "1.wav").rename(corpus / "9.wav")
    write_tone(corpus / "2.wav", 0.6, 900.0)
    write_tone(corpus / "deeper" / "4.wav", 0.7, 950.0)
    report = index()
    assert sorted(heard) == ["2.wav", "4.wav"]
    assert (report.new, report.changed, report.moved) == (1, 1, 1)
    assert (report.kept, report.dropped, report.files) == (1, 2, 4)
    rows, vectors = rows_of(report)
    assert rows == [
        ("2.wav", 0.0, 0.6),
        ("3.wav", 0.0, 2.0),
        ("3.wav", 1.0, 3.0),
        ("3.wav", 1.5, 3.5),
        ("9.wav", 0.0, 1.5),
        ("4.wav", 0.0, 0.7),
    ]
    assert np.array_equal(vectors[1:4], before[4:7])
    assert np.array_equal(vectors[4], before[1])
    anew = rows_of(index(rebuild=True))
    assert anew[0] == rows
    np.testing.assert_allclose(anew[1], vectors, atol=1e-5)
    table = read_table(report.folder, LocalStore(report.folder).info)
    ids = table["id"].to_pylist()
    moved = ids[4]
    digest = plan.digest_of(corpus / "9.wav")[0]
    assert moved == segment_id(str(corpus / "9.wav"), 0.0, 1.5, None, digest)


def test_broken_files_are_listed_and_harm_no_other(index, corpus, heard):
    (corpus / "empty.wav").touch()
    (corpus / "text.mp3").write_text("no audio")
    soundfile.write(corpus / "nan.wav", np.full(8000, np.nan), 16000, "FLOAT")
    soundfile.write(corpus / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(corpus / "short.wav", np.ones(80), 16000)
    report = index()
    assert (report.files, report.skipped, report.segments) == (9, 5, 7)
    assert f"5 skipped, listed in {report.skips}" in str(report)
    with open(report.skips, newline="") as file:
        skips = {
            os.path.basename(row["path"]): row["reason"]
            for row in csv.DictReader(file)
        }
    assert skips == {
        "empty.wav": "empty",
        "text.mp3": "corrupt",
        "nan.wav": "not finite",
        "silent.wav": "silent",
        "short.wav": "too short",
    }
    heard.clear()
    shutil.copy(corpus / "0.wav", corpus / "empty.wav")
    os.unlink(corpus / "nan.wav")
    report = index()
    assert heard == []  # 0.wav is known, the others still are what they were
    assert (report.skipped, report.dropped) == (3, 1)


def test_a_file_that_vanishes_while_others_are_heard(
    index, corpus, monkeypatch, heard
):
    engine, away = build.local_engine, corpus.parent / "away"

    def hiding(units, worker, n_workers):
        (corpus / "2.wav").rename(away)
        yield from engine(units, worker, n_workers)

    with monkeypatch.context() as patch:
        patch.setattr(build, "local_engine", hiding)
        report = index()
    assert (report.skipped, report.segments) == (1, 5)
    away.rename(corpus / "2.wav")  # the drive is back
    heard.clear()
    report = index()
    assert heard == ["2.wav"] and report.segments == 7


def test_a_file_that_changes_before_it_is_heard(
    index, corpus, monkeypatch, heard
):
    """As logs do: 2.wav becomes 4.wav, and another 2.wav is written."""
    engine = build.local_engine

    def rotating(units, worker, n_workers):
        (corpus / "2.wav").rename(corpus / "4.wav")
        shutil.copy(corpus / "1.wav", corpus / "2.wav")
        yield from engine(units, worker, n_workers)

    with monkeypatch.context() as patch:
        patch.setattr(build, "local_engine", rotating)
        assert index().skipped == 1
    report = index()
    assert (report.new, report.moved, report.skipped) == (1, 1, 0)
    rows, vectors = rows_of(report)
    anew = rows_of(index(rebuild=True))
    assert anew[0] == rows
    np.testing.assert_allclose(anew[1], vectors, atol=1e-5)


def test_a_file_that_cannot_be_read_now_keeps_its_segments(index, corpus):
    _, before = rows_of(index())
    away = (corpus / "2.wav").rename(corpus.parent / "away")
    (corpus / "2.wav").symlink_to(corpus.parent / "not mounted")
    report = index()
    assert (report.kept, report.dropped, report.new) == (4, 0, 0)
    text = "1 cannot be read now and keep their segments, such as"
    assert f"{text} {corpus / '2.wav'} (No such file" in str(report)
    assert np.array_equal(rows_of(report)[1], before)
    away.rename(corpus / "2.wav")
    report = index()
    assert report.kept == 4 and "cannot be read" not in str(report)


def test_giant_samples_harm_no_other(index, corpus):
    """They once kept an index from ever being written."""
    wave = np.sin(np.arange(16000)).astype(np.float32) * 1e30
    soundfile.write(corpus / "giant.wav", wave, 16000, "FLOAT")
    for _ in range(2):
        report = index()
        assert (report.skipped, report.segments) == (1, 7)


def test_odd_names_stay_in_the_list_of_skips(index, corpus):
    names = ["a\rb.wav", "a\nb.wav", 'a"b.wav', "a,b.wav"]
    for name in names:
        (corpus / name).write_text("no audio")
    for _ in range(2):
        report = index()
        assert (report.files, report.skipped) == (8, 4)
    info = LocalStore(report.folder).info
    skips = read_skips(report.folder, info)
    found = sorted(os.path.basename(skip.path) for skip, _ in skips)
    assert found == sorted(names)


def test_a_name_that_is_no_text(index, corpus):
    odd = os.fsencode(corpus) + b"/\xff.wav"
    shutil.copy(os.fsencode(corpus / "0.wav"), odd)
    assert index().skipped == 1
    assert (index().skipped, index().files) == (1, 5)


def test_roots(index, corpus, tmp_path, write_tone):
    index()
    other = write_tone(tmp_path / "other" / "5.wav", 0.5, 300.0)
    report = index(other.parent)
    assert (report.new, report.kept, report.segments) == (1, 4, 8)
    write_tone(other.parent / "6.wav", 0.5, 350.0)
    write_tone(corpus / "7.wav", 0.5, 400.0)
    report = index(None)  # both are brought up to date
    assert (report.new, report.segments) == (2, 10)
    report = index(corpus, prune=True)
    assert (report.dropped, report.segments) == (2, 8)
    assert index(None).files == 5


def test_a_drive_that_is_gone_drops_nothing(index, corpus):
    index()
    corpus.rename(corpus.parent / "away")
    for audio_given in (None, corpus):
        with pytest.raises(PlanError, match="nothing was dropped"):
            index(audio_given)
    assert len(LocalStore(corpus.parent / "index")) == 7


def test_settings_are_those_of_the_index(
    index, tiny_text_backbone, tmp_path, retriever
):
    index()
    for cutting, message in [
        ({"hop_seconds": 0.5}, "made with hop_seconds 1.0, not 0.5"),
        (Cutting(), "made with kind windows, not voice"),
    ]:
        with pytest.raises(SettingsError, match=message):
            index(cutting=cutting)
    other = make_tiny_retriever(tmp_path / "other", tiny_text_backbone, 1)
    with pytest.raises(SettingsError, match="another model .* add --rebuild"):
        index(retriever=str(other))
    two = {"style": retriever, "content": retriever}
    with pytest.raises(SettingsError, match="style, not style and content"):
        index(retriever=two)
    assert index(retriever=None, cutting=None).kept == 4


def test_a_rebuild_takes_all_roots_and_other_settings(
    index, corpus, tiny_text_backbone, tmp_path, write_tone, heard
):
    write_tone(tmp_path / "other" / "5.wav", 0.5, 300.0)
    index([corpus, tmp_path / "other"])
    other = make_tiny_retriever(tmp_path / "model", tiny_text_backbone, 1)
    heard.clear()
    longer = {"hop_seconds": 2.0}
    report = index(retriever=str(other), cutting=longer, rebuild=True)
    assert len(heard) == report.new == 5 and report.segments == 7
    info = LocalStore(report.folder).info
    assert info["preprocessing"]["hop_seconds"] == 2.0
    assert info["preprocessing"]["kind"] == "windows"
    assert info["spaces"]["style"]["source"] == str(other)


def test_a_damaged_index_can_be_built_anew(index, tmp_path):
    index()
    (tmp_path / "index" / "index.json").write_text("{")
    with pytest.raises(IndexFolderError, match="is damaged"):
        index()
    assert index(rebuild=True).segments == 7


def test_a_retriever_that_moved_is_noted(index, tiny_retriever, tmp_path):
    first = shutil.copytree(tiny_retriever, tmp_path / "first")
    index(retriever=str(first))
    first.rename(tmp_path / "second")
    with pytest.raises(SettingsError, match="no longer there: say with --sour"):
        index(retriever=None)
    report = index(retriever=str(tmp_path / "second"))
    assert report.kept == 4
    source = LocalStore(report.folder).info["spaces"]["style"]["source"]
    assert source == str(tmp_path / "second")
    assert index(retriever=None).kept == 4


def test_nothing_says_which_retriever(index):
    with pytest.raises(SettingsError, match="no index yet, .* --source"):
        index(retriever=None)


def test_the_usual_lengths_are_the_retrievers(index, retriever):
    cutting = build.choose_cutting(None, None, {"style": retriever})
    assert cutting.kind == "voice" and cutting.max_seconds == 2.0
    assert (cutting.hop_seconds, cutting.shortest) == (1.0, 0.2)
    given = {"kind": "windows", "max_seconds": 1.5}
    cutting = build.choose_cutting(given, None, {"style": retriever})
    assert (cutting.max_seconds, cutting.hop_seconds) == (1.5, 0.75)
    with pytest.raises(CuttingError, match="hop_seconds is 9.0, longer than"):
        index(cutting={**WINDOWS, "hop_seconds": 9.0})


def test_two_spaces(index, retriever, tiny_text_backbone, tmp_path):
    other = make_tiny_retriever(tmp_path / "other", tiny_text_backbone, 1)
    report = index(retriever={"style": retriever, "content": str(other)})
    store = LocalStore(report.folder)
    assert store.spaces == {"style": 16, "content": 16}
    rows = np.arange(len(store))
    _, style = rows_of(report)
    content = store.take("content", rows)
    assert np.abs(content - style).max() > 0.1
    alone = EncoderRetriever.from_hparams(str(other))
    wave = audio.read(store.segments([0])[0].path)
    wanted = alone.encode_batch(wave)[0].numpy()
    np.testing.assert_allclose(content[0], wanted, atol=1e-5)
    assert index(retriever=None, cutting=None).kept == 4


@pytest.mark.parametrize("space", ["Style", "a b", ""])
def test_names_of_spaces_are_checked_first(index, retriever, space):
    with pytest.raises(SettingsError, match="small letters"):
        index(retriever={space: retriever})


def test_metadata_stays_and_is_replaced(index, corpus, tmp_path, write_tone):
    csv_file = tmp_path / "actors.csv"
    csv_file.write_text("file,actor\n0,7\n1.wav,8\n9,9\n")
    report = index(metadata=csv_file)
    assert report.unmatched == 1
    assert "1 rows of the metadata name no file here" in str(report)

    def actors(column="actor"):
        store = LocalStore(report.folder)
        segments = store.segments(range(len(store)))
        return {os.path.basename(s.path): s.metadata[column] for s in segments}

    assert actors() == {"0.wav": 7, "1.wav": 8, "2.wav": None, "3.wav": None}
    (corpus / "0.wav").rename(corpus / "8.wav")
    write_tone(corpus / "1.wav", 0.5, 700.0)
    index()
    assert actors() == {"1.wav": 8, "2.wav": None, "3.wav": None, "8.wav": 7}
    assert LocalStore(report.folder).columns["actor"] == "int64"
    csv_file.write_text("file,sex\n2,female\n")
    assert index(metadata=csv_file).unmatched == 0
    assert LocalStore(report.folder).info["columns"] == ["sex"]
    assert actors("sex")["2.wav"] == "female"
    assert index(rebuild=True).new == 4 and actors("sex")["2.wav"] == "female"


def test_metadata_follows_files_that_move_up(index, corpus, tmp_path):
    """Each new name was that of another file."""
    csv_file = tmp_path / "actors.csv"
    csv_file.write_text("file,actor\n0,a\n1,b\n2,c\n3,d\n")
    index(metadata=csv_file)
    for i in (3, 2, 1):
        (corpus / f"{i}.wav").rename(corpus / f"{i + 1}.wav")
    report = index()
    store = LocalStore(report.folder)
    assert {
        os.path.basename(segment.path): segment.metadata["actor"]
        for segment in store.segments(range(len(store)))
    } == {"0.wav": "a", "2.wav": "b", "3.wav": "c", "4.wav": "d"}


def test_files_without_metadata_are_counted(index, corpus, tmp_path):
    good = (corpus / "1.wav").read_bytes()
    csv_file = tmp_path / "actors.csv"
    csv_file.write_text("file,actor\n0,7\n1,8\n")
    index(metadata=csv_file)
    (corpus / "1.wav").write_text("no audio")
    assert index().bare == 0
    (corpus / "1.wav").write_bytes(good)
    report = index()
    assert "1 files have no metadata: give --metadata again" in str(report)
    report = index(metadata=csv_file)
    assert report.bare == 0 and "give --metadata" not in str(report)
    values = LocalStore(report.folder).values("actor")
    assert values == [7, 8]


def test_metadata_is_checked_before_the_long_work(
    index, heard, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "read_digests", None)
    (tmp_path / "x.csv").write_text("file,start\n0,1\n")
    with pytest.raises(MetadataError, match="'start' is a column of the ind"):
        index(metadata=tmp_path / "x.csv")
    assert heard == []


def test_a_second_writer_is_told_so(index, tmp_path):
    with write_lock(tmp_path / "index"):
        with pytest.raises(IndexBusyError, match="another process is writing"):
            index()
    assert index().segments == 7


def test_a_folder_with_other_things_is_no_place(index, corpus, retriever):
    before = sorted(corpus.iterdir())
    with pytest.raises(BuildError, match="holds other files"):
        build_index(corpus, corpus, retriever, progress=False)
    assert sorted(corpus.iterdir()) == before


@pytest.mark.parametrize(
    "name, text",
    [
        ("unfinished/novel.txt", "mine"),
        ("index.json", '{"my": "site"}'),
        ("index.json", "["),
        ("index.json", "\udcff"),
    ],
)
@pytest.mark.parametrize("rebuild", [True, False])
def test_a_folder_that_only_looks_like_an_index(
    index, tmp_path, name, text, rebuild
):
    """What was in it was once deleted or overwritten."""
    path = tmp_path / "index" / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(BuildError, match="holds other files"):
        index(rebuild=rebuild)
    assert os.listdir(tmp_path / "index") == [name.partition("/")[0]]
    assert path.read_text(encoding="utf-8", errors="surrogateescape") == text


def test_only_own_files_are_deleted_from_unfinished(index, tmp_path):
    folder = tmp_path / "index" / "unfinished"
    index()
    folder.mkdir()
    ours = [".settings.json.12.tmp", f".{'0' * 32}.shard.7.tmp", "x.shard"]
    for name in [*ours, "novel.txt"]:
        (folder / name).write_text("mine")
    (folder / "settings.json").write_bytes(b"\xff\xfe")  # no text at all
    assert index().kept == 4
    assert os.listdir(folder) == ["novel.txt"]
    shutil.rmtree(folder)
    folder.write_text("mine")
    with pytest.raises(BuildError, match="unfinished is no folder, .* away"):
        index()
    assert folder.read_text() == "mine"


def test_a_new_folder_that_nothing_came_of_is_gone_again(index, tmp_path):
    for given, options in [
        (None, {}),
        (tmp_path / "nowhere", {}),
        (tmp_path / "audio", {"retriever": None}),
    ]:
        with pytest.raises(MendableError):
            index(given, **options)
        assert not (tmp_path / "index").exists()
    (tmp_path / "index").mkdir()
    with pytest.raises(MendableError):
        index(None)
    assert (tmp_path / "index").exists()


def test_a_place_that_is_no_text(corpus, retriever, tmp_path):
    with pytest.raises(BuildError, match="no name in UTF-8"):
        build_index(corpus, os.fsdecode(b"/tmp/\xff"), retriever)


def test_a_reader_is_not_disturbed(index, corpus):
    report = index()
    reader = LocalStore(report.folder)
    query = reader.take("style", [3])
    before = reader.nearest("style", query, 7)
    for name in ("0.wav", "1.wav"):
        os.unlink(corpus / name)
        index()
    keys, scores = reader.nearest("style", query, 7)
    assert np.array_equal(keys, before[0])
    assert np.array_equal(scores, before[1])
    assert len(reader) == 7 and len(LocalStore(report.folder)) == 5


def test_an_index_without_segments(index, corpus):
    for path in corpus.iterdir():
        path.write_text("no audio")
    report = index()
    assert (report.segments, report.skipped) == (0, 4)
    assert len(LocalStore(report.folder)) == 0
    assert index().kept == 4


def test_what_was_begun_otherwise_is_thrown_away(
    index, monkeypatch, caplog, tmp_path, heard
):
    _stop_after_one(monkeypatch, index)
    report = index(cutting={**WINDOWS, "hop_seconds": 2.0})
    assert "begun with another model or other settings" in caplog.text
    assert report.resumed == 0 and report.segments == 6


def test_a_build_goes_on_where_it_was(index, monkeypatch, heard, corpus):
    undisturbed = rows_of(index(rebuild=True))
    shutil.rmtree(corpus.parent / "index")
    _stop_after_one(monkeypatch, index)
    with pytest.raises(IndexFolderError, match="nothing committed yet"):
        LocalStore(corpus.parent / "index")
    heard.clear()
    report = index()
    assert (report.resumed, len(heard), report.new) == (1, 3, 4)
    assert "1 were done by an earlier run" in str(report)
    rows, vectors = rows_of(report)
    assert rows == undisturbed[0]
    np.testing.assert_allclose(vectors, undisturbed[1], atol=1e-5)


def test_shards_of_other_folders_stay(
    index, corpus, heard, tmp_path, write_tone, monkeypatch
):
    other = write_tone(tmp_path / "other" / "5.wav", 0.5, 300.0).parent
    monkeypatch.setattr(plan, "MAX_FILES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(build, "merge", None)
        with pytest.raises(TypeError):
            index([corpus, other])
    heard.clear()
    unfinished = tmp_path / "index" / "unfinished"
    assert index().resumed == 4
    assert len(list(unfinished.glob("*.shard"))) == 1
    report = index([corpus, other])
    assert report.resumed == 1 and heard == [] and report.segments == 8
    assert not unfinished.exists()


def test_stale_shards_do_not_stay(index, corpus, monkeypatch, write_tone):
    _stop_after_one(monkeypatch, index)
    for i in range(4):
        write_tone(corpus / f"{i}.wav", 0.5, 800.0 + i)
    assert index().resumed == 0
    assert not (corpus.parent / "index" / "unfinished").exists()


def test_a_damaged_shard_is_made_again(index, monkeypatch, corpus, heard):
    _stop_after_one(monkeypatch, index)
    (shard,) = (corpus.parent / "index" / "unfinished").glob("*.shard")
    shard.write_bytes(shard.read_bytes()[:100])
    report = index()
    assert report.resumed == 0 and report.segments == 7


def _stop_after_one(monkeypatch, index):
    """Begins a build of units of one file, and interrupts it after one."""
    engine = build.local_engine

    def stopping(units, worker, n_workers):
        for i, result in enumerate(engine(units, worker, 1)):
            if i == 1:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(plan, "MAX_FILES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(build, "local_engine", stopping)
        with pytest.raises(KeyboardInterrupt):
            index()


@pytest.mark.parametrize("where", ["shards", "commit"])
def test_a_full_disk_loses_nothing(
    index, corpus, where, write_tone, monkeypatch
):
    """No file may be longer than a shard's 1000 bytes, or 99 vectors."""
    monkeypatch.setattr(plan, "MAX_FILES", 4)
    report = index()
    n_new, limit = {"shards": (1, 1000), "commit": (100, 6500)}[where]
    for i in range(n_new):
        write_tone(corpus / f"new{i}.wav", 0.2, 300.0 + i, seed=i)
    before = rows_of(report)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(BuildError, match="could not be written .*as it wa"):
            index()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = rows_of(report)
    assert after[0] == before[0] and np.array_equal(after[1], before[1])
    report = index()
    assert report.resumed == (n_new if where == "commit" else 0)
    assert report.segments == 7 + n_new


def test_the_threads_of_torch_are_given_back(index):
    torch.set_num_threads(2)
    try:
        index()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), OSError(errno.EIO, "no GPU")]
)
def test_a_worker_that_fails_ends_the_build(
    index, monkeypatch, retriever, error
):
    """The disk of the index was blamed for any error of input or output."""

    def failing(wavs, wav_lens=None):
        raise error

    monkeypatch.setattr(retriever, "encode_batch", failing, raising=False)
    with pytest.raises(type(error)) as caught:
        index(n_workers=2)
    assert caught.value is error


def test_an_approximate_index_that_is_lost_is_said(index, corpus, write_tone):
    folder = index().folder
    info = LocalStore(folder).info
    fast = {"file": "style.000001.ivf.faiss", "nprobe": 1}
    info["spaces"]["style"]["approximate"] = fast
    replace_info(folder, info)
    assert not index().is_optimized_away  # nothing was committed
    stored = json.loads((corpus.parent / "index/index.json").read_text())
    assert stored["spaces"]["style"]["approximate"] == fast
    write_tone(corpus / "5.wav", 0.5, 900.0)
    assert "run esr optimize once more" in str(index())


def test_an_unknown_engine(index):
    with pytest.raises(BuildError, match="local or ray, not 'spark'"):
        index(engine="spark")
