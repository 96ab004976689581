"""From a finished training to a folder that anyone can open.

The folder holds one flat page, the weights as safetensors, the pretrained
backbones in folders of their own, and a model card; nothing in it runs code
on opening.

Authors
 * The esr_lobes contributors
"""

import inspect
import io
import os
import pydoc
import shutil
from datetime import date
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from safetensors.torch import save_file

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.errors import MendableError
from esr_lobes.files import write_text
from esr_lobes.opening import WEIGHTS

MODULES = (
    "speech_encoder",
    "speech_projection",
    "text_encoder",
    "text_projection",
)
PAGE = "hyperparams.yaml"
# How a retriever's pretrained encoders are opened, however they were trained.
OPENED = {
    "is_frozen": True,
    "local_files_only": True,
    "gradient_checkpointing": False,
    "trust_pickle": False,
}


def export_retriever(folder, flat_page, brain):
    """Writes what ``EncoderRetriever.from_hparams`` opens.

    Arguments
    ---------
    folder : str
        Where to; replaced if it is there.
    flat_page : str
        The page of the training, from :func:`esr_lobes.pages.load_page`.
    brain : StyleRetrievalBrain
        Gives the towers as they are judged.
    """
    brain.modules.eval()
    modules = {name: brain.tower(name) for name in MODULES}
    write_retriever(folder, retriever_page(flat_page, modules), modules)


def write_retriever(folder, page, modules):
    """Writes a retriever's folder: its page, its weights, its backbones.

    It is written beside its place and moved there when complete, so that a
    kill leaves the old folder or the new one; in the instant between the two
    moves the old one is called ``<folder>.old``.

    Arguments
    ---------
    folder : str
        Where to; replaced if it is there.
    page : str
        From :func:`retriever_page`.
    modules : dict
        The four of ``MODULES``. What can ``save`` itself goes into a folder
        of its own (:func:`backbone_folder`), the rest into one file.
    """
    folder = Path(folder)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    tensors = {}
    for name in MODULES:
        module = modules[name]
        if hasattr(module, "save"):
            module.save(new / backbone_folder(name))
            continue
        for key, value in module.state_dict().items():
            tensors[f"{name}.{key}"] = value.detach().cpu().contiguous()
    save_file(tensors, new / WEIGHTS)
    write_text(new / PAGE, page)
    # safetensors writes for its owner alone.
    for path in new.rglob("*.safetensors"):
        path.chmod((new / PAGE).stat().st_mode)
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old)
    else:
        os.replace(new, folder)


def check_folder(folder):
    """Returns nothing for a folder that a retriever may be written to.

    Arguments
    ---------
    folder : str
        New, empty, or that of a retriever.

    Raises
    ------
    MendableError
        If something else is there.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise MendableError(f"{folder} is a file: give another --out")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / PAGE).is_file():
            raise MendableError(
                f"{folder} is there and is no retriever: give another --out"
            )


def backbone_folder(name):
    """Returns where an encoder's pretrained part lies in a retriever.

    Arguments
    ---------
    name : str
        ``speech_encoder`` or ``text_encoder``.

    Returns
    -------
    str
        The folder's name.

    Example
    -------
    >>> backbone_folder("text_encoder")
    'text_backbone'
    """
    return name.removesuffix("_encoder") + "_backbone"


def retriever_page(flat_page, modules):
    """Returns the page of a retriever: its modules, without the training.

    Arguments
    ---------
    flat_page : str
        The page of a training, without references: ``modules``, and
        ``max_seconds``.
    modules : dict
        The same as objects: a text encoder says what its pooling became, and
        what can ``save`` itself is then loaded from the retriever's folder.

    Returns
    -------
    str
        A page that loads alone.
    """
    trained = YAML().load(flat_page)
    nodes = trained["modules"]
    page = CommentedMap()
    page["folder"] = "."
    page["sample_rate"] = SAMPLE_RATE
    page["embedding_size"] = nodes["speech_projection"]["out_features"]
    page["max_seconds"] = float(trained["max_seconds"])
    page["hop_seconds"] = float(trained["max_seconds"]) / 2
    page["min_seconds"] = 0.1
    for name in MODULES:
        page[name] = _spelt_out(nodes[name])
        if hasattr(modules[name], "save"):
            page[name]["source"] = _reference(
                f"<folder>/{backbone_folder(name)}"
            )
            for option, value in OPENED.items():
                if option in page[name]:
                    page[name][option] = value
    page["text_encoder"]["pooling"] = modules["text_encoder"].pooling
    page["modules"] = CommentedMap(
        {name: _reference(f"<{name}>") for name in MODULES}
    )
    stream = io.StringIO()
    YAML().dump(page, stream)
    return (
        "# A retriever of esr_lobes: open it with\n"
        "# EncoderRetriever.from_hparams(source=THIS_FOLDER)\n"
        + stream.getvalue()
    )


def _spelt_out(node):
    """Returns a ``!new:`` node that names every argument with its value.

    A retriever must stay what it is when a default changes.
    """
    target = pydoc.locate(node.tag.value.removeprefix("!new:"))
    for name, parameter in inspect.signature(target).parameters.items():
        if name not in node and parameter.default is not parameter.empty:
            default = parameter.default
            is_list = isinstance(default, tuple)
            node[name] = list(default) if is_list else default
    return node


def _reference(text):
    return TaggedScalar(text, tag="!ref")


def write_card(folder, flat_page, card, reports=None):
    """Writes the model card: what it is, what it heard, how good it is.

    Arguments
    ---------
    folder : str
        The retriever's folder.
    flat_page : str
        The page of the training.
    card : dict
        ``corpus``, ``licence`` (of the data) and ``speakers``.
    reports : dict
        A Report by test set, if there were any.
    """
    trained = YAML().load(flat_page)
    text = CARD.format(
        name=trained["name"],
        seed=trained["seed"],
        date=date.today().isoformat(),
        metrics="\n\n".join(
            f"On {name}:\n\n{report}" for name, report in reports.items()
        )
        if reports
        else "Not evaluated.",
        **{"speakers": "Not evaluated on a test split."} | card,
    )
    write_text(Path(folder) / "README.md", text)


CARD = """---
library_name: speechbrain
tags: [speech-retrieval, speaking-style, esr_lobes]
---
# A retriever of speech by speaking style ({name})

Finds clips by a description of *how* they are spoken, with
esr_lobes, a SpeechBrain plugin:

```python
from esr_lobes import EncoderRetriever

retriever = EncoderRetriever.from_hparams(source="THIS_FOLDER")
retriever.encode_files(["one.wav", "two.wav"])
for hit in retriever.search("an exhausted, flat voice", k=5):
    print(hit.score, hit.segment)
```

* Trained on: {corpus}
* Licence of the data: {licence}
* Page: `{name}`, seed {seed}, written on {date}
* {speakers}

It judges acted or synthetic styles like those it heard in training; it does
not read minds, and a score is a similarity, not a diagnosis. Do not use it to
judge people at work, at school or before the law.

## How good it is

{metrics}
"""
