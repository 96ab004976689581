"""An approximate index is made where it pays, and says how good it is.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest
from tiny_index import clustered_rows, commit_rows, unit_rows

from esr_lobes import EncoderRetriever
from esr_lobes.cli import main
from esr_lobes.errors import MendableError
from esr_lobes.index import optimize as module
from esr_lobes.index.local import LocalStore
from esr_lobes.index.optimize import drop, optimize, own_queries, recall
from esr_lobes.index.store import (
    IndexBusyError,
    IndexFolderError,
    read_info,
    write_lock,
)
from esr_lobes.index.vectors import FlatVectors

QUIET = {"progress": False}


@pytest.fixture
def folder(tmp_path):
    """An index of 4000 segments in clusters."""
    commit_rows(tmp_path / "index", clustered_rows(4000))
    return tmp_path / "index"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_small_index_is_left_alone(folder):
    before = read_info(folder)
    (report,) = optimize(folder, **QUIET)
    assert not report.is_kept and report.exact_ms > 0
    assert "below 20000 segments" in str(report)
    assert f"that takes {report.exact_ms:.1f} ms" in str(report)
    assert read_info(folder) == before


def test_what_was_measured_is_what_a_reader_gets(folder):
    """The recall in the report, worked out again from the opened index."""
    reader = LocalStore(folder)
    queries = clustered_rows(80, spread=1.0)
    given = {"style": queries}
    (report,) = optimize(folder, given, 0.9, force=True, **QUIET)
    best = report.steps[-1]
    assert report.is_kept and best.recall >= 0.9
    assert all(step.recall < 0.9 for step in report.steps[:-1])
    info = read_info(folder)
    fast = info["spaces"]["style"]["approximate"]
    assert fast["file"] == "style.000002.ivf.faiss"
    assert fast["kind"] == report.kind == "IVF102,SQ8"
    assert (fast["nprobe"], fast["recall"]) == (best.nprobe, best.recall)
    assert files(folder) == [
        "index.json",
        "index.lock",
        "segments.000001.parquet",
        "skipped.000001.csv",
        "style.000001.faiss",
        "style.000002.ivf.faiss",
    ]
    opened = LocalStore(folder)
    truth, scores = opened.nearest("style", queries, 10, exact=True)
    found, _ = opened.nearest("style", queries, 10)
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    shares = [len(set(a) & set(b)) / 10 for a, b in pairs]
    assert np.mean(shares) == pytest.approx(best.recall)
    # Who opened it before goes on exactly, and has the same answers.
    np.testing.assert_array_equal(
        reader.nearest("style", queries, 10)[0], truth
    )


def test_recall_by_hand():
    """Of two queries one loses a hit; one with an equal score is no loss."""

    class Found:
        def __init__(self, scores):
            self.scores = np.array(scores, np.float32)

        def nearest(self, queries, count):
            return None, self.scores

    fast = Found([[0.9, 0.7], [0.8, 0.8]])
    fast.flat = Found([[0.9, 0.8], [0.8, 0.8]])
    assert recall(fast, [0, 1], 2) == 0.75


def test_own_queries_lie_near_their_rows(tmp_path):
    rows = unit_rows(300, 64)
    FlatVectors.write(tmp_path / "a", rows, *rows.shape)
    queries = own_queries(FlatVectors(tmp_path / "a", *rows.shape), 100)
    cosines = (queries @ rows.T).max(axis=1)
    assert queries.shape == (100, 64)
    assert 0.82 < cosines.min() and cosines.max() < 0.96
    assert cosines.mean() == pytest.approx(1 / 1.25**0.5, abs=0.02)


def test_given_queries_decide_and_both_kinds_are_told(folder):
    hard = {"style": unit_rows(64, 32, seed=5)}
    (own,) = optimize(folder, None, 0.9, force=True, **QUIET)
    (given,) = optimize(folder, hard, 0.9, force=True, **QUIET)
    assert given.steps[-1].nprobe > own.steps[-1].nprobe
    assert own.queries == "own" and given.queries == "given"
    assert own.own_recall == own.steps[-1].recall
    assert given.own_recall > given.steps[0].recall
    assert "vectors of the index with noise:" in str(own)
    assert f"with noise: {given.own_recall:.3f})" in str(given)
    assert files(folder)[-1] == "style.000003.ivf.faiss"
    assert len(files(folder)) == 6  # the list of before is gone


def test_where_it_does_not_reach_the_target_search_stays_exact(tmp_path):
    """Vectors and queries without any order, and not one loss allowed."""
    commit_rows(tmp_path, unit_rows(2000, 32))
    queries = {"style": unit_rows(100, 32, seed=1)}
    (report,) = optimize(tmp_path, queries, 1.0, force=True, **QUIET)
    assert not report.is_kept and report.steps[-1].recall < 1
    assert "is the most it gave" in str(report)
    assert read_info(tmp_path)["generation"] == 1
    assert not any("ivf" in name for name in files(tmp_path))


def test_where_it_is_not_faster_search_stays_exact(folder, monkeypatch):
    monkeypatch.setattr(module, "FEWEST_ROWS", 0)
    # A clock that says so, because a real one depends on the machine.
    monkeypatch.setattr(module, "_milliseconds", lambda *_: 5.0)
    (report,) = optimize(folder, target=0.2, **QUIET)
    assert not report.is_kept
    assert "takes 5.00 ms, which is not faster" in str(report)
    (report,) = optimize(folder, target=0.2, force=True, **QUIET)
    assert report.is_kept
    optimize(folder, target=0.2, **QUIET)
    assert read_info(folder)["spaces"]["style"]["approximate"] is None


def test_new_rows_and_dropping_end_it(folder):
    optimize(folder, force=True, **QUIET)
    assert drop(folder) == ["style"] and drop(folder) == []
    assert len(files(folder)) == 5
    optimize(folder, force=True, **QUIET)
    commit_rows(folder, clustered_rows(50))
    assert read_info(folder)["spaces"]["style"]["approximate"] is None
    assert len(files(folder)) == 5


@pytest.mark.parametrize("n_rows", [0, 1, 20])
def test_few_rows_by_force(tmp_path, n_rows):
    commit_rows(tmp_path, unit_rows(n_rows))
    (report,) = optimize(tmp_path, force=True, **QUIET)
    if n_rows == 0:
        assert report.why == "it is empty"
    keys, _ = LocalStore(tmp_path).nearest("style", unit_rows(1), 30)
    assert sorted(keys[0]) == list(range(n_rows))


def test_a_damaged_one_is_dropped_and_made_again(folder):
    optimize(folder, force=True, **QUIET)
    path = folder / files(folder)[-1]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(IndexFolderError, match=f"esr optimize {folder} --drop"):
        LocalStore(folder)
    drop(folder)
    LocalStore(folder)


def test_wrong_wishes(folder, tmp_path):
    for target in 0, 1.1, float("nan"):
        with pytest.raises(MendableError, match="recall must be above 0"):
            optimize(folder, target=target)
    with pytest.raises(MendableError, match="no space 'content', but: style"):
        optimize(folder, {"content": unit_rows(1)})
    with pytest.raises(ValueError, match=r"shape \[batch, 32\]"):
        optimize(folder, {"style": unit_rows(1, 8)})
    with pytest.raises(IndexFolderError, match="no such folder"):
        optimize(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with write_lock(folder), pytest.raises(IndexBusyError):
        optimize(folder)


def test_the_command(tmp_path, tiny_retriever, capsys):
    fingerprint = EncoderRetriever.from_hparams(
        str(tiny_retriever)
    ).fingerprint()
    rows, source = clustered_rows(2000, 16), str(tiny_retriever)
    commit_rows(tmp_path / "a", rows, fingerprint=fingerprint, source=source)
    index = str(tmp_path / "a")
    main(["optimize", index])
    assert "style: 2000 segments\n  searched exactly" in capsys.readouterr().out
    main(["optimize", index, "--force"])
    printed = capsys.readouterr().out
    assert "measured with the queries given" in printed
    assert "from now on: recall@10" in printed
    (tmp_path / "asked.txt").write_text("a sad voice\n\nsomebody who is glad\n")
    asked = ["--queries", str(tmp_path / "asked.txt")]
    main(["optimize", index, "--force", "--recall", "0.5", *asked])
    assert "recall@10" in capsys.readouterr().out
    main(["optimize", index, "--drop"])
    assert capsys.readouterr().out == "Searched exactly again: style\n"
    main(["optimize", index, "--drop"])
    assert "nothing was approximate" in capsys.readouterr().out


def test_a_folder_of_queries_is_refused_before_a_model_is_loaded(
    folder, capsys
):
    with pytest.raises(SystemExit) as ended:
        main(["optimize", str(folder), "--queries", str(folder), "--force"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"{folder} cannot be read" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "text, message",
    [(b"\n \n", "has no descriptions"), (b"\xff", "is no UTF-8 text")],
)
def test_wrong_queries_of_the_command(folder, capsys, text, message):
    path = folder / "asked.txt"
    path.write_bytes(text)
    with pytest.raises(SystemExit) as ended:
        main(["optimize", str(folder), "--queries", str(path)])
    assert ended.value.code == 2 and message in capsys.readouterr().err
