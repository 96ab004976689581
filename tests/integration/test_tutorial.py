"""The tutorial runs as it stands, on speech of a synthesiser.

Authors
 * The esr_lobes contributors
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("espeakng_loader", reason="speech needs espeakng-loader")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|python)( \w+)?\n(.*?)^```$", re.M | re.S)
STYLES = ("excited", "calm", "whispered")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A folder of six short recordings."""
    from esr_lobes.synthesis import SAMPLE_RATE, Synthesizer

    folder = tmp_path_factory.mktemp("spoken")
    with Synthesizer() as synthesizer:
        for i, style in enumerate(2 * STYLES):
            wave = synthesizer.speak(
                "We will meet again at the harbour.", "en-us+f2", style, seed=i
            )
            soundfile.write(folder / f"{i}_{style}.wav", wave, SAMPLE_RATE)
    return folder


def test_every_block_runs(spoken, tiny_retriever, tmp_path):
    blocks = BLOCK.findall(TUTORIAL.read_text())
    assert len(blocks) >= 8
    run = [(kind, code) for kind, name, code in blocks if not name]
    script = [f"AUDIO={spoken}", f"RETRIEVER={tiny_retriever}"]
    for i, (kind, code) in enumerate(run):
        if kind == "python":
            (tmp_path / f"block{i}.py").write_text(code)
            code = f"{sys.executable} block{i}.py"
        script.append(code)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    clips = sorted((tmp_path / "highlights").glob("*.wav"))
    assert 0 < len(clips) <= 5
    playlist = (tmp_path / "highlights" / "all.m3u").read_text()
    assert playlist.startswith("#EXTM3U")
    assert playlist.count("#EXTINF") == len(clips)
    assert list((tmp_path / "labels").glob("*.txt"))
    assert list((tmp_path / "from_python").glob("*.wav"))
