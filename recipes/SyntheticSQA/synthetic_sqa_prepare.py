"""Makes a corpus of spoken contexts, with questions about them.

The texts are those of Spoken-SQuAD, whose speech is a synthesiser's, too.
Here each sentence of 5 to 20 seconds is a context, voiced by eSpeak NG with
several voices and rates. The same seed gives the same files, byte by byte.

Authors
 * The esr_lobes contributors
"""

import random
from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes import preparation
from esr_lobes.clsr.spoken_qa import read_questions, refuse_same_ids
from esr_lobes.content_parts import Clip, Part
from esr_lobes.content_preparation import digest, prepare_content
from esr_lobes.voicing import check_voices, voice_all, voiced_by

logger = get_logger(__name__)

SPLITS = ("train", "valid", "test", "test_articles")
VOICES = (
    "en-us+m1",
    "en-us+m3",
    "en+m4",
    "en-us+m7",
    "en-us+f1",
    "en-us+f3",
    "en-gb-x-rp+f4",
    "en-us+linda",
)
WORDS_PER_MINUTE = (150, 165, 180)


def prepare_synthetic_sqa(
    data_folder,
    save_folder,
    questions_json,
    n_contexts=None,
    voices_per_context=2,
    voices=VOICES,
    words_per_minute=WORDS_PER_MINUTE,
    min_words=13,
    max_words=50,
    valid_share=0.04,
    test_share=0.12,
    n_test_articles=6,
    unasked_in_training=True,
    n_phrases=None,
    phrase_words=5,
    seed=1986,
    n_workers=2,
    skip_prep=False,
    progress=True,
):
    """Makes the clips that are missing, and the manifests of four splits.

    ``valid`` and ``test`` are contexts of articles that training knows other
    sentences of, ``test_articles`` are whole articles that it does not know.
    No context is in two splits. A run that was broken off goes on where it
    stopped; a second run with the same arguments does nothing; one with
    others makes what it lacks beside what is there.

    Arguments
    ---------
    data_folder : str or Path
        Where the clips go, as ``<article>/<context>_<voice>.wav``.
    save_folder : str or Path
        Where the manifests go.
    questions_json : str or Path
        ``spoken_test-v1.1.json`` or ``spoken_train-v1.1.json``.
    n_contexts : int, optional
        How many contexts at most, all splits together, those that are asked
        about first; by default all.
    voices_per_context : int
        How many clips a context of ``train`` has, each with a voice of its
        own. The others have one.
    voices : sequence of str
        Of eSpeak NG. Each clip has one of them, in all splits.
    words_per_minute : sequence of int
        Likewise the rates.
    min_words, max_words : int
        Of a context; others are left out, with their questions. 13 to 50
        words are 5 to 20 seconds.
    valid_share, test_share : float
        Of the asked contexts of an article that is trained on.
    n_test_articles : int
        How many articles are kept for ``test_articles``.
    unasked_in_training : bool
        Whether contexts without a question are in ``train``: they teach to
        recognise speech.
    n_phrases : int, optional
        If given, ``train`` has so many phrases of its contexts in place of
        these, and no questions: a recogniser learns sooner from them.
    phrase_words : int
        Most words of a phrase.
    seed : int
        Chooses splits, voices and rates.
    n_workers : int
        How many synthesisers work side by side.
    skip_prep : bool
        If True, nothing is done.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ImportError
        If clips are missing and espeakng-loader is not installed.
    PreparationError
        If the numbers fit no corpus.
    QuestionFileError
        If the JSON is not in SQuAD's layout.
    """
    if skip_prep:
        return
    voices, words_per_minute = tuple(voices), tuple(words_per_minute)
    check_voices(voices_per_context, voices)
    data_folder = Path(data_folder)
    settings = {
        "corpus": "SyntheticSQA",
        "questions": digest([questions_json]),
        "n_contexts": n_contexts,
        "voices_per_context": voices_per_context,
        "voices": voices,
        "words_per_minute": words_per_minute,
        "words": (min_words, max_words),
        "shares": (valid_share, test_share),
        "n_test_articles": n_test_articles,
        "keeps_unasked": unasked_in_training,
        "phrases": (n_phrases, phrase_words),
        "seed": seed,
    }
    contexts, questions = read_questions(questions_json, unit="sentence")
    refuse_same_ids(questions_json, questions)
    kept = choose_contexts(
        contexts, questions, min_words, max_words, unasked_in_training
    )
    split_of = split_contexts(
        kept, questions, valid_share, test_share, n_test_articles, seed
    )
    split_of = _first(split_of, n_contexts, questions)
    if n_phrases:
        train = [c for c in kept if split_of.get(c.id) == "train"]
        phrases = cut_phrases(train, n_phrases, phrase_words, seed)
        kept = [c for c in kept if split_of.get(c.id) != "train"] + phrases
        split_of = {i: s for i, s in split_of.items() if s != "train"}
        split_of |= {phrase.id: "train" for phrase in phrases}
    clips = [
        clip
        for context in kept
        if context.id in split_of
        for clip in clips_of(
            context,
            split_of[context.id],
            voices,
            words_per_minute,
            voices_per_context,
            seed,
        )
    ]
    voice_all(data_folder, clips, n_workers, progress)
    parts = {split: Part([], [], []) for split in SPLITS}
    for context in kept:
        if context.id in split_of:
            parts[split_of[context.id]].contexts.append(context)
    for clip in clips:
        path = data_folder / clip["file"]
        clip_of = Clip(path.stem, str(path), clip["context_id"])
        parts[clip["split"]].clips.append(clip_of)
    for question in questions:
        if question.context_id in split_of:
            parts[split_of[question.context_id]].questions.append(question)
    prepare_content(
        data_folder,
        save_folder,
        parts,
        settings,
        unasked_in_training=unasked_in_training or bool(n_phrases),
        progress=progress,
    )


