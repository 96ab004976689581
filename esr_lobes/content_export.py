"""From a finished training on content to a folder that anyone can open.

Authors
 * The esr_lobes contributors
"""

import inspect
import io
from datetime import date
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.clsr.clsr import Unprojected
from esr_lobes.clsr.speech import ClsrSpeech
from esr_lobes.export import OPENED, backbone_folder, write_retriever
from esr_lobes.files import write_text

# Segments of long recordings, as CLSR's paper cuts them.
MAX_SECONDS = 40.0
# Of an encoder's arguments, those that stay what they were in training.
KEPT = ("pooling", "max_tokens")


def export_content_retriever(folder, brain):
    """Writes what ``EncoderRetriever.from_hparams`` opens.

    The text encoder is written once; on the page both towers refer to it.

    Arguments
    ---------
    folder : str
        Where to; replaced if it is there.
    brain : DualContentBrain
        Gives the towers as they are judged.
    """
    brain.modules.eval()
    names = ("speech_encoder", "text_encoder", "text_projection")
    modules = {name: brain.tower(name) for name in names}
    modules["speech_projection"] = (
        brain.tower("speech_projection")
        if "speech_projection" in brain.modules
        else Unprojected(modules["speech_encoder"].width)
    )
    write_retriever(folder, content_page(modules), modules)


def content_page(modules):
    """Returns the page of a content retriever.

    Arguments
    ---------
    modules : dict
        Both encoders and both projections.

    Returns
    -------
    str
        A page that loads alone.
    """
    speech = modules["speech_encoder"]
    page = CommentedMap(
        folder=".",
        sample_rate=SAMPLE_RATE,
        embedding_size=modules["speech_projection"].out_features,
        max_seconds=MAX_SECONDS,
        hop_seconds=MAX_SECONDS / 2,
        min_seconds=0.1,
    )
    for name in ("text_encoder", "speech_encoder"):
        page[name] = _encoder(name, modules[name])
    if isinstance(speech, ClsrSpeech):
        page["speech_encoder"] |= {
            "text_encoder": _reference("<text_encoder>"),
            "is_hard": speech.vq.is_hard,
            "vq_temperature": float(speech.vq.vq_temperature),
            "vq_takes": speech.vq.takes,
        }
    for name in ("speech_projection", "text_projection"):
        page[name] = _projection(modules[name])
    names = ("speech_encoder", "speech_projection")
    names += ("text_encoder", "text_projection")
    page["modules"] = CommentedMap(
        {name: _reference(f"<{name}>") for name in names}
    )
    stream = io.StringIO()
    YAML().dump(page, stream)
    return (
        "# A retriever of esr_lobes, by what is said: open it with\n"
        "# EncoderRetriever.from_hparams(source=THIS_FOLDER)\n"
        + stream.getvalue()
    )


def _encoder(name, module):
    """Returns the node of an encoder, opened from the retriever's folder."""
    arguments = {"source": _reference(f"<folder>/{backbone_folder(name)}")}
    for key in inspect.signature(type(module)).parameters:
        if key in OPENED:
            arguments[key] = OPENED[key]
        elif key in KEPT:
            arguments[key] = getattr(module, key)
    return _new(module, **arguments)


def _projection(module):
    if isinstance(module, Unprojected):
        return _new(module, width=module.in_features)
    return _new(
        module,
        in_features=module.in_features,
        out_features=module.out_features,
    )


def _new(module, **arguments):
    """Returns a ``!new:`` node of a module's class."""
    node = CommentedMap(arguments)
    kind = type(module)
    node.yaml_set_ctag(_tag(f"!new:{kind.__module__}.{kind.__qualname__}"))
    return node


def _tag(suffix):
    from ruamel.yaml.tag import Tag

    return Tag(suffix=suffix)


def _reference(text):
    return TaggedScalar(text, tag="!ref")


def write_content_card(folder, hparams, card, reports=None):
    """Writes the model card: what it is, what it heard, how good it is.

    Arguments
    ---------
    folder : str
        The retriever's folder.
    hparams : dict
        Of the training's page: ``name`` and ``seed``.
    card : dict
        What it says of the data: ``corpus``, ``licence``.
    reports : dict, optional
        A ContentReport by test set.
    """
    metrics = "\n\n".join(
        f"On {name}:\n\n{report}" for name, report in (reports or {}).items()
    )
    is_heard_as_words = "paraformer" in hparams["modules"]
    text = CARD.format(
        name=hparams["name"],
        seed=hparams["seed"],
        date=date.today().isoformat(),
        metrics=metrics or "Not evaluated.",
        remark=MISHEARD if is_heard_as_words else "",
        **card,
    )
    write_text(Path(folder) / "README.md", text)


MISHEARD = "What the recogniser mishears is not found.\n"
CARD = """---
library_name: speechbrain
tags: [speech-retrieval, spoken-question-answering, esr_lobes]
---
# A retriever of speech by what is said ({name})

Finds the passage of speech that answers a question, with esr_lobes, a
SpeechBrain plugin:

```python
from esr_lobes import EncoderRetriever

retriever = EncoderRetriever.from_hparams(source="THIS_FOLDER")
retriever.encode_files(["one.wav", "two.wav"])
for hit in retriever.search("When was the castle built?", k=5):
    print(hit.score, hit.segment)
```

* Trained on: {corpus}
* Licence of the data: {licence}
* Page: `{name}`, seed {seed}, written on {date}

A score is a similarity, not a proof that the passage answers the question.
{remark}
## How good it is

{metrics}
"""
