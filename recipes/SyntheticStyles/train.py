"""Makes a small corpus with a speech synthesiser and trains on it.

Run it from the repository root::

    python recipes/SyntheticStyles/train.py hparams/compact.yaml \
        --data_folder demo/corpus

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from synthetic_prepare import prepare_synthetic

from esr_lobes import training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "sentences spoken by eSpeak NG in nine styles (a demonstration: "
    "it knows a synthesiser, not people)",
    "licence": "free of rights, made by the recipe itself",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("synthetic.yaml"))
    training.prepare(prepare_synthetic, run, seed=run.hparams["seed"])
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
