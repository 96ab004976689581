"""Reports on content retrievers, with a retriever whose answers are known.

Authors
 * The esr_lobes contributors
"""

import json
from types import SimpleNamespace

import pytest
import soundfile
import torch
from conftest import tone

from esr_lobes.cascade.recogniser import Recogniser
from esr_lobes.cascading import make_cascade
from esr_lobes.content_evaluation import evaluate_content
from esr_lobes.content_reports import read_content_report
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError

TEXTS = {
    "long": "one two three four",
    "short": "one",
    "middle": "one two",
}
SECONDS = {"long": 1.2, "short": 0.3, "middle": 0.6}


WORDS = "one two three four".split()


class Knowing:
    """Knows a clip by its length and a text by its number of words.

    With what is said it knows words, too: each is a direction of its own.
    """

    device = "cpu"

    def __init__(self, said=None):
        self.said = said
        self.knows_words = said is not None
        self.mods = SimpleNamespace(speech_encoder=None)

    @staticmethod
    def _place(seconds):
        return min(SECONDS, key=lambda name: abs(SECONDS[name] - seconds))

    @staticmethod
    def _row(name):
        return torch.eye(3)[list(TEXTS).index(name)]

    def encode_batch(self, waves):
        names = [self._place(len(wave) / 16000) for wave in waves]
        return torch.stack([self._row(name) for name in names])

    def encode_text(self, texts):
        words = {len(text.split()): name for name, text in TEXTS.items()}
        return torch.stack([self._row(words[len(t.split())]) for t in texts])

    def encode_text_tokens(self, texts):
        return [
            torch.eye(5)[
                [(*WORDS, ".").index(word) for word in text.split()]
            ].reshape(-1, 5)
            for text in texts
        ]

    def hear_words(self, waves):
        texts = [self.said[self._place(len(wave) / 16000)] for wave in waves]
        return self.encode_batch(waves), self.encode_text_tokens(texts), texts


@pytest.fixture
def clips(tmp_path):
    rows = []
    for name, seconds in SECONDS.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, tone(seconds, 300), 16000)
        rows.append(
            {
                "ID": name,
                "duration": seconds,
                "wav": str(path),
                "start": 0.0,
                "stop": seconds,
                "channel": None,
                "context_id": name,
                "transcript": TEXTS[name],
            }
        )
    return rows


QUESTIONS = [
    {"ID": name, "question": text, "context_id": name}
    for name, text in TEXTS.items()
]


def test_clips_keep_their_places_though_heard_by_length(clips):
    """A wrong order would lose all questions but one."""
    report = evaluate_content(Knowing(), clips, QUESTIONS)
    assert list(report.systems) == ["system", "text (upper bound)"]
    for figures in report.systems.values():
        assert figures["Q-C R@1"] == figures["C-Q R@1"] == 100.0
        assert "WER" not in figures
    assert report.by_pair == {}  # one question each: nothing else to say
    assert report.settings["contexts"] == 3
    assert report.settings["seconds of speech"] == 2.1


def test_the_cascade_reads_what_was_written(clips, tmp_path):
    """Two of seven words are lost, and with them a context of three."""
    said = TEXTS | {"long": "one two"}
    report = evaluate_content(Knowing(said), clips, QUESTIONS, "mine")
    late = ", late interaction"
    names = ["mine", "cascade", "text (upper bound)"]
    assert list(report.systems) == [
        n + how for n in names for how in ("", late)
    ]
    mine, cascade, bound = (report.systems[name] for name in names)
    assert mine["Q-C R@1"] == bound["Q-C R@1"] == 100.0
    # That of four words is found nowhere, that of two in two places.
    assert cascade["Q-C R@1"] == pytest.approx(100 / 3)
    assert mine["WER"] == cascade["WER"] == pytest.approx(200 / 7)
    assert "WER" not in bound
    report.save(tmp_path)
    saved = json.loads((tmp_path / "content.json").read_text())
    assert saved["systems"]["mine"] == mine
    assert "| mine | 100.00 |" in (tmp_path / "content.md").read_text()


def test_silence_is_no_word(clips):
    said = TEXTS | {"short": ""}
    report = evaluate_content(Knowing(said), clips, QUESTIONS)
    assert "device: cpu" in str(report)
    assert report.systems["system"]["WER"] == pytest.approx(100 / 7)


def test_of_references_without_words_there_are_no_errors(clips, tmp_path):
    """A rate of nothing would stand in the file as a bare NaN."""
    wordless = [clip | {"transcript": "."} for clip in clips]
    report = evaluate_content(Knowing(TEXTS), wordless, QUESTIONS)
    assert all("WER" not in figures for figures in report.systems.values())
    report.save(tmp_path)
    assert "NaN" not in (tmp_path / "content.json").read_text()
    assert "nan" not in (tmp_path / "content.md").read_text()


