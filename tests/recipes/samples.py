"""Makes what the tables of this folder train on.

    python tests/recipes/samples.py tests/tmp

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tiny_backbones import SPEECH, TEXTS, make_tiny
from tiny_content import write_squad
from tiny_corpora import (
    write_esd,
    write_expresso,
    write_iemocap,
    write_ravdess,
)


def make_samples(folder):
    """Writes four corpora, questions for a fifth, and eight checkpoints.

    Arguments
    ---------
    folder : Path
        Where to.
    """
    write_esd(folder / "ESD", ["0011", "0012"])
    write_expresso(folder / "Expresso", sample_rate=8000)
    write_iemocap(folder / "IEMOCAP")
    write_ravdess(folder / "RAVDESS", (1, 2, 3, 4))
    write_squad(folder / "SQuAD" / "questions.json")
    for kind in (*TEXTS, *SPEECH):
        make_tiny(kind, folder / kind)


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]))
