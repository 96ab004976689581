"""Chapters: together they are the file, whatever its format; bad files are
named, if only at their end; memory stays flat.

Authors
 * The esr_lobes contributors
"""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from esr_lobes import audio
from esr_lobes.audio import AudioError, AudioStream
from esr_lobes.indexing.chapters import read_chapters
from esr_lobes.indexing.voice_activity import FRAME, RUN_UP

CHAPTER = 2.56  # seconds, whole frames


def music(seconds, rate, n_channels=1, seed=0):
    """Tones and noise that never repeat, float32 of [time, channel]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    waves = [
        0.3 * np.sin(2 * np.pi * (200 + 50 * i + 20 * time) * time)
        for i in range(n_channels)
    ]
    noise = 0.01 * random.standard_normal((len(time), n_channels))
    return (np.stack(waves, axis=1) + noise).astype(np.float32)


def joined(path, **more):
    """Each channel of a file, put together from its chapters."""
    more = {"chapter_seconds": CHAPTER, **more}
    waves = {}
    for chapter in read_chapters(path, **more):
        so_far = waves.setdefault(chapter.channel, [])
        if chapter.run_up:
            before = torch.cat(so_far)[-RUN_UP:]
            assert torch.equal(chapter.wave[: chapter.run_up], before)
        if chapter.end is None:
            new = len(chapter.wave) - chapter.run_up
            assert new == round(CHAPTER * 16000) and new % FRAME == 0
        so_far.append(chapter.wave[chapter.run_up :])
    assert chapter.end == audio.check(path).seconds
    return {channel: torch.cat(wave) for channel, wave in waves.items()}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_chapters_are_the_file(tmp_path, suffix, rate):
    path = tmp_path / f"music.{suffix}"
    subtype = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, music(13.0, rate), rate, **subtype)
    wave = joined(path)[None]
    whole = audio.read(path)
    assert wave.shape == whole.shape
    # 16 kHz is as it was decoded; a stream is resampled with the same filter
    atol = 1e-7 if rate == 16000 else 2e-5
    torch.testing.assert_close(wave, whole, atol=atol, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_resampled_in_time(tmp_path, rate):
    path = tmp_path / "music.wav"
    soundfile.write(path, music(11.0, rate), rate, subtype="FLOAT")
    wave = joined(path)[None]
    for start, stop in (0.5, 1.5), (4.0, 9.0):
        expected = audio.read(path, start, stop)[200:-200]
        found = wave[round(start * 16000) : round(stop * 16000)][200:-200]
        assert (found - expected).abs().max() < 1e-4


def test_channels(tmp_path):
    path = tmp_path / "two.wav"
    waves = music(6.0, 44100, n_channels=2)
    soundfile.write(path, waves, 44100, subtype="FLOAT")
    split = joined(path, channels="split")
    assert list(split) == [0, 1]
    for channel, wave in split.items():
        whole = audio.read(path, channel=channel)
        torch.testing.assert_close(wave, whole, atol=1e-5, rtol=0)
    mix = joined(path)
    torch.testing.assert_close(mix[None], audio.read(path), atol=1e-5, rtol=0)
    mono = tmp_path / "one.wav"
    soundfile.write(mono, waves[:, 0], 44100)
    assert list(joined(mono, channels="split")) == [None]


@pytest.mark.parametrize("seconds", [CHAPTER, 2 * CHAPTER, 0.1, CHAPTER + 1e-4])
def test_lengths_at_a_chapter_end(tmp_path, seconds):
    """A file that is a whole number of chapters has no empty last one."""
    path = tmp_path / "music.wav"
    soundfile.write(path, music(seconds, 16000), 16000)
    chapters = list(read_chapters(path, chapter_seconds=CHAPTER))
    assert [c.end is None for c in chapters[:-1]] == [True] * (
        len(chapters) - 1
    )
    assert all(len(c.wave) > c.run_up for c in chapters)
    assert len(joined(path)[None]) == round(seconds * 16000)


def damaged(path, fault):
    """Writes a long file with a fault that only its end tells."""
    wave = music(9.0, 16000)
    if fault == "not finite":
        wave[-100] = np.nan
    if fault == "silent":
        wave *= 1e-5
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-80000])


@pytest.mark.parametrize("fault", ["not finite", "silent", "truncated"])
def test_fault_found_at_the_end(tmp_path, fault):
    path = tmp_path / "bad.wav"
    damaged(path, fault)
    chapters = read_chapters(path, chapter_seconds=CHAPTER)
    assert next(chapters).end is None
    with pytest.raises(AudioError) as caught:
        for chapter in chapters:
            assert chapter.end is None  # nothing says that all is well
    assert caught.value.reason == fault
    with pytest.raises(AudioError) as caught:
        audio.check(path)
    assert caught.value.reason == fault


def test_other_faults(tmp_path):
    faults = {"missing": None, "empty": b"", "corrupt": b"no audio" * 100}
    for reason, content in faults.items():
        path = tmp_path / f"{reason}.wav"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(AudioError) as caught:
            list(read_chapters(path))
        assert caught.value.reason == reason
    path = tmp_path / "blip.wav"
    soundfile.write(path, music(0.2, 16000), 16000)
    with pytest.raises(AudioError) as caught:
        list(read_chapters(path, shortest=0.3))
    assert caught.value.reason == "too short"


def test_a_flac_that_breaks_off(tmp_path):
    path = tmp_path / "bad.flac"
    soundfile.write(path, music(9.0, 16000), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError) as caught:
        list(read_chapters(path, chapter_seconds=CHAPTER))
    assert caught.value.reason in ("corrupt", "truncated")


def test_mp3_is_not_torn_at_blocks(tmp_path, monkeypatch):
    """soundfile seeks after each read; the next block then began with a
    frame that had lost what it leans on."""
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 10007)
    path = tmp_path / "noise.mp3"
    noise = 0.1 * np.random.default_rng(0).standard_normal(480000)
    soundfile.write(path, noise, 16000)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    blocks = list(AudioStream(path).blocks())
    assert len(blocks) == 48
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


PEAK = """
import resource, sys
from esr_lobes.indexing.chapters import read_chapters
def listen(path):
    n = 0
    for chapter in read_chapters(path, "split", chapter_seconds=20):
        n += len(chapter.wave) - chapter.run_up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return n / 16000, peak
short, long = map(listen, sys.argv[1:])
print(*short, *long)
"""


def test_memory_stays_flat(tmp_path):
    """20 minutes of stereo at 24 kHz are 230 MB, their chapters 5."""
    paths = []
    noise = (music(60.0, 24000, 2) * 20000).astype(np.int16)
    for minutes in 2, 20:
        paths.append(tmp_path / f"{minutes}.wav")
        with soundfile.SoundFile(paths[-1], "w", 24000, 2) as file:
            for _ in range(minutes):
                file.write(noise)
    answer = subprocess.run(
        [sys.executable, "-c", PEAK, *paths],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    seconds, before, more_seconds, after = map(float, answer.split())
    assert (seconds, more_seconds) == (240.0, 2400.0)  # of two channels
    assert after - before < 10  # MiB
