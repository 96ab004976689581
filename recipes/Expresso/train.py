"""Trains a style retriever on Expresso.

Run it from the repository root::

    python recipes/Expresso/train.py hparams/roberta_e2v.yaml --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from expresso_prepare import prepare_expresso

from esr_lobes import training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "Expresso (Nguyen et al., 2023)",
    "licence": "CC BY-NC 4.0",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("expresso.yaml"))
    page = run.hparams
    training.prepare(
        prepare_expresso,
        run,
        lists_folder=page["lists_folder"],
        min_seconds=page["min_clip_seconds"],
        min_piece_seconds=page["min_piece_seconds"],
        max_piece_seconds=page["max_piece_seconds"],
        max_gap_seconds=page["max_gap_seconds"],
    )
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
