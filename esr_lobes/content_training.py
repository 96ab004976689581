"""What the ``train.py`` of every recipe on content does, in its order.

Authors
 * The esr_lobes contributors
"""

import random
from itertools import islice

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.batching import ClipBatches
from esr_lobes.clsr.speech import measure_cmvn
from esr_lobes.content_evaluation import content_sets, evaluate_content
from esr_lobes.content_export import (
    export_content_retriever,
    write_content_card,
)
from esr_lobes.content_manifests import questions_file, read_content
from esr_lobes.datasets import ClipReader
from esr_lobes.distributed import n_ranks, rank
from esr_lobes.inference import EncoderRetriever
from esr_lobes.manifests import ManifestError
from esr_lobes.pages import PageError
from esr_lobes.training import check_record

logger = get_logger(__name__)

# What may not change while a training goes on.
AIMS = (
    "seed",
    "batch_size",
    "bucketed",
    "max_seconds",
    "stages",
    "learning_rates",
    "quantity_weight",
    "contrastive_weight",
    "ce_weight",
    "mwer_weight",
    "sampling_ratio",
    "recogniser_source",
    "temperature",
    "learns_temperature",
    "vq",
    "n_candidates",
    "label_smoothing",
    "clap_source",
    "text_learns_jointly",
    "teacher",
    "distillation_weight",
    "imitation_weight",
    "distillation_temperature",
)
FILES = (
    "train.csv",
    "valid.csv",
    questions_file("train"),
    questions_file("valid"),
)
CMVN_CLIPS = 500


def content_of(run, split):
    """Returns the clips of a split and the questions about them.

    Arguments
    ---------
    run : Run
        From :func:`esr_lobes.training.open_run`, its corpus prepared.
    split : str
        ``train``, ``valid``, or a test set.

    Returns
    -------
    clips, questions : list of dict
        See :func:`esr_lobes.content_manifests.read_content`.
    """
    (corpus,) = run.corpora
    return read_content(
        run.folder.manifests(corpus), split, run.corpora[corpus]
    )


def make_content_dataset(clips, reader):
    """Returns a SpeechBrain dataset of clips with transcripts.

    Arguments
    ---------
    clips : list of dict
        Rows of a manifest.
    reader : ClipReader
        Reads the segments.

    Returns
    -------
    DynamicItemDataset
        With items ``id``, ``sig`` ([time], float32), ``context_id``,
        ``context_index`` and ``transcript``.
    """
    dataset = DynamicItemDataset({row["ID"]: dict(row) for row in clips})
    contexts = sorted({row["context_id"] for row in clips})
    index = {context: i for i, context in enumerate(contexts)}

    @takes("wav", "start", "stop", "channel")
    @provides("sig")
    def read(wav, start, stop, channel):
        return reader(wav, start, stop, channel)

    @takes("context_id")
    @provides("context_index")
    def number(context):
        return index[context]

    dataset.add_dynamic_item(read)
    dataset.add_dynamic_item(number)
    dataset.set_output_keys(
        ["id", "sig", "context_id", "context_index", "transcript"]
    )
    return dataset


def short_enough(clips, max_seconds):
    """Returns the clips that are trained on, and logs how many are not.

    They cannot be cut, since then their words would not be known.

    Arguments
    ---------
    clips : list of dict
        Rows of a manifest.
    max_seconds : float
        Longest clip.

    Returns
    -------
    list of dict
        Some of them.

    Raises
    ------
    ManifestError
        If none is left.

    Example
    -------
    >>> clips = [{"duration": 3.0}, {"duration": 30.0}]
    >>> short_enough(clips, 20.0)
    [{'duration': 3.0}]
    """
    kept = [clip for clip in clips if clip["duration"] <= max_seconds]
    if len(kept) < len(clips):
        logger.warning(
            f"left out {len(clips) - len(kept)} of {len(clips)} clips that "
            f"are longer than max_seconds ({max_seconds:g})"
        )
    if not kept:
        raise ManifestError(
            f"There is no clip to train on of at most {max_seconds:g} seconds."
        )
    return kept


