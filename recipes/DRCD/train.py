"""Trains a content retriever on DRCD, which is Chinese.

Run it from the repository root::

    python recipes/DRCD/train.py hparams/clsr_chinese.yaml --data_folder PATH

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

from drcd_prepare import prepare_drcd

from esr_lobes import content_training, training
from esr_lobes.errors import one_line_errors

CARD = {
    "corpus": "DRCD (Shao et al., 2018), voiced by eSpeak NG unless "
    "recordings were given: it knows a synthesiser, not people",
    "licence": "CC BY-SA 3.0",
}
# What of the page says what the corpus is.
CORPUS = (
    "audio_folder",
    "train_json",
    "valid_json",
    "test_json",
    "unit",
    "one_question",
    "unasked_in_training",
    "spoken_questions",
    "n_contexts",
    "min_characters",
    "max_characters",
    "voices_per_context",
)


@one_line_errors
def main(argv):
    """Prepares, trains, exports and evaluates."""
    run = training.open_run(argv, Path(__file__).with_name("drcd.yaml"))
    page = run.hparams
    training.prepare(
        prepare_drcd,
        run,
        data_folder=page["speech_folder"],
        json_folder=page["data_folder"],
        seed=page["corpus_seed"],
        n_workers=page["synthesis_workers"],
        min_seconds=page["min_clip_seconds"],
        max_seconds=page["max_clip_seconds"],
        **{key: page[key] for key in CORPUS},
    )
    brain = content_training.train_content(run)
    content_training.export_and_evaluate_content(run, brain, CARD)


if __name__ == "__main__":
    main(sys.argv[1:])
