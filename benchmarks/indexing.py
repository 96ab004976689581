"""How fast audio becomes an index, against a plain loop over files.

    python benchmarks/indexing.py [--audio FOLDER] [--source RETRIEVER]

The plain loop is what one would write: read a file, mix and resample it, ask
Silero where somebody speaks, embed the segments one by one. Both ways cut
with the same settings and embed with the same model, on all cores. Without a
folder, sentences of a synthesiser are taken: 400 clips as files, and the same
as recordings of ten minutes; without a source, the compact model with random
weights.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from esr_lobes import EncoderRetriever
from esr_lobes.audio import SAMPLE_RATE, find_audio, probe
from esr_lobes.encoders.compact import CompactEncoder
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.heads import Projection
from esr_lobes.indexing.build import build_index
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.engines import local_engine
from esr_lobes.indexing.plan import make_units, read_digests
from esr_lobes.indexing.voice_activity import (
    MIN_SILENCE_MS,
    MIN_VOICE_MS,
    PAD_MS,
)
from esr_lobes.indexing.worker import Worker
from esr_lobes.reports import markdown_table
from esr_lobes.synthesis import STYLES, Synthesizer

SENTENCES = (
    "The last bus to the harbour leaves in twenty minutes.",
    "Nobody told me that the meeting had been moved.",
    "We have looked everywhere, and it is simply not there.",
    "Put it on the table next to the window, please.",
)
VOICES = ("en-us+m3", "en-us+f2", "en-gb-scotland+m5", "en+m4")
EMBEDDING = 256
STAGES = ("decode", "voice", "encode")


def compact_retriever():
    """Returns the compact model with random weights."""
    torch.manual_seed(0)
    speech, text = CompactEncoder(), TextEncoder("minilm")
    modules = {
        "speech_encoder": speech,
        "speech_projection": Projection(speech.width, EMBEDDING),
        "text_encoder": text,
        "text_projection": Projection(text.width, EMBEDDING),
    }
    hparams = {
        "sample_rate": SAMPLE_RATE,
        "embedding_size": EMBEDDING,
        "max_seconds": 8.0,
        "hop_seconds": 4.0,
        "min_seconds": 0.1,
    }
    return EncoderRetriever(modules=modules, hparams=hparams)


def write_corpus(folder, n_clips):
    """Writes clips as files, and again as long recordings.

    Arguments
    ---------
    folder : Path
        Gets ``clips/`` and ``recordings/``.
    n_clips : int
        How many clips.
    """
    rng = np.random.default_rng(0)
    clips, styles = folder / "clips", sorted(STYLES)
    clips.mkdir()
    (folder / "recordings").mkdir()
    long, count = [], 0
    with Synthesizer() as synthesizer:
        for i in range(n_clips):
            wave = synthesizer.speak(
                SENTENCES[i % len(SENTENCES)],
                VOICES[i // len(SENTENCES) % len(VOICES)],
                styles[i % len(styles)],
                seed=i,
            )
            soundfile.write(clips / f"{i:04d}.flac", wave, SAMPLE_RATE)
            pause = rng.uniform(0.5, 2) * SAMPLE_RATE
            long += [wave, np.zeros(int(pause), np.float32)]
            if sum(map(len, long)) > 600 * SAMPLE_RATE or i == n_clips - 1:
                path = folder / "recordings" / f"{count}.flac"
                soundfile.write(path, np.concatenate(long), SAMPLE_RATE)
                long, count = [], count + 1


@torch.inference_mode()
def plain_loop(paths, retriever, cutting):
    """Returns the number of segments that the loop embeds."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    threads = torch.get_num_threads()
    model = load_silero_vad()
    torch.set_num_threads(threads)
    n_segments = 0
    for path in paths:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = soxr.resample(wave.mean(axis=1), rate, SAMPLE_RATE)
        wave = torch.from_numpy(np.ascontiguousarray(wave))
        for span in get_speech_timestamps(
            wave,
            model,
            threshold=cutting.threshold,
            max_speech_duration_s=cutting.max_seconds,
            min_speech_duration_ms=MIN_VOICE_MS,
            min_silence_duration_ms=MIN_SILENCE_MS,
            speech_pad_ms=PAD_MS,
        ):
            retriever.encode_batch(wave[span["start"] : span["end"]])
            n_segments += 1
    return n_segments


def stages(paths, retriever, cutting):
    """Returns the seconds that threads spend on each part of the work."""
    digests, _ = read_digests(paths, progress=False)
    units = make_units([(p, d, size) for p, (d, size) in digests.items()])
    worker = Worker({"style": retriever}, cutting)
    for _ in local_engine(units, worker):
        pass
    return {key: worker.seconds[key] for key in STAGES}


def compare(audio, retriever, rounds):
    """Returns the cells of one line: both ways take turns, the best counts."""
    paths = find_audio(audio)
    hours = sum(probe(path).seconds for path in paths) / 3600
    cutting = Cutting(max_seconds=retriever.hparams.max_seconds)
    plain, ours, report = [], [], None
    for _ in range(rounds):
        start = time.perf_counter()
        n_plain = plain_loop(paths, retriever, cutting)
        plain.append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            report = build_index(
                audio,
                Path(folder) / "index",
                {"style": retriever},
                cutting=cutting,
                progress=False,
            )
            ours.append(time.perf_counter() - start)
    spent = stages(paths, retriever, cutting)
    total = sum(spent.values())
    return [
        f"{len(paths)} files, {60 * hours:.1f} min",
        f"{n_plain} / {report.segments}",
        f"{hours / min(plain) * 3600:.0f}",
        f"{hours / min(ours) * 3600:.0f}",
        f"{min(plain) / min(ours):.2f}",
        *(f"{spent[key] / total:.0%}" for key in STAGES),
    ]


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--audio", help="folder; default: made-up speech")
    parser.add_argument("--source", help="folder of a retriever")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.source:
        retriever = EncoderRetriever.from_hparams(source=options.source)
    else:
        retriever = compact_retriever()
    with tempfile.TemporaryDirectory() as folder:
        parts = [options.audio]
        if not options.audio:
            write_corpus(Path(folder), options.clips)
            parts = [f"{folder}/clips", f"{folder}/recordings"]
        lines = [compare(part, retriever, options.rounds) for part in parts]
    print(f"{options.threads} threads, torch {torch.__version__}\n")
    header = ["audio", "segments, plain / ours", "plain, h/h", "ours, h/h"]
    header += ["ratio", *STAGES]
    print(markdown_table(header, lines))
    print("\nh/h: hours of audio an hour. Shares are of our threads' time.")


if __name__ == "__main__":
    main()
