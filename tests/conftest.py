"""Fixtures of all tests: tiny backbones and small audio, made on the spot.

Authors
 * The esr_lobes contributors
"""

import functools
import importlib.util
import os
import sys
from pathlib import Path

# Before torch starts its threads: two cores that spin wait for each other
# are far slower than one that sleeps, and no test may ask a hub.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import soundfile
import torch
from tiny_backbones import make_tiny
from tiny_retriever import make_tiny_retriever

ROOT = Path(__file__).resolve().parents[1]


def pytest_sessionstart(session):
    """Small models gain nothing from a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data, or a skip that says where to put it."""
    beside = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("ESR_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set ESR_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def real_file(shared_data):
    """A function from a name in the real data to its path, or a skip."""

    def path_of(name):
        path = shared_data / name
        if not path.is_file():
            pytest.skip(f"the real data has no {name} ({path})")
        return path

    return path_of


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """A function from a kind to the folder of a tiny checkpoint of it."""
    root = tmp_path_factory.mktemp("backbones")

    @functools.cache
    def folder_of(kind):
        return make_tiny(kind, root / f"tiny_{kind}")

    return folder_of


@pytest.fixture(scope="session")
def tiny_text_backbone(tiny_backbone):
    """A folder with a random BERT of width 32 and its word tokenizer."""
    return tiny_backbone("bert")


@pytest.fixture(scope="session")
def tiny_retriever(tmp_path_factory, tiny_text_backbone):
    """The folder of a retriever with random weights, embeddings of 16."""
    folder = tmp_path_factory.mktemp("exported") / "retriever"
    return make_tiny_retriever(folder, tiny_text_backbone)


def load_recipe(path):
    """Returns a script of ``recipes/``, which is in no package, as a module.

    Like a script that is run, it finds what lies beside it.
    """
    path = ROOT / "recipes" / path
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tone(seconds, hertz, sample_rate=16000, level=0.3, seed=0):
    """Returns a sine with a little noise, float32 of shape [time]."""
    n_samples = round(seconds * sample_rate)
    noise = np.random.default_rng(seed).standard_normal(n_samples)
    time = np.arange(n_samples) / sample_rate
    wave = level * np.sin(2 * np.pi * hertz * time) + 0.003 * noise
    return wave.astype(np.float32)


def row(name, start=0.0, stop=1.5, **more):
    """Returns a correct row of a manifest, to be changed by keyword."""
    return {
        "ID": name,
        "duration": stop - start,
        "wav": f"{{data_root}}/{name}.wav",
        "start": start,
        "stop": stop,
        "channel": None,
        "speaker": "ann",
        "style": "calm",
        **more,
    }


@pytest.fixture
def write_tone():
    """A function that writes a tone to a file of any format."""

    def write(path, seconds=1.0, hertz=220.0, sample_rate=16000, **more):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = tone(seconds, hertz, sample_rate, **more)
        soundfile.write(path, wave, sample_rate)
        return path

    return write
