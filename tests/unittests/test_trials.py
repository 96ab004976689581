"""Trials: the protocol, its draws, ties, and the file they are kept in.

Authors
 * The esr_lobes contributors
"""

import gzip
import random
from collections import Counter

import numpy as np
import pytest

from esr_lobes.files import replacing
from esr_lobes.trial_files import read_trials, write_trials
from esr_lobes.trials import (
    TrialsError,
    _draw_sets,
    evaluate_trials,
    make_trials,
    recall_at,
)


def corpus(**counts):
    """Rows of a corpus with so many clips of each style."""
    return [
        {"ID": f"{style}_{i:03d}", "style": style}
        for style, count in counts.items()
        for i in range(count)
    ]


def same(left, right):
    """Whether two sets of trials are equal in every field."""

    def plain(arrays):
        return {
            style: None if array is None else array.tolist()
            for style, array in arrays.items()
        }

    return (
        left.clip_ids == right.clip_ids
        and left.clip_styles == right.clip_styles
        and plain(left.targets) == plain(right.targets)
        and plain(left.distractors) == plain(right.distractors)
        and (left.seed, left.n_trials, left.n_distractors, left.skipped)
        == (right.seed, right.n_trials, right.n_distractors, right.skipped)
    )


def slow_recall(trials, scores, ids, k):
    """Recall@k of one style after the other, a trial and a sort at a time."""
    recalls = []
    for style in trials.styles:
        score_of = dict(zip(ids, scores[style], strict=True))
        n_found = 0
        for i, target in enumerate(trials.targets[style]):
            chosen = trials.distractors[style]
            others = [
                name
                for j, name in enumerate(trials.clip_ids)
                if (j in chosen[i] if chosen is not None
                    else trials.clip_styles[j] != style)
            ]  # fmt: skip
            candidates = [(-score_of[name], 0) for name in others]
            name = trials.clip_ids[target]
            candidates.append((-score_of[name], 1))
            n_found += (-score_of[name], 1) in sorted(candidates)[:k]
        recalls.append(n_found / trials.n_trials)
    return recalls


def test_targets_and_distractors_follow_the_protocol():
    rows = corpus(angry=5, sad=30, happy=30)
    trials = make_trials(rows, n_trials=200, n_distractors=20)
    assert trials.styles == ["angry", "happy", "sad"]
    of_clip = np.array(trials.clip_styles)
    for style in trials.styles:
        targets, chosen = trials.targets[style], trials.distractors[style]
        assert targets.shape == (200,) and chosen.shape == (200, 20)
        assert set(of_clip[targets]) == {style}
        assert style not in set(of_clip[chosen].ravel())
        assert all(len(set(row)) == 20 for row in chosen.tolist())
    # 200 draws of 5 clips meet each, and some clip more than once.
    assert set(trials.targets["angry"]) == set(range(5))
    assert trials.n_candidates("angry") == 21


def test_all_others_are_used_where_there_are_no_more_than_asked_for():
    rows = corpus(angry=3, sad=4)
    trials = make_trials(rows, n_trials=10, n_distractors=4)
    assert trials.distractors["angry"] is None  # 4 others, 4 asked for
    assert trials.distractors["sad"] is None
    assert trials.n_candidates("angry") == 5
    fewer = make_trials(rows, n_trials=10, n_distractors=3)
    assert fewer.distractors["angry"].shape == (10, 3)


def test_sets_are_drawn_evenly():
    rng = np.random.default_rng(3)
    sets = _draw_sets(rng, 5, 2, 20000)
    counts = Counter(map(tuple, sets.tolist()))
    assert len(counts) == 10 and all(a < b for a, b in counts)
    # 2000 of each of the ten pairs are expected, with deviation 42.
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_large_corpora_are_drawn_in_blocks_with_the_same_result(monkeypatch):
    whole = _draw_sets(np.random.default_rng(0), 50, 7, 40)
    monkeypatch.setattr("esr_lobes.trials._MAX_CELLS", 150)  # 3 rows a block
    assert (_draw_sets(np.random.default_rng(0), 50, 7, 40) == whole).all()


def test_order_of_rows_does_not_matter_and_the_seed_does():
    rows = corpus(angry=20, sad=30, happy=25)
    trials = make_trials(rows, n_trials=50, n_distractors=10)
    random.Random(0).shuffle(rows)
    assert same(trials, make_trials(rows, n_trials=50, n_distractors=10))
    other = make_trials(rows, n_trials=50, n_distractors=10, seed=43)
    assert not same(trials, other)