def choose_contexts(contexts, questions, min_words, max_words, keeps_unasked):
    """Returns the contexts that can be voiced in a few seconds.

    Arguments
    ---------
    contexts, questions : list
        From :func:`esr_lobes.clsr.spoken_qa.read_questions`.
    min_words, max_words : int
        Of a context.
    keeps_unasked : bool
        Whether contexts without a question are kept.

    Returns
    -------
    list of Context
        In their order. Of several with the same words only the first is
        kept: a question about one would be right for all.
    """
    asked = {question.context_id for question in questions}
    kept, texts = [], set()
    # Those that are asked about come first, to be the ones that are kept.
    for context in sorted(contexts, key=lambda c: c.id not in asked):
        is_wanted = keeps_unasked or context.id in asked
        fits = min_words <= len(context.text.split()) <= max_words
        if is_wanted and fits and context.text not in texts:
            texts.add(context.text)
            kept.append(context)
    n_lost = sum(1 for context in contexts if context.id in asked) - sum(
        1 for context in kept if context.id in asked
    )
    logger.info(
        f"{len(kept)} contexts of {len(contexts)}; {n_lost} that are asked "
        f"about have fewer than {min_words} or more than {max_words} words, "
        "or the words of another"
    )
    place = {context.id: i for i, context in enumerate(contexts)}
    return sorted(kept, key=lambda context: place[context.id])


def split_contexts(contexts, questions, valid_share, test_share, n_held, seed):
    """Returns the split of each context.

    Arguments
    ---------
    contexts : list of Context
        From :func:`choose_contexts`.
    questions : list of Question
        About them, and about others.
    valid_share, test_share : float
        Of the asked contexts of each article that is trained on.
    n_held : int
        How many articles are for ``test_articles``.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        From the context's id to one of ``SPLITS``. Only what is asked about
        is in a split other than ``train``.

    Raises
    ------
    PreparationError
        If no article is left to train on, or no context.
    """
    asked = {question.context_id for question in questions}
    articles = list(dict.fromkeys(context.article for context in contexts))
    if not 0 <= n_held < len(articles) or valid_share + test_share >= 1:
        raise preparation.PreparationError(
            f"of {len(articles)} articles {n_held} cannot be held out, or "
            f"valid_share {valid_share} and test_share {test_share} leave "
            "nothing to train on"
        )
    rng = random.Random(f"splits {seed}")
    held = set(rng.sample(articles, n_held))
    split_of = {}
    for article in articles:
        own = [c.id for c in contexts if c.article == article]
        with_question = [i for i in own if i in asked]
        if article in held:
            split_of |= dict.fromkeys(with_question, "test_articles")
            continue
        rng.shuffle(with_question)
        n_test = round(test_share * len(with_question))
        n_valid = round(valid_share * len(with_question))
        split_of |= dict.fromkeys(own, "train")
        split_of |= dict.fromkeys(with_question[:n_test], "test")
        split_of |= dict.fromkeys(
            with_question[n_test : n_test + n_valid], "valid"
        )
    return split_of


def _first(split_of, n_contexts, questions):
    """Returns some of the contexts, each split in proportion."""
    if n_contexts is None or n_contexts >= len(split_of):
        return split_of
    asked = {question.context_id for question in questions}
    share = n_contexts / len(split_of)
    some = {}
    for split in SPLITS:
        own = [i for i, s in split_of.items() if s == split]
        own.sort(key=lambda i: i not in asked)
        if own:
            n = max(1, round(share * len(own)))
            some |= dict.fromkeys(own[:n], split)
    return some


def cut_phrases(contexts, n_phrases, most_words, seed):
    """Returns phrases of contexts, to be voiced on their own.

    Arguments
    ---------
    contexts : list of Context
        From :func:`choose_contexts`.
    n_phrases : int
        How many at most.
    most_words : int
        Of a phrase; the number is drawn from 1 on.
    seed : int
        Of the draws.

    Returns
    -------
    list of Context
        With ``_p`` and the number of the first word behind the id.
    """
    rng = random.Random(f"phrases {seed}")
    phrases = []
    for context in contexts:
        words = context.text.split()
        begin = 0
        while begin < len(words):
            end = begin + rng.randint(1, most_words)
            text = " ".join(words[begin:end])
            phrases.append(
                context._replace(id=f"{context.id}_p{begin}", text=text)
            )
            begin = end
    return rng.sample(phrases, min(n_phrases, len(phrases)))


def clips_of(context, split, voices, rates, n_voices, seed):
    """Returns how a context is voiced.

    Arguments
    ---------
    context : Context
        What to say.
    split : str
        Its split; in ``train`` it is said by several voices.
    voices : sequence of str
        To choose from.
    rates : sequence of int
        Words a minute, to choose from.
    n_voices : int
        How many in ``train``.
    seed : int
        Of the draws, which depend on nothing else but the context's id.

    Returns
    -------
    list of dict
        With ``split``, ``context_id``, ``text``, ``voice``, ``rate`` and
        ``file``.
    """
    article = context.id.split("_")[0]
    return [
        {"split": split, "context_id": context.id} | clip
        for clip in voiced_by(
            context.id,
            context.text,
            article,
            voices,
            rates,
            n_voices if split == "train" else 1,
            seed,
        )
    ]
