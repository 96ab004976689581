"""Makes what the tables of this folder train on.

    python tests/recipes/samples.py tests/tmp

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tiny_backbones import PAIRS, SPEECH, TEXTS, make_tiny
from tiny_content import write_squad
from tiny_content_corpora import (
    make_chinese_bert,
    write_drcd,
    write_librisqa,
    write_slue_sqa5,
    write_spoken_squad,
)
from tiny_corpora import (
    write_esd,
    write_expresso,
    write_iemocap,
    write_ravdess,
)
from tiny_recognisers import make_tiny_whisper


def make_samples(folder):
    """Writes corpora in the layouts of their releases, and checkpoints.

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
    write_spoken_squad(folder / "SpokenSQuAD")
    write_librisqa(folder / "LibriSQA")
    write_slue_sqa5(folder / "SLUE-SQA-5")
    write_drcd(folder / "DRCD")
    for kind in (*TEXTS, *SPEECH, *PAIRS):
        make_tiny(kind, folder / kind)
    make_chinese_bert(folder / "bert_chinese")
    make_tiny_whisper(folder / "whisper")


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]))
