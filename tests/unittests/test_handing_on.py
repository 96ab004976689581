"""Passages on their way to people and programs.

Authors
 * The esr_lobes contributors
"""

import json

from esr_lobes.answering.handing_on import (
    Answer,
    answer_lines,
    answers_json,
    hms,
)
from esr_lobes.index import Hit, Segment


def hit(start=0.0, stop=40.0, channel=None, rank=0, path="/talks/a.flac"):
    segment = Segment(path, start, stop, channel, f"id{rank}")
    return Hit(segment, 0.5 - rank / 8, rank, 2.0, 97.5)


def test_times_are_hours_minutes_seconds():
    assert hms(0) == "0:00:00" and hms(3599.6) == "1:00:00"
    assert hms(7325.4) == "2:02:05" and hms(360000) == "100:00:00"


def test_lines_for_people():
    hits = [hit(3600.0, 3640.0), hit(80.0, 120.2, 1, 1, "/a\x1b[2Jb.wav")]
    shown = answer_lines(Answer("Who?", hits, " the\nmonks ", 2.0))
    assert shown.splitlines() == [
        "Who?",
        "  answer: the monks",
        "  1  0.500  1:00:00-1:00:40  /talks/a.flac",
        "  2  0.375  0:01:20-0:02:00  /a?[2Jb.wav  ch 1",
    ]
    assert answer_lines(Answer("Who?", [])) == "Who?"


def test_a_question_or_answer_does_not_command_the_terminal():
    odd = Answer("Who\x1b]0;x\x07?\udcff", [], "mo\x1b[2Jnks\u202e", 1.0)
    assert answer_lines(odd).splitlines() == [
        "Who?]0;x???",
        "  answer: mo?[2Jnks?",
    ]


def test_json_for_programs():
    answers = [Answer("Wer läuft?", [hit(1.5, 2.25)], "er", 0.5)]
    text = answers_json([*answers, Answer("Who?", [])])
    assert "läuft" in text
    first, second = json.loads(text)
    assert first["question"] == "Wer läuft?" and first["answer"] == "er"
    assert first["seconds"] == 0.5
    (passage,) = first["passages"]
    assert (passage["start"], passage["stop"]) == (1.5, 2.25)
    assert passage["rank"] == 1 and passage["path"] == "/talks/a.flac"
    assert second["answer"] is None and second["passages"] == []
