"""Long recordings put together from clips: when what is said.

Authors
 * The esr_lobes contributors
"""

import os

import numpy as np
import pytest
import soundfile
from conftest import load_recipe
from tiny_content import write_content

from esr_lobes.audio import read


@pytest.fixture(scope="module")
def speech():
    return load_recipe("SyntheticSQA/long_speech.py")


@pytest.fixture
def clips(tmp_path):
    """Clips of half a second to 1.2 s, as a manifest has them."""
    rows, _ = write_content(tmp_path / "clips")
    for row in rows:
        row["wav"] = row["wav"].replace("{data_root}", f"{tmp_path}/clips")
    return rows


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


def test_other_clips_or_a_lost_file_make_them_anew(speech, clips, tmp_path):
    def write():
        return speech.write_recordings(clips, tmp_path / "long", 1.0)

    ((path, spoken),) = write().items()
    os.remove(path)
    assert write() == {path: spoken} and os.path.isfile(path)
    # The same names, but other words, times or files.
    for key, value in ("transcript", "new"), ("stop", 0.3):
        clips[0][key] = value
        (again,) = write().values()
        assert again != spoken
        spoken = again
    before = read(path)
    clips[0]["wav"] = clips[4]["wav"]
    assert list(write().values()) == [spoken]
    assert not read(path).equal(before)


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
