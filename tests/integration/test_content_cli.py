"""Content on the command line: evaluate, tables, and search that looks again.

Authors
 * The esr_lobes contributors
"""

import json
import shutil

import pytest
import test_cli
from tiny_content import write_content, write_content_splits
from tiny_recognisers import make_tiny_ctc

from esr_lobes import EncoderRetriever, cli
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascading import write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.indexing.build import build_index
from esr_lobes.runs import RunFolder
from esr_lobes.searching import open_index

esr = test_cli.esr  # a fixture
LATE = ", late interaction"
BOUND = "text (upper bound)"


@pytest.fixture(scope="module")
def cascade(tmp_path_factory, tiny_text_backbone):
    """The folder of a cascade of random weights."""
    folder = tmp_path_factory.mktemp("cascade")
    recogniser = HuggingFaceRecogniser(make_tiny_ctc(folder / "ctc"))
    text_encoder = TextEncoder(tiny_text_backbone, local_files_only=True)
    write_cascade(folder / "retriever", recogniser, text_encoder)
    return folder / "retriever"


@pytest.fixture
def training(tmp_path, cascade):
    """The output folder of a training on content; its retriever knows words."""
    corpus, folder = tmp_path / "corpus", tmp_path / "results/Tones/clsr/7"
    clips, questions = write_content(corpus, n_contexts=4)
    write_content_splits(corpus, folder / "manifests", False, clips, questions)
    shutil.copytree(cascade, folder / "retriever")
    (folder / "hyperparams.yaml").write_text("name: clsr\n")
    RunFolder(folder).note_corpora({"": str(corpus)})
    return folder


def test_a_trainings_own_reports_are_made_again(esr, training, capsys):
    status, line = esr("evaluate", training)
    assert status == 0, line
    saved = json.loads(
        (training / "evaluation" / "test" / "content.json").read_text()
    )
    assert list(saved["systems"]) == [
        "clsr",
        "clsr" + LATE,
        BOUND,
        BOUND + LATE,
    ]
    assert saved["settings"]["questions"] == 5
    assert list((training / "evaluation").iterdir()) == [
        training / "evaluation" / "test"
    ]
    cli.main(["tables", str(training.parents[2])])
    printed = capsys.readouterr().out
    assert "From 1 reports below" in printed
    part = printed.partition("## Tones")[2]
    assert "on `test` (5 clips, 4 contexts, 5 questions)" in part
    for title in saved["systems"]:
        assert f"\n| {title} " in part


def test_a_broken_report_does_not_cost_the_tables(training, capsys):
    place = "evaluation/test/content.json"
    for seed, text in ("8", '{"systems": 3}'), ("9", "{"):
        path = training.parent / seed / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    cli.main(["tables", str(training.parents[2])])
    printed = capsys.readouterr().out
    assert "From 0 reports below" in printed and "## LibriSQA" in printed
    assert "Left out, since they cannot be read, 2:" in printed
    for seed in "8", "9":
        assert f"- {training.parent / seed / place} is no report" in printed


def test_any_retriever_is_judged_on_a_manifest(
    esr, training, tiny_retriever, cascade, tmp_path
):
    """Also one that knows no words."""
    for source, systems in (
        (tiny_retriever, ["system", BOUND]),
        (cascade, ["cascade", "cascade" + LATE, BOUND, BOUND + LATE]),
    ):
        out = tmp_path / "new" / source.parent.name
        status, line = esr(
            "evaluate",
            source,
            "--manifest",
            training / "manifests" / "test.csv",
            "--data_root",
            tmp_path / "corpus",
            "--out",
            out,
        )
        assert status == 0, line
        saved = json.loads((out / "content.json").read_text())
        assert list(saved["systems"]) == systems
        assert "| Q-C R@1 |" in (out / "content.md").read_text()


def test_where_the_corpus_lies_is_known_to_the_training(esr, training):
    manifest = training / "manifests" / "test.csv"
    argv = ("evaluate", training, "--manifest", manifest, "--out", "../o")
    status, line = esr(*argv)
    assert status == 0, line
    assert (training.parents[3] / "o" / "content.json").is_file()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--banks=train"], "--banks is for styles"),
        (["--seed=3"], "--seed is for styles"),
        (["--data_root=/none"], "no such file: /none/"),
        (["--manifest={run}/lone/test.csv"], "no such table of questions"),
        (["--manifest={run}/empty/test.csv"], "has no clips that anything is"),
    ],
)
def test_what_is_wrong_is_said_before_the_retriever_is_loaded(
    esr, training, options, message
):
    for path in (training / "retriever").glob("*.safetensors"):
        path.unlink()  # so that it could not be
    manifests = training / "manifests"
    for name in "lone", "empty":
        (training / name).mkdir()
        shutil.copy(manifests / "test.csv", training / name)
    header = "ID,question,context_id\n"
    (training / "empty" / "questions_test.csv").write_text(header)
    options = [option.format(run=training) for option in options]
    status, line = esr("evaluate", training, "--out=../report", *options)
    assert status == 2
    assert message in line, line
    assert not (training.parents[3] / "report").exists()


