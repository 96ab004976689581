"""Audio: every format and rate comes out right, every bad file is named.

Authors
 * The esr_lobes contributors
"""

import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import soundfile
import torch

from esr_lobes import audio
from esr_lobes.audio import AudioError

FORMATS = {
    "wav": {},
    "flac": {},
    "aiff": {},
    "caf": {},
    "w64": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
}


def sine(seconds, rate, hertz=440.0, level=0.4):
    """A sine, float32 of shape [time]."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def cut_off(path, share):
    """Cuts a file behind the given share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def reason(function, *args, **more):
    """The reason of the AudioError that a call must raise."""
    with pytest.raises(AudioError) as caught:
        function(*args, **more)
    assert caught.value.reason in audio.ADVICE
    assert str(caught.value).endswith(audio.ADVICE[caught.value.reason])
    return caught.value.reason


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_formats_and_rates(tmp_path, suffix, rate):
    if suffix == "opus" and rate == 44100:
        pytest.skip("Opus has no 44.1 kHz")
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, sine(1.5, rate), rate, **FORMATS[suffix])

    info = audio.check(path)
    assert (info.sample_rate, info.channels) == (rate, 1)
    assert info.seconds == pytest.approx(1.5, abs=0.03)
    assert audio.probe(path) == info

    wav = audio.read(path, start=0.5, stop=1.25)
    assert wav.dtype == torch.float32 and wav.shape == (12000,)
    # away from the segment's ends, the tone itself at its own time
    expected = sine(1.5, 16000)[8000:20000]
    error = np.abs(wav.numpy() - expected)[1000:-1000].max()
    assert error < (0.06 if suffix in ("ogg", "opus", "mp3") else 2e-3)


def test_read_takes_exact_frames(tmp_path):
    path = tmp_path / "ramp.wav"
    ramp = np.arange(16000, dtype=np.float32) / 16000
    soundfile.write(path, ramp, 16000, subtype="FLOAT")

    assert torch.equal(audio.read(path), torch.from_numpy(ramp))
    # 0.25003 s is frame 4000.48, 0.50005 s is frame 8000.8
    part = audio.read(path, 0.25003, 0.50005)
    assert torch.equal(part, torch.from_numpy(ramp[4000:8001]))
    assert torch.equal(audio.read(path, 0.5), torch.from_numpy(ramp[8000:]))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_mp3_segment_is_that_of_the_whole(tmp_path, rate):
    """After a seek alone, MP3 begins with up to half a second of garbage."""
    path = tmp_path / "song.mp3"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 5 * rate)
    song = sine(5.0, rate, hertz=300) + noise.astype(np.float32)
    soundfile.write(path, song, rate, compression_level=0.9)
    whole, _ = soundfile.read(path, dtype="float32")
    for start in (0.4, 1.3, 3.7):
        part = audio.read(path, start, start + 1.0, sample_rate=rate)
        first = round(start * rate)
        expected = torch.from_numpy(whole[first : first + rate])
        assert torch.allclose(part, expected, atol=1e-5)


def test_channels_are_mixed_or_chosen(tmp_path):
    path = tmp_path / "stereo.flac"
    left, right = np.full(4000, 0.5), np.full(4000, -0.25)
    soundfile.write(path, np.stack([left, right], axis=1), 16000)

    assert audio.probe(path).channels == 2
    assert audio.read(path)[7] == pytest.approx(0.125)
    assert audio.read(path, channel=0)[7] == pytest.approx(0.5)
    assert audio.read(path, channel=1)[7] == pytest.approx(-0.25)
    for channel in (2, -1):
        assert reason(audio.read, path, channel=channel) == "no such channel"


