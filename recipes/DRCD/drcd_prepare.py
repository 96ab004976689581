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

from speechbrain.utils.logger import get_logger

from esr_lobes import corpora, preparation
from esr_lobes.clsr.spoken_qa import count_questions, read_questions
from esr_lobes.content_parts import Clip, Part, with_prefix
from esr_lobes.content_preparation import prepare_content
from esr_lobes.voicing import check_voices, voice_all, voiced_by

logger = get_logger(__name__)

QUESTIONS = {"train": 26936, "valid": 3524, "test": 3493}
VOICES = tuple(f"cmn+{name}" for name in "m1 m3 m4 m7 f1 f3 f4 linda".split())
WORDS_PER_MINUTE = (180, 200, 220)
SUFFIXES = (".wav", ".flac")


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
        Holds recordings; what splits it has no folder of is voiced.
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
        If a JSON is not in SQuAD's layout.
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
    settings = {
        "corpus": "DRCD",
        "json": preparation.fingerprint(files.values(), json_folder),
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
        counts[split] = len(questions)
        contexts, questions = choose_contexts(
            split,
            contexts,
            questions,
            (min_characters, max_characters),
            is_train and unasked_in_training,
            n_contexts if is_train else None,
        )
        speaks = split == "test" and spoken_questions
        own = Path(audio_folder or "") / split
        if audio_folder and own.is_dir():
            parts[split] = recorded(split, contexts, questions, own, speaks)
            continue
        n_voices = voices_per_context if is_train else 1
        how = (voices, words_per_minute, n_voices, seed)
        parts[split], made = voiced(
            split, contexts, questions, Path(data_folder), how, speaks
        )
        jobs += made
    corpora.warn_differences(counts, QUESTIONS, "questions")
    voice_all(data_folder, jobs, settings, n_workers, progress)
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


def choose_contexts(split, contexts, questions, n_marks, keeps_unasked, n_most):
    """Returns contexts that are not too long, and the questions about them.

    Arguments
    ---------
    split : str
        Its name, for the log.
    contexts, questions : list
        From :func:`esr_lobes.clsr.spoken_qa.read_questions`.
    n_marks : tuple of int
        Least and most characters of a context.
    keeps_unasked : bool
        Whether contexts without a question are kept.
    n_most : int or None
        How many contexts at most.

    Returns
    -------
    contexts, questions : list
        Some of them.
    """
    asked = {question.context_id for question in questions}
    kept = [
        context
        for context in contexts
        if (keeps_unasked or context.id in asked)
        and n_marks[0] <= len(context.text) <= n_marks[1]
    ][:n_most]
    names = {context.id for context in kept}
    left = [q for q in questions if q.context_id in names]
    counts = count_questions(contexts, questions)
    logger.info(
        f"{split}: {counts['contexts']} contexts, of which {counts['asked']} "
        f"are asked about, by {counts['questions']} questions; "
        f"{n_marks[0]} to {n_marks[1]} characters (and no more than wanted): "
        f"{len(kept)} contexts, {len(left)} questions"
    )
    return kept, left


def voiced(split, contexts, questions, folder, how, speaks):
    """Returns a split that a synthesiser says, and what it has to say.

    Arguments
    ---------
    split : str
        Its name, also of its folder.
    contexts, questions : list
        From :func:`choose_contexts`.
    folder : Path
        Where the clips go.
    how : tuple
        The last arguments of :func:`esr_lobes.voicing.voiced_by`.
    speaks : bool
        Whether questions are spoken, too.

    Returns
    -------
    part : Part
        The split.
    jobs : list of dict
        For :func:`esr_lobes.voicing.voice_all`.
    """
    contexts, questions = with_prefix(split, contexts, questions)
    jobs, clips, spoken = [], [], {}
    for context in contexts:
        for job in voiced_by(context.id, context.text, split, *how):
            path = folder / job["file"]
            clips.append(Clip(path.stem, str(path), context.id))
            jobs.append(job)
    for question in questions if speaks else []:
        place = f"{split}/question"
        (job,) = voiced_by(question.id, question.text, place, *how)
        spoken[question.id] = str(folder / job["file"])
        jobs.append(job)
    return Part(contexts, clips, questions, spoken), jobs


def recorded(split, contexts, questions, folder, speaks):
    """Returns a split of which there are recordings.

    Arguments
    ---------
    split : str
        Comes before each context's id.
    contexts, questions : list
        From :func:`choose_contexts`.
    folder : Path
        Holds the recordings.
    speaks : bool
        Whether questions are spoken, too, if there is a folder of them.

    Returns
    -------
    Part
        Also of recordings that are not there.
    """
    paths = {context.id: _recording(folder, context.id) for context in contexts}
    spoken = {}
    if speaks and (folder / "question").is_dir():
        spoken = {
            q.id: _recording(folder / "question", q.id) for q in questions
        }
    named, asked = with_prefix(split, contexts, questions)
    clips = [
        Clip(new.id, paths[old.id], new.id)
        for old, new in zip(contexts, named, strict=True)
    ]
    return Part(named, clips, asked, spoken)


def _recording(folder, name):
    """Returns the file of a name, with whatever suffix is there."""
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return str(next((path for path in paths if path.is_file()), paths[0]))
