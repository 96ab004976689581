"""Checkpoints of emotion2vec: found, read as data, and checked whole.

Authors
 * The esr_lobes contributors
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from esr_lobes.encoders.emotion2vec_config import config_text
from esr_lobes.files import replacing, write_text
from esr_lobes.weights import (
    DAMAGE,
    WeightsError,
    first_line,
    load_weights,
    open_pickle,
)

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
AUDIO = "modality_encoders.AUDIO"
# What says, beside a download, which of its files are meant.
INDEX = "configuration.json"
PATTERNS = ["*.yaml", "*.json", "*.safetensors", "*.pt"]
PICKLED = (".pt", ".pth")
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "d2v_model.", "w2v_encoder.w2v_model.")
# Left from pretraining, and the classifier of the emotion2vec+ models.
IGNORED = re.compile(
    rf"{re.escape(AUDIO)}\.decoder\.|proj\.(weight|bias)$|.*(recon_proj|target"
    r"|ema)"
)


def find_folder(source, local_files_only=False):
    """Returns the folder of a checkpoint, fetched if it is a hub id.

    Arguments
    ---------
    source : str
        A folder or a hub id.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileNotFoundError
        If it is no folder, and a hub does not give it.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(source),
                allow_patterns=PATTERNS,
                local_files_only=local_files_only,
            )
        )
    except TimeoutError:  # the caller's, if there is one
        raise
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"emotion2vec: {source} is no folder, and could not be fetched "
            f"from the hub ({first_line(error)}). Check the name and the "
            "network, or download it elsewhere and give its folder."
        ) from error


def find_files(folder):
    """Returns the paths of a checkpoint's sizes and of its weights.

    Arguments
    ---------
    folder : Path
        Holds, in this order of preference: ``model.safetensors``, what its
        ``configuration.json`` names, ``model.pt``, ``emotion2vec_base.pt``,
        or one other ``.pt``.

    Returns
    -------
    config : Path
        A ``config.yaml``, which may not be there.
    weights : Path
        The weights.

    Raises
    ------
    WeightsError
        If there are no weights, or more than one file may be meant.
    """
    named = {}
    index = folder / INDEX
    if index.is_file():
        try:
            said = json.loads(index.read_text(encoding="utf-8"))
            named = dict(said.get("file_path_metas") or {})
        except DAMAGE as error:
            raise WeightsError(
                f"{index} cannot be read ({first_line(error)})"
            ) from error

    def path(name):
        name = str(name)
        # Only what lies in the folder, wherever its links point to.
        if name and not Path(name).is_absolute() and ".." not in name:
            return folder / name
        raise WeightsError(f"{index} names {name!r}, outside of its folder")

    config = path(named.get("config", CONFIG))
    usual = [WEIGHTS, named.get("init_param", ""), "model.pt"]
    for name in (*usual, "emotion2vec_base.pt"):
        if name and path(name).is_file():
            return config, path(name)
    others = sorted(folder.glob("*.pt"))
    if len(others) == 1:
        return config, others[0]
    found = ", ".join(other.name for other in others) or "none"
    raise WeightsError(
        f"{folder} needs {WEIGHTS}, or one .pt file of emotion2vec; of these "
        f"it has: {found}"
    )


def read_weights(path, trust_pickle=False):
    """Returns the tensors of a checkpoint by their plain names.

    What wraps them and what is left from pretraining is taken away. Nothing
    runs code, unless that is asked for.

    Arguments
    ---------
    path : Path
        A ``.safetensors`` file, or a ``.pt`` or ``.pth`` as written by
        ``torch.save``.
    trust_pickle : bool
        Whether a file that holds more than tensors may be opened, which
        runs whatever code it holds.

    Returns
    -------
    dict
        Name to torch.Tensor, float32.

    Raises
    ------
    WeightsError
        If it is damaged or of another kind, or would run code.
    """
    if path.suffix == ".safetensors":
        held = load_weights(path)
    elif path.suffix not in PICKLED:
        raise WeightsError(
            f"{path} is no file of weights: its name must end in "
            f".safetensors, {' or '.join(PICKLED)}"
        )
    else:
        held = open_pickle(
            path,
            trust_pickle,
            "open it once with trust_pickle=True (files of fairseq hold their "
            "settings as objects) and keep what .save(folder) writes",
        )
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping):
        raise WeightsError(f"{path} holds no state_dict")
    weights = {}
    for key, value in held.items():
        name = str(key)
        while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        if IGNORED.match(name):
            continue
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise WeightsError(f"{path} holds a {kind} as {key}, no tensor")
        if name in weights:
            raise WeightsError(f"{path} holds {name} twice, once as {key}")
        if name == f"{AUDIO}.alibi_scale":
            value = value.reshape(1, 1, -1, 1, 1)  # older files: four axes
        weights[name] = value.float().contiguous()
    return weights


def write_folder(folder, config, weights):
    """Writes sizes and weights, to be a ``source``.

    Arguments
    ---------
    folder : str
        Where to; made if it is not there.
    config : Emotion2vecConfig
        The sizes, written in the words of FunASR.
    weights : dict
        Tensors by name.
    """
    write_text(Path(folder) / CONFIG, config_text(config))
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in weights.items()
    }
    with replacing(Path(folder) / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
