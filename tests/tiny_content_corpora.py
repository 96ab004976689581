"""Spoken question answering in the layouts of its releases, a few tones each.

Authors
 * The esr_lobes contributors
"""

import json
import zlib

import numpy as np
import soundfile
from tiny_backbones import SIZES
from tiny_content import write_squad

from esr_lobes.clsr.spoken_qa import read_questions

LIBRISQA_SPEAKERS = {
    "train-clean-360": ("14", "16", "17", "19"),
    "test-clean": ("61", "121"),
}
SLUE_HEADER = (
    "question_id question_text normalized_question_text speaker_id "
    "document_id document_text normalized_document_text answer_spans"
).split()
SLUE_FOLDERS = ("fine-tune", "dev", "test", "verified-test")
PLACES = "東京 北京 倫敦 巴黎 羅馬 紐約".split()
CHARACTERS = sorted(
    set("".join(PLACES) + "在非常古老位於河邊哪裡誰建了大橋的人是")
)


def write_speech(path, text):
    """Writes a tone of 0.1 s a word, at 16 kHz; makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(1600) / 16000
    words = text.split() if " " in text else list(text)
    hertz = [200 + zlib.crc32(word.encode()) % 3000 for word in words]
    wave = [0.2 * np.sin(2 * np.pi * h * time) for h in hertz]
    soundfile.write(path, np.concatenate(wave), 16000)


def write_spoken_squad(folder, n_articles=4):
    """Writes JSON and WAVs: 2 paragraphs an article, 3 sentences each."""
    for name, wavs, n in (
        ("train", "train_wav", n_articles),
        ("test", "dev_wav", 2),
    ):
        path = write_squad(folder / f"spoken_{name}-v1.1.json", n)
        for context in read_questions(path, "sentence")[0]:
            wav = f"Spoken-SQuAD_audio/{wavs}/{context.id}.wav"
            write_speech(folder / wav, context.text)
    return folder


def write_librisqa(folder, n_utterances=3):
    """Writes LibriSpeech's folders and LibriSQA's two files beside them."""
    for split, speakers in LIBRISQA_SPEAKERS.items():
        records = []
        for speaker in speakers:
            for i in range(n_utterances):
                name = f"{speaker}-70{speaker}-{i:04d}"
                text = f"THE BOOK OF {speaker} HAS {i} PAGES"
                place = f"{split}/{speaker}/70{speaker}/{name}"
                write_speech(folder / f"{place}.flac", text)
                records.append(
                    {
                        "speech_path": f"LibriSpeech/{place}.wav",
                        "text": text,
                        "question": f"How many pages has {speaker}'s book?",
                        "answer": f"It has {i} pages.",
                    }
                )
        part = folder / "LibriSQA-PartI"
        part.mkdir(exist_ok=True)
        name = f"LibriSQA-PartI-{split.split('-')[0]}.json"
        (part / name).write_text(json.dumps(records))
    return folder


def write_slue_sqa5(folder, folders=SLUE_FOLDERS):
    """Writes four documents a split, three questions on each of the first two
    and one on the others; quotation marks are not closed."""
    for split in folders:
        lines = ["\t".join(SLUE_HEADER)]
        for i in range(8):
            document = f"Town_{min(i // 3, 2) + (i == 7)}"
            said = f"in the {split} the town {document[-1]} has a mill"
            asked = f"what has the town {document[-1]} for the {i} th time"
            cells = [f"trivia-{i}", f'"{asked}?', asked, "VP1", document]
            cells += [f'"{said}.', said, "[['mill', 1.0, 1.2]]"]
            lines.append("\t".join(cells))
            write_speech(folder / split / "document" / f"{document}.wav", said)
            write_speech(folder / split / "question" / f"{cells[0]}.wav", asked)
        path = folder / f"slue-sqa5_{split}.tsv"
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def write_drcd(folder, n_articles=3):
    """Writes three files of paragraphs of three sentences, two asked about."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "dev", "test"):
        articles = []
        for i in range(n_articles):
            here, there = PLACES[i], PLACES[i + 3]
            text = f"{here}位於河邊，非常古老。{there}的人建了大橋。人在。"
            asked = [(f"{here}在哪裡？", "河邊"), ("誰建了大橋？", there)]
            asked.append((f"{here}古老？", "古老"))
            qas = [
                {
                    "id": f"{name}-{i}-{k}",
                    "question": question,
                    "answers": [
                        {"text": answer, "answer_start": text.index(answer)}
                    ],
                }
                for k, (question, answer) in enumerate(asked)
            ]
            paragraph = {"context": text, "id": f"{i}-1", "qas": qas}
            articles.append({"title": here, "paragraphs": [paragraph]})
        path = folder / f"DRCD_{name}.json"
        path.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return folder


def make_chinese_bert(folder):
    """Writes a random BERT of width 32 that knows some characters."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] nba ##s".split() + CHARACTERS
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(words), max_position_embeddings=64, **SIZES
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
