"""Trains a style retriever on Expresso, ESD and IEMOCAP together.

The training of Kang and Roy (2025); a test set of each corpus is judged by
itself. Run it from the repository root::

    python recipes/Joint/train.py hparams/roberta_e2v.yaml \
        --expresso_folder PATH --esd_folder PATH --iemocap_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from esr_lobes import training
from esr_lobes.errors import one_line_errors
from esr_lobes.pages import PageError

RECIPES = Path(__file__).resolve().parents[1]
sys.path += [str(RECIPES / name) for name in ("Expresso", "ESD", "IEMOCAP")]

from esd_prepare import prepare_esd  # noqa: E402
from expresso_prepare import prepare_expresso  # noqa: E402
from iemocap_prepare import prepare_iemocap  # noqa: E402

PREPARATIONS = {
    "Expresso": prepare_expresso,
    "ESD": prepare_esd,
    "IEMOCAP": prepare_iemocap,
}
CARD = {
    "corpus": "Expresso (Nguyen et al., 2023), ESD (Zhou et al., 2021), "
    "IEMOCAP (Busso et al., 2008), as far as they were there",
    "licence": "CC BY-NC 4.0 (Expresso), research licences (ESD, IEMOCAP)",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("joint.yaml"))
    for corpus, prepare in PREPARATIONS.items():
        folder = run.hparams[f"{corpus.lower()}_folder"]
        if folder is not None:
            training.prepare(prepare, run, corpus, folder)
    if not run.corpora:
        flags = " ".join(f"--{name.lower()}_folder" for name in PREPARATIONS)
        raise PageError(f"no corpus: give one at least of {flags}")
    brain = training.train(run)
    training.export_and_evaluate(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
