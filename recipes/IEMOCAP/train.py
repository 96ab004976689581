"""Trains a style retriever on IEMOCAP.

Run it from the repository root::

    python recipes/IEMOCAP/train.py hparams/roberta_e2v.yaml --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from iemocap_prepare import prepare_iemocap

from esr_lobes import training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "IEMOCAP (Busso et al., 2008)",
    "licence": "research licence, by form",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("iemocap.yaml"))
    training.prepare(
        prepare_iemocap,
        run,
        valid_sessions=run.hparams["valid_sessions"],
        test_sessions=run.hparams["test_sessions"],
        min_seconds=run.hparams["min_clip_seconds"],
    )
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
