"""The scripts that measure searching on RAVDESS count what they say.

Authors
 * The esr_lobes contributors
"""

import re
import sys

import numpy as np
import pytest
import soundfile
from conftest import load_recipe

from esr_lobes import EncoderRetriever
from esr_lobes.audio import SAMPLE_RATE, read


@pytest.fixture(scope="module")
def long():
    return load_recipe("RAVDESS/long_recordings.py")


@pytest.fixture(scope="module")
def said(long, tmp_path_factory):
    """A recording of three clips, each half a second of voice in silence."""
    folder = tmp_path_factory.mktemp("long")
    rows = []
    for i, emotion in enumerate(("sad", "calm", "sad")):
        wave = np.zeros(SAMPLE_RATE, np.float32)
        time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        wave[4000:12000] = 0.3 * np.sin(2 * np.pi * 200 * (i + 1) * time)
        path = str(folder / f"{i}.wav")
        soundfile.write(path, wave, SAMPLE_RATE)
        rows.append({"wav": path, "emotion": emotion})
    return long.write_recordings(rows, folder / "recordings", seed=1)


def test_utterances_stand_where_they_are_said(long, said):
    ((path, spans),) = said.items()
    assert sorted(emotion for *_, emotion in spans) == ["calm", "sad", "sad"]
    for start, stop, _ in spans:
        # whole frames of 20 ms around half a second
        assert 0.5 <= stop - start <= 0.55
        loud = read(path, start + 0.03, stop - 0.03).abs().max()
        before = read(path, start - 0.2, start - 0.03).abs().max()
        assert loud > 0.25 and before < 0.02
    gaps = [b[0] - a[1] for a, b in zip(spans, spans[1:], strict=False)]
    assert all(1.4 < gap < 7.6 for gap in gaps)  # and half a second of clips


def test_what_is_found_is_compared_with_what_is_said(
    long, said, tiny_retriever, tmp_path
):
    retriever = EncoderRetriever.from_hparams(source=str(tiny_retriever))
    cutting = {"kind": "windows", "max_seconds": 0.7, "hop_seconds": 0.1}
    index = retriever.build_index(
        list(said), tmp_path / "index", cutting=cutting, progress=False
    )
    queries = {"sad": ["a sad voice"], "calm": ["a calm voice"]}
    n, met, close, right = long.measure(index, said, queries)
    # A window of 0.7 s every 0.1 s meets each half second by more than half.
    assert int(n) == len(index) and float(met) == 1.0
    assert 0 <= float(right) <= float(close) <= 1
    ((path, spans),) = said.items()
    hits = [h for t in queries.values() for h in index.search(t, k=long.K)]
    expected = [
        max(
            long.overlap((h.segment.start, h.segment.stop), span[:2])
            for span in spans
        )
        > 0.5
        for h in hits
    ]
    assert float(close) == pytest.approx(np.mean(expected), abs=1e-3)


def test_ten_questions_on_one_actor(
    shared_data, tiny_retriever, tmp_path, monkeypatch, capsys
):
    search = load_recipe("RAVDESS/search.py")
    arguments = f"{tiny_retriever} --data_folder {shared_data / 'ravdess'}"
    arguments += f" --out {tmp_path / 'index'} --actors 2 --cut windows"
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments.split()])
    search.main()
    shown = capsys.readouterr().out
    assert "60 clips of actors [2], " in shown
    counts = re.findall(r"(\d+) of 10 ", shown)
    total = re.search(r"(\d+) of 100", shown)
    assert len(counts) == 10
    assert int(total[1]) == sum(map(int, counts))
    # 8 of her 60 clips are angry, and what is looked for is in the column
    assert re.search(r"temper.*\|\s+13%", shown)
    assert re.search(r"panic.*\|\s+14%", shown)
