"""Trains a content retriever on Spoken-SQuAD.

Run it from the repository root::

    python recipes/SpokenSQuAD/train.py hparams/clsr_compact.yaml \
        --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from spoken_squad_prepare import prepare_spoken_squad

from esr_lobes import content_training, training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "Spoken-SQuAD (Li et al., 2018), the speech of a synthesiser",
    "licence": "CC BY-SA 4.0",
}
# What of the page says what the corpus is.
CORPUS = (
    "train_json",
    "test_json",
    "train_wavs",
    "test_wavs",
    "squad_folder",
    "one_question",
    "unasked_in_training",
    "valid_share",
)


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("spoken_squad.yaml"))
    page = run.hparams
    training.prepare(
        prepare_spoken_squad,
        run,
        seed=page["corpus_seed"],
        min_seconds=page["min_clip_seconds"],
        max_seconds=page["max_clip_seconds"],
        **{key: page[key] for key in CORPUS},
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
