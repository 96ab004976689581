"""Recipes on bad input: a line that helps, and nothing half-written.

Authors
 * The esr_lobes contributors
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
PAGE = str(ROOT / "hparams" / "compact.yaml")


@pytest.fixture(scope="module")
def main():
    """The main function of the RAVDESS recipe."""
    folder = ROOT / "recipes" / "RAVDESS"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(
        "ravdess_train", folder / "train.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.main
    sys.path.remove(str(folder))


@pytest.fixture
def run(main, tmp_path, tiny_text_backbone, capsys, monkeypatch):
    """Runs the recipe; gives its exit status and what it complained of."""
    # The log of an earlier run may lie on a stream that is closed by now.
    monkeypatch.setattr("logging.raiseExceptions", False)

    def call(data_folder, *options, page=PAGE):
        text = f"{{width: 32, model: {{source: '{tiny_text_backbone}'}}}}"
        speech = "{width: 32, model: {channels: [8, 8], frame_strides: [1, 2]}}"
        argv = [
            page,
            *([] if "--device=cudda" in options else ["--device=cpu"]),
            "--noprogressbar",
            f"--data_folder={data_folder}",
            f"--output_folder={tmp_path / 'out'}",
            "--number_of_epochs=1",
            "--batch_size=8",
            f"--text_encoder={text}",
            f"--speech_encoder={speech}",
            "--test_actors=[1]",
            "--valid_actors=[2]",
            *options,
        ]
        try:
            main(argv)
            status = 0
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err.strip().splitlines()[-1]

    return call


def make_corpus(folder, write_tone, n_each=8):
    """Writes clips of three actors in the layout of RAVDESS."""
    paths = []
    for actor in (1, 2, 3):
        for i in range(n_each):
            style = 1 + i % 8
            name = f"03-01-{style:02d}-01-01-{1 + i // 8:02d}-{actor:02d}.wav"
            path = folder / f"Actor_{actor:02d}" / name
            paths.append(write_tone(path, 0.5, hertz=100 * style, seed=actor))
    return paths


def test_a_missing_folder(run, tmp_path):
    status, line = run(tmp_path / "nowhere")
    assert status == 2
    assert line.startswith("error:") and "nowhere" in line


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "empty").mkdir()
    status, line = run(tmp_path / "empty")
    assert status == 2
    assert line.startswith("error:") and "empty" in line
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_a_page_that_is_not_there(run, tmp_path):
    status, line = run(tmp_path, page="hparams/compakt.yaml")
    assert status == 2
    assert "no page at hparams/compakt.yaml" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option, hint",
    [
        ("--batch_sise=3", "did you mean 'batch_size'"),
        ("--loss_weights={constrastive: 1}", "did you mean 'contrastive'"),
        ("--device=cudda", "--device cudda cannot be used here"),
        ("--precision=fp16", "fp16 needs a GPU"),
    ],
)
def test_what_is_refused_before_anything_is_made(run, tmp_path, option, hint):
    status, line = run(tmp_path, option)
    assert status == 2 and hint in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option, hint",
    [
        ("--lr=abc", "lr must be a number, not text: abc"),
        ("--loss_weights=3", "loss_weights must be keys and values"),
        ("--skip_prep=no", "skip_prep must be True or False"),
        ("--batch_size=[8", "The overrides are no valid YAML"),
    ],
)
def test_a_value_of_another_kind(run, tmp_path, option, hint):
    status, line = run(tmp_path, option)
    assert status == 2 and line.startswith("error:")
    assert hint in line
    assert not (tmp_path / "out").exists()


def test_overlapping_splits(run, tmp_path, write_tone):
    make_corpus(tmp_path / "corpus", write_tone, 2)
    status, line = run(tmp_path / "corpus", "--train_actors=[1, 3]")
    assert status == 2 and line.startswith("error:")
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_a_corpus_with_broken_files_trains_on_the_rest(
    run, tmp_path, write_tone
):
    """One file in twenty is broken, each in another way."""
    paths = make_corpus(tmp_path / "corpus", write_tone, 16)
    paths[0].write_bytes(b"")
    paths[20].write_bytes(b"RIFF but no sound")
    soundfile.write(paths[40], [0.0] * 8000, 16000)
    status, _ = run(tmp_path / "corpus")
    assert status == 0
    skipped = (tmp_path / "out/manifests/skipped.csv").read_text()
    for path in (paths[0], paths[20], paths[40]):
        assert path.name in skipped
    assert len(skipped.splitlines()) == 4
    train = (tmp_path / "out/manifests/train.csv").read_text().splitlines()
    assert len(train) == 1 + 16 - 1
    assert (tmp_path / "out/retriever/weights.safetensors").exists()


def test_a_style_that_no_bank_knows(run, tmp_path, write_tone):
    make_corpus(tmp_path / "corpus", write_tone)
    assert run(tmp_path / "corpus")[0] == 0
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    manifest = tmp_path / "out" / "manifests" / "train.csv"
    manifest.write_text(manifest.read_text().replace(",sad,", ",gloomy,"))
    status, line = run(tmp_path / "corpus", "--skip_prep=True")
    assert status == 2
    assert "gloomy" in line


@pytest.mark.parametrize(
    "option, hint",
    [
        ("--train_actors=[a]", "actors are whole numbers"),
        ("--lr=-1", "lr is not below 0"),
    ],
)
def test_values_out_of_range(run, tmp_path, write_tone, option, hint):
    make_corpus(tmp_path / "corpus", write_tone)
    status, line = run(tmp_path / "corpus", option)
    assert status == 2 and hint in line
