"""Questions to long recordings: the figures, and all of it.

Authors
 * The esr_lobes contributors
"""

import json

import numpy as np
import pytest
import soundfile
from conftest import load_recipe
from tiny_answerers import make_tiny_qwen_audio
from tiny_content import write_content, write_content_splits
from tiny_recognisers import make_tiny_ctc
from tiny_recordings import Tones, write_recording

from esr_lobes.answering import PassageFinder
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascading import make_cascade, write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.index import Segment
from esr_lobes.indexing.report import BuildReport

PASSAGES = [
    "happy sad angry calm fast",
    "the person speaking in tone",
    "quiet loud of says something",
    "a an the voice with",
]


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("SyntheticSQA/long_recordings.py")


@pytest.fixture(scope="module")
def figures(recipe):
    return load_recipe("SyntheticSQA/long_figures.py")


# Figures


def test_chance_is_that_of_drawing(figures):
    rng = np.random.default_rng(0)
    for n, n_right, k in (45, 1, 1), (45, 2, 5), (6, 3, 3), (2, 1, 5):
        drawn = [rng.permutation(n)[:k].min() < n_right for _ in range(20_000)]
        chance = figures.by_chance(n, n_right, k)
        assert chance == pytest.approx(np.mean(drawn), abs=0.02)
    assert figures.by_chance(3, 0, 5) == 0.0


def test_half_of_the_clip_makes_a_hit(figures):
    row = {"recording": "/a", "clip": {"start": 10.0, "stop": 14.0}}
    for path, start, stop, is_hit in (
        ("/a", 0.0, 12.0, True),
        ("/a", 0.0, 11.9, False),
        ("/a", 11.0, 13.0, True),
        ("/b", 0.0, 40.0, False),
    ):
        assert figures.is_hit(Segment(path, start, stop), row) == is_hit


def test_who_understands_all_finds_all(figures, tiny_text_backbone, tmp_path):
    """Two questions are passages word by word, the third asks elsewhere."""
    path = write_recording(tmp_path / "talk.wav", PASSAGES)
    spoken = [
        {
            "start": 1.2 * i,
            "stop": 1.2 * (i + 1),
            "context_id": f"c{i}",
            "transcript": passage,
        }
        for i, passage in enumerate(PASSAGES)
    ]
    asked = [
        {
            "question": question,
            "recording": path,
            "clip": spoken[i],
            "answers": answers,
        }
        for question, i, answers in (
            (PASSAGES[1], 1, ("in tone", "x")),
            (PASSAGES[2], 2, ("the voice",)),  # said elsewhere
            (PASSAGES[3], 0, ()),  # what answers it is not asked for
        )
    ]
    encoder = TextEncoder(tiny_text_backbone, local_files_only=True)
    retriever = make_cascade(Tones(), encoder)
    with PassageFinder(
        retriever, path, "1.2s", n_workers=1, progress=False
    ) as finder:
        found = figures.measure(finder, asked, {path: spoken}, retriever)
    assert found["segments"] == 4
    assert found["segment_seconds"] == pytest.approx(1.2)
    assert found["hit@1"] == found["true words hit@1"]
    assert found["hit@1"] == pytest.approx(200 / 3)
    assert found["hit@5"] == 100.0
    assert found["chance@1"] == pytest.approx(25.0)
    assert found["chance@3"] == pytest.approx(75.0)
    assert found["answer@1"] == pytest.approx(50.0)  # of two that have one
    assert found["answer@5"] == 100.0
    assert found["question_ms"] > 0


def test_where_nothing_is_said_nothing_is_ranked(figures, tiny_text_backbone):
    encoder = TextEncoder(tiny_text_backbone, local_files_only=True)
    retriever = make_cascade(Tones(), encoder)
    spoken = [{"start": 0.0, "stop": 1.0, "transcript": ""}]
    segments = [Segment("/a", 0.0, 1.0)]
    for own in segments, []:
        assert figures.TrueWords(retriever, own, spoken).ranked("who?") == []


def test_a_recording_that_gave_nothing_is_not_answered(
    recipe, tiny_text_backbone, tmp_path
):
    talk = write_recording(tmp_path / "talk.wav", PASSAGES)
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    asked = [
        {"question": "calm", "recording": path, "answers": ("calm",)}
        for path in (talk, str(broken))
    ]
    calls = []

    class Answerer:
        heard_seconds = None

        def __call__(self, question, clips):
            calls.append(question)
            self.heard_seconds = sum(map(len, clips)) / 16000
            return question

    encoder = TextEncoder(tiny_text_backbone, local_files_only=True)
    recordings = [talk, str(broken)]
    with PassageFinder(
        make_cascade(Tones(), encoder),
        recordings,
        "1.2s",
        n_workers=1,
        progress=False,
    ) as finder:
        soundfile.write(broken, np.zeros(16000), 16000)  # as a whole it is
        passage, whole = recipe.compare_answers(finder, asked, Answerer())
    assert passage["answers"] == ["calm", ""] and passage["EM"] == 50.0
    assert passage["heard"] == pytest.approx(0.6)
    assert whole["heard"] == pytest.approx((4.8 + 1.0) / 2)
    assert len(calls) == 1 + 1 + 2  # one beforehand, not timed


