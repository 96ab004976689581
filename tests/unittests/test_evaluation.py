"""The report: known answers, tables, files, and what is refused.

Authors
 * The esr_lobes contributors
"""

import json
import random

import numpy as np
import pytest
import torch

from esr_lobes.evaluation import evaluate, evaluate_retriever
from esr_lobes.prompts import PromptBank
from esr_lobes.reports import Report, summary_table, to_markdown
from esr_lobes.trial_files import read_trials
from esr_lobes.trials import TrialsError, make_trials

STYLES = ["angry", "bored", "calm", "sad"]
FAST = {"n_trials": 50, "n_resamples": 50}


def corpus(n_each=10, styles=STYLES):
    """Rows with clips of 1 s, 2 s, ... for each style in turn."""
    return [
        {"ID": f"clip_{i:03d}", "style": style, "duration": 1.0 + i % 12}
        for i, style in enumerate(styles * n_each)
    ]


def directions(width=8):
    """One axis a style."""
    return dict(zip(STYLES, np.eye(len(STYLES), width), strict=True))


def perfect(rows):
    """Clips and one bank that point where their style points."""
    axis = directions()
    clips = np.array([axis[row["style"]] for row in rows])
    return clips, {"train": {s: axis[s][None] for s in STYLES}}


def test_perfect_embeddings_are_all_found():
    rows = corpus()
    clips, banks = perfect(rows)
    report = evaluate(clips, rows, banks, **FAST)
    system = report.numbers["systems"]["train"]
    assert set(system["macro"]) == {
        "R@1", "R@5", "R@10", "R@20", "mAP", "R-precision", "P@10", "nDCG@10"
    }  # fmt: skip
    assert set(system["macro"].values()) == {1.0}
    assert set(map(tuple, system["interval"].values())) == {(1.0, 1.0)}
    assert system["single_prompts"]["mAP"] == 1.0
    assert report.numbers["random"]["macro"]["mAP"] < 0.6


def test_random_embeddings_are_near_chance():
    rows = corpus(100)
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((400, 32))
    bank = {"train": {s: rng.standard_normal((3, 32)) for s in STYLES}}
    numbers = evaluate(clips, rows, bank, n_distractors=100).numbers
    chance = numbers["chance"]["macro"]
    assert chance["R@1"] == pytest.approx(1 / 101)
    assert chance["mAP"] == pytest.approx(0.2605, abs=0.0001)
    for system in (numbers["systems"]["train"], numbers["random"]):
        assert system["macro"]["mAP"] == pytest.approx(chance["mAP"], abs=0.03)
        assert system["macro"]["R@20"] == pytest.approx(20 / 101, abs=0.06)


def test_collapsed_embeddings_find_nothing():
    rows = corpus()
    clips = np.ones((40, 8))
    _, banks = perfect(rows)
    macro = evaluate(clips, rows, banks, **FAST).numbers["systems"]["train"][
        "macro"
    ]
    assert [macro[f"R@{k}"] for k in (1, 5, 10, 20)] == [0, 0, 0, 0]
    assert macro["P@10"] == 0


def test_score_is_the_mean_cosine_over_all_prompts():
    rows = corpus(2)
    rng = np.random.default_rng(1)
    clips = rng.standard_normal((8, 5)) * 3
    prompts = {s: rng.standard_normal((7, 5)) * 2 for s in STYLES}
    report = evaluate(clips, rows, {"mine": prompts}, **FAST)
    for i in range(8):
        cosines = [
            clips[i] @ p / np.linalg.norm(clips[i]) / np.linalg.norm(p)
            for p in prompts["sad"]
        ]
        score = report.scores["mine"]["sad"][i]
        assert score == pytest.approx(np.mean(cosines), abs=1e-6)


def test_order_of_rows_and_kind_of_array_do_not_matter():
    rows = corpus(6)
    rng = np.random.default_rng(2)
    clips = rng.standard_normal((24, 6)).astype("f")
    bank = {"train": {s: rng.standard_normal((3, 6)) for s in STYLES}}
    logits = {s: rng.standard_normal(24) for s in STYLES}
    report = evaluate(clips, rows, bank, scores={"svm": logits}, **FAST)
    order = list(range(24))
    random.Random(0).shuffle(order)
    again = evaluate(
        torch.tensor(clips[order]),
        [rows[i] for i in order],
        {"train": {s: torch.tensor(bank["train"][s]) for s in STYLES}},
        scores={"svm": {s: torch.tensor(logits[s][order]) for s in STYLES}},
        **FAST,
    )
    assert again.to_json() == report.to_json()


def test_classifier_scores_go_through_the_same_tables():
    rows = corpus()
    clips, banks = perfect(rows)
    logits = {
        s: [9.0 if row["style"] == s else -3.0 for row in rows] for s in STYLES
    }
    report = evaluate(clips, rows, banks, scores={"svm": logits}, **FAST)
    systems = report.numbers["systems"]
    assert systems["svm"]["macro"] == systems["train"]["macro"]
    assert "single_prompts" not in systems["svm"]
    assert list(report.numbers["ratios"]) == []
    alone = evaluate(None, rows, scores={"svm": logits}, **FAST)
    assert alone.numbers["systems"]["svm"] == systems["svm"]


