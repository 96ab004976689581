"""From Spoken-SQuAD as downloaded to train.csv, valid.csv and test.csv.

Spoken-SQuAD (Li et al., 2018, arXiv 1804.00320) is SQuAD 1.1 read by a
synthesiser, a WAV a sentence, ``Article_Paragraph_Sentence.wav``, counted
from 0. Its JSON files are in SQuAD's layout; their contexts are what a
recogniser heard, with a full stop behind each sentence.

A context is a sentence here, and a question is about the sentence of its
first answer: so the test set has the 3,884 pairs of Spoken-SQuAD* of Hu et
al. (2025, arXiv 2511.09282).

Authors
 * The esr_lobes contributors
"""

from collections import Counter
from pathlib import Path

from speechbrain.utils.logger import get_logger
from squad_references import read_references

from esr_lobes import corpora, preparation
from esr_lobes.clsr.spoken_qa import read_questions
from esr_lobes.content_parts import Clip, Part, split_off, with_prefix
from esr_lobes.content_preparation import digest, prepare_content

logger = get_logger(__name__)

SPLITS = ("train", "test")
SQUAD = {"train": "train-v1.1.json", "test": "dev-v1.1.json"}
QUESTIONS = {"train": 37111, "test": 5351}
"""As published by Li et al.; Hu et al. count 37,107 for training."""


def prepare_spoken_squad(
    data_folder,
    save_folder,
    train_json="spoken_train-v1.1.json",
    test_json="spoken_test-v1.1.json",
    train_wavs="Spoken-SQuAD_audio/train_wav",
    test_wavs="Spoken-SQuAD_audio/dev_wav",
    squad_folder=None,
    one_question=True,
    unasked_in_training=True,
    valid_share=0.03,
    seed=1986,
    min_seconds=0.3,
    max_seconds=60.0,
    skip_prep=False,
    progress=True,
):
    """Writes train.csv, valid.csv and test.csv with their questions.

    Clips that cannot be used are listed in skipped.csv; the questions that
    go with them are counted. A second call on the same files does nothing.

    Arguments
    ---------
    data_folder : str or Path
        Holds what the next four name.
    save_folder : str or Path
        Where the manifests go.
    train_json, test_json : str
        Of Spoken-SQuAD's repository. A test file of its noisy versions goes
        with the WAVs of that version.
    train_wavs, test_wavs : str
        Folders of the WAVs.
    squad_folder : str, optional
        Holds ``train-v1.1.json`` and ``dev-v1.1.json`` of SQuAD, whose text
        then stands for what was said; else it is the JSON's own, in which
        nearly every fourth word is misheard.
    one_question : bool
        Whether only the first question about a sentence is kept.
    unasked_in_training : bool
        Whether sentences without a question are in ``train``.
    valid_share : float
        Of the questions for training, in whole articles.
    seed : int
        Chooses the articles of ``valid``.
    min_seconds, max_seconds : float
        Of a clip.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar while files are checked.

    Raises
    ------
    PreparationError
        If a folder of WAVs is not there, or SQuAD's text is another.
    QuestionFileError
        If a JSON is not in SQuAD's layout.
    """
    if skip_prep:
        return
    data_folder = Path(data_folder)
    files = {"train": train_json, "test": test_json}
    wavs = {"train": train_wavs, "test": test_wavs}
    texts = [_there(data_folder / files[split]) for split in SPLITS]
    if squad_folder:
        texts += [Path(squad_folder) / SQUAD[split] for split in SPLITS]
    settings = {
        "corpus": "SpokenSQuAD",
        "json": digest(texts),
        "valid": (valid_share, seed),
    }
    parts = {
        split: read_part(
            split,
            data_folder / files[split],
            _there(data_folder / wavs[split]),
            squad_folder and Path(squad_folder) / SQUAD[split],
        )
        for split in SPLITS
    }
    counts = {split: len(part.questions) for split, part in parts.items()}
    corpora.warn_differences(counts, QUESTIONS, "questions")
    train, valid = split_off(parts["train"], valid_share, seed)
    prepare_content(
        data_folder,
        save_folder,
        {"train": train, "valid": valid, "test": parts["test"]},
        settings,
        one_question,
        unasked_in_training,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        progress=progress,
    )


def _there(path):
    """Returns a path that exists."""
    if not path.exists():
        raise preparation.PreparationError(
            f"{path} is not there; let data_folder be the folder that holds "
            "Spoken-SQuAD's JSON files and the folders of WAVs, or say where "
            "they are: --train_json, --test_json, --train_wavs, --test_wavs"
        )
    return path


def read_part(split, questions_json, wavs, squad_json=None):
    """Returns the sentences of an official split, and the questions on them.

    Arguments
    ---------
    split : str
        ``train`` or ``test``; comes before each context's id.
    questions_json : str or Path
        The JSON of that split.
    wavs : str or Path
        The folder of its WAVs.
    squad_json : str or Path, optional
        That of SQuAD, for the true text.

    Returns
    -------
    Part
        Also sentences whose WAV is not there.
    """
    contexts, questions = read_questions(questions_json, unit="sentence")
    clips = [
        Clip(f"{split}_{c.id}", str(Path(wavs) / f"{c.id}.wav"), c.id)
        for c in contexts
    ]
    _warn_of_other_sentences(split, contexts, wavs)
    if squad_json is not None:
        contexts = read_references(contexts, squad_json)
    contexts, questions = with_prefix(split, contexts, questions)
    clips = [c._replace(context_id=f"{split}_{c.context_id}") for c in clips]
    return Part(contexts, clips, questions)


def _warn_of_other_sentences(split, contexts, wavs):
    """Warns if the WAVs are not as many as the sentences of a paragraph."""

    def paragraphs(names):
        return Counter(name.rpartition("_")[0] for name in names)

    written = paragraphs(context.id for context in contexts)
    said = paragraphs(path.stem for path in Path(wavs).glob("*_*_*.wav"))
    odd = [name for name in written if said[name] > written[name]]
    if odd:
        logger.warning(
            f"{split}: {len(odd)} of {len(written)} paragraphs have more WAVs "
            f"than sentences, such as {odd[0]}: what follows a sentence in "
            "which nothing was recognised may have the transcript of another"
        )
