"""Corpora in the layouts of their releases, small enough for a test.

Authors
 * The esr_lobes contributors
"""

import re
import wave
import zlib

import numpy as np
import soundfile

ESD_EMOTIONS = ["Neutral", "Angry", "Happy", "Sad", "Surprise"]
# of 350: the ends of each split, and some within
ESD_PLACES = (1, 2, 10, 20, 21, 35, 50, 51, 200, 350)
ESD_SPLITS = {
    "valid": (1, 2, 10, 20),
    "test": (21, 35, 50),
    "train": (51, 200, 350),
}
RAVDESS_LABELS = "neu cal hap sad ang fea dis sur".split()
IEMOCAP_LABELS = "ang hap exc sad fru fea sur dis neu xxx oth".split()
EXPRESSO_LISTS = {
    "splits/train.txt": (
        "# a comment\n"
        "ex01_happy_00001\nex01_default_emphasis_00001\nex01_singing_00001\n"
        "ex01_default_longform_00001\t(20.0s,)\n"
        "ex01-ex02_sad-sympathetic_001\t(60.0s,)\n"
        "ex01-ex02_animal-animaldir_001\n"
    ),
    "splits/dev.txt": (
        "ex01_happy_00002\nex01_default_longform_00001\t(,10.0s)\n"
    ),
    "splits/test.txt": (
        "ex01_happy_00003\nex02_whisper_00001\n"
        "ex01_default_longform_00001\t(10.0s,20.0s)\n"
        "ex01-ex02_sad-sympathetic_001\t(,60.0s)\n"
    ),
    "VAD_segments.txt": (
        "#a comment\n"
        "ex01-ex02_sad-sympathetic_001/channel1\t"
        "(1.0, 4.0) (5.5, 8.5) (10.6, 11.1) (54.0, 66.0)\n"
        "ex01-ex02_sad-sympathetic_001/channel2\t(20.0, 45.0) (70.0, 70.4)\n"
        "ex01_default_longform_00001\t(0.0, 9.0) (9.5, 12.0) (18.5, 24.0)\n"
    ),
    "read_transcriptions.txt": (
        "ex01_happy_00001\tIt costs $5.\nex01_happy_00003\tOh, *no*!\n"
    ),
}
EXPRESSO_LONG = "ex01-ex02_sad-sympathetic_001"
# What a style sounds like, 150 Hz to 2.7 kHz, by its first three letters
HERTZ = {
    label: 150 * 1.3**i
    for i, label in enumerate([*RAVDESS_LABELS, "exc", "fru", "xxx", "oth"])
}


def write_tone(path, label="neu"):
    """Writes 0.4 s at 16 kHz of a style's height; makes the folders above.

    No two names have the same tone, and the same name always has the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(zlib.crc32(path.name.encode()))
    hertz = HERTZ[label] * draw.uniform(0.97, 1.03)
    time = np.arange(6400) / 16000
    tone = draw.uniform(0.05, 0.2) * np.sin(2 * np.pi * hertz * time)
    soundfile.write(path, tone + 0.001 * draw.standard_normal(6400), 16000)


def esd_numbers(emotion, places=ESD_PLACES):
    """Returns the numbers of ESD's files at these places of an emotion."""
    return [ESD_EMOTIONS.index(emotion) * 350 + place for place in places]


def write_esd(folder, speakers, is_split=False, places=ESD_PLACES):
    """Writes short tones under the names of ESD, flat or in split folders."""
    split_of = {p: s for s, places in ESD_SPLITS.items() for p in places}
    folder_of = {"valid": "evaluation", "test": "test", "train": "train"}
    for speaker in speakers:
        lines = []
        for emotion in ESD_EMOTIONS:
            for place, number in zip(
                places, esd_numbers(emotion, places), strict=True
            ):
                name = f"{speaker}_{number:06d}"
                path = folder / speaker / emotion
                if is_split:
                    path = path / folder_of[split_of[place]]
                write_tone(path / f"{name}.wav", emotion[:3].lower())
                lines.append(f"{name}\tSentence {place}.\t{emotion}\r\n")
        transcript = folder / speaker / f"{speaker}.txt"
        transcript.write_bytes("".join(lines).encode())


def iemocap_utterances(session):
    """Yields names and labels of two dialogues: 11 of her, and 11 of his."""
    impro = f"Ses0{session}F_impro05a"
    script = f"Ses0{session}M_script01_1b"
    for i, label in enumerate(IEMOCAP_LABELS):
        yield impro, f"{impro}_{'FM'[i % 2]}{i:03d}", label
        yield script, f"{script}_{'MF'[i % 2]}{i:03d}", label


def write_iemocap(folder, sessions=range(1, 6)):
    """Writes short tones and labels as IEMOCAP's release has them."""
    for session in sessions:
        root = folder / f"Session{session}"
        labels = root / "dialog" / "EmoEvaluation"
        (labels / "Categorical").mkdir(parents=True)
        text = {}
        for dialogue, name, label in iemocap_utterances(session):
            path = root / "sentences" / "wav" / dialogue / f"{name}.wav"
            write_tone(path, label)
            text.setdefault(dialogue, []).append(
                f"[6.2901 - 8.2357]\t{name}\t{label}\t"
                "[2.5000, 3.0000, 1.6667]\n"
                "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
            )
        for dialogue, lines in text.items():
            header = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            path = labels / f"{dialogue}.txt"
            path.write_text(header + "".join(lines))
            hidden = labels / f"._{dialogue}.txt"
            hidden.write_bytes(b"\x00\x05\x16\x07\r[Mac OS X")
            other = labels / "Categorical" / f"{dialogue}_e2_cat.txt"
            other.write_text(f"{dialogue}_F000 :Anger; ()\n")


def write_ravdess(folder, actors):
    """Writes two short tones of each emotion under the names of RAVDESS."""
    for actor in actors:
        for emotion, label in enumerate(RAVDESS_LABELS, start=1):
            for repetition in (1, 2):
                name = f"03-01-{emotion:02d}-01-01-{repetition:02d}"
                name = f"{name}-{actor:02d}.wav"
                write_tone(folder / f"Actor_{actor:02d}" / name, label)


def write_noise(path, seconds, channels=1, sample_rate=200):
    """Writes noise of 8 bits; where only times matter, of 200 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = round(seconds * sample_rate) * channels
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 1, sample_rate, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).bytes(n_bytes))


def expresso_path(name):
    """Where the release has a recording, below its folder."""
    speaker, style = name.split("_")[:2]
    if "-" in speaker:
        return f"audio_48khz/conversational/{speaker}/{style}/{name}.wav"
    kind = "longform" if "longform" in name else "base"
    return f"audio_48khz/read/{speaker}/{style}/{kind}/{name}.wav"


def write_expresso(folder, sample_rate=200):
    """Writes nine recordings of Expresso's names, and lists for them."""
    (folder / "splits").mkdir(parents=True)
    for name, text in EXPRESSO_LISTS.items():
        (folder / name).write_text(text)
    names = " ".join(EXPRESSO_LISTS.values())
    for name in re.findall(r"ex\d\d_\w+_\d+", names):
        path = folder / expresso_path(name)
        seconds = 30 if "longform" in name else 2.5
        write_noise(path, seconds, sample_rate=sample_rate)
    for name in (EXPRESSO_LONG, "ex01-ex02_animal-animaldir_001"):
        write_noise(folder / expresso_path(name), 80, 2, sample_rate)