def test_segment_beyond_the_end(tmp_path):
    path = tmp_path / "one_second.wav"
    soundfile.write(path, sine(1.0, 16000), 16000)

    assert len(audio.read(path, 0.5, 1.04)) == 8000  # within the tolerance
    assert reason(audio.read, path, 0.5, 1.2) == "truncated"
    assert reason(audio.read, path, 2.0) == "truncated"
    assert reason(audio.read, path, 1.0) == "empty"
    for start, stop in [(0.5, 0.5), (0.5, 0.2), (-0.1, 0.5)]:
        with pytest.raises(ValueError, match="0 <= start < stop"):
            audio.read(path, start, stop)


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_windows_are_what_read_gives(tmp_path, suffix):
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, sine(5.0, 24000, hertz=300), 24000)
    windows = audio.cut_windows(5.0, 2.0, 1.0, 0.2)
    waveforms = list(audio.read_windows(path, windows))
    assert len(waveforms) == len(windows) == 4
    for (start, stop), wav in zip(windows, waveforms, strict=True):
        # an MP3 decoder remembers what it did before, in the last bit
        assert torch.allclose(wav, audio.read(path, start, stop), atol=1e-6)
    assert reason(list, audio.read_windows(path, [(4, 6)])) == "truncated"


def test_good_file_passes(tmp_path, write_tone):
    path = write_tone(tmp_path / "tone.wav", seconds=0.5, sample_rate=8000)
    assert audio.check(path) == audio.AudioInfo(str(path), 8000, 1, 0.5)


def test_missing_and_empty(tmp_path):
    empty, no_samples = tmp_path / "empty.wav", tmp_path / "none.wav"
    empty.touch()
    soundfile.write(no_samples, np.zeros(0), 16000)
    for function in (audio.probe, audio.read, audio.check):
        assert reason(function, tmp_path / "nowhere.wav") == "missing"
        assert reason(function, tmp_path) == "missing"
        assert reason(function, empty) == "empty"
        assert reason(function, no_samples) == "empty"


@pytest.mark.parametrize("is_before", [True, False])
def test_a_file_that_vanishes_while_it_is_opened(
    tmp_path, write_tone, monkeypatch, is_before
):
    """Before or after its size is asked for."""
    path, getsize = write_tone(tmp_path / "a.wav"), os.path.getsize

    def vanishing(name):
        size = None if is_before else getsize(name)
        path.unlink()
        return size or getsize(name)

    monkeypatch.setattr(os.path, "getsize", vanishing)
    assert reason(audio.read, path) == "missing"


def test_what_is_no_file_is_called_by_its_name(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "link.wav").symlink_to("gone.wav")
    for function in (audio.probe, audio.read, audio.check, audio.find_audio):
        with pytest.raises(AudioError, match="missing .a pipe or device"):
            function(tmp_path / "fifo.wav")
        with pytest.raises(AudioError, match="a link to gone.wav, where noth"):
            function(tmp_path / "link.wav")


def test_a_name_that_is_no_utf8(tmp_path, write_tone):
    good = write_tone(tmp_path / "grüße.wav")
    assert audio.check(good).seconds == 1.0
    odd = os.path.join(tmp_path, os.fsdecode(b"gr\xfc\xdfe.wav"))
    os.rename(good, odd)
    assert audio.find_audio(tmp_path) == [odd]
    for function in (audio.probe, audio.read, audio.check):
        assert reason(function, odd) == "odd name"
    with pytest.raises(AudioError, match=r"fc.xdfe.wav'\); rename it in UTF"):
        audio.check(odd)


