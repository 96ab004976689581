"""Checkpoints of Paraformer: found, read as data, and checked whole.

Authors
 * The esr_lobes contributors
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from esr_lobes.clsr.frontend import read_cmvn
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.paraformer_config import SPECIAL, ParaformerConfig
from esr_lobes.errors import MendableError
from esr_lobes.files import replacing, write_text
from esr_lobes.weights import (
    DAMAGE,
    WeightsError,
    first_line,
    load_weights,
    misfit,
    open_pickle,
)

SIZES, WEIGHTS, TOKENS = "paraformer.json", "model.safetensors", "tokens.json"
CONFIG, CMVN, PICKLE = "config.yaml", "am.mvn", "model.pt"
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What has a row a token, and must go with another vocabulary.
EMBED = "decoder.embed.0.weight"
ROWS = EMBED, "decoder.output_layer.weight", "decoder.output_layer.bias"
# Of the variants with finer time stamps and with hot words.
IGNORED = re.compile(
    r"predictor\.(upsample_cnn|blstm|cif_output2)\.|bias_encoder\."
    r"|seaco_decoder\.|hotword_output_layer\."
)
NEW_STD = 0.02


def open_paraformer(folder, tokens=None, **changes):
    """Returns the Paraformer of a folder.

    Arguments
    ---------
    folder : str
        As :meth:`esr_lobes.clsr.paraformer.Paraformer.save` writes it, or as
        FunASR releases it: ``config.yaml``, ``am.mvn``, ``tokens.json`` and
        ``model.pt``, of which nothing but tensors is read.
    tokens : list of str, optional
        Another vocabulary. What has a row a token is then made anew: copied
        for tokens that both vocabularies have, drawn at random for others.
        Special ids follow their tokens; where the other vocabulary has no
        end of sentence, there is none.
    **changes
        Fields of :class:`ParaformerConfig` that shall differ, such as
        ``share_embedding=True``.

    Returns
    -------
    Paraformer
        In evaluation mode.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    MendableError
        If there is no such field.
    WeightsError
        If a file is damaged, or the weights are not exactly of the sizes
        that are stated or asked for.
    """
    folder = Path(folder)
    old_tokens = read_tokens(folder / TOKENS)
    if (folder / SIZES).is_file():
        config = _read_sizes(folder / SIZES)
        path, cmvn = folder / WEIGHTS, None
        weights = load_weights(path)
    else:
        path = _there(folder / PICKLE)
        config = ParaformerConfig.from_yaml(
            _there(folder / CONFIG), len(old_tokens)
        )
        cmvn = read_cmvn(_there(folder / CMVN))
        weights = _read_pickle(path)
    if len(old_tokens) != config.vocab:
        raise WeightsError(
            f"{folder / TOKENS} has {len(old_tokens)} tokens, but "
            f"{folder / SIZES} says {config.vocab}: take both from one model"
        )
    if cmvn is not None:
        weights |= {"frontend.shift": cmvn[0], "frontend.scale": cmvn[1]}
    _check(weights, config, path)
    if tokens is not None and list(tokens) != old_tokens:
        config = _renumbered(config, old_tokens, list(tokens))
        weights = _with_rows(weights, old_tokens, tokens)
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(changes.keys() - known):
        raise MendableError(
            f"Paraformer knows no {', '.join(unknown)}; what may differ is "
            f"one of {', '.join(sorted(known))}"
        )
    config = dataclasses.replace(config, **changes)
    if config.share_embedding:
        weights.pop(EMBED, None)
    else:
        weights.setdefault(EMBED, weights[ROWS[1]].clone())
    _check(weights, config, path)
    model = Paraformer.from_config(
        config, tokens=list(tokens or old_tokens), device="meta"
    )
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _check(weights, config, path):
    """Raises a WeightsError unless weights are exactly of these sizes."""
    expected = Paraformer.from_config(config, device="meta").state_dict()
    if faults := misfit(weights, expected):
        raise WeightsError(
            f"{path} does not fill a Paraformer of the sizes that are stated "
            f"beside it and asked for: {faults}"
        )


def _renumbered(config, old_tokens, tokens):
    """Returns sizes whose special ids are those of other tokens.

    Where these have no end of sentence, there is none.
    """
    ids = {}
    for name in SPECIAL:
        old = getattr(config, name)
        token = None if old is None else old_tokens[old]
        ids[name] = tokens.index(token) if token in tokens else None
    if ids["eos_id"] is None:
        ids["predictor_bias"] = 0
    return dataclasses.replace(config, vocab=len(tokens), masked_ids=(), **ids)


def _with_rows(weights, old_tokens, tokens):
    """Returns weights whose rows are those of other tokens."""
    place = {token: i for i, token in enumerate(old_tokens)}
    pairs = [
        (i, place[token]) for i, token in enumerate(tokens) if token in place
    ]
    new, old = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    weights = dict(weights)
    for name in ROWS:
        if name in weights:
            rows = torch.zeros(len(tokens), *weights[name].shape[1:])
            if rows.ndim == 2:
                rows.normal_(std=NEW_STD)
            rows[new] = weights[name][old]
            weights[name] = rows
    return weights


def _there(path):
    """Returns a path that is a file."""
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"no {path.name} in {path.parent}: a Paraformer of FunASR has "
        f"{CONFIG}, {CMVN}, {TOKENS} and {PICKLE}; one of esr_lobes has "
        f"{SIZES}, {TOKENS} and {WEIGHTS}"
    )


def _read_pickle(path):
    """Returns the tensors of a checkpoint of FunASR by name, float32."""
    held = open_pickle(path)
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping):
        raise WeightsError(f"{path} holds no state_dict")
    weights = {}
    for key, value in held.items():
        name = str(key).removeprefix("module.")
        if IGNORED.match(name):
            continue
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise WeightsError(f"{path} holds a {kind} as {key}, no tensor")
        weights[name] = value.float().contiguous()
    return weights


def read_tokens(path):
    """Returns the tokens that a ``tokens.json`` lists.

    Arguments
    ---------
    path : Path
        A list of texts; an id is a place in it.

    Returns
    -------
    list of str
        The tokens.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    WeightsError
        If it is no such list.
    """
    try:
        tokens = json.loads(_there(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise WeightsError(
            f"{path} cannot be read ({first_line(error)}). Download it again."
        ) from error
    is_list = isinstance(tokens, list) and len(tokens) > 0
    if not is_list or not all(isinstance(token, str) for token in tokens):
        raise WeightsError(f"{path} is no list of tokens. Download it again.")
    return tokens


def _read_sizes(path):
    """Returns the sizes that :func:`write_folder` wrote."""
    try:
        return ParaformerConfig(**json.loads(path.read_text(encoding="utf-8")))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise WeightsError(
            f"{path} does not state sizes of a Paraformer "
            f"({first_line(error)[:300]}). Save it again."
        ) from error


def write_folder(folder, model):
    """Writes what :func:`open_paraformer` opens.

    Arguments
    ---------
    folder : str
        Where to; made if it is not there.
    model : Paraformer
        Made by :meth:`Paraformer.from_config`, with tokens.

    Raises
    ------
    MendableError
        If its sizes or its tokens are not known.
    """
    if model.config is None or model.tokens is None:
        raise MendableError(
            "this Paraformer does not know its sizes or its tokens and cannot "
            "be saved: build it with Paraformer.from_config(config, "
            "tokens=[...])"
        )
    folder = Path(folder)
    sizes = dataclasses.asdict(model.config)
    write_text(folder / SIZES, json.dumps(sizes, indent=1) + "\n")
    write_text(folder / TOKENS, json.dumps(model.tokens) + "\n")
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
