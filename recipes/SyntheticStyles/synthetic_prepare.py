"""Makes a small corpus of speaking styles, with train, valid and test.

Sentences of our own, spoken by eSpeak NG in the styles that a synthesiser
can really voice (`esr_lobes.synthesis`). A split has voices and sentences
of its own: nothing that is heard in a test was heard in training but the
style. The same seed gives the same files, byte by byte.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from esr_lobes import audio, corpora, preparation
from esr_lobes.files import write_text
from esr_lobes.synthesis import SAMPLE_RATE, STYLES, Synthesizer

logger = get_logger(__name__)

RECORD = "corpus.json"

VOICES = {
    "train": [
        "en-us+m1",
        "en-us+m3",
        "en+m4",
        "en-gb-scotland+m5",
        "en-us+m7",
        "en-us+f1",
        "en-us+f3",
        "en-gb-x-rp+f4",
        "en+f5",
        "en-us+linda",
    ],
    "valid": ["en+m6", "en-us+Annie"],
    "test": ["en-us+m2", "en-gb-x-rp+Alex", "en-us+f2", "en+belinda"],
}

SENTENCES = {
    "train": [
        "The kettle is on the stove.",
        "My sister lives near the harbour.",
        "We meet at the station at four.",
        "Please leave the box by the gate.",
        "The shop on the corner sells bread.",
        "He painted the fence last summer.",
        "There is a letter on your desk.",
        "The bus was half empty today.",
        "I will bring the chairs inside.",
        "Her garden is full of roses.",
        "They walked along the river bank.",
        "The window faces the old mill.",
        "You can borrow my blue umbrella.",
        "Two boats are tied to the pier.",
        "The children built a paper kite.",
        "Our train was late this morning.",
        "The cat sleeps under the table.",
        "She keeps her keys in a jar.",
        "We need some milk and apples.",
        "The lamp in the hall is broken.",
        "He plays the piano on Sundays.",
        "The road goes over the hill.",
        "I found a coin in the sand.",
        "Lunch will be ready at noon.",
    ],
    "valid": [
        "The baker opens early on Fridays.",
        "A bird is sitting on the roof.",
        "I have put your coat upstairs.",
        "They moved to a house by the lake.",
        "The clock in the kitchen is slow.",
        "We saw a film about the desert.",
        "Her brother repairs old bicycles.",
        "The door was painted dark green.",
    ],
    "test": [
        "The market closes in an hour.",
        "My neighbour has a small dog.",
        "There are nine plates in the box.",
        "The ferry leaves from the north side.",
        "He wrote his name on the wall.",
        "You left your gloves in the car.",
        "The soup needs a little more salt.",
        "We planted a tree behind the barn.",
        "The museum is open until six.",
        "She read the story twice.",
        "Snow fell on the mountains last night.",
        "The bridge was built from stone.",
    ],
}


def prepare_synthetic(
    data_folder,
    save_folder,
    clips_per_voice_and_style=8,
    voices=None,
    styles=None,
    seed=1986,
    n_workers=2,
    skip_prep=False,
    progress=True,
):
    """Makes the clips that are missing, and train.csv, valid.csv, test.csv.

    A run that was broken off goes on where it stopped; a second run with
    the same arguments does nothing; one with others replaces the clips.

    Arguments
    ---------
    data_folder : str or Path
        Where the corpus goes, as ``<voice>/<style>_<number>.wav``.
    save_folder : str or Path
        Where the manifests go.
    clips_per_voice_and_style : int
        How many clips; the default gives 720, 144 and 288 in the splits.
    voices : dict, optional
        The voices of each split, by default `VOICES`.
    styles : list of str, optional
        By default all of `esr_lobes.synthesis.STYLES`.
    seed : int
        Chooses the sentences and the variation within a style.
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
    ValueError
        If a voice is in two splits or a style cannot be voiced.
    """
    if skip_prep:
        return
    voices = VOICES if voices is None else voices
    styles = sorted(STYLES) if styles is None else sorted(styles)
    _check(voices, styles, clips_per_voice_and_style)
    data_folder = Path(data_folder)
    settings = {
        "corpus": "SyntheticStyles",
        "clips_per_voice_and_style": clips_per_voice_and_style,
        "voices": voices,
        "styles": {style: asdict(STYLES[style]) for style in styles},
        "sentences": _digest(SENTENCES),
        "seed": seed,
    }
    clips = list(_clips(voices, styles, clips_per_voice_and_style, seed))
    _clear_others(data_folder, settings, clips)
    missing = [c for c in clips if not (data_folder / c["file"]).is_file()]
    if missing:
        _synthesize(missing, data_folder, n_workers, progress)
    elif preparation.is_prepared(save_folder, settings):
        logger.info(f"{save_folder} is prepared already, nothing to do")
        return
    splits = {split: [] for split in voices}
    for clip in clips:
        splits[clip["split"]].append(_row(clip, data_folder))
    preparation.write_splits(save_folder, splits, settings=settings)
    corpora.log_splits(save_folder, splits)


def _check(voices, styles, n_clips):
    """Turns down what would give a wrong corpus, before anything is made."""
    unknown = sorted(set(styles) - set(STYLES))
    if unknown:
        raise preparation.PreparationError(
            f"styles {unknown} cannot be voiced; choose from {list(STYLES)}"
        )
    if set(voices) != set(SENTENCES):
        raise preparation.PreparationError(
            f"voices must have the splits {list(SENTENCES)}"
        )
    names = [voice for split in voices for voice in voices[split]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise preparation.PreparationError(
            f"voices {twice} are listed twice; a test needs voices of its own"
        )
    if n_clips < 1:
        raise preparation.PreparationError(
            "clips_per_voice_and_style must be at least 1"
        )


def _digest(content):
    """Returns a short name for any content of plain types."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _clips(voices, styles, n_clips, seed):
    """Yields split, voice, style, sentence, seed and file of each clip."""
    for split, names in voices.items():
        sentences = SENTENCES[split]
        for voice in names:
            for style in styles:
                # what a clip is does not hang on which others are made
                key = int(_digest([seed, voice, style]), 16)
                order = np.random.default_rng(key).permutation(len(sentences))
                for number in range(n_clips):
                    yield {
                        "split": split,
                        "voice": voice,
                        "style": style,
                        "sentence": sentences[order[number % len(order)]],
                        "seed": [key, number],
                        "file": f"{_plain(voice)}/{style}_{number:03d}.wav",
                    }


