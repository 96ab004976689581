"""From DRCD as downloaded to train.csv, valid.csv and test.csv.

DRCD (Shao et al., 2018, arXiv 1806.00920) has questions on Chinese Wikipedia,
in traditional characters and SQuAD's layout, and no audio: eSpeak NG voices
it here. Recordings that one has take its place, split by split, named after
the context's place in the JSON, counted from 0::

    <audio_folder>/test/0_0_3.wav               article, paragraph, sentence
    <audio_folder>/test/question/1147-5-1.wav   by the question's id

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

from drcd_splits import choose_contexts, find_recordings, recorded, voiced

from esr_lobes import corpora, preparation
from esr_lobes.clsr.spoken_qa import (
    one_question_a_context,
    read_questions,
    refuse_same_ids,
)
from esr_lobes.clsr.vocabulary import normalize_text
from esr_lobes.content_preparation import digest, prepare_content
from esr_lobes.voicing import check_voices, voice_all

QUESTIONS = {"train": 26936, "valid": 3524, "test": 3493}
VOICES = tuple(f"cmn+{name}" for name in "m1 m3 m4 m7 f1 f3 f4 linda".split())
WORDS_PER_MINUTE = (180, 200, 220)


def prepare_drcd(
    data_folder,
    save_folder,
    json_folder,
    audio_folder=None,
    train_json="DRCD_training.json",
    valid_json="DRCD_dev.json",
    test_json="DRCD_test.json",
    unit="sentence",
    one_question=True,
    unasked_in_training=False,
    spoken_questions=True,
    n_contexts=None,
    min_characters=6,
    max_characters=120,
    voices=VOICES,
    words_per_minute=WORDS_PER_MINUTE,
    voices_per_context=1,
    seed=1986,
    n_workers=2,
    min_seconds=0.3,
    max_seconds=60.0,
    skip_prep=False,
    progress=True,
):
    """Makes the clips that are missing, and the manifests of three splits.

    Recordings that cannot be used are listed in skipped.csv; the questions
    that go with them are counted. A run that was broken off goes on where it
    stopped; a second one with the same arguments does nothing.

    Arguments
    ---------
    data_folder : str or Path
        Where the clips go.
    save_folder : str or Path
        Where the manifests go.
    json_folder : str or Path
        Holds what the JSON names name.
    audio_folder : str or Path, optional
        Holds recordings of at least one split; the others are voiced.
    train_json, valid_json, test_json : str
        DRCD's files.
    unit : str
        What a context is, ``sentence`` or ``paragraph``.
    one_question : bool
        Whether only the first question about a context is kept.
    unasked_in_training : bool
        Whether contexts without a question are in ``train``.
    spoken_questions : bool
        Whether the questions of the test are spoken, too.
    n_contexts : int, optional
        How many contexts of ``train`` at most, the first ones.
    min_characters, max_characters : int
        Of a context; others are left out, with their questions.
    voices : sequence of str
        Of eSpeak NG. Each clip has one of them.
    words_per_minute : sequence of int
        Likewise the rates; a character counts as half a word.
    voices_per_context : int
        How many clips a context of ``train`` has. The others have one.
    seed : int
        Chooses voices and rates.
    n_workers : int
        How many synthesisers work side by side.
    min_seconds, max_seconds : float
        Of a clip.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ImportError
        If clips are missing and espeakng-loader is not installed.
    PreparationError
        If a file is not there, or the numbers fit no corpus.
    QuestionFileError
        If a JSON is not in SQuAD's layout, or has an id twice.
    """
    if skip_prep:
        return
    voices, words_per_minute = tuple(voices), tuple(words_per_minute)
    check_voices(voices_per_context, voices)
    files = {"train": train_json, "valid": valid_json, "test": test_json}
    files = {s: Path(json_folder) / name for s, name in files.items()}
    for path in files.values():
        if not path.is_file():
            raise preparation.PreparationError(
                f"{path} is not there; let data_folder be the folder of "
                "DRCD's JSON files, or say what they are called: "
                "--train_json, --valid_json, --test_json"
            )
    recordings = find_recordings(audio_folder, tuple(QUESTIONS))
    settings = {
        "corpus": "DRCD",
        "json": digest(files.values()),
        "audio": audio_folder and str(audio_folder),
        "unit": unit,
        "characters": (min_characters, max_characters),
        "n_contexts": n_contexts,
        "unasked_in_training": unasked_in_training,
        "spoken_questions": spoken_questions,
        "voices": voices,
        "words_per_minute": words_per_minute,
        "voices_per_context": voices_per_context,
        "seed": seed,
    }
    parts, jobs, counts = {}, [], {}
    for split, path in files.items():
        is_train = split == "train"
        contexts, questions = read_questions(path, unit)
        refuse_same_ids(path, questions)
        counts[split] = len(questions)
        contexts, questions = choose_contexts(
            split,
            contexts,
            questions,
            (min_characters, max_characters),
            is_train and unasked_in_training,
            n_contexts if is_train else None,
        )
        said = []
        if split == "test" and spoken_questions:
            said = [q for q in questions if normalize_text(q.text)]
            if one_question:
                _, said = one_question_a_context(contexts, said)
        if split in recordings:
            folder = recordings[split]
            parts[split] = recorded(split, contexts, questions, folder, said)
            continue
        n_voices = voices_per_context if is_train else 1
        how = (voices, words_per_minute, n_voices, seed)
        parts[split], made = voiced(
            split, contexts, questions, Path(data_folder), how, said
        )
        jobs += made
    corpora.warn_differences(counts, QUESTIONS, "questions")
    voice_all(data_folder, jobs, n_workers, progress)
    prepare_content(
        data_folder,
        save_folder,
        parts,
        settings,
        one_question,
        unasked_in_training,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        progress=progress,
    )
