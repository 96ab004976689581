"""Vectors on disk: exact answers to the last bit, damaged files refused.

Authors
 * The esr_lobes contributors
"""

import gc

import faiss
import numpy as np
import pytest
from tiny_index import clustered_rows, unit_rows

from esr_lobes.index.approximate import Approximate
from esr_lobes.index.state import IndexFolderError
from esr_lobes.index.vectors import FlatVectors


def written(path, rows):
    FlatVectors.write(path, rows, *rows.shape)
    return FlatVectors(path, *rows.shape)


def best_of_all(rows, queries, count, mask=None):
    """The plain slow way: all scores in double precision, a stable sort."""
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    if mask is not None:
        scores[:, ~mask] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(scores, order, axis=1)


def overlap(found, truth):
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@pytest.fixture(scope="module")
def rows():
    return clustered_rows(6000)


@pytest.fixture(scope="module")
def queries():
    return clustered_rows(40, spread=0.6, seed=0)


@pytest.fixture(scope="module")
def flat(rows, tmp_path_factory):
    return written(tmp_path_factory.mktemp("flat") / "a.faiss", rows)


@pytest.fixture(scope="module")
def lists(flat, tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "a.ivf.faiss"
    Approximate.write(path, flat, 128, progress=False)
    return path


@pytest.mark.parametrize("batch", [1, 40])  # FAISS has another way for many
@pytest.mark.parametrize("share", [None, 0.5, 0.01, 0.001, 0])
def test_nearest_is_that_of_the_plain_way(flat, rows, queries, batch, share):
    queries, mask = queries[:batch], None
    if share is not None:
        mask = np.random.default_rng(1).random(len(rows)) < share
    found, scores = flat.nearest(queries, 10, mask)
    truth, numbers = best_of_all(rows, queries, 10, mask)
    n = 10 if mask is None else min(10, mask.sum())
    assert found.shape == scores.shape == (batch, 10)
    assert found.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(found[:, :n], truth[:, :n])
    np.testing.assert_allclose(scores[:, :n], numbers[:, :n], atol=1e-7)
    assert (found[:, n:] == -1).all() and np.isneginf(scores[:, n:]).all()


def test_a_file_is_that_of_faiss(tmp_path, rows):
    """Written by us block by block, it is what FAISS writes at once."""
    FlatVectors.write(tmp_path / "a", np.array_split(rows, 7), *rows.shape)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    ours = (tmp_path / "a").read_bytes()
    assert ours == faiss.serialize_index(index).tobytes()


def test_equal_scores_are_ranked_by_row_however_many(tmp_path):
    """More ties than spare candidates, in single and batched search."""
    different = unit_rows(2, 16)
    rows = np.repeat(different, [900, 100], axis=0)
    rows = rows[np.random.default_rng(0).permutation(1000)]
    flat = written(tmp_path / "a", rows)
    same = np.flatnonzero((rows == different[1]).all(axis=1))
    for batch in 1, 30:
        queries = np.repeat(different[1:], batch, axis=0)
        found, scores = flat.nearest(queries, 7)
        assert found.tolist() == [same[:7].tolist()] * batch
        assert len(set(scores.ravel().tolist())) == 1
    found, _ = flat.nearest(different[1:], 102)
    others = np.setdiff1d(np.arange(1000), same)[:2]
    assert found[0].tolist() == [*same, *others]


def test_one_score_for_a_row_whichever_way(flat, lists, queries):
    found, scores = flat.nearest(queries, 5)
    mask = np.zeros(len(flat), bool)
    mask[found[0]] = True
    again = flat.nearest(queries[:1], 5, mask)
    np.testing.assert_array_equal(again[1][0], scores[0])
    np.testing.assert_array_equal(flat.scores(queries[0], found[0]), scores[0])
    fast = Approximate(lists, flat, 64).nearest(queries, 5)
    is_same = fast[0] == found
    assert is_same.mean() > 0.9
    np.testing.assert_array_equal(fast[1][is_same], scores[is_same])


def test_take_blocks_and_more_than_there_are(flat, rows, tmp_path):
    wanted = [5, 0, 5, 5999]
    np.testing.assert_array_equal(flat.take(wanted), rows[wanted])
    np.testing.assert_array_equal(np.concatenate([*flat.blocks()]), rows)
    for row in -1, 6000:
        with pytest.raises(IndexError, match=f"no row {row}"):
            flat.take([0, row])
    few = written(tmp_path / "few", rows[:3])
    found, _ = few.nearest(rows[:2], 5)
    assert (found[:, 3:] == -1).all() and (found[:, :3] >= 0).all()


def test_an_empty_index_answers_nothing(tmp_path):
    flat = written(tmp_path / "a", np.empty((0, 4), np.float32))
    found, scores = flat.nearest(unit_rows(2, 4), 3)
    assert found.tolist() == [[-1] * 3] * 2 and np.isneginf(scores).all()
    assert flat.take([]).shape == (0, 4) and list(flat.blocks()) == []


def test_an_opened_file_stands_by_itself(tmp_path):
    """Its FAISS object once was freed while a view of it was in use."""
    flat = written(tmp_path / "a", unit_rows(3, 8))
    (tmp_path / "a").unlink()
    gc.collect()
    rows = [written(tmp_path / str(i), unit_rows(50, 8)) for i in range(5)]
    assert flat.nearest(unit_rows(1, 8), 1)[0].tolist() == [[0]]
    assert len(rows) == 5


@pytest.mark.parametrize(
    "block, message",
    [
        ([[1.0, 0.0], [2.0, 0.0]], "vector 1 has length 2"),
        ([[1.0, 0.0], [np.nan, 0.0]], "vector 1 is not finite"),
        ([[1.0, 0.0, 0.0]], r"\[batch, 2\], not \[1, 3\]"),
        ([[1.0, 0.0]], "1 vectors for 2 segments"),
    ],
)
def test_wrong_vectors_are_not_written(tmp_path, block, message):
    with pytest.raises(ValueError, match=message):
        FlatVectors.write(tmp_path / "a", [block], 2, 2)


@pytest.mark.parametrize("queries", [[1.0, 0.0], [[1.0]], [[np.inf] * 32]])
def test_wrong_queries_are_refused(flat, queries):
    with pytest.raises(ValueError, match="shape|finite"):
        flat.nearest(queries, 1)


def damage(path, change):
    """Returns a copy of a file whose bytes were changed."""
    copy = path.with_name("copy.faiss")
    data = bytearray(path.read_bytes())
    copy.write_bytes(change(data) or data)
    return copy


def put(offset, number, size=8):
    def change(data):
        data[offset : offset + size] = number.to_bytes(size, "little")

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"0",
        lambda data: data[:20],
        lambda data: b"\0" * len(data),
        put(4, 7, 4),  # dimension
        put(8, 1 << 40),  # rows
        put(37, 1 << 60),  # numbers that follow
    ],
)
def test_a_damaged_file_is_not_given_to_faiss(tmp_path, change):
    rows = unit_rows(10, 8)
    FlatVectors.write(tmp_path / "a.faiss", rows, 10, 8)
    copy = damage(tmp_path / "a.faiss", change)
    with pytest.raises(IndexFolderError, match="copy.faiss is damaged"):
        FlatVectors(copy, 10, 8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(IndexFolderError, match="gone.faiss cannot be read"):
        FlatVectors(tmp_path / "gone.faiss", 1, 1)


def test_approximate_finds_nearly_all(flat, lists, rows, queries):
    truth, _ = best_of_all(rows, queries, 10)
    recalls = [
        overlap(Approximate(lists, flat, nprobe).nearest(queries, 10)[0], truth)
        for nprobe in (2, 8, 32)
    ]
    assert recalls == sorted(recalls) and recalls[-1] > 0.97


@pytest.mark.parametrize("share, least", [(0.5, 0.9), (0.1, 0.9), (0.01, 1.0)])
def test_approximate_with_a_filter(flat, lists, rows, queries, share, least):
    """It gives only what the filter lets pass, and no less of that."""
    mask = np.random.default_rng(2).random(len(rows)) < share
    found, _ = Approximate(lists, flat, 16).nearest(queries, 10, mask)
    truth, _ = best_of_all(rows, queries, 10, mask)
    assert mask[found].all() and overlap(found, truth) >= least


def test_long_answers_of_an_approximate_index_are_full(flat, lists, queries):
    fast = Approximate(lists, flat, 1)
    for count in 100, 2000, 6000:
        found, _ = fast.nearest(queries[:3], count)
        assert (found >= 0).all()
        assert all(len(set(each)) == count for each in found.tolist())
        truth, _ = flat.nearest(queries[:3], count)
        assert overlap(found, truth) > 0.7


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:30],
        lambda data: data + bytes(1 << 20),
        put(0, int.from_bytes(b"IxFI", "little"), 4),
        put(8, 6001),
        put(37, 1 << 40),  # lists
    ],
)
def test_damaged_lists_are_refused(flat, lists, change):
    copy = damage(lists, change)
    with pytest.raises(IndexFolderError, match="copy.faiss is damaged .*drop"):
        Approximate(copy, flat, 4)


