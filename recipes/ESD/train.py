"""Trains a style retriever on ESD.

Run it from the repository root::

    python recipes/ESD/train.py hparams/roberta_e2v.yaml --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from esd_prepare import prepare_esd

from esr_lobes import training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "ESD, English speakers (Zhou et al., 2021)",
    "licence": "research licence, by form",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("esd.yaml"))
    training.prepare(
        prepare_esd,
        run,
        min_seconds=run.hparams["min_clip_seconds"],
    )
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
