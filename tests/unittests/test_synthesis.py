"""Synthesised styles: repeatable, told apart by ear and by number.

Authors
 * The esr_lobes contributors
"""

import filecmp
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from esr_lobes import manifests, synthesis
from esr_lobes.synthesis import STYLES, Delivery, Synthesizer

RECIPE = Path(__file__).parents[2] / "recipes" / "SyntheticStyles"
TEXT = "The bridge was built from stone."
VOICE = "en-us+m3"

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="needs espeakng-loader (extra demo)",
)


@pytest.fixture(scope="module")
def synthesizer():
    """One helper process for the tests of this file."""
    pytest.importorskip("espeakng_loader", reason="extra demo")
    with Synthesizer() as synthesizer:
        yield synthesizer


@pytest.fixture(scope="module")
def waves(synthesizer):
    """Every style, said twice each, with its variation."""
    return {
        style: [synthesizer.speak(TEXT, VOICE, style, i) for i in range(2)]
        for style in STYLES
    }


@pytest.fixture
def prepare():
    """The module of the recipe, which is no package."""
    path = RECIPE / "synthetic_prepare.py"
    spec = importlib.util.spec_from_file_location("synthetic_prepare", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def periodicity(wave, n_frame=800):
    """Median over loud frames of the best autocorrelation, 60 to 400 Hz."""
    frames = wave[: len(wave) // n_frame * n_frame].reshape(-1, n_frame)
    energy = (frames**2).sum(1)
    frames = frames[energy > np.median(energy)]
    found = []
    for frame in frames:
        lags = np.correlate(frame, frame, "full")[n_frame - 1 :]
        found.append(lags[40:267].max() / lags[0])
    return np.median(found)


def level(wave):
    """Root mean square in dB against full scale."""
    return 20 * np.log10(np.sqrt(np.mean(wave**2)))


def test_same_arguments_same_wave_whatever_was_said_before(synthesizer):
    first = synthesizer.speak(TEXT, VOICE, "calm", 5)
    synthesizer.speak("Something else was said.", "en+f2", "fast", 1)
    assert np.array_equal(first, synthesizer.speak(TEXT, VOICE, "calm", 5))
    with Synthesizer() as fresh:
        assert np.array_equal(first, fresh.speak(TEXT, VOICE, "calm", 5))


@pytest.mark.parametrize("voice", ["en-us+f2", "en-us+f5"])
def test_a_breathy_voice_repeats_in_another_process(synthesizer, voice):
    # their noise was seeded by the clock when the library started
    first = synthesizer.speak(TEXT, voice, "neutral")
    time.sleep(1.1)
    with Synthesizer() as fresh:
        assert np.array_equal(first, fresh.speak(TEXT, voice, "neutral"))


def test_another_seed_varies_the_style(synthesizer):
    first, second = (synthesizer.speak(TEXT, VOICE, "calm", i) for i in (1, 2))
    assert len(first) != len(second)


def test_waves_are_sound(waves):
    for said in waves.values():
        for wave in said:
            assert wave.dtype == np.float32 and wave.ndim == 1
            assert 0.5 < len(wave) / synthesis.SAMPLE_RATE < 6
            assert 0.005 < np.abs(wave).max() <= 0.991


def test_styles_differ_as_their_names_say(waves):
    for said in zip(*waves.values(), strict=True):
        wave = dict(zip(waves, said, strict=True))
        slow_to_fast = ["sleepy", "calm", "neutral", "excited", "fast"]
        lengths = [len(wave[style]) for style in slow_to_fast]
        assert lengths == sorted(lengths, reverse=True)
        assert len(wave["enunciated"]) > 1.3 * len(wave["neutral"])
        assert level(wave["projected"]) > level(wave["neutral"]) + 3
        assert level(wave["neutral"]) > level(wave["whispered"]) + 6
        voiced = [periodicity(wave[style]) for style in set(wave)]
        assert periodicity(wave["neutral"]) > 0.6
        assert periodicity(wave["whispered"]) == min(voiced) < 0.5


def test_sleepy_falls_in_level(synthesizer):
    steady = synthesizer.speak(TEXT, VOICE, Delivery())
    fading = synthesizer.speak(TEXT, VOICE, Delivery(fade_db=-20))
    middle = len(steady) // 2
    drop = [level(x[middle:]) - level(x[:middle]) for x in (steady, fading)]
    assert drop[0] - drop[1] == pytest.approx(10, abs=4)


def test_level_is_the_one_asked_for(synthesizer):
    for wanted in -35.0, -28.0:
        wave = synthesizer.speak(TEXT, VOICE, Delivery(level_db=wanted))
        assert level(wave) == pytest.approx(wanted, abs=0.01)


def test_refusals_leave_the_synthesizer_usable(synthesizer):
    with pytest.raises(ValueError, match="no voice 'xx-none'"):
        synthesizer.speak(TEXT, "xx-none", "calm")
    with pytest.raises(ValueError, match="'in love' cannot be voiced.*bored"):
        synthesizer.speak(TEXT, VOICE, "in love")
    with pytest.raises(ValueError, match="no sound"):
        synthesizer.speak("", VOICE, "calm")
    assert len(synthesizer.speak(TEXT, VOICE, "calm"))


def test_a_helper_that_ended_is_an_error(monkeypatch):
    pytest.importorskip("espeakng_loader", reason="extra demo")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended by itself"):
        Synthesizer()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"esr_lobes\[demo\]"):
        Synthesizer()


def test_splits_share_neither_voice_nor_sentence(prepare):
    for content in prepare.VOICES, prepare.SENTENCES:
        entries = [x for split in content.values() for x in split]
        assert len(entries) == len(set(entries))
        assert sorted(content) == ["test", "train", "valid"]
    assert len(STYLES) >= 8


@needs_espeak
def test_corpus_is_repeatable_resumable_and_kept(prepare, tmp_path, capsys):
    small = {
        "voices": {
            "train": ["en-us+m1", "en-us+f1"],
            "valid": ["en+m6"],
            "test": ["en-us+f2"],
        },
        "styles": ["fast", "whispered"],
        "clips_per_voice_and_style": 2,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    save = tmp_path / "save"
    prepare.prepare_synthetic(one, save, progress=False, **small)
    prepare.prepare_synthetic(two, tmp_path / "s2", n_workers=1, **small)
    assert "Synthesising" in capsys.readouterr().err
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*.wav"))
    assert len(names) == 4 * 2 * 2
    assert filecmp.cmpfiles(one, two, names, shallow=False)[0] == names

    speakers = {}
    for split, count in {"train": 8, "valid": 4, "test": 4}.items():
        rows = manifests.read_manifest(
            save / f"{split}.csv", one, styles=small["styles"]
        )
        assert len(rows) == count
        speakers[split] = {row["speaker"] for row in rows}
        for row in rows:
            info = soundfile.info(row["wav"])
            assert (info.samplerate, info.channels) == (16000, 1)
            assert info.subtype == "PCM_16"
            assert row["duration"] == pytest.approx(info.duration, abs=1e-3)
    assert not speakers["train"] & (speakers["valid"] | speakers["test"])
    assert not speakers["valid"] & speakers["test"]

    # a second run does nothing, a lost clip alone is made again
    times = {name: (one / name).stat().st_mtime_ns for name in names}
    (one / names[3]).unlink()
    prepare.prepare_synthetic(one, save, progress=False, **small)
    again = {name: (one / name).stat().st_mtime_ns for name in names}
    assert [n for n in names if times[n] != again[n]] == [names[3]]
    assert filecmp.cmp(one / names[3], two / names[3], shallow=False)
    times_of_save = [p.stat().st_mtime_ns for p in sorted(save.iterdir())]
    prepare.prepare_synthetic(one, save, progress=False, **small)
    assert times_of_save == [
        p.stat().st_mtime_ns for p in sorted(save.iterdir())
    ]

    # other settings replace what was there, and touch nothing else
    (one / "mine.wav").write_bytes(b"not of the corpus")
    small["styles"] = ["fast"]
    prepare.prepare_synthetic(one, save, progress=False, **small)
    left = {str(p.relative_to(one)) for p in one.rglob("*.wav")}
    assert left == {n for n in names if "fast" in n} | {"mine.wav"}
    assert len(manifests.read_manifest(save / "train.csv", one)) == 4


def test_skip_prep_does_nothing(prepare, tmp_path):
    prepare.prepare_synthetic(tmp_path / "a", tmp_path / "b", skip_prep=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"styles": ["awe"]}, "awe.*cannot be voiced"),
        ({"voices": {"train": ["en"]}}, "must have the splits"),
        (
            {"voices": dict.fromkeys(["train", "valid", "test"], ["en"])},
            "listed twice",
        ),
        ({"clips_per_voice_and_style": 0}, "at least 1"),
    ],
)
def test_wrong_settings_make_nothing(prepare, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        prepare.prepare_synthetic(tmp_path / "a", tmp_path / "b", **wrong)
    assert not any(tmp_path.iterdir())
