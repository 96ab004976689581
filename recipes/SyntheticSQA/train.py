"""Trains a content retriever on synthesised speech with questions.

Run it from the repository root::

    python recipes/SyntheticSQA/train.py hparams/clsr_compact.yaml \
        --data_folder SPOKEN_SQUAD_FOLDER

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from synthetic_sqa_prepare import prepare_synthetic_sqa

from esr_lobes import content_training, training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "sentences of Spoken-SQuAD (Li et al., 2018), voiced by eSpeak "
    "NG: it knows a synthesiser, not people",
    "licence": "CC BY-SA 4.0 (SQuAD's text)",
}
# What of the page says what the corpus is.
CORPUS = (
    "n_contexts",
    "unasked_in_training",
    "n_phrases",
    "phrase_words",
    "voices_per_context",
    "min_words",
    "max_words",
    "valid_share",
    "test_share",
    "n_test_articles",
)


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(
        argv, Path(__file__).with_name("synthetic_sqa.yaml")
    )
    page = run.hparams
    training.prepare(
        prepare_synthetic_sqa,
        run,
        data_folder=page["speech_folder"],
        questions_json=Path(page["data_folder"]) / page["questions_json"],
        seed=page["corpus_seed"],
        n_workers=page["synthesis_workers"],
        **{key: page[key] for key in CORPUS},
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