def test_a_style_is_drawn_alike_whichever_others_are_asked_for():
    rows = corpus(angry=20, sad=30, happy=25)
    whole = make_trials(rows, 50, 10)
    alone = make_trials(rows, 50, 10, styles=["sad"])
    assert alone.styles == ["sad"]
    assert (alone.targets["sad"] == whole.targets["sad"]).all()
    assert (alone.distractors["sad"] == whole.distractors["sad"]).all()


def test_draws_stay_what_they_were():
    """Published figures stand on these draws; a change must be on purpose."""
    trials = make_trials(corpus(angry=4, sad=9), n_trials=3, n_distractors=3)
    assert trials.targets["angry"].tolist() == [1, 3, 2]
    assert trials.distractors["angry"].tolist() == [
        [6, 7, 9],
        [7, 11, 12],
        [5, 8, 10],
    ]


def test_styles_without_clips_or_distractors_are_listed():
    trials = make_trials(corpus(sad=2, happy=2), styles=["sad", "awe"])
    assert trials.styles == ["sad"]
    assert trials.skipped == {"awe": "no clip of this style"}
    with pytest.raises(TrialsError, match="no clip of another style"):
        make_trials(corpus(sad=2))
    with pytest.raises(TrialsError, match="there are no clips"):
        make_trials([])


