"""Trains a style retriever on RAVDESS.

Run it from the repository root::

    python recipes/RAVDESS/train.py hparams/compact.yaml --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from ravdess_prepare import prepare_ravdess

from esr_lobes import training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "RAVDESS, spoken clips (Livingstone and Russo, 2018)",
    "licence": "CC BY-NC-SA 4.0",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("ravdess.yaml"))
    training.prepare(
        prepare_ravdess,
        run,
        valid_actors=run.hparams["valid_actors"],
        test_actors=run.hparams["test_actors"],
        train_actors=run.hparams["train_actors"],
        min_seconds=run.hparams["min_clip_seconds"],
    )
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
