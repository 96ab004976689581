"""What every recipe's ``train.py`` does, in the order in which it does it.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.brain import CheckpointError, StyleRetrievalBrain
from esr_lobes.datasets import ClipReader, make_dataset
from esr_lobes.devices import check_device
from esr_lobes.evaluation import evaluate_retriever
from esr_lobes.export import export_retriever, write_card
from esr_lobes.files import write_text
from esr_lobes.inference import EncoderRetriever
from esr_lobes.manifests import ManifestError, read_manifest
from esr_lobes.pages import PageError, load_page
from esr_lobes.prompts import PromptBank

logger = get_logger(__name__)


class Run(NamedTuple):
    """One training: its page as objects and as text, and how it runs."""

    hparams: dict
    flat_page: str
    run_opts: dict


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
    check_device(run_opts["device"], run_opts["precision"])
    sb.utils.distributed.ddp_init_group(run_opts)
    hparams, flat_page = load_page(page, overrides, corpus)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(experiment_directory=folder)
    if if_main_process():
        write_text(Path(folder) / "hyperparams.yaml", flat_page)
    hparams["train_loggers"] = [hparams["train_logger"]]
    if hparams["use_tensorboard"] and if_main_process():
        hparams["train_loggers"].append(_tensorboard(folder))
    return Run(hparams, flat_page, run_opts)


def _tensorboard(folder):
    try:
        from speechbrain.utils.train_logger import TensorboardLogger

        return TensorboardLogger(save_dir=str(Path(folder) / "tensorboard"))
    except ImportError as error:
        raise ImportError(
            "use_tensorboard needs: pip install 'esr_lobes[tensorboard]'"
        ) from error


def manifest_folder(run):
    """Returns where a recipe's preparation writes ``train.csv`` and so on.

    Arguments
    ---------
    run : Run
        From :func:`open_run`.

    Returns
    -------
    str
        A folder inside the output folder.
    """
    return str(Path(run.hparams["output_folder"]) / "manifests")


def prepare(function, run, **arguments):
    """Calls a preparation once, on the main process.

    Arguments
    ---------
    function : callable
        Such as ``prepare_ravdess``.
    run : Run
        From :func:`open_run`.
    **arguments : dict
        Handed to the function beside data and manifest folders.
    """
    run_on_main(
        function,
        kwargs={
            "data_folder": run.hparams["data_folder"],
            "save_folder": manifest_folder(run),
            "skip_prep": run.hparams["skip_prep"],
            **arguments,
        },
    )


def read_split(run, split):
    """Returns the checked rows of one split.

    Arguments
    ---------
    run : Run
        From :func:`open_run`.
    split : str
        train, valid or test.

    Returns
    -------
    list of dict
        May be empty for valid.
    """
    return read_manifest(
        Path(manifest_folder(run)) / f"{split}.csv",
        data_root=run.hparams["data_folder"],
        styles=run.hparams["train_prompts"].styles,
    )


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
    _check_record(run)
    reader = ClipReader(SAMPLE_RATE, hparams["cache_gib"])
    styles = hparams["train_prompts"].styles
    rows = {split: read_split(run, split) for split in ("train", "valid")}
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
    brain = StyleRetrievalBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run.run_opts,
        checkpointer=hparams["checkpointer"],
    )
    loader = {
        "batch_size": hparams["batch_size"],
        "num_workers": hparams["num_workers"],
    }
    brain.fit(
        hparams["epoch_counter"],
        train_set,
        valid_set,
        train_loader_kwargs=loader | {"shuffle": True, "drop_last": False},
        valid_loader_kwargs=loader,
    )
    brain.recover_best()
    return brain


def _check_record(run):
    """Refuses to go on with a training of other clips or another aim.

    Weights that have heard the speakers of a new test split would be judged
    as if they had not.
    """
    hparams = run.hparams
    keys = ("seed", "train_bank", "positives", "loss_weights", "start_epochs")
    record = {key: _plain(hparams[key]) for key in keys}
    for split in ("train", "valid"):
        manifest = Path(manifest_folder(run)) / f"{split}.csv"
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        record[f"{split}.csv"] = digest
    path = Path(hparams["output_folder"]) / "training.json"
    if hparams["checkpointer"].list_checkpoints() and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in record if old.get(key) != record[key]]
        if changed:
            raise CheckpointError(
                f"{path.parent} holds a training with other "
                f"{', '.join(changed)}: give another --output_folder, or "
                "remove it to begin anew."
            )
    if if_main_process():
        write_text(path, json.dumps(record, indent=2) + "\n")


def _plain(value):
    return dict(value) if isinstance(value, Mapping) else value


def judging_banks(train_bank):
    """Returns the prompt banks that a trained retriever is asked with.

    Arguments
    ---------
    train_bank : PromptBank
        What it learned from.

    Returns
    -------
    list of PromptBank
        That bank, and the held-out one unless they share prompts.
    """
    held_out = PromptBank.load("held_out")
    if train_bank.overlap(held_out):
        return [train_bank]
    return [train_bank, held_out]


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

    Arguments
    ---------
    run : Run
        From :func:`open_run`.
    brain : StyleRetrievalBrain
        From :func:`train`.
    card : dict
        What the model card says of the data: ``corpus``, ``licence``.

    Returns
    -------
    Report
        On the test split; None if there is none.
    """
    folder = Path(run.hparams["output_folder"])
    source = folder / "retriever"
    export_retriever(source, run.flat_page, brain)
    rows = read_split(run, "test")
    report = None
    if rows:
        retriever = EncoderRetriever.from_hparams(
            source=str(source), run_opts={"device": str(brain.device)}
        )
        banks = judging_banks(run.hparams["train_prompts"])
        card = card | {
            "speakers": heard_speakers(read_split(run, "train"), rows)
        }
        report = evaluate_retriever(
            retriever, rows, banks, out_folder=folder / "evaluation"
        )
        print(f"\nOn the test split ({len(rows)} clips):\n\n{report}\n")
        logger.info("The whole report: %s", folder / "evaluation/report.md")
    write_card(source, run.flat_page, card, report)
    logger.info("The retriever is in %s", source)
    return report
