"""The splits of DRCD: which of its contexts are used, and what says them.

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes.clsr.spoken_qa import count_questions
from esr_lobes.content_parts import Clip, Part, path_below, with_prefix
from esr_lobes.preparation import PreparationError
from esr_lobes.voicing import voiced_by

logger = get_logger(__name__)

SUFFIXES = (".wav", ".flac")


def find_recordings(audio_folder, splits):
    """Returns the folder of each split of which there are recordings.

    Arguments
    ---------
    audio_folder : str or Path or None
        Holds folders named as the splits, or some of them.
    splits : sequence of str
        All there are.

    Returns
    -------
    dict
        Paths by split; empty without an audio_folder.

    Raises
    ------
    PreparationError
        If it is not there, or holds none of them.
    """
    if not audio_folder:
        return {}
    folders = {split: Path(audio_folder) / split for split in splits}
    found = {split: path for split, path in folders.items() if path.is_dir()}
    if not found:
        raise PreparationError(
            f"{audio_folder} is no folder that holds recordings, below "
            f"{', '.join(folders)}: correct --audio_folder, or leave it out "
            "to have all voiced"
        )
    others = [split for split in folders if split not in found]
    logger.info(
        f"recorded: {', '.join(found)}; voiced by eSpeak NG: "
        + (", ".join(others) or "none")
    )
    return found


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


def voiced(split, contexts, questions, folder, how, said):
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
    said : list of Question
        Those that are spoken, too.

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
    for question in said:
        place = f"{split}/question"
        (job,) = voiced_by(question.id, question.text, place, *how)
        spoken[question.id] = str(folder / job["file"])
        jobs.append(job)
    return Part(contexts, clips, questions, spoken), jobs


def recorded(split, contexts, questions, folder, said):
    """Returns a split of which there are recordings.

    Arguments
    ---------
    split : str
        Comes before each context's id.
    contexts, questions : list
        From :func:`choose_contexts`.
    folder : Path
        Holds the recordings.
    said : list of Question
        Those that are spoken, too, if there is a folder of them.

    Returns
    -------
    Part
        Also of recordings that are not there.
    """
    paths = {context.id: _recording(folder, context.id) for context in contexts}
    spoken = {}
    if (folder / "question").is_dir():
        spoken = {q.id: _recording(folder / "question", q.id) for q in said}
    named, asked = with_prefix(split, contexts, questions)
    clips = [
        Clip(new.id, paths[old.id], new.id)
        for old, new in zip(contexts, named, strict=True)
    ]
    return Part(named, clips, asked, spoken)


def _recording(folder, name):
    """Returns the file of a name, with whatever suffix is there."""
    paths = [path_below(folder, f"{name}{suffix}") for suffix in SUFFIXES]
    return str(next((path for path in paths if path.is_file()), paths[0]))
