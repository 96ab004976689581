"""A tiny corpus of content: each word is a tone, each clip has a question.

Authors
 * The esr_lobes contributors
"""

import json

import numpy as np
import soundfile
from tiny_backbones import WORDS

from esr_lobes.content_manifests import (
    CLIP_COLUMNS,
    questions_file,
    questions_text,
)
from esr_lobes.preparation import write_splits

SAID = WORDS[5:]
HERTZ = 150
TOKEN_SECONDS = 0.24
# Flags that make a page's encoders tiny; the text encoder's folder follows.
SIZES = (
    "{sizes: {width: 32, encoder_heads: 2, encoder_ffn: 64, "
    "encoder_layers: 2, decoder_heads: 2, decoder_ffn: 64, "
    "decoder_layers: 1, encoder_dropout: 0.0, decoder_dropout: 0.0, "
    "max_masked_bands: 0, max_masked_steps: 0}}"
)


def say(words):
    """Returns tones of a quarter second, one a word, float32 [time]."""
    time = np.arange(round(TOKEN_SECONDS * 16000)) / 16000
    hertz = [HERTZ * (3 + SAID.index(word)) for word in words]
    wave = [0.3 * np.sin(2 * np.pi * h * time) for h in hertz]
    return np.concatenate(wave).astype(np.float32)


def write_content(folder, n_contexts=12, seed=0):
    """Writes clips of two to five words.

    Arguments
    ---------
    folder : Path
        Where to.
    n_contexts : int
        How many; the first has two clips and two questions.
    seed : int
        Of the words.

    Returns
    -------
    list of dict
        Rows of a manifest.
    list of dict
        Questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    clips, questions, texts = [], [], set()
    while len(texts) < n_contexts:
        words = rng.choice(SAID, rng.integers(2, 6), replace=False).tolist()
        text = " ".join(words)
        if text in texts:
            continue
        texts.add(text)
        context = f"c{len(texts):02d}"
        is_first = len(texts) == 1
        for take in "ab" if is_first else "a":
            name = f"{context}{take}"
            wave = say(words)
            soundfile.write(folder / f"{name}.wav", wave, 16000)
            clips.append(
                {
                    "ID": name,
                    "duration": len(wave) / 16000,
                    "wav": f"{{data_root}}/{name}.wav",
                    "start": 0.0,
                    "stop": len(wave) / 16000,
                    "channel": None,
                    "context_id": context,
                    "transcript": text,
                }
            )
        for take in "ab" if is_first else "a":
            # It shares words with its context, as questions do.
            asked = " ".join(["the", *words[: 2 if take == "a" else 1]])
            questions.append(
                {"ID": f"q{context}{take}", "question": asked}
                | {"context_id": context}
            )
    return clips, questions


def write_content_splits(data_folder, save_folder, skip_prep, clips, questions):
    """Does what the preparation of a recipe does; all splits are alike."""
    splits, tables = {}, {}
    for split in ("train", "valid", "test"):
        mark = {"train": "", "valid": "v", "test": "t"}[split]
        splits[split] = [row | {"ID": mark + row["ID"]} for row in clips]
        name = questions_file(split)
        tables[name] = questions_text(name, questions)
    write_splits(save_folder, splits, (), {}, CLIP_COLUMNS, tables)


def write_squad(path, n_articles=4, n_paragraphs=2):
    """Writes questions in the layout of SQuAD 1.1.

    Arguments
    ---------
    path : Path
        The JSON file.
    n_articles, n_paragraphs : int
        How many, of three sentences each: two are asked about, and the last
        of an article is too short to be voiced.

    Returns
    -------
    Path
        The file.
    """
    towns = ["leeds", "york", "bath", "wells", "derby", "truro"]
    articles = []
    for i in range(n_articles):
        paragraphs = []
        for j in range(n_paragraphs):
            town, other = towns[i], towns[(i + j + 1) % len(towns)]
            texts = [
                f"the mill of {town} was built in {1800 + 10 * i + j}.",
                f"people walk from {town} to {other} every summer {j}.",
                "the rest is told below." if j else "so it was.",
            ]
            whole = " ".join(texts)
            qas = [
                {
                    "id": f"{i}{j}{k}",
                    "question": asked,
                    "answers": [
                        {"text": answer, "answer_start": whole.index(answer)}
                    ],
                }
                for k, (asked, answer) in enumerate(
                    [
                        (f"What was built in {town}?", "the mill"),
                        (f"Where do people of {town} walk to?", f"to {other}"),
                    ]
                )
            ]
            paragraphs.append({"context": whole, "qas": qas})
        articles.append({"title": towns[i], "paragraphs": paragraphs})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return path