def test_held_out_prompts_are_set_against_those_of_training():
    rows = corpus()
    clips, banks = perfect(rows)
    axis = directions()
    # Two styles as in training, one asked for the other way round (its ten
    # clips come last: the rest tie before them), one without prompts.
    banks["held_out"] = {
        "angry": axis["angry"][None],
        "bored": axis["bored"][None],
        "calm": -axis["calm"][None],
    }
    numbers = evaluate(clips, rows, banks, **FAST).numbers
    last = np.mean([(i + 1) / (31 + i) for i in range(10)])
    ratio = numbers["ratios"]["mAP held_out / train"]
    assert ratio == pytest.approx((2 + last) / 3)
    assert numbers["systems"]["held_out"]["skipped"] == {"sad": "no query"}
    assert "Not searched for: sad (no query)" in to_markdown(numbers)


def test_ratios_compare_styles_that_both_banks_know():
    rows = corpus()
    clips, banks = perfect(rows)
    axis = directions()
    # Training knows two styles, the other bank one of them and a wrong one.
    banks["train"] = {s: axis[s][None] for s in ("angry", "bored")}
    banks["user"] = {"bored": axis["bored"][None], "sad": -axis["sad"][None]}
    numbers = evaluate(clips, rows, banks, **FAST).numbers
    assert numbers["ratios"] == {"mAP user / train": 1.0}
    assert numbers["settings"]["styles_searched"] == ["angry", "bored", "sad"]


def test_no_nan_reaches_the_json():
    with pytest.raises(ValueError, match="JSON"):
        Report({"mAP": float("nan")}).to_json()


def test_single_prompts_name_the_worst_and_the_best():
    rows = corpus()
    clips, _ = perfect(rows)
    axis = directions()
    bank = {
        "calm": axis["calm"][None],
        "sad": np.stack([axis["sad"], -axis["sad"]]),
    }
    texts = {"calm": ["calm"], "sad": ["a sad | voice", "not | sad"]}
    bank["sad"][0] *= 3  # so that the mean of the two is not zero
    report = evaluate(
        clips, rows, {"b": bank}, {"b": texts}, styles=list(bank), **FAST
    )
    single = report.numbers["systems"]["b"]["single_prompts"]
    last = np.mean([(i + 1) / (31 + i) for i in range(10)])
    worst = {"style": "sad", "prompt": "not | sad"}
    assert single["worst"] == worst | {"AP": pytest.approx(last)}
    assert single["best"]["AP"] == 1.0
    assert single["per_style"]["sad"]["mean_AP"] == pytest.approx(
        (1 + last) / 2
    )
    assert single["mAP"] == pytest.approx((1 + (1 + last) / 2) / 2)
    assert single["worst_mAP"] == pytest.approx((1 + last) / 2)
    assert "not \\| sad" in report.to_markdown()
    unnamed = evaluate(clips, rows, {"b": bank}, styles=list(bank), **FAST)
    single = unnamed.numbers["systems"]["b"]["single_prompts"]
    assert single["worst"]["prompt"] == "number 1"


def test_tables_are_aligned_and_come_from_the_numbers_alone(tmp_path):
    rows = corpus()
    clips, banks = perfect(rows)
    report = evaluate(clips, rows, banks, **FAST)
    table = str(report)
    assert len({len(line) for line in table.splitlines()}) == 1
    first = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert first[:4] == ["train", "4", "1.0000", "1.0000"]
    assert first[6] == "1.0000 [1.000, 1.000]"
    assert [line.split("|")[1].strip() for line in table.splitlines()[3:]] == [
        "random embeddings",
        "chance",
    ]
    numbers = json.loads(report.to_json())
    assert summary_table(numbers) == table
    assert to_markdown(numbers) == report.to_markdown()


def test_saved_reports_are_whole_and_read_back(tmp_path):
    rows = corpus(6)
    clips, banks = perfect(rows)
    logits = {s: np.arange(24.0) for s in STYLES}
    folder = tmp_path / "new" / "report"
    report = evaluate(clips, rows, banks, scores={"a/b": logits}, **FAST)
    written = report.save(folder)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    assert sorted(written) == found
    assert [path.relative_to(folder).as_posix() for path in found] == [
        "plots/durations_a_b.png",
        "plots/durations_train.png",
        "plots/embeddings.png",
        "plots/similarity_a_b.png",
        "plots/similarity_train.png",
        "report.json",
        "report.md",
        "trials.txt.gz",
    ]
    text = (folder / "report.json").read_text(encoding="utf-8")
    numbers = json.loads(text, parse_constant=pytest.fail)
    assert Report(numbers).to_markdown() == report.to_markdown()
    trials = read_trials(folder / "trials.txt.gz")
    again = evaluate(
        clips, rows, banks, scores={"a/b": logits}, trials=trials,
        n_resamples=50,
    )  # fmt: skip
    assert again.to_json() == report.to_json()
    assert len(report.save(tmp_path / "bare", is_drawn=False)) == 3


