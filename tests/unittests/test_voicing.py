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


def voice(folder, clips):
    pytest.importorskip("espeakng_loader", reason="extra [demo]")
    return voice_all(folder, clips, progress=False)


def test_what_is_missing_is_made_and_what_is_not_wanted_stays(tmp_path):
    both = jobs("a", "b")
    assert voice(tmp_path, both) == 2
    first, second = (tmp_path / job["file"] for job in both)
    content = first.read_bytes()
    info = soundfile.info(first)
    assert info.samplerate == 16000 and info.channels == 1
    assert voice(tmp_path, both) == 0
    first.unlink()
    assert voice(tmp_path, both) == 1 and first.read_bytes() == content
    time = second.stat().st_mtime_ns
    assert voice(tmp_path, jobs("b", "c")) == 1
    assert first.exists() and second.stat().st_mtime_ns == time
    record = json.loads((tmp_path / "corpus.json").read_text())
    assert set(record) == {job["file"] for job in jobs("a", "b", "c")}
    assert voice(tmp_path, both) == 0


@pytest.mark.parametrize("key, value", [("text", "other"), ("rate", 190)])
def test_what_was_made_otherwise_is_made_anew(tmp_path, key, value):
    both = jobs("a", "b")
    voice(tmp_path, both)
    first, second = (tmp_path / job["file"] for job in both)
    content, time = first.read_bytes(), second.stat().st_mtime_ns
    both[0][key] = value
    assert voice(tmp_path, both) == 1
    assert first.read_bytes() != content
    assert second.stat().st_mtime_ns == time
    assert voice(tmp_path, both) == 0


def test_a_run_that_was_broken_off_leaves_nothing_of_before(
    tmp_path, monkeypatch
):
    (job,) = jobs("a")
    voice(tmp_path, [job])
    content = (tmp_path / job["file"]).read_bytes()
    changed = job | {"text": "something else"}

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("esr_lobes.voicing._synthesize", interrupt)
        with pytest.raises(KeyboardInterrupt):
            voice(tmp_path, [changed])
    assert voice(tmp_path, [changed]) == 1
    assert (tmp_path / job["file"]).read_bytes() != content


def test_a_file_that_no_record_knows_is_made_anew(tmp_path):
    (job,) = jobs("a")
    (tmp_path / "in").mkdir()
    (tmp_path / job["file"]).touch()
    assert voice(tmp_path, [job]) == 1
    assert (tmp_path / job["file"]).stat().st_size > 1000


@pytest.mark.parametrize(
    "text", ["{", "[]", "\xff", '{"settings": {}, "files": ["in/a.wav"]}']
)
def test_a_broken_record_is_named(tmp_path, text):
    (tmp_path / "corpus.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(PreparationError, match=r"corpus\.json .* remove it"):
        voice_all(tmp_path, jobs("a"), progress=False)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../../x", "a\0"])
def test_no_file_lies_outside_its_folder(tmp_path, name):
    (job,) = jobs("a")
    folder = tmp_path / "in"
    with pytest.raises(PreparationError, match="cannot name a file below"):
        voice_all(folder, [job | {"file": f"{name}.wav"}], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_two_texts_of_one_id_are_refused(tmp_path):
    (job,) = jobs("a")
    with pytest.raises(PreparationError, match=r"two texts would be in/a_"):
        voice_all(tmp_path, [job, job | {"text": "other"}], progress=False)


def test_what_has_no_word_is_left_out(tmp_path):
    silent = [job | {"text": "？ ..."} for job in jobs("a")]
    assert voice_all(tmp_path, silent, progress=False) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_said_is_named(tmp_path):
    (job,) = jobs("a")
    with pytest.raises(PreparationError, match=r"in/a_.*\.wav .*no voice 'x'"):
        voice(tmp_path, [job | {"voice": "x"}])