@pytest.mark.parametrize("name", ["noise.wav", "a.flac", "b.mp3", "c.raw"])
def test_corrupt(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    for function in (audio.probe, audio.read, audio.check):
        assert reason(function, path) == "corrupt"


def test_damage_in_the_middle(tmp_path):
    path = tmp_path / "damaged.flac"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 64000)
    soundfile.write(path, noise, 16000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert reason(audio.check, path) == "corrupt"


@pytest.mark.parametrize("suffix", ["wav", "aiff", "w64", "mp3", "flac"])
def test_cut_off(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 64000)
    soundfile.write(path, noise, 16000)
    audio.check(path)
    cut_off(path, 0.5)
    # the FLAC decoder cannot tell what it stumbles over
    expected = "corrupt" if suffix == "flac" else "truncated"
    assert reason(audio.check, path) == expected
    assert reason(audio.read, path, 0.0, 4.0) == expected


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_from_a_pipe_is_whole(tmp_path, size):
    """A writer that cannot seek back leaves a size that means unknown."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, sine(1.0, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert audio.check(path).seconds == 1.0


def test_flac_without_length(tmp_path):
    path = tmp_path / "piped.flac"
    soundfile.write(path, sine(1.0, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits of the first metadata block
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert reason(audio.check, path) == "corrupt"


def test_too_short(tmp_path, write_tone):
    path = write_tone(tmp_path / "blip.wav", seconds=0.01)
    assert reason(audio.check, path) == "too short"
    assert audio.check(path, min_seconds=0.01).seconds == 0.01


def test_silent(tmp_path):
    path = tmp_path / "quiet.wav"
    soundfile.write(path, np.zeros(16000), 16000)
    assert reason(audio.check, path) == "silent"
    soundfile.write(path, np.full(16000, 0.3), 16000)  # a constant is no sound
    assert reason(audio.check, path) == "silent"
    soundfile.write(path, sine(1.0, 16000, level=0.0003), 16000)  # -70 dB
    assert reason(audio.check, path) == "silent"
    assert audio.check(path, silence_db=-80).seconds == 1.0
    soundfile.write(path, sine(1.0, 16000, level=0.003), 16000)  # -50 dB
    assert audio.check(path).seconds == 1.0
    voice = np.stack([np.zeros(16000), sine(1.0, 16000)], axis=1)
    soundfile.write(path, voice, 16000)  # one silent channel is no fault
    assert audio.check(path).channels == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, value):
    path = tmp_path / "nan.wav"
    wav = sine(2.0, 16000)
    wav[20000] = value
    soundfile.write(path, wav, 16000, subtype="FLOAT")
    assert reason(audio.check, path) == "not finite"
    assert reason(audio.read, path) == "not finite"
    assert len(audio.read(path, 0.0, 1.0)) == 16000  # that part is fine


@pytest.mark.parametrize("level, channels", [(1e30, 1), (3e38, 2), (1e10, 1)])
def test_giant_samples(tmp_path, level, channels):
    """They once became vectors of NaN, or overflowed when they were mixed."""
    path = tmp_path / "giant.wav"
    wav = np.full((16000, channels), level, np.float32)
    wav[::2] *= -1
    soundfile.write(path, wav, 16000, subtype="FLOAT")
    assert reason(audio.check, path) == "not finite"
    assert reason(audio.read, path) == "not finite"
    soundfile.write(path, wav / level * 1e9, 16000, subtype="FLOAT")
    assert audio.check(path).channels == channels
    assert len(audio.read(path)) == 16000


def test_one_sample_is_no_waveform(tmp_path):
    path = tmp_path / "click.wav"
    soundfile.write(path, [0.5], 192000)
    assert reason(audio.read, path) == "empty"


LONG_FILE = """
import resource, sys
from esr_lobes import audio
def peak():  # MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
short, long = sys.argv[1:]
audio.check(short)
for wav in audio.read_windows(short, [(0, 10)]):
    pass
before = peak()
seconds = audio.check(long).seconds
windows = audio.cut_windows(seconds, 10.0, 5.0, 0.2)
total = sum(len(wav) for wav in audio.read_windows(long, windows[::40]))
print(seconds, len(windows), total, peak() - before)
"""


def test_three_hours_in_flat_memory(tmp_path, write_tone):
    """3 h at 8 kHz are 346 MB of float32; a tenth of it would be too much."""
    long = tmp_path / "long.flac"
    with soundfile.SoundFile(long, "w", 8000, 1) as file:
        file.write(sine(1.0, 8000))
        silence = np.zeros(8000 * 600, dtype=np.int16)
        for _ in range(18):
            file.write(silence)
        file.write(sine(1.0, 8000))
    short = write_tone(tmp_path / "short.wav", seconds=12.0)
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", LONG_FILE, short, long],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    seconds, n_windows, n_samples, mebibytes = map(float, answer.split())
    assert seconds == 10802.0
    assert n_windows == 2160  # starts 0, 5, ... 10790, then 10792
    assert n_samples == 54 * 160000
    assert mebibytes < 30
    assert time.perf_counter() - started < 60


def test_find_audio(tmp_path):
    names = ["b/2.WAV", "b/1.flac", "a.Opus", "c/d/e.mp3", "z.ogg"]
    others = ["._a.Opus", "b/._2.WAV", ".cache/x.wav", "notes.txt", "wav"]
    others += ["lost+found/x.wav"]
    for name in names + others:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    (tmp_path / "loop.wav").symlink_to(tmp_path / "z.ogg")

    expected = sorted(str(tmp_path / n) for n in [*names, "loop.wav"])
    assert audio.find_audio(tmp_path) == expected
    assert audio.find_audio(f"{tmp_path}/") == expected
    # the same file from two sources counts once; a named file always counts
    sources = [tmp_path / "b", tmp_path / "b" / "2.WAV", tmp_path / "notes.txt"]
    found = [os.path.relpath(p, tmp_path) for p in audio.find_audio(sources)]
    assert found == ["b/1.flac", "b/2.WAV", "notes.txt"]


def test_find_audio_says_what_is_missing(tmp_path):
    with pytest.raises(AudioError, match="nowhere: missing .* check the path"):
        audio.find_audio(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match="no file in this folder ends in"):
        audio.find_audio([tmp_path])


def test_a_folder_that_cannot_be_searched(write_tone):
    """Its files would else be taken for deleted."""
    with tempfile.TemporaryDirectory() as folder:
        # for one who is root here and is not during the search
        os.chmod(folder, 0o755)
        write_tone(f"{folder}/a.wav")
        locked = write_tone(f"{folder}/locked/b.wav").parent
        locked.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(AudioError, match="locked: missing .Permission"):
                audio.find_audio(folder)
        finally:
            os.seteuid(user)
            locked.chmod(0o755)


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (0.1, []),
        (0.2, [(0, 0.2)]),
        (10.0, [(0, 10)]),
        (10.1, [(0, 10)]),  # the rest is shorter than min_seconds
        (12.0, [(0, 10), (2, 12)]),
        (15.0, [(0, 10), (5, 15)]),
        (20.0, [(0, 10), (5, 15), (10, 20)]),
        (23.0, [(0, 10), (5, 15), (10, 20), (13, 23)]),
    ],
)
def test_cut_windows(seconds, expected):
    windows = audio.cut_windows(seconds, 10.0, 5.0, 0.2)
    assert np.allclose(windows, expected)
    assert np.shape(windows) == np.shape(expected)


def test_windows_cover_any_length():
    rng = np.random.default_rng(0)
    for seconds in rng.uniform(0.2, 100, 200).round(4):
        hop, longest = sorted(rng.uniform(0.5, 20, 2).round(3))
        windows = audio.cut_windows(seconds, longest, hop, 0.2)
        starts, stops = np.array(windows).T
        assert starts[0] == 0 and seconds - 0.2 < stops[-1] <= seconds + 1e-9
        assert (starts[1:] <= stops[:-1] + 1e-9).all()  # no gaps
        assert (np.diff(starts) > 0).all()
        assert np.allclose(stops - starts, min(longest, seconds))


@pytest.mark.parametrize("hop, longest", [(0.0, 5.0), (6.0, 5.0), (0.1, 0.1)])
def test_windows_that_make_no_sense(hop, longest):
    with pytest.raises(ValueError, match="hop_seconds <= max_seconds"):
        audio.cut_windows(20.0, longest, hop, 0.2)


def test_error_survives_a_worker():
    error = pickle.loads(pickle.dumps(AudioError("a", "corrupt", "why")))
    assert (error.path, error.reason, error.detail) == ("a", "corrupt", "why")


def test_real_speech(shared_data):
    """The quietest clips of RAVDESS are speech, not silence."""
    folder = shared_data / "ravdess"
    for name in ("03-01-04-01-01-02-20", "03-01-02-02-02-02-20"):
        path = folder / "Actor_20" / f"{name}.flac"
        info = audio.check(path)
        assert 3 < info.seconds < 6
        assert len(audio.read(path)) == round(info.seconds * 16000)