@pytest.mark.parametrize(
    "wrong", [{"n_trials": 0}, {"n_distractors": 0}, {"seed": -1}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(TrialsError, match="n_trials >= 1"):
        make_trials(corpus(sad=2, happy=2), **wrong)


@pytest.mark.parametrize("name", ["", "a\tb", "a\nb"])
def test_names_that_break_the_file_are_refused(name):
    rows = [{"ID": name, "style": "sad"}, {"ID": "b", "style": "happy"}]
    with pytest.raises(TrialsError, match="cannot name"):
        make_trials(rows)


def test_a_name_that_occurs_twice_is_refused():
    rows = corpus(sad=1, happy=1) + [{"ID": "sad_000", "style": "happy"}]
    with pytest.raises(TrialsError, match="'sad_000' occurs more than once"):
        make_trials(rows)


def test_recall_on_numbers_worked_out_by_hand():
    # Two sad clips and three others: ranks of the sad clips are 1 and 4.
    rows = corpus(sad=2, happy=3)
    ids = ["sad_000", "sad_001", "happy_000", "happy_001", "happy_002"]
    scores = {"sad": [0.9, 0.1, 0.5, 0.4, 0.3]}
    trials = make_trials(rows, n_trials=100, styles=["sad"])
    found = evaluate_trials(trials, scores, ids, ks=(1, 3, 4))
    first = np.mean(trials.targets["sad"] == trials.clip_ids.index("sad_000"))
    assert 0 < first < 1
    assert found.recall["sad"] == {1: first, 3: first, 4: 1.0}
    assert set(found.ranks["sad"]) == {1, 4}


@pytest.mark.parametrize("n_distractors", [12, 1000])
def test_vectorised_recall_is_that_of_a_plain_loop(n_distractors):
    rows = corpus(angry=8, sad=13, happy=21)
    trials = make_trials(rows, 40, n_distractors)
    rng = np.random.default_rng(1)
    random.Random(1).shuffle(rows)
    ids = [row["ID"] for row in rows]
    # Few different scores, so that many tie.
    scores = {s: rng.integers(0, 6, len(ids)) / 5 for s in trials.styles}
    for k in (1, 5, 10):
        found = evaluate_trials(trials, scores, ids, (k,))
        slow = slow_recall(trials, scores, ids, k)
        assert [found.recall[s][k] for s in trials.styles] == slow
        assert found.macro[k] == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("n_distractors", [10, 400])
def test_ties_count_against_the_truth(n_distractors):
    rows = corpus(angry=8, sad=20)
    trials = make_trials(rows, 30, n_distractors)
    ids = [row["ID"] for row in rows]
    scores = {style: np.zeros(len(ids)) for style in trials.styles}
    found = evaluate_trials(trials, scores, ids, (1, 5))
    assert found.macro == {1: 0.0, 5: 0.0}
    assert set(found.ranks["angry"]) == {trials.n_candidates("angry")}


def test_recall_at_counts_ranks():
    assert recall_at([1, 2, 2, 11], (1, 2, 10)) == {1: 0.25, 2: 0.75, 10: 0.75}


def test_missing_and_broken_scores_are_named():
    rows = corpus(sad=6, happy=6)
    trials = make_trials(rows)
    ids = [row["ID"] for row in rows]
    scores = {style: np.zeros(12) for style in ("sad", "happy")}
    with pytest.raises(TrialsError, match="7 of the 12 .* happy_000, happy_00"):
        evaluate_trials(trials, {s: np.zeros(5) for s in scores}, ids[:5])
    with pytest.raises(TrialsError, match="no scores for 'happy'"):
        evaluate_trials(trials, {"sad": scores["sad"]}, ids)
    with pytest.raises(TrialsError, match=r"shape \(3,\)"):
        evaluate_trials(trials, scores | {"sad": np.zeros(3)}, ids)
    with pytest.raises(TrialsError, match="no trials for 'awe'"):
        evaluate_trials(trials, scores, ids, styles=["awe"])
    scores["sad"][7] = np.nan
    with pytest.raises(TrialsError, match="'happy_001' for 'sad'"):
        evaluate_trials(trials, scores, ids)


@pytest.mark.parametrize("name", ["trials.txt", "deep/trials.txt.gz"])
@pytest.mark.parametrize("n_distractors", [10, 400])
def test_trials_survive_the_file(tmp_path, name, n_distractors):
    rows = corpus(sad=8, happy=20) + [{"ID": "ü 1, a", "style": "sad"}]
    trials = make_trials(rows, 30, n_distractors, styles=["sad", "awe"])
    write_trials(tmp_path / name, trials)
    assert same(read_trials(tmp_path / name), trials)
    assert len(list((tmp_path / name).parent.iterdir())) == 1


def test_the_file_is_text_and_the_same_every_time(tmp_path):
    trials = make_trials(corpus(sad=1, happy=1), n_trials=2, seed=7)
    write_trials(tmp_path / "t.txt", trials)
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == (
        "esr_lobes trials 1\tseed 7\ttrials 2\tdistractors 400\tclips 2\t"
        "styles 2\tskipped 0\n"
        "happy_000\thappy\nsad_000\tsad\n"
        "happy\tall others\n0\n0\n"
        "sad\tall others\n1\n1\n"
    )
    write_trials(tmp_path / "a.gz", trials)
    write_trials(tmp_path / "b.gz", trials)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    # Bytes 4 to 8 of such a file are its time, which would make it differ.
    assert (tmp_path / "a.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("trials 1", "trials 9", "begins with 'esr_lobes trials 9'"),
        ("seed 42", "seed x", "no number for 'seed'"),
        ("clips 5", "clips 6", "two fields"),
        ("styles 2", "styles 1", "more lines"),
        ("styles 2", "styles 3", "cut off"),
        ("sad\t2", "sad\tmany", "no number of distractors: 'many'"),
        ("sad\t2", "sad\t3", "have 3 clips instead of 4"),
        ("a\thappy\nb\thappy", "b\thappy\na\thappy", "not sorted"),
        ("a\thappy\nb", "b\thappy\nb", "occurs more than once"),
        ("3 0 1", "3 0 9", "beyond the list"),
        ("3 0 1", "0 0 1", "a target of 'sad'"),
        ("3 0 1", "3 0 4", "a distractor of 'sad'"),
        ("3 0 1", "3 1 1", "do not increase"),
        ("3 0 1", "3 0 x", "trials of 'sad'"),
        ("3 0 1", "3 0", "trials of 'sad'"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, old, new, message):
    text = (
        "esr_lobes trials 1\tseed 42\ttrials 2\tdistractors 2\tclips 5\t"
        "styles 2\tskipped 0\n"
        "a\thappy\nb\thappy\nc\thappy\nd\tsad\ne\tsad\n"
        "happy\tall others\n0\n2\n"
        "sad\t2\n3 0 1\n4 1 2\n"
    )
    path = tmp_path / "trials.txt"
    path.write_text(text, encoding="utf-8")
    assert read_trials(path).targets["sad"].tolist() == [3, 4]
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(TrialsError, match=message) as caught:
        read_trials(path)
    assert str(path) in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(TrialsError, match="no trials at"):
        read_trials(tmp_path / "none.txt")
    trials = make_trials(corpus(sad=30, happy=30), 50, 10)
    path = tmp_path / "trials.txt.gz"
    write_trials(path, trials)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(TrialsError, match="cannot be read"):
        read_trials(path)
    path.write_bytes(b"not packed")
    with pytest.raises(TrialsError, match="cannot be read"):
        read_trials(path)
    path.write_bytes(gzip.compress(b"\xff\xfe\x00"))
    with pytest.raises(TrialsError, match="cannot be read"):
        read_trials(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("ne", encoding="utf-8")
        raise OSError("full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
