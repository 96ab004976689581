"""How often what is found in hours of audio is what was said there.

Puts clips of RAVDESS one after another, with pauses of known length and a
little noise, into recordings of an hour; indexes them with voice activity and
with windows; asks for each style in words; and compares the ten best segments
with the utterances, whose times are known. Run it from the repository root::

    python recipes/RAVDESS/long_recordings.py RETRIEVER \\
        --data_folder RAVDESS_FOLDER --out long

An utterance is what of a clip is louder than 35 dB below its loudest 20 ms,
and lasts from the first such frame to the last.

Authors
 * The esr_lobes contributors
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
from ravdess_prepare import EMOTIONS
from search import manifest_of

from esr_lobes import EncoderRetriever
from esr_lobes.audio import SAMPLE_RATE, read
from esr_lobes.errors import one_line_errors
from esr_lobes.files import write_text
from esr_lobes.prompts import PromptBank
from esr_lobes.reports import markdown_table

FRAME = SAMPLE_RATE // 50
FLOOR_DB = 35.0
HOUR = 3600.0
PAUSES = (1.0, 7.0)  # shortest and longest, in seconds
NOISE = 10 ** (-60 / 20)
K = 10


def utterance_of(wave):
    """Returns where in a clip somebody speaks, in seconds.

    Arguments
    ---------
    wave : array
        Samples of shape [time].

    Returns
    -------
    start : float
        Beginning of the first loud frame.
    stop : float
        End of the last one.

    Example
    -------
    >>> wave = np.zeros(SAMPLE_RATE)
    >>> wave[4000:8000] = 0.5
    >>> [round(float(time), 2) for time in utterance_of(wave)]
    [0.24, 0.5]
    """
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-FLOOR_DB / 10))
    return loud[0] * FRAME / SAMPLE_RATE, (loud[-1] + 1) * FRAME / SAMPLE_RATE


def overlap(first, second):
    """Returns the length two spans share over that of their union.

    Arguments
    ---------
    first : (float, float)
        Start and stop.
    second : (float, float)
        Likewise.

    Returns
    -------
    float
        From 0 to 1 (IoU).

    Example
    -------
    >>> overlap((0.0, 2.0), (1.0, 3.0))
    0.3333333333333333
    """
    shared = min(first[1], second[1]) - max(first[0], second[0])
    union = max(first[1], second[1]) - min(first[0], second[0])
    return max(0.0, shared) / union


def write_recordings(rows, folder, seed):
    """Writes recordings of about an hour and says who speaks when.

    Arguments
    ---------
    rows : list of dict
        Clips, of a manifest.
    folder : Path
        Where to; recordings that are there are kept.
    seed : int
        Of order, pauses and noise.

    Returns
    -------
    dict
        Path of a recording to its utterances, [start, stop, emotion].
    """
    record = folder / "utterances.json"
    if record.is_file():
        return json.loads(record.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    said, file, time = {}, None, HOUR

    def noise(seconds):
        n_samples = round(seconds * SAMPLE_RATE)
        return NOISE * rng.standard_normal(n_samples).astype(np.float32)

    for i in order:
        if time >= HOUR:
            if file:
                file.close()
            path = str((folder / f"hour{len(said) + 1}.flac").absolute())
            file = soundfile.SoundFile(path, "w", SAMPLE_RATE, 1)
            said[path], time = [], 0.0
        pause = noise(rng.uniform(*PAUSES))
        wave = read(rows[i]["wav"]).numpy()
        start, stop = utterance_of(wave)
        time += len(pause) / SAMPLE_RATE
        said[path].append([time + start, time + stop, rows[i]["emotion"]])
        time += len(wave) / SAMPLE_RATE
        file.write(pause)
        file.write(wave + noise(len(wave) / SAMPLE_RATE))
    file.close()
    write_text(record, json.dumps(said))
    return said


def nearest(segment, utterances):
    """Returns the utterance that a segment overlaps most, and how much.

    Arguments
    ---------
    segment : Segment
        What was found.
    utterances : dict
        As from :func:`write_recordings`.

    Returns
    -------
    overlap : float
        From 0 to 1.
    emotion : str
        Of that utterance.
    """
    span = (segment.start, segment.stop)
    return max(
        (overlap(span, (start, stop)), emotion)
        for start, stop, emotion in utterances[segment.path]
    )


def measure(index, utterances, queries):
    """Returns the figures of one index.

    Arguments
    ---------
    index : SearchIndex
        Of the recordings.
    utterances : dict
        As from :func:`write_recordings`.
    queries : dict
        Emotion to descriptions that count alike.

    Returns
    -------
    list of str
        Segments; share of utterances that a segment overlaps by more than
        half; share of the top ten segments that overlap an utterance by
        more than half, that do and are of the emotion asked for.
    """
    everything = index.search(next(iter(queries.values())), k=len(index))
    found, n_said = 0, 0
    for path, spans in utterances.items():
        segments = [
            hit.segment for hit in everything if hit.segment.path == path
        ]
        starts = np.array([segment.start for segment in segments])
        stops = np.array([segment.stop for segment in segments])
        for start, stop, _ in spans:
            near = np.flatnonzero((starts < stop) & (stops > start))
            best = max(
                (overlap((start, stop), (starts[i], stops[i])) for i in near),
                default=0.0,
            )
            found, n_said = found + (best > 0.5), n_said + 1
    close, right, n_hits = 0, 0, 0
    for emotion, texts in queries.items():
        for hit in index.search(texts, k=K):
            share, said = nearest(hit.segment, utterances)
            close += share > 0.5
            right += share > 0.5 and said == emotion
            n_hits += 1
    return [
        str(len(index)),
        f"{found / n_said:.3f}",
        f"{close / n_hits:.3f}",
        f"{right / n_hits:.3f}",
    ]


@one_line_errors
def main():
    """Prints a table of the ways to cut."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("retriever", help="folder of a trained retriever")
    parser.add_argument("--data_folder", required=True, help="RAVDESS")
    parser.add_argument("--out", required=True, help="folder for all of it")
    parser.add_argument(
        "--actors", type=int, nargs="+", default=list(range(1, 21))
    )
    parser.add_argument("--seed", type=int, default=1986)
    options = parser.parse_args()
    out = Path(options.out)
    rows = manifest_of(options.actors, options.data_folder, out / "clips")
    utterances = write_recordings(rows, out / "recordings", options.seed)
    retriever = EncoderRetriever.from_hparams(source=options.retriever)
    bank = PromptBank.load("held_out")
    queries = {
        emotion: bank.prompts("disgusted" if emotion == "disgust" else emotion)
        for emotion in EMOTIONS.values()
    }
    lines = []
    for name, cutting in {
        "voice activity": {"kind": "voice"},
        "windows of 8 s every 4 s": {"kind": "windows"},
        "windows of 4 s every 2 s": {
            "kind": "windows",
            "max_seconds": 4.0,
            "hop_seconds": 2.0,
        },
    }.items():
        folder = out / name.replace(" ", "_")
        index = retriever.build_index(list(utterances), folder, cutting=cutting)
        lines.append([name, *measure(index, utterances, queries)])
    n_said = sum(map(len, utterances.values()))
    print(f"{n_said} utterances in {len(utterances)} recordings\n")
    header = ["cut by", "segments", "utterances met (IoU > 0.5)"]
    header += [f"top {K} with IoU > 0.5", "and of the right emotion"]
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
