"""From a checkpoint that the paper's authors released to a retriever.

"Expressive Speech Retrieval using Natural Language Descriptions of Speaking
Style" (Kang and Roy, 2025, https://arxiv.org/abs/2508.11187). Their training
saves one ``.pt``: a dictionary with the towers ``style_prompt_encoder`` (text)
and ``speech_style_encoder``, each a backbone ``encoder.*`` and a linear
``embed_projection.*``, beside the state of the training, which is left aside.

What their code does otherwise than the backbones' own is a setting here or
said in the model card: it feeds raw waveforms to emotion2vec, which was
pretrained on normalised ones (``normalize_wav``).

Authors
 * The esr_lobes contributors
"""

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from esr_lobes.encoders.checkpoints import naming_damage
from esr_lobes.encoders.emotion2vec import Emotion2vec
from esr_lobes.encoders.emotion2vec_config import read_config
from esr_lobes.encoders.emotion2vec_files import IGNORED
from esr_lobes.encoders.huggingface import HuggingFaceSpeech
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.export import check_folder, retriever_page, write_retriever
from esr_lobes.files import write_text
from esr_lobes.heads import Projection
from esr_lobes.weights import WeightsError, misfit, open_pickle

TEXT_TOWER, SPEECH_TOWER = "style_prompt_encoder", "speech_style_encoder"
# Where the settings and the tokenizer come from, which no checkpoint holds,
# and how the paper pools.
TEXT_SOURCES = {
    "bert": ("google-bert/bert-base-uncased", "first"),
    "roberta": ("FacebookAI/roberta-base", "first"),
    "t5": ("google-t5/t5-base", "mean"),
    "flan_t5": ("google/flan-t5-base", "mean"),
}
SPEECH_SOURCES = {"e2v": None, "wavlm": "microsoft/wavlm-base-plus"}
PAIRS = tuple(
    f"{text}_{speech}" for text in TEXT_SOURCES for speech in SPEECH_SOURCES
)
MAX_SECONDS = 8.0  # the paper's training crops to that
# What older versions of transformers save, and no model reads: positions in
# order, and the decoder of a T5.
UNREAD = re.compile(
    r"encoder\.(embeddings\.(position|token_type)_ids$|decoder\.|lm_head\.)"
)
# Names of the same weights before torch had parametrizations.
WEIGHT_NORM = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


def import_checkpoint(
    path,
    pair,
    folder,
    text_source=None,
    speech_source=None,
    normalize_wav=False,
    trust_pickle=False,
):
    """Writes the retriever of a released checkpoint.

    All weights are the checkpoint's; of the sources only settings and
    tokenizer are used. Nothing is written before all has been checked.

    Arguments
    ---------
    path : str
        The ``.pt``.
    pair : str
        One of ``PAIRS``: which backbones it was trained with.
    folder : str
        Where to. An empty folder or a retriever there is replaced.
    text_source : str, optional
        Folder or hub id with the text backbone's config and tokenizer; by
        default the hub id of the pair.
    speech_source : str, optional
        For WavLM, folder or hub id with its config; by default the hub id of
        Base+. For emotion2vec, a folder with a ``config.yaml``; by default
        the sizes of the base model.
    normalize_wav : bool
        Whether each clip is brought to mean 0 and variance 1 before the
        speech backbone hears it. The paper's code does not; True is for
        checkpoints of other code.
    trust_pickle : bool
        Whether a file that holds more than plain tensors may be opened,
        which runs whatever code it holds.

    Raises
    ------
    WeightsError
        If the file, the pair or the folder is not what it should be, or a
        source is damaged.
    FileNotFoundError
        If the file is not there, or a source cannot be had.
    """
    if pair not in PAIRS:
        raise WeightsError(
            f"there is no pair {pair!r}: choose among {', '.join(PAIRS)}"
        )
    text, speech = pair.rsplit("_", 1)
    check_folder(folder)
    towers = read_towers(path, trust_pickle)
    hub_id, pooling = TEXT_SOURCES[text]
    modules = {}
    with tempfile.TemporaryDirectory() as place:
        modules["text_encoder"], modules["text_projection"] = _text_tower(
            _Fill(path, pair, TEXT_TOWER, towers),
            str(text_source or hub_id),
            pooling,
            Path(place),
        )
        build = {"e2v": _emotion2vec_tower, "wavlm": _wavlm_tower}[speech]
        modules["speech_encoder"], modules["speech_projection"] = build(
            _Fill(path, pair, SPEECH_TOWER, towers),
            speech_source or SPEECH_SOURCES[speech],
            normalize_wav,
            Path(place),
        )
    n_text = modules["text_projection"].out_features
    n_speech = modules["speech_projection"].out_features
    if n_text != n_speech:
        raise WeightsError(
            f"{path}: the towers do not meet in one space; the text tower "
            f"gives {n_text} numbers, the speech tower {n_speech}"
        )
    page = retriever_page(_page(modules, normalize_wav), modules)
    write_retriever(folder, page, modules)
    write_text(Path(folder) / "README.md", _card(path, pair, normalize_wav))


