"""Trains a content retriever on LibriSQA.

Run it from the repository root::

    python recipes/LibriSQA/train.py hparams/clsr_compact.yaml \
        --data_folder LIBRISPEECH --librisqa_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from librisqa_prepare import prepare_librisqa

from esr_lobes import content_training, training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "LibriSQA, part I (Zhao et al., 2023), on LibriSpeech "
    "(Panayotov et al., 2015)",
    "licence": "CC BY 4.0 (LibriSpeech); LibriSQA states none",
}


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("librisqa.yaml"))
    page = run.hparams
    training.prepare(
        prepare_librisqa,
        run,
        librisqa_folder=page["librisqa_folder"],
        one_question=page["one_question"],
        valid_share=page["valid_share"],
        seed=page["corpus_seed"],
        min_seconds=page["min_clip_seconds"],
        max_seconds=page["max_clip_seconds"],
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