def test_only_the_seconds_of_all_the_work_are_kept(recipe, tmp_path):
    def look(seconds, **files):
        report = BuildReport(folder="", seconds=seconds, **files)
        return recipe.Took(path).look("40s", report, 3)

    path = tmp_path / "indexing.json"
    assert look(0.1, kept=3) is None
    assert look(9.0, new=3) == 9.0
    assert look(0.1, kept=3) == 9.0
    assert look(8.0, changed=3) == 8.0
    # Some was there already: nobody knows how long all of it takes.
    assert look(4.0, new=1, kept=2) is None
    assert look(0.1, kept=3) is None
    assert look(9.5, new=3) == 9.5
    assert look(2.0, new=3, resumed=2) is None


def test_no_answers_no_figures_of_them(figures):
    assert figures.percent([]) is None
    assert figures.percent([True, False, 0.5]) == 50.0
    row = {f"{key}@{k}": 12.34 for key in figures.KEYS for k in (1, 3, 5)}
    row |= {"segments": 45, "indexing_seconds": None, "question_ms": 3.4}
    row |= {f"answer@{k}": None for k in (1, 3, 5)}
    text = figures.to_markdown(
        {
            "settings": {"set": "test", "seed": 1, "source": "R"}
            | {"device": "cpu"},
            "questions": 3,
            "minutes": [30.0, 12.5],
            "threads": 1,
            "segments": {"40s": row},
            "answers": [],
        }
    )
    assert "3 questions in 2 recordings (30.0, 12.5 minutes)" in text
    last = text.splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == [
        "40s",
        "45",
        "12.3 / 12.3 / 12.3",
        "12.3 / 12.3 / 12.3",
        "12.3 / 12.3 / 12.3",
        "- / - / -",
        "-",
        "3",
    ]


# All of it


@pytest.fixture
def argv(tmp_path, tiny_text_backbone):
    """What a user would write, of a corpus that is small."""
    clips, questions = write_content(tmp_path / "clips")
    write_content_splits("", tmp_path / "manifests", False, clips, questions)
    paragraphs = [
        {
            "context": clip["transcript"],
            "qas": [
                {
                    "id": row["ID"],
                    "question": row["question"],
                    "answers": [
                        {
                            "text": clip["transcript"].split()[0],
                            "answer_start": 0,
                        }
                    ],
                }
                for row in questions
                if row["context_id"] == clip["context_id"]
            ],
        }
        for clip in clips
        if clip["ID"].endswith("a")
    ]
    data = {"data": [{"title": "tones", "paragraphs": paragraphs}]}
    (tmp_path / "squad.json").write_text(json.dumps(data))
    write_cascade(
        tmp_path / "cascade",
        HuggingFaceRecogniser(make_tiny_ctc(tmp_path / "ctc")),
        TextEncoder(tiny_text_backbone),
    )
    return [
        f"--source={tmp_path}/cascade",
        f"--manifests={tmp_path}/manifests",
        f"--data_root={tmp_path}/clips",
        f"--questions_json={tmp_path}/squad.json",
        f"--out={tmp_path}/out",
        "--minutes=0.15",
    ]


def test_the_recipe_runs(recipe, argv, tmp_path, capsys):
    qwen = make_tiny_qwen_audio(tmp_path / "qwen", n_positions=260)
    cuts = ["--segments", "2s", "2s/1s"]
    more = [f"--answer-with={qwen}", "--answer_precision=fp32"]
    recipe.main([*argv, *cuts, *more, "--max_questions=4"])
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "out/long_recordings.md").read_text()
    report = json.loads((tmp_path / "out/long_recordings.json").read_text())
    assert report["questions"] == report["with_answers"] == 13
    assert report["settings"]["seed"] == 1986 and len(report["minutes"]) > 1
    for cut in "2s", "2s/1s":
        row = report["segments"][cut]
        assert 0 <= row["hit@1"] <= row["hit@3"] <= row["hit@5"] <= 100
        assert row["answer@5"] >= row["hit@5"] / 2
        assert row["indexing_seconds"] > 0
    short, long = report["segments"]["2s"], report["segments"]["2s/1s"]
    assert long["segments"] > short["segments"]
    passage, whole = report["answers"]
    assert len(passage["answers"]) == len(whole["answers"]) == 4
    assert passage["heard"] <= 2.0 < whole["heard"] < 9.0
    assert passage["answers"] != whole["answers"]
    for way in passage, whole:
        assert 0 <= way["EM"] <= way["F1"] <= 100 and way["seconds"] > 0
    # Again, with what is there: as quick as asking, the time is remembered.
    recipe.main([*argv, *cuts])
    again = json.loads((tmp_path / "out/long_recordings.json").read_text())
    assert again["answers"] == []
    for cut in "2s", "2s/1s":
        for key in "hit@1", "answer@3", "indexing_seconds":
            assert again["segments"][cut][key] == report["segments"][cut][key]


def test_what_is_missing_is_said(recipe, argv, tmp_path, capsys):
    def complaint(*words):
        with pytest.raises(SystemExit) as end:
            recipe.main(list(words))
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "other.csv" in complaint(*argv, "--set=other")
    without = [word for word in argv if "questions_json" not in word]
    assert "give --questions_json" in complaint(
        *without, f"--answer_with={tmp_path}"
    )