def test_questions_that_are_gone_are_named(esr, training):
    path = training / "manifests" / "questions_test.csv"
    path.unlink()
    status, line = esr("evaluate", training)
    assert status == 2
    assert "manifests/questions_test.csv: no such table of questions" in line


# esr search --rerank


@pytest.fixture(scope="module")
def built(cascade, tmp_path_factory):
    """An index of content, with the folder of its audio."""
    folder = tmp_path_factory.mktemp("built")
    write_content(folder / "audio", n_contexts=6)
    build_index(
        str(folder / "audio"),
        str(folder / "index"),
        {"content": str(cascade)},
        cutting={"kind": "windows"},
        progress=False,
    )
    return folder / "index"


def test_the_best_are_ranked_by_their_words(built, cascade, capsys):
    asked = ["search", str(built), "happy sad", "-k", "3"]
    cli.main([*asked, "--rerank", "5", "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    with open_index(built) as index:
        hits = index.search(content="happy sad", k=5)
        again = index.encoders["content"].rerank("happy sad", hits)[:3]
    assert [(row["path"], row["score"]) for row in found] == [
        (hit.segment.path, pytest.approx(hit.score, abs=1e-6)) for hit in again
    ]
    assert [row["rank"] for row in found] == [1, 2, 3]
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    cli.main([*asked[:2], "--content", "happy sad", "--rerank", "9", "-k", "9"])
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:2] == ["#", "maxsim"] and len(table) == 8
    best = float(table[1].split()[1])
    retriever = EncoderRetriever.from_hparams(str(cascade))
    everything = retriever.rerank("happy sad", hits_of(built))
    assert best == pytest.approx(everything[0].score, abs=6e-4)


def hits_of(built):
    with open_index(built) as index:
        return index.search(content="voice", k=99)


@pytest.mark.parametrize(
    "words, message",
    [
        (["sad", "--rerank", "2"], "--rerank 2 is less than the 10 hits"),
        (["sad", "calm", "--rerank", "20"], "the words of one text"),
        (["sad=-1", "--rerank", "20"], "the words of one text"),
        (["sad", "--minus=calm", "--rerank", "20"], "no --minus and no --clip"),
        (["sad", "-k", "0", "--rerank", "20"], "k is a whole number from 1"),
        (["sad", "--style=sad", "--rerank", "20"], "the words of one text"),
    ],
)
def test_what_cannot_be_ranked_again(built, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        cli.main(["search", str(built), *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_retriever_of_styles_knows_no_words(
    tiny_retriever, write_tone, tmp_path, capsys
):
    write_tone(tmp_path / "audio" / "a.wav")
    index = str(tmp_path / "index")
    build_index(
        str(tmp_path / "audio"),
        index,
        str(tiny_retriever),
        cutting={"kind": "windows"},
        progress=False,
    )
    with pytest.raises(SystemExit):
        cli.main(["search", index, "sad", "--rerank", "20"])
    assert "(CompactEncoder) knows no words" in capsys.readouterr().err


def test_audio_that_is_gone_is_named_and_last(built, tmp_path, capsys, caplog):
    hits = hits_of(built)
    gone = hits[0].segment.path
    asked = ["search", str(built), "sad", "--rerank", "20", "--format", "json"]
    shutil.move(gone, tmp_path / "kept.wav")
    try:
        cli.main(asked)
    finally:
        shutil.move(tmp_path / "kept.wav", gone)
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(hits)
    assert (found[-1]["path"], found[-1]["score"]) == (gone, -1.0)
    assert f"{gone}: missing" in caplog.text


def test_the_threshold_is_on_the_cosine_before(built, capsys):
    with open_index(built) as index:
        hits = index.search(content="sad", k=99)
    lowest = hits[2].score - 1e-6
    asked = ["search", str(built), "sad", "--format", "json"]
    cli.main([*asked, "--rerank", "20", f"--threshold={lowest}"])
    found = json.loads(capsys.readouterr().out)
    assert {row["path"] for row in found} == {
        hit.segment.path for hit in hits if hit.score >= lowest
    }