def test_lists_that_name_other_rows_are_refused(flat, queries, tmp_path):
    """Rows behind the end would be read from somewhere in memory."""
    dimension = flat.dimension
    index = faiss.index_factory(
        dimension, "IVF8,SQ8", faiss.METRIC_INNER_PRODUCT
    )
    vectors = flat.take(np.arange(len(flat)))
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(len(flat)) + 3000)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    fast = Approximate(tmp_path / "a.faiss", flat, 4)
    with pytest.raises(IndexFolderError, match="rows that are not there"):
        fast.nearest(queries, 10)


def with_other_lists(vectors, folder):
    """Its lists lie in a file anywhere on the machine that it names."""
    index = factory("IVF8,SQ8", vectors)
    elsewhere = faiss.OnDiskInvertedLists(
        8, index.code_size, str(folder / "elsewhere")
    )
    elsewhere.merge_from_1(index.invlists)
    index.replace_invlists(elsewhere)
    index.ntotal = len(vectors)
    faiss.write_index(index, str(folder / "a.faiss"))


def with_fewer_bits(vectors, folder):
    faiss.write_index(factory("IVF8,SQ4", vectors), str(folder / "a.faiss"))


def with_other_centres(vectors, folder):
    index = factory("IVF8_HNSW4,SQ8", vectors)
    faiss.write_index(index, str(folder / "a.faiss"))


def factory(description, vectors):
    metric = faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(vectors.shape[1], description, metric)
    index.train(vectors)
    index.add(vectors)
    return index


@pytest.mark.parametrize(
    "write", [with_other_lists, with_fewer_bits, with_other_centres]
)
def test_lists_of_another_kind_are_refused(flat, rows, tmp_path, write):
    write(rows, tmp_path)
    with pytest.raises(IndexFolderError, match="damaged"):
        Approximate(tmp_path / "a.faiss", flat, 4)
