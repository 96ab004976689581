"""Long recordings put together from clips, and what is said in them when.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import os

import numpy as np
import soundfile

from esr_lobes.audio import SAMPLE_RATE, read
from esr_lobes.files import replacing, write_text

PAUSES = (0.3, 1.5)  # shortest and longest, in seconds
NOISE = 10 ** (-60 / 20)
RECORD = "spoken.json"
KEYS = "ID wav start stop channel context_id transcript".split()


def write_recordings(clips, folder, minutes, n_recordings=None, seed=1986):
    """Writes recordings of clips one after another, in a drawn order.

    Between two clips is a short pause; a little noise (-60 dB) lies on all.
    The last recording is what is left, and may be shorter.

    Arguments
    ---------
    clips : list of dict
        Of a manifest of content.
    folder : Path
        Where to; with the same arguments recordings that are there are kept.
    minutes : float
        Longest recording.
    n_recordings : int, optional
        At most so many.
    seed : int
        Of order, pauses and noise.

    Returns
    -------
    dict
        Path of a recording to its clips in order: dicts with ``start``,
        ``stop`` (seconds), ``context_id`` and ``transcript``.
    """
    settings = {
        "clips": _digest(clips),
        "minutes": minutes,
        "n_recordings": n_recordings,
        "pauses": list(PAUSES),
        "noise": NOISE,
        "seed": seed,
    }
    record = folder / RECORD
    if record.is_file():
        made = json.loads(record.read_text(encoding="utf-8"))
        said = {str(folder / name): s for name, s in made["said"].items()}
        is_same = made["settings"] == settings
        if is_same and all(os.path.isfile(path) for path in said):
            return said
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)  # until all recordings are whole
    rng = np.random.default_rng(seed)
    order = [clips[i] for i in rng.permutation(len(clips))]
    said = {}
    while order and (n_recordings is None or len(said) < n_recordings):
        name = f"recording{len(said) + 1}.flac"
        said[name] = _write(order, folder / name, 60 * minutes, rng)
    write_text(record, json.dumps({"settings": settings, "said": said}))
    return {str(folder / name): spoken for name, spoken in said.items()}


def _digest(clips):
    """Returns a digest of what the recordings are made of."""
    rows = [[clip[key] for key in KEYS] for clip in clips]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _write(order, path, longest, rng):
    """Writes one recording and takes its clips out of the list."""
    spoken, time = [], 0.0

    def noise(n_samples):
        return NOISE * rng.standard_normal(n_samples).astype(np.float32)

    with (
        replacing(path) as temporary,
        soundfile.SoundFile(
            temporary, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC"
        ) as file,
    ):
        while order:
            pause = noise(round(rng.uniform(*PAUSES) * SAMPLE_RATE))
            clip = order[0]
            wave = read(
                clip["wav"], clip["start"], clip["stop"], clip["channel"]
            ).numpy()
            start = time + len(pause) / SAMPLE_RATE
            stop = start + len(wave) / SAMPLE_RATE
            if spoken and stop > longest:
                break
            file.write(pause)
            file.write(wave + noise(len(wave)))
            spoken.append(
                {
                    "start": start,
                    "stop": stop,
                    "context_id": clip["context_id"],
                    "transcript": clip["transcript"],
                }
            )
            del order[0]
            time = stop
    return spoken


def words_within(spoken, start, stop):
    """Returns the true words of a part of a recording.

    A clip's words are spread evenly over its length; those whose middle lies
    in the part count.

    Arguments
    ---------
    spoken : list of dict
        Of one recording, from :func:`write_recordings`.
    start, stop : float
        Seconds.

    Returns
    -------
    str
        The words.

    Example
    -------
    >>> spoken = [{"start": 0.0, "stop": 4.0, "transcript": "a b c d"}]
    >>> words_within(spoken, 1.0, 3.4)
    'b c'
    """
    words = []
    for clip in spoken:
        own = clip["transcript"].split()
        seconds = (clip["stop"] - clip["start"]) / max(1, len(own))
        middles = [clip["start"] + (i + 0.5) * seconds for i in range(len(own))]
        words += [
            word
            for word, middle in zip(own, middles, strict=True)
            if start <= middle < stop
        ]
    return " ".join(words)


def share_within(clip, start, stop):
    """Returns how much of a clip lies in a part of its recording.

    Arguments
    ---------
    clip : dict
        With ``start`` and ``stop``.
    start, stop : float
        Seconds.

    Returns
    -------
    float
        From 0 to 1.

    Example
    -------
    >>> share_within({"start": 10.0, "stop": 14.0}, 11.0, 40.0)
    0.75
    """
    shared = min(clip["stop"], stop) - max(clip["start"], start)
    return max(0.0, shared) / (clip["stop"] - clip["start"])
