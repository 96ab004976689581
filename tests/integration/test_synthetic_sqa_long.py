"""Questions to long recordings: when what is said, and the figures.

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
from esr_lobes.audio import read
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascading import make_cascade, write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.index import Segment

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


@pytest.fixture(scope="module")
def speech(recipe):
    return load_recipe("SyntheticSQA/long_speech.py")


@pytest.fixture
def clips(tmp_path):
    """Clips of half a second to 1.2 s, as a manifest has them."""
    rows, _ = write_content(tmp_path / "clips")
    for row in rows:
        row["wav"] = row["wav"].replace("{data_root}", f"{tmp_path}/clips")
    return rows


# When what is said


def test_the_times_are_those_of_the_clips(speech, clips, tmp_path):
    said = speech.write_recordings(clips, tmp_path / "long", 0.15, seed=3)
    by_context = {}
    for clip in clips:
        by_context.setdefault(clip["context_id"], []).append(clip)
    n_clips, paused = 0, []
    for i, (path, spoken) in enumerate(said.items()):
        info = soundfile.info(path)
        assert info.samplerate == 16000 and info.channels == 1
        assert spoken[-1]["stop"] <= 9.0
        assert info.duration == pytest.approx(spoken[-1]["stop"], abs=1e-3)
        assert i + 1 == len(said) or spoken[-1]["stop"] > 9.0 - 1.5 - 1.3
        before = 0.0
        for place in spoken:
            heard = read(path, place["start"], place["stop"]).numpy()
            clip = by_context[place["context_id"]][0]
            wave = read(clip["wav"]).numpy()
            n = min(len(heard), len(wave))
            assert abs(len(heard) - len(wave)) <= 1
            assert np.corrcoef(heard[:n], wave[:n])[0, 1] > 0.99
            assert place["transcript"] == clip["transcript"]
            paused.append(place["start"] - before)
            before, n_clips = place["stop"], n_clips + 1
    assert n_clips == len(clips) == 13 and len(said) > 1
    assert 0.3 <= min(paused) < max(paused) <= 1.5 + 1e-4


def test_the_seed_decides_and_what_is_there_is_kept(speech, clips, tmp_path):
    def write(folder, **more):
        said = speech.write_recordings(clips, tmp_path / folder, 1.0, **more)
        (path,) = said
        return said[path], read(path)

    said, wave = write("a")
    times = [(p["start"], p["context_id"]) for p in said]
    again, same = write("b")
    assert again == said and same.equal(wave)
    other, _ = write("c", seed=7)
    assert [(p["start"], p["context_id"]) for p in other] != times
    path = tmp_path / "a/recording1.flac"
    changed = path.stat().st_mtime_ns
    assert write("a")[0] == said and path.stat().st_mtime_ns == changed
    assert write("a", seed=7)[0] == other  # other settings, other speech
    first = speech.write_recordings(clips, tmp_path / "d", 0.1, 1)
    assert len(first) == 1


def test_words_and_shares_of_a_part(speech):
    spoken = [
        {"start": 1.0, "stop": 5.0, "transcript": "a b c d"},
        {"start": 6.0, "stop": 8.0, "transcript": "e f"},
    ]
    words = speech.words_within
    assert words(spoken, 0.0, 9.0) == "a b c d e f"
    # c has its middle at 3.5, e at 6.5
    assert words(spoken, 3.5, 6.5) == "c d"
    assert words(spoken, 3.6, 6.6) == "d e"
    assert words(spoken, 5.0, 6.0) == ""
    share = speech.share_within
    assert share(spoken[0], 0.0, 40.0) == 1.0
    assert share(spoken[0], 3.0, 40.0) == 0.5
    assert share(spoken[0], 5.0, 40.0) == 0.0


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