def read_towers(path, trust_pickle=False):
    """Returns the two towers' tensors of a checkpoint.

    Arguments
    ---------
    path : str
        The ``.pt``.
    trust_pickle : bool
        Whether it may run the code that it holds.

    Returns
    -------
    dict
        Tower to tensors by name.

    Raises
    ------
    WeightsError
        If it is damaged, would run code, or holds no such towers.
    FileNotFoundError
        If it is not there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    held = open_pickle(path, trust_pickle, "add --trust_pickle")
    held = held if isinstance(held, Mapping) else {}
    towers = {}
    for name in TEXT_TOWER, SPEECH_TOWER:
        tower = held.get(name)
        if not isinstance(tower, Mapping) or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor)
            for key, value in tower.items()
        ):
            keys = ", ".join(map(repr, list(held)[:5])) or "nothing by name"
            raise WeightsError(
                f"{path} is no checkpoint of the paper: it needs the tensors "
                f"of {TEXT_TOWER} and of {SPEECH_TOWER} by name, and holds "
                f"{keys}"
            )
        towers[name] = dict(tower)
    return towers


class _Fill:
    """Puts one tower's weights into a backbone and a projection, or none."""

    def __init__(self, path, pair, name, towers):
        self.where = f"{path}: {name}"
        self.pair = pair
        self.weights = towers[name]

    def drop(self, pattern):
        """Leaves out weights that nothing reads."""
        self.weights = {
            name: value
            for name, value in self.weights.items()
            if not pattern.match(name)
        }

    def rename(self, endings):
        """Gives weights the names that they have today."""
        for old, new in endings.items():
            for name in [n for n in self.weights if n.endswith(old)]:
                value = self.weights.pop(name)
                self.weights[name.removesuffix(old) + new] = value

    def __call__(self, backbone, width):
        """Returns the backbone's projection; both have their weights then."""
        weight = self.weights.get("embed_projection.weight")
        has_rows = weight is not None and weight.ndim and len(weight)
        projection = Projection(width, len(weight) if has_rows else 1)
        tower = torch.nn.ModuleDict(
            {"encoder": backbone, "embed_projection": projection}
        )
        faults = misfit(self.weights, tower.state_dict())
        if faults:
            raise WeightsError(
                f"{self.where} is not that of the pair {self.pair}: {faults}. "
                "Is the pair right, and the source of its settings?"
            )
        tower.load_state_dict(self.weights)
        return projection


def _text_tower(fill, source, pooling, place):
    """Returns text encoder and projection."""
    from transformers import (
        AutoConfig,
        AutoModelForTextEncoding,
        AutoTokenizer,
    )

    with naming_damage("text", source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False
        )
        model = AutoModelForTextEncoding.from_config(config)
    fill.drop(UNREAD)
    if not any(name.startswith("encoder.pooler.") for name in fill.weights):
        model.pooler = None  # the paper reads the first token before it
    projection = fill(model, model.config.hidden_size)
    folder = place / "text"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TextEncoder(folder, pooling, local_files_only=True), projection


def _wavlm_tower(fill, source, normalize_wav, place):
    """Returns speech encoder and projection."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    source = str(source)
    with naming_damage("speech", source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        extractor = AutoFeatureExtractor.from_pretrained(
            source, trust_remote_code=False
        )
        model = AutoModel.from_config(config)
    extractor.do_normalize = normalize_wav
    fill.rename(WEIGHT_NORM)
    projection = fill(model, config.hidden_size)
    folder = place / "speech"
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    encoder = HuggingFaceSpeech(folder, is_frozen=True, local_files_only=True)
    return encoder, projection


def _emotion2vec_tower(fill, source, normalize_wav, _):
    """Returns speech encoder and projection."""
    config = None
    if source:
        path = Path(source) / "config.yaml"
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: of emotion2vec, give a folder with its config"
                ".yaml, or nothing for the sizes of the base model"
            )
        config = read_config(path)
    encoder = Emotion2vec(config, is_frozen=True, normalize_wav=normalize_wav)
    fill.drop(re.compile(rf"encoder\.({IGNORED.pattern})"))
    return encoder, fill(encoder, encoder.width)


def _page(modules, normalize_wav):
    """Returns the page of a training that would have made these modules."""
    lines = [f"max_seconds: {MAX_SECONDS}", "modules:"]
    for name, module in modules.items():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        lines.append(f"    {name}: !new:{kind}")
        if isinstance(module, Projection):
            lines.append(f"        in_features: {module.in_features}")
            lines.append(f"        out_features: {module.out_features}")
        else:
            lines.append(f"        source: {name}")
        if isinstance(module, Emotion2vec):
            lines.append(f"        normalize_wav: {normalize_wav}")
    return "\n".join(lines)


def _card(path, pair, normalize_wav):
    """Returns the model card."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return CARD.format(
        pair=pair,
        name=Path(path).name,
        digest=digest.hexdigest(),
        waveforms="normalised" if normalize_wav else "raw",
    )


CARD = """---
library_name: speechbrain
tags: [speech-retrieval, speaking-style, esr_lobes]
---
# A retriever of speech by speaking style ({pair}), imported

Finds clips by a description of *how* they are spoken, with
esr_lobes, a SpeechBrain plugin:

```python
from esr_lobes import EncoderRetriever

retriever = EncoderRetriever.from_hparams(source="THIS_FOLDER")
retriever.encode_files(["one.wav", "two.wav"])
for hit in retriever.search("an exhausted, flat voice", k=5):
    print(hit.score, hit.segment)
```

* Weights: those of `{name}` (SHA-256 `{digest}`), a checkpoint in the layout of
  "Expressive Speech Retrieval using Natural Language Descriptions of Speaking
  Style" (Kang and Roy, 2025, https://arxiv.org/abs/2508.11187). They were
  trained by its authors, not by this project; ask them for licence and data.
* The speech backbone hears {waveforms} waveforms.
* Two things differ from the code that trained it. Padding is masked
  everywhere, so that a clip or a sentence gives the same in any batch; and the
  mean is over all frames, where that code leaves the last one out for a
  quarter of all lengths.

It judges styles like those it heard in training; it does not read minds, and
a score is a similarity, not a diagnosis. Do not use it to judge people at
work, at school or before the law.

## How good it is

Not evaluated: `esr evaluate THIS_FOLDER --manifest CSV --out REPORT` does so.
"""
