"""Texts voiced by a synthesiser, as the clips of a corpus.

Several voices and rates take turns. What is made depends on nothing but the
text, the voice and the rate, byte by byte; a run that was broken off goes on
where it stopped.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import soundfile
from tqdm import tqdm

from esr_lobes.clsr.vocabulary import normalize_text
from esr_lobes.content_parts import path_below
from esr_lobes.files import write_text
from esr_lobes.preparation import PreparationError
from esr_lobes.synthesis import SAMPLE_RATE, Delivery, Synthesizer

RECORD = "corpus.json"


def check_voices(n_voices, voices):
    """Raises a PreparationError if a text cannot have so many voices.

    Arguments
    ---------
    n_voices : int
        Clips of a text, each with a voice of its own.
    voices : sequence of str
        To choose from.

    Raises
    ------
    PreparationError
        If there are fewer voices, or no clip is wanted.
    """
    if not 1 <= n_voices <= len(voices):
        raise PreparationError(
            f"voices_per_context is from 1 to {len(voices)}, the number of "
            f"voices, not {n_voices}"
        )


def voiced_by(name, text, folder, voices, rates, n_voices, seed):
    """Returns how a text is voiced.

    Arguments
    ---------
    name : str
        Of the text.
    text : str
        What to say.
    folder : str
        Where the files go, below that of the corpus.
    voices : sequence of str
        Of eSpeak NG, to choose from.
    rates : sequence of int
        Words a minute, to choose from.
    n_voices : int
        How many clips, each with another voice.
    seed : int
        Of the draws, which depend on nothing else but the name.

    Returns
    -------
    list of dict
        With ``text``, ``voice``, ``rate`` and ``file``.

    Example
    -------
    >>> voiced_by("0_1", "Hello.", "a", ["en-us+m1"], [150], 1, 1986)[0]["file"]
    'a/0_1_en-us-m1.wav'
    """
    rng = random.Random(f"{seed} {name}")
    return [
        {
            "text": text,
            "voice": voice,
            "rate": rng.choice(list(rates)),
            "file": f"{folder}/{name}_{voice.replace('+', '-')}.wav",
        }
        for voice in rng.sample(list(voices), n_voices)
    ]


def voice_all(data_folder, clips, n_workers=2, progress=True):
    """Makes the clips that are missing, or that were made otherwise.

    ``corpus.json`` in the folder has what each clip was made of, so that
    corpora may share the folder: a clip that is not wanted now stays.

    Arguments
    ---------
    data_folder : str or Path
        Where to.
    clips : list of dict
        From :func:`voiced_by`. Those whose text has no word are left out.
    n_workers : int
        How many synthesisers work side by side.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    int
        How many were made.

    Raises
    ------
    ImportError
        If clips are missing and espeakng-loader is not installed.
    PreparationError
        If two clips are one file, a file would lie outside the folder, a text
        cannot be said, or ``corpus.json`` is no such record.
    """
    data_folder = Path(data_folder)
    clips = [clip for clip in clips if normalize_text(clip["text"])]
    wanted = {}
    for clip in clips:
        path_below(data_folder, clip["file"])
        if clip["file"] in wanted:
            raise PreparationError(
                f"two texts would be {clip['file']}: give each another id"
            )
        wanted[clip["file"]] = _made_of(clip)
    made = _read_record(data_folder / RECORD)
    # Before the record says that they are others: a run may be broken off.
    for file, own in wanted.items():
        if made.get(file) != own:
            (data_folder / file).unlink(missing_ok=True)
    if made | wanted != made:
        text = json.dumps(made | wanted, indent=1, sort_keys=True)
        write_text(data_folder / RECORD, text + "\n")
    missing = [c for c in clips if not (data_folder / c["file"]).is_file()]
    if missing:
        _synthesize(missing, data_folder, n_workers, progress)
    return len(missing)


def _made_of(clip):
    """Returns a short name for all that a clip depends on."""
    content = json.dumps([clip["text"], clip["voice"], clip["rate"]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read_record(path):
    """Returns what each file was made of, by name."""
    if not path.is_file():
        return {}
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        made = None
    if isinstance(made, dict) and all(
        isinstance(own, str) for own in made.values()
    ):
        return made
    raise PreparationError(
        f"{path} does not say what each clip was made of (it is broken, or of "
        "an earlier version): remove it, and the clips are made anew"
    )


def _synthesize(clips, data_folder, n_workers, progress):
    """Writes the clips, with several synthesisers."""
    idle = SimpleQueue()

    def make(clip):
        synthesizer = idle.get()
        delivery = Delivery(words_per_minute=clip["rate"])
        try:
            wave = synthesizer.speak(clip["text"], clip["voice"], delivery)
        except ValueError as error:
            raise PreparationError(
                f"{clip['file']} cannot be made of {clip['text']!r}: {error}"
            ) from error
        finally:
            idle.put(synthesizer)
        path = data_folder / clip["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        soundfile.write(part, wave, SAMPLE_RATE, "PCM_16", format="WAV")
        os.replace(part, path)

    with ExitStack() as stack:
        for _ in range(n_workers):
            idle.put(stack.enter_context(Synthesizer()))
        pool = stack.enter_context(ThreadPoolExecutor(n_workers))
        stack.callback(pool.shutdown, cancel_futures=True)  # after a failure
        for _ in tqdm(
            pool.map(make, clips),
            "Synthesising",
            len(clips),
            unit="clip",
            dynamic_ncols=True,
            disable=not progress,
        ):
            pass
