"""What every recipe's ``train.py`` does, in the order in which it does it.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger
from torch.nn import Module

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.batching import ClipBatches
from esr_lobes.brain import (
    CheckpointError,
    StyleClassificationBrain,
    StyleRetrievalBrain,
)
from esr_lobes.datasets import ClipReader, make_dataset
from esr_lobes.devices import check_device
from esr_lobes.distributed import join_processes, n_ranks, rank
from esr_lobes.evaluation import evaluate, evaluate_retriever
from esr_lobes.export import export_retriever, write_card
from esr_lobes.files import write_text
from esr_lobes.inference import EncoderRetriever
from esr_lobes.manifests import ManifestError
from esr_lobes.pages import PageError, did_you_mean, load_page
from esr_lobes.prompts import PromptBank
from esr_lobes.published import CLASSIFIER, beside
from esr_lobes.runs import HELD_OUT, RunFolder

logger = get_logger(__name__)

# What may not change while a training goes on.
AIMS = (
    "seed",
    "batch_size",
    "bucketed",
    "train_bank",
    "positives",
    "loss_weights",
    "start_epochs",
    "holdout_styles",
)


class Run(NamedTuple):
    """One training: its page as objects and as text, how it runs, its recipe,
    its folder, and where its corpora lie."""

    hparams: dict
    flat_page: str
    run_opts: dict
    recipe: str
    folder: RunFolder
    corpora: dict


def open_run(argv, corpus):
    """Reads page and command line, and makes the output folder.

    Arguments
    ---------
    argv : list of str
        The page, then SpeechBrain's options and keys of the page, such as
        ``hparams/compact.yaml --device=cpu --seed=1``.
    corpus : str
        The recipe's own page, laid over the first.

    Returns
    -------
    Run
        What is to be done.
    """
    page, run_opts, overrides = sb.parse_arguments(argv)
    run_opts = join_processes(run_opts)
    check_device(run_opts["device"], run_opts["precision"])
    hparams, flat_page = load_page(page, overrides, corpus)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(experiment_directory=folder)
    if if_main_process():
        write_text(Path(folder) / "hyperparams.yaml", flat_page)
    hparams["train_loggers"] = [hparams["train_logger"]]
    if hparams["use_tensorboard"] and if_main_process():
        hparams["train_loggers"].append(_tensorboard(folder))
    recipe = Path(corpus).parent.name
    return Run(hparams, flat_page, run_opts, recipe, RunFolder(folder), {})


def _tensorboard(folder):
    try:
        from speechbrain.utils.train_logger import TensorboardLogger

        return TensorboardLogger(save_dir=str(Path(folder) / "tensorboard"))
    except ImportError as error:
        raise ImportError(
            "use_tensorboard needs: pip install 'esr_lobes[tensorboard]'"
        ) from error


def prepare(function, run, corpus="", data_folder=None, **arguments):
    """Calls the preparation of a corpus once, on the main process.

    Arguments
    ---------
    function : callable
        Such as ``prepare_ravdess``.
    run : Run
        From :func:`open_run`.
    corpus : str
        Its name, if the run has several.
    data_folder : str
        Where it lies; by default the page's ``data_folder``.
    **arguments : dict
        Handed to the function beside data and manifest folders.
    """
    data_folder = str(data_folder or run.hparams["data_folder"])
    run.corpora[corpus] = data_folder
    run_on_main(
        function,
        kwargs={
            "data_folder": data_folder,
            "save_folder": str(run.folder.manifests(corpus)),
            "skip_prep": run.hparams["skip_prep"],
            **arguments,
        },
    )
    run_on_main(run.folder.note_corpora, kwargs={"folders": run.corpora})


def heard_rows(run, split):
    """Returns what is trained or validated on, without held-out styles.

    Arguments
    ---------
    run : Run
        From :func:`open_run`.
    split : str
        train or valid.

    Returns
    -------
    list of dict
        Checked rows; may be empty for valid.

    Raises
    ------
    PageError
        If a style to hold out is none of the bank's.
    """
    styles = run.hparams["train_prompts"].styles
    held_out = run.hparams["holdout_styles"]
    for style in held_out:
        if style not in styles:
            raise PageError(
                f"holdout_styles: no style {style!r}; "
                + did_you_mean(style, styles)
            )
    rows = run.folder.rows(split, styles)
    return [row for row in rows if row["style"] not in held_out]


def train(run):
    """Trains the towers and returns them with their best weights.

    Arguments
    ---------
    run : Run
        From :func:`open_run`, its corpus prepared.

    Returns
    -------
    StyleRetrievalBrain
        After training, its best checkpoint recovered.
    """
    hparams = run.hparams
    if hparams["number_of_epochs"] < 1 or hparams["batch_size"] < 1:
        raise PageError("number_of_epochs and batch_size are at least 1")
    check_record(run)
    reader = ClipReader(SAMPLE_RATE, hparams["cache_gib"])
    styles = hparams["train_prompts"].styles
    rows = {split: heard_rows(run, split) for split in ("train", "valid")}
    if not rows["train"]:
        raise ManifestError("There is no clip to train on.")
    train_set = make_dataset(
        rows["train"], styles, reader, hparams["max_seconds"]
    )
    valid_set = None
    if rows["valid"]:
        valid_set = make_dataset(rows["valid"], styles, reader)
        valid_set = valid_set.filtered_sorted(sort_key="duration")
    logger.info(
        "Training on %d clips, validating on %d.",
        len(rows["train"]),
        len(rows["valid"]),
    )
    has_words = "text_encoder" in hparams["modules"]
    kind = StyleRetrievalBrain if has_words else StyleClassificationBrain
    brain = kind(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run.run_opts,
        checkpointer=hparams["checkpointer"],
    )
    workers = {"num_workers": hparams["num_workers"]}
    longest = hparams["max_seconds"]
    batches = ClipBatches(
        [min(row["duration"], longest) for row in rows["train"]],
        hparams["batch_size"],
        hparams["seed"],
        hparams["bucketed"],
        rank=rank(),
        n_ranks=n_ranks(),
    )
    brain.fit(
        hparams["epoch_counter"],
        train_set,
        valid_set,
        train_loader_kwargs=workers | {"batch_sampler": batches},
        valid_loader_kwargs=workers | {"batch_size": hparams["batch_size"]},
    )
    brain.recover_best()
    return brain


def check_record(run, aims=AIMS, files=("train.csv", "valid.csv")):
    """Refuses to go on with a training of other clips or another aim.

    Weights that have heard the speakers of a new test split would be judged
    as if they had not.

    Arguments
    ---------
    run : Run
        From :func:`open_run`, its corpus prepared.
    aims : sequence of str
        Keys of the page that must stay.
    files : sequence of str
        Manifests that must stay.

    Raises
    ------
    CheckpointError
        If there are checkpoints, and something has changed.
    """
    hparams, folder = run.hparams, run.folder
    record = {key: _plain(hparams[key]) for key in aims if key in hparams}
    for corpus in run.corpora:
        for file in files:
            manifest = folder.manifests(corpus) / file
            digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
            record["/".join(filter(None, (corpus, manifest.name)))] = digest
    path = folder.path / "training.json"
    if hparams["checkpointer"].list_checkpoints() and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        names = dict.fromkeys([*record, *old])
        changed = [key for key in names if old.get(key) != record.get(key)]
        if changed:
            raise CheckpointError(
                f"{path.parent} holds a training with other "
                f"{', '.join(changed)}: give another --output_folder, or "
                "remove it to begin anew."
            )
    if if_main_process():
        write_text(path, json.dumps(record, indent=2) + "\n")


def _plain(value):
    """Returns what JSON can hold; of a module, how it was made."""
    if isinstance(value, Module):
        return repr(value)
    return dict(value) if isinstance(value, Mapping) else value


def judging_banks(page):
    """Returns the prompt banks that a trained retriever is asked with.

    Arguments
    ---------
    page : dict
        ``test_banks`` names them; without, they are the ``train_bank``, and
        the held-out one unless the two share prompts. ``unique_phrases``
        False lets a phrase stand under two styles.

    Returns
    -------
    list of PromptBank
        The banks.
    """
    unique = page.get("unique_phrases", True)
    names = page.get("test_banks")
    if names:
        return [PromptBank.load(name, unique) for name in names]
    trained = PromptBank.load(page.get("train_bank", "train"), unique)
    held_out = PromptBank.load("held_out")
    if trained.overlap(held_out):
        return [trained]
    return [trained, held_out]


def heard_speakers(train_rows, test_rows):
    """Returns a sentence on which test speakers were heard in training.

    Arguments
    ---------
    train_rows, test_rows : list of dict
        Rows of the manifests.

    Returns
    -------
    str
        For the model card.

    Example
    -------
    >>> rows = [{"speaker": "ann"}], [{"speaker": "bob"}]
    >>> heard_speakers(*rows)
    'No speaker of the test split (1 in all) was heard in training.'
    """
    trained = {row["speaker"] for row in train_rows}
    tested = {row["speaker"] for row in test_rows}
    both = sorted(trained & tested)
    if both:
        return (
            f"Of {len(tested)} speakers of the test split, {len(both)} were "
            "heard in training: figures on new speakers will be lower."
        )
    return (
        f"No speaker of the test split ({len(tested)} in all) was heard in "
        "training."
    )


def export_and_evaluate(run, brain, card):
    """Writes the retriever, opens it as a user would, and judges it.

    Styles held out of the training are judged apart from the others. A
    classifier, which knows no words, is judged by its logits and leaves its
    checkpoint only.

    Arguments
    ---------
    run : Run
        From :func:`open_run`.
    brain : StyleRetrievalBrain or StyleClassificationBrain
        From :func:`train`.
    card : dict
        What the model card says of the data: ``corpus``, ``licence``.

    Returns
    -------
    dict
        A Report by test set; none on other processes than the main one.
    """
    if not if_main_process():
        return {}
    styles = run.hparams["train_prompts"].styles
    parts = list(run.folder.parts(run.hparams["holdout_styles"], styles))
    if isinstance(brain, StyleClassificationBrain):
        # It has no words for a style it has never heard.
        parts = [part for part in parts if not part[0].endswith(HELD_OUT)]
        return _evaluate(run, parts, partial(_judge_logits, brain))
    source = run.folder.retriever
    export_retriever(source, run.flat_page, brain)
    retriever = EncoderRetriever.from_hparams(
        source=str(source), run_opts={"device": str(brain.device)}
    )
    banks = judging_banks(run.hparams)
    reports = _evaluate(
        run, parts, partial(evaluate_retriever, retriever, banks=banks)
    )
    tested = [row for _, rows, _ in parts for row in rows]
    if tested:
        trained = heard_rows(run, "train")
        card = card | {"speakers": heard_speakers(trained, tested)}
    write_card(source, run.flat_page, card, reports)
    logger.info("The retriever is in %s", source)
    return reports


def _evaluate(run, parts, judge):
    """Returns the reports of a judge on all parts, saved and printed."""
    reports = {}
    for name, rows, styles in parts:
        report = judge(rows, styles=styles)
        report.save(run.folder.evaluation(name))
        print(f"\nOn {name} ({len(rows)} clips):\n\n{report}\n")
        print(_beside_the_paper(run, name, report) or "")
        reports[name] = report
    logger.info("Reports and plots: %s", run.folder.evaluation(""))
    return reports


def _judge_logits(brain, rows, styles):
    """Returns the report of a classifier."""
    logits = brain.score_clips(rows).numpy()
    scores = {s: logits[:, brain.styles.index(s)] for s in styles}
    return evaluate(None, rows, scores={CLASSIFIER: scores}, styles=styles)


def _beside_the_paper(run, name, report):
    """Returns the paper's figures beside ours, if it has such a row."""
    corpus, test_set = run.recipe, name
    if "" not in run.corpora:
        corpus, _, test_set = name.partition("_")
    return beside(report, run.hparams["name"], corpus, test_set)
