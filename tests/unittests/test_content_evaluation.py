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

from esr_lobes.content_evaluation import evaluate_content

TEXTS = {
    "long": "one two three four",
    "short": "one",
    "middle": "one two",
}
SECONDS = {"long": 1.2, "short": 0.3, "middle": 0.6}


class Knowing:
    """Knows a clip by its length and a text by its number of words."""

    device = "cpu"

    def __init__(self, said=None):
        speech = SimpleNamespace()
        if said is not None:
            speech.transcribe = lambda wavs, wav_lens: [
                said[self._place(round(float(n) * wavs.shape[1]) / 16000)]
                for n in wav_lens
            ]
        self.mods = SimpleNamespace(speech_encoder=speech)

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
    mine, cascade, bound = report.systems.values()
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
    assert report.systems["system"]["WER"] == pytest.approx(100 / 7)


def test_shared_contexts_are_counted_both_ways(clips):
    again = {"ID": "again", "question": "one", "context_id": "short"}
    report = evaluate_content(Knowing(), clips, [*QUESTIONS, again])
    assert report.systems["system"]["Q-C R@1"] == 100.0
    # Two copies of a context tie: neither of its questions is first.
    assert report.by_pair["system"]["Q-C R@1"] == 50.0
    assert "as often as it is asked about" in str(report)