def test_durations_are_binned_and_may_be_absent():
    rows = corpus()
    clips, banks = perfect(rows)
    numbers = evaluate(clips, rows, banks, **FAST).numbers
    bins = numbers["systems"]["train"]["durations"]
    assert [each["from"] for each in bins] == [0.0, 4.0, 6.0, 8.0, 10.0]
    assert sum(each["trials"] for each in bins) == 200
    assert "| 8-10 s" in to_markdown(numbers)
    bare = [{"ID": row["ID"], "style": row["style"]} for row in rows]
    report = evaluate(clips, bare, banks, **FAST)
    assert report.numbers["systems"]["train"]["durations"] == []


def test_intervals_can_be_left_out():
    rows = corpus()
    clips, banks = perfect(rows)
    report = evaluate(clips, rows, banks, n_resamples=0)
    assert "interval" not in report.numbers["systems"]["train"]
    assert "[" not in report.to_markdown()


def test_what_does_not_fit_is_refused():
    rows = corpus()
    clips, banks = perfect(rows)
    with pytest.raises(ValueError, match="39 embeddings for 40 clips"):
        evaluate(clips[:-1], rows, banks)
    with pytest.raises(ValueError, match="no clips to evaluate"):
        evaluate(clips[:0], [], banks)
    with pytest.raises(ValueError, match="give prompts or scores"):
        evaluate(clips, rows)
    with pytest.raises(ValueError, match="need embeddings of clips"):
        evaluate(None, rows, banks)
    with pytest.raises(ValueError, match="'x' knows none of the styles"):
        evaluate(clips, rows, {"x": {"awe": [[1.0] * 8]}})
    with pytest.raises(ValueError, match=r"'svm' for 'sad' have shape \(3,\)"):
        evaluate(None, rows, scores={"svm": {"sad": [1, 2, 3]}})
    with pytest.raises(ValueError, match="name of a bank and of scores"):
        evaluate(clips, rows, banks, scores={"train": {}})
    with pytest.raises(ValueError, match="2 texts for 1 prompts of 'angry'"):
        evaluate(clips, rows, banks, {"train": {"angry": ["a", "b"]}})
    with pytest.raises(TrialsError, match="no clip of this style"):
        evaluate(clips, rows, banks, styles=["awe"])
    broken = clips.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="clip 'clip_003' is zero or not"):
        evaluate(broken, rows, banks)


def test_trials_of_another_corpus_are_refused():
    rows = corpus()
    clips, banks = perfect(rows)
    more = [*rows, {"ID": "zz", "style": "sad"}]
    with pytest.raises(TrialsError, match="1 of the 41 clips .* zz"):
        evaluate(clips, rows, banks, trials=make_trials(more))
    other = [dict(row) for row in rows]
    other[0]["style"] = "sad"
    with pytest.raises(ValueError, match="'clip_000' is 'sad' in the trials"):
        evaluate(clips, rows, banks, trials=make_trials(other))


class AxisRetriever:
    """Knows the style of a row, and the styles that a text names."""

    def encode_clips(self, rows, skipped=()):
        kept = [row for row in rows if row["ID"] not in skipped]
        axis = directions()
        return np.array([axis[row["style"]] for row in kept]), kept

    def encode_text(self, texts):
        axis = directions()
        named = [[axis[s] for s in STYLES if s in text] for text in texts]
        return torch.tensor(np.array([np.sum(each, axis=0) for each in named]))


def test_a_retriever_is_evaluated_with_its_banks(tmp_path):
    of_all = {style: [style] for style in STYLES}
    banks = [
        PromptBank(["{}", "a {} voice"], of_all, "train"),
        PromptBank(["{} talk"], {"sad": ["sad"], "awe": ["awe"]}, "held_out"),
    ]
    rows = corpus()
    report = evaluate_retriever(
        AxisRetriever(),
        rows,
        banks,
        out_folder=tmp_path,
        encode_options={"skipped": ["clip_005", "clip_000"]},
        **FAST,
    )
    systems = report.numbers["systems"]
    assert systems["train"]["macro"]["mAP"] == 1.0
    assert list(systems["held_out"]["per_style"]) == ["sad"]
    single = systems["train"]["single_prompts"]["per_style"]["sad"]
    assert single["prompts"] == 2
    assert single["worst"]["prompt"] in banks[0].prompts("sad")
    assert report.numbers["settings"]["clips"] == 38
    assert report.numbers["left_out"] == ["clip_000", "clip_005"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "2 clips could not be embedded" in text
    with pytest.raises(ValueError, match="two prompt banks are named 'train'"):
        evaluate_retriever(AxisRetriever(), rows, banks[:1] * 2)