def train_content(run):
    """Trains the towers and returns them with their best weights.

    Arguments
    ---------
    run : Run
        From :func:`esr_lobes.training.open_run`, its corpus prepared.

    Returns
    -------
    DualContentBrain
        After training, its best checkpoint recovered.
    """
    hparams = run.hparams
    if hparams["number_of_epochs"] < 1 or hparams["batch_size"] < 1:
        raise PageError("the stages' epochs and batch_size are at least 1")
    check_record(run, AIMS, FILES)
    reader = ClipReader(SAMPLE_RATE, hparams["cache_gib"])
    clips, questions = content_of(run, "train")
    clips = short_enough(clips, hparams["max_seconds"])
    valid_clips, valid_questions = content_of(run, "valid")
    valid_set = None
    if valid_clips:
        valid_set = make_content_dataset(valid_clips, reader)
        valid_set = valid_set.filtered_sorted(sort_key="duration")
    _normalize_features(hparams, clips, reader)
    brain = hparams["brain"](
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run.run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.ask(questions, valid_questions)
    clips = brain.choose_clips(clips, reader, run.folder.path)
    if not clips:
        raise ManifestError(
            "No clip teaches anything: no question is about one, or, where "
            "there is a teacher, it hears no word"
        )
    logger.info(
        "Training on %d clips with %d questions, validating on %d with %d.",
        *map(len, (clips, questions, valid_clips, valid_questions)),
    )
    workers = {"num_workers": hparams["num_workers"]}
    batches = ClipBatches(
        [clip["duration"] for clip in clips],
        hparams["batch_size"],
        hparams["seed"],
        hparams["bucketed"],
        rank=rank(),
        n_ranks=n_ranks(),
    )
    brain.fit(
        hparams["epoch_counter"],
        make_content_dataset(clips, reader),
        valid_set,
        train_loader_kwargs=workers | {"batch_sampler": batches},
        valid_loader_kwargs=workers | {"batch_size": hparams["batch_size"]},
    )
    brain.recover_best()
    return brain


def _normalize_features(hparams, clips, reader):
    """Measures the features that a recogniser from scratch will hear."""
    if "paraformer" not in hparams or hparams["recogniser_source"]:
        return
    some = random.Random(hparams["seed"]).sample(clips, len(clips))
    waves = (
        reader(clip["wav"], clip["start"], clip["stop"], clip["channel"])
        for clip in islice(some, CMVN_CLIPS)
    )
    measure_cmvn(hparams["paraformer"].frontend, waves)


def export_and_evaluate_content(run, brain, card):
    """Writes the retriever, opens it as a user would, and judges it.

    Arguments
    ---------
    run : Run
        From :func:`esr_lobes.training.open_run`.
    brain : DualContentBrain
        From :func:`train_content`.
    card : dict
        What the model card says of the data: ``corpus``, ``licence``.

    Returns
    -------
    dict
        A ContentReport by test set; none on other processes than the main
        one.
    """
    if not if_main_process():
        return {}
    source = run.folder.retriever
    export_content_retriever(source, brain)
    retriever = EncoderRetriever.from_hparams(
        source=str(source), run_opts={"device": str(brain.device)}
    )
    reports = {}
    sets = content_sets(run.folder)
    if not sets:
        logger.warning(
            "Nothing is evaluated: no test set has a question about a clip"
        )
    for name, (clips, questions) in sets.items():
        report = evaluate_content(
            retriever, clips, questions, run.hparams["name"]
        )
        report.save(run.folder.evaluation(name))
        print(f"\nOn {name}:\n\n{report}\n")
        reports[name] = report
    write_content_card(source, run.hparams, card, reports)
    logger.info("The retriever is in %s", source)
    return reports
