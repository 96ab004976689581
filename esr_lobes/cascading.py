"""From a recogniser and a text encoder to a retriever of what is said.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.cascade.encoder import CascadeEncoder
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascade.pocketsphinx import PocketSphinx
from esr_lobes.cascade.speechbrain import INTERFACES, SpeechBrainRecogniser
from esr_lobes.clsr.clsr import Unprojected
from esr_lobes.errors import MendableError
from esr_lobes.export import backbone_folder, check_folder, write_retriever
from esr_lobes.files import write_text
from esr_lobes.inference import EncoderRetriever

MAX_SECONDS = 40.0  # of a passage, as in the paper of CLSR
MAX_TOKENS = 512  # BERT's positions; 40 s of speech are 100 to 150


def open_recogniser(name, language=None):
    """Returns a recogniser by the name that a command line gives it.

    Arguments
    ---------
    name : str
        ``pocketsphinx``; a folder or hub id of transformers; or one of
        SpeechBrain behind the interface that it is for, as in
        ``EncoderASR:owner/name``.
    language : str, optional
        What is spoken, for a Whisper of many languages.

    Returns
    -------
    Recogniser
        Ready to transcribe.

    Raises
    ------
    MendableError
        If a language is given to one that has only its own.
    """
    interface, _, source = str(name).partition(":")
    is_other = name == "pocketsphinx" or interface in INTERFACES
    if is_other and language is not None:
        raise MendableError(
            f"{name} knows one language only: leave out --language"
        )
    if name == "pocketsphinx":
        return PocketSphinx()
    if interface in INTERFACES:
        return SpeechBrainRecogniser(source, interface)
    return HuggingFaceRecogniser(name, language)


def make_cascade(recogniser, text_encoder, max_seconds=None, run_opts=None):
    """Returns the retriever of a cascade, in memory.

    Arguments
    ---------
    recogniser : Recogniser
        What writes the words down.
    text_encoder : TextEncoder
        What reads them, and the questions.
    max_seconds : float, optional
        Files are cut to passages of at most so much; by default 40 s, or
        what the recogniser hears in one go.
    run_opts : dict, optional
        How to run, such as ``{"device": "cuda:0"}``.

    Returns
    -------
    EncoderRetriever
        Ready to encode.

    Example
    -------
    ::

        cascade = make_cascade(PocketSphinx(), TextEncoder("minilm"))
        cascade.build_index("lectures", "index", space="content")
    """
    return EncoderRetriever(
        modules=_modules(recogniser, text_encoder),
        hparams=_numbers(recogniser, text_encoder, max_seconds),
        run_opts=run_opts,
    )


def write_cascade(folder, recogniser, text_encoder, max_seconds=None):
    """Writes the retriever of a cascade.

    Arguments
    ---------
    folder : str
        Where to; an empty folder or a retriever there is replaced.
    recogniser : Recogniser
        What writes the words down. One of SpeechBrain is not written, only
        where it is.
    text_encoder : TextEncoder
        What reads them, and the questions.
    max_seconds : float, optional
        As for :func:`make_cascade`.

    Raises
    ------
    MendableError
        If there is something else in the folder.
    """
    check_folder(folder)
    modules = _modules(recogniser, text_encoder)
    numbers = _numbers(recogniser, text_encoder, max_seconds)
    write_retriever(folder, _page(modules, numbers), modules)
    kind = type(recogniser).__name__
    write_text(Path(folder) / "README.md", CARD.format(recogniser=kind))


def _modules(recogniser, text_encoder):
    """Returns the parts of a retriever; both towers have one text encoder."""
    return {
        "speech_encoder": CascadeEncoder(recogniser, text_encoder),
        "speech_projection": Unprojected(text_encoder.width),
        "text_encoder": text_encoder,
        "text_projection": Unprojected(text_encoder.width),
    }


def _numbers(recogniser, text_encoder, max_seconds):
    """Returns the numbers of a retriever's page."""
    if max_seconds is None:
        longest = recogniser.longest_seconds or MAX_SECONDS
        max_seconds = min(MAX_SECONDS, longest)
    return {
        "sample_rate": SAMPLE_RATE,
        "embedding_size": text_encoder.width,
        "max_seconds": float(max_seconds),
        "hop_seconds": float(max_seconds) / 2,
        "min_seconds": 0.1,
    }


def _page(modules, numbers):
    """Returns the page: all that it makes is named with its arguments."""
    cascade, text = modules["speech_encoder"], modules["text_encoder"]
    recogniser = cascade.recogniser
    sources = {
        name: f"!ref <folder>/{backbone_folder(name)}"
        for name in ("speech_encoder", "text_encoder")
    }
    text_arguments = {
        "source": sources["text_encoder"],
        "pooling": text.pooling,
        "is_frozen": True,
        "max_tokens": text.max_tokens,
        "local_files_only": True,
    }
    parts = {
        "recogniser": recogniser.arguments(sources["speech_encoder"]),
        "text_encoder": text_arguments,
        "speech_encoder": {
            "recogniser": "!ref <recogniser>",
            "text_encoder": "!ref <text_encoder>",
        },
        "speech_projection": {"width": "!ref <embedding_size>"},
        "text_projection": {"width": "!ref <embedding_size>"},
    }
    lines = [
        "# A cascade of esr_lobes: open it with",
        "# EncoderRetriever.from_hparams(source=THIS_FOLDER)",
        "folder: .",
        *(f"{name}: {value}" for name, value in numbers.items()),
    ]
    for name, arguments in parts.items():
        kind = type(recogniser if name == "recogniser" else modules[name])
        lines.append(f"{name}: !new:{kind.__module__}.{kind.__qualname__}")
        for key, value in arguments.items():
            is_reference = str(value).startswith("!ref ")
            shown = value if is_reference else json.dumps(value)
            lines.append(f"    {key}: {shown}")
    lines += ["modules:", *(f"    {name}: !ref <{name}>" for name in modules)]
    return "\n".join(lines) + "\n"


CARD = """---
library_name: speechbrain
tags: [speech-retrieval, spoken-content, esr_lobes]
---
# A cascade: speech found by what is said

A recogniser ({recogniser}) writes down the words, a text encoder reads them.
Nothing was trained for it. Made by `esr cascade` of esr_lobes, a SpeechBrain
plugin:

```python
from esr_lobes import EncoderRetriever

retriever = EncoderRetriever.from_hparams(source="THIS_FOLDER")
retriever.encode_files(["lecture.wav"])
for hit in retriever.search("why do tides come twice a day?", k=5):
    print(hit.score, hit.segment)
```

It finds no better than the recogniser writes: try it on speech of your kind.
Licences are those of the recogniser and of the text encoder.
"""