def _plain(voice):
    """Returns the voice as a name of a folder."""
    return voice.replace("+", "_")


def _clear_others(data_folder, settings, clips):
    """Removes what other settings made here, and notes those of now."""
    record = data_folder / RECORD
    made = {"settings": None, "files": []}
    if record.is_file():
        made = json.loads(record.read_text(encoding="utf-8"))
    if made["settings"] != json.loads(json.dumps(settings)):
        for name in made["files"]:
            path = (data_folder / name).resolve()
            if path.is_relative_to(data_folder.resolve()):
                path.unlink(missing_ok=True)
        made = {
            "settings": settings,
            "files": [clip["file"] for clip in clips],
        }
        write_text(record, json.dumps(made, indent=1) + "\n")


def _synthesize(clips, data_folder, n_workers, progress):
    """Writes the clips, with several synthesisers."""
    idle = SimpleQueue()

    def make(clip):
        synthesizer = idle.get()
        try:
            wave = synthesizer.speak(
                clip["sentence"], clip["voice"], clip["style"], clip["seed"]
            )
        finally:
            idle.put(synthesizer)
        _write(data_folder / clip["file"], wave)

    with ExitStack() as stack:
        for _ in range(n_workers):
            idle.put(stack.enter_context(Synthesizer()))
        pool = stack.enter_context(ThreadPoolExecutor(n_workers))
        stack.callback(pool.shutdown, cancel_futures=True)  # after a failure
        futures = pool.map(make, clips)
        bar = tqdm(
            futures,
            "Synthesising",
            len(clips),
            unit="clip",
            dynamic_ncols=True,
            disable=not progress,
        )
        for _ in bar:
            pass


def _write(path, wave):
    """Writes 16-bit WAV that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    soundfile.write(part, wave, SAMPLE_RATE, "PCM_16", format="WAV")
    os.replace(part, path)


def _row(clip, data_folder):
    """Returns the manifest row of a clip."""
    return corpora.clip_row(
        audio.probe(data_folder / clip["file"]),
        data_folder,
        speaker=_plain(clip["voice"]),
        style=clip["style"],
        ID=clip["file"].removesuffix(".wav").replace("/", "-"),
        sentence=clip["sentence"],
    )
