"""Clips of a synthesiser: how they are drawn, made, and made anew.

Authors
 * The esr_lobes contributors
"""

import json

import pytest
import soundfile

from esr_lobes.preparation import PreparationError
from esr_lobes.voicing import check_voices, voice_all, voiced_by

VOICES, RATES = ("en-us+m1", "en-us+f1", "en-us+f3"), (150, 180)


def jobs(*names, n_voices=1, seed=1):
    return [
        job
        for name in names
        for job in voiced_by(
            name, f"number {name}", "in", VOICES, RATES, n_voices, seed
        )
    ]


def test_a_draw_depends_on_name_and_seed_alone():
    assert jobs("a", "b")[1] == jobs("b")[0]
    several = [jobs(f"{i}", seed=s)[0] for i in range(9) for s in (1, 2)]
    assert len({(job["voice"], job["rate"]) for job in several}) > 3


def test_each_clip_of_a_text_has_another_voice():
    three = jobs("a", n_voices=3)
    assert sorted(job["voice"] for job in three) == sorted(VOICES)
    assert {job["file"] for job in three} == {
        f"in/a_{voice.replace('+', '-')}.wav" for voice in VOICES
    }
    assert {job["rate"] for job in three} <= set(RATES)


@pytest.mark.parametrize("n_voices", [0, 4])
def test_there_are_voices_enough(n_voices):
    with pytest.raises(PreparationError, match=f"from 1 to 3.*{n_voices}"):
        check_voices(n_voices, VOICES)
    check_voices(3, VOICES)


def test_what_is_missing_is_made_and_what_was_of_others_goes(tmp_path):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    (tmp_path / "mine.wav").touch()

    def voice(clips, settings):
        return voice_all(tmp_path, clips, settings, progress=False)

    both = jobs("a", "b")
    assert voice(both, {"n": 1}) == 2
    first, second = (tmp_path / job["file"] for job in both)
    content = first.read_bytes()
    info = soundfile.info(first)
    assert info.samplerate == 16000 and info.channels == 1
    assert voice(both, {"n": 1}) == 0
    first.unlink()
    assert voice(both, {"n": 1}) == 1 and first.read_bytes() == content
    assert voice(jobs("b", "c"), {"n": 2}) == 2
    assert not first.exists() and second.exists()
    assert (tmp_path / "mine.wav").exists()
    record = json.loads((tmp_path / "corpus.json").read_text())
    assert record["files"] == [job["file"] for job in jobs("b", "c")]


def test_only_what_was_made_here_is_removed(tmp_path):
    other = tmp_path / "other.wav"
    other.touch()
    record = {"settings": {"n": 1}, "files": ["../other.wav"]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "corpus.json").write_text(json.dumps(record))
    assert voice_all(tmp_path / "in", [], {"n": 2}, progress=False) == 0
    assert other.exists()