def test_late_interaction_compares_words(clips):
    """All words of the shorter texts stand in the longer ones, too."""
    report = evaluate_content(Knowing(TEXTS), clips, QUESTIONS)
    for name in ("system", "cascade", "text (upper bound)"):
        found = report.systems[f"{name}, late interaction"]
        # The longest question has one best context, others tie with it.
        assert found["Q-C R@1"] == found["C-Q R@1"] == pytest.approx(100 / 3)
        assert found["Q-C R@5"] == 100.0
        assert ("WER" in found) == (name != "text (upper bound)")


def test_a_cascade_has_no_other_cascade_beside_it(clips, tiny_text_backbone):
    class Counting(Recogniser):
        """Says a word for each third of a second."""

        def transcribe_clips(self, waves):
            return [" ".join(["sad"] * (len(w) // 5000)) for w in waves]

        def arguments(self, source):
            return {}

    text_encoder = TextEncoder(tiny_text_backbone, local_files_only=True)
    retriever = make_cascade(Counting({}), text_encoder)
    report = evaluate_content(retriever, clips, QUESTIONS, "mine")
    assert list(report.systems) == [
        f"{name}{how}"
        for name in ("mine", "text (upper bound)")
        for how in ("", ", late interaction")
    ]
    # Seven words for 3 of 1.2 s, 1 of 0.6 s and none: all are wrong.
    assert report.systems["mine"]["WER"] == 100.0
    settings = report.settings
    assert settings["device"] == "cpu" and settings["real-time factor"] > 0


def test_questions_that_are_spoken_are_asked_both_ways(clips):
    """Each is voiced by the clip of another: the system takes it for that."""
    turned = [clips[1], clips[2], clips[0]]
    keys = ("wav", "start", "stop", "channel", "duration")
    spoken = [
        question | {key: clip[key] for key in keys}
        for question, clip in zip(QUESTIONS, turned, strict=True)
    ]
    said = TEXTS | {"long": "one two three three"}
    report = evaluate_content(Knowing(said), clips, spoken)
    assert report.systems["system"]["Q-C R@1"] == 100.0
    found = report.systems["system, spoken questions"]
    assert found["Q-C R@1"] == found["C-Q R@1"] == 0.0
    assert found["WER"] == pytest.approx(100 / 7)
    # Heard "one" for four words, "one two" for one, three more for two.
    assert found["WER of questions"] == pytest.approx(100 * (3 + 1 + 2) / 7)
    late = report.systems["cascade, spoken questions, late interaction"]
    assert late["Q-C R@1"] == 0.0
    # One question that is not spoken: none is asked so.
    few = evaluate_content(Knowing(said), clips, [*spoken[:2], QUESTIONS[2]])
    assert not any("spoken" in name for name in few.systems)


def test_a_report_is_read_as_it_was_saved(clips, tmp_path):
    again = {"ID": "again", "question": "one", "context_id": "short"}
    report = evaluate_content(Knowing(TEXTS), clips, [*QUESTIONS, again])
    report.save(tmp_path)
    read = read_content_report(tmp_path / "content.json")
    assert str(read) == str(report) and read.by_pair == report.by_pair


@pytest.mark.parametrize("text", ["{", "[1]", '{"settings": {}}', "{}", "\xff"])
def test_what_is_no_report(tmp_path, text):
    (tmp_path / "content.json").write_text(text, encoding="latin-1")
    with pytest.raises(MendableError, match="is no report on content"):
        read_content_report(tmp_path / "content.json")


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("systems", {}, "no system"),
        ("systems", {"mine": 3}, "mine has no figures"),
        ("systems", {"mine": {"WER": "12"}}, "WER of mine is '12'"),
        ("systems", {"mine": {"WER": None}}, "WER of mine is None"),
        ("systems", {"mine": {"WER": True}}, "WER of mine is True"),
        ("systems", {"mine": {"WER": float("nan")}}, "WER of mine is nan"),
        ("systems", {"mine": {"WER": 10**400}}, "too large"),
        ("by_pair", {"mine": []}, "mine has no figures"),
        ("by_pair", [], "no tables"),
        ("settings", {"clips": [3]}, r"clips is \[3\]"),
    ],
)
def test_a_report_whose_parts_are_none(tmp_path, part, value, message):
    good = {"settings": {"clips": 3}, "systems": {"mine": {"WER": 1}}}
    numbers = good | {"by_pair": {}}
    path = tmp_path / "content.json"
    path.write_text(json.dumps(numbers))
    assert read_content_report(path).systems == good["systems"]
    path.write_text(json.dumps(numbers | {part: value}))
    with pytest.raises(MendableError, match=f"no report on .*{message}.*again"):
        read_content_report(path)


def test_shared_contexts_are_counted_both_ways(clips):
    again = {"ID": "again", "question": "one", "context_id": "short"}
    report = evaluate_content(Knowing(), clips, [*QUESTIONS, again])
    assert report.systems["system"]["Q-C R@1"] == 100.0
    # Two copies of a context tie: neither of its questions is first.
    assert report.by_pair["system"]["Q-C R@1"] == 50.0
    assert "as often as it is asked about" in str(report)
