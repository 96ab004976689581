"""Trains a content retriever on SLUE-SQA-5.

Run it from the repository root::

    python recipes/SLUE-SQA-5/train.py hparams/clsr_compact.yaml \
        --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from slue_sqa5_prepare import prepare_slue_sqa5

from esr_lobes import content_training, training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "SLUE-SQA-5 (Shon et al., 2023): questions read by people, "
    "documents of Spoken Wikipedia",
    "licence": "CC BY-SA 4.0 (documents); the questions under the licences of "
    "the five corpora that they are from",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("slue_sqa5.yaml"))
    page = run.hparams
    training.prepare(
        prepare_slue_sqa5,
        run,
        one_question=page["one_question"],
        questions_in_training=page["questions_in_training"],
        min_seconds=page["min_clip_seconds"],
        max_seconds=page["max_clip_seconds"],
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
