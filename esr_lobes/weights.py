"""Tensors from files that may be damaged, foreign or written by strangers.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import os
import pickle
import re

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from esr_lobes.errors import MendableError

# What the libraries raise on files that are not what they should be: each
# format has its own, and none of them names the file and what to do.
DAMAGE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class WeightsError(MendableError):
    """Weights that are no plain tensors, not whole, or not of this page."""


def first_line(error):
    """Returns the kind of an error and the first line of what it says."""
    reason = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {reason}"


def load_weights(path):
    """Returns the tensors of a file by name, on the CPU, and runs no code.

    Arguments
    ---------
    path : str
        A ``.safetensors`` file, or plain tensors as written by
        ``torch.save``. That pickles are read without their code is asked
        for outright, so that no variable of the environment can undo it.

    Returns
    -------
    dict
        Name to torch.Tensor.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    WeightsError
        If it is damaged or holds anything but tensors.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file of weights at {path}")
    try:
        if path.endswith(".safetensors"):
            weights = load_file(path, device="cpu")
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except TimeoutError:  # the caller's, if there is one
        raise
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than plain tensors, and was "
            f"not loaded ({first_line(error)}). Export or "
            "download it again."
        ) from error
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in weights.items()
    ):
        raise WeightsError(
            f"{path} is not a mapping from names to tensors: save the "
            "state_dict of the modules, nothing else"
        )
    return weights


def open_pickle(path, trust_pickle=False, advice=""):
    """Returns what ``torch.save`` wrote; only trust lets it run code.

    Arguments
    ---------
    path : str
        The file.
    trust_pickle : bool
        Whether a file that holds more than tensors may be opened, which
        runs whatever code it holds.
    advice : str
        What a message adds on how to say so.

    Returns
    -------
    object
        Anything; of a file that is not trusted, tensors in plain containers.

    Raises
    ------
    WeightsError
        If it is damaged, or would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except TimeoutError:  # the caller's, if there is one
        raise
    except DAMAGE as error:
        if not (trust_pickle and isinstance(error, pickle.UnpicklingError)):
            kind = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it holds {kind[1]}" if kind else first_line(error)
            raise WeightsError(
                f"{path} is damaged, or holds Python objects beside plain "
                f"tensors, and was not loaded ({reason}). Download it again; "
                "only if you trust its author like that of a program you "
                f"run, {advice or 'add trust_pickle=True'}."
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (*DAMAGE, ImportError) as error:
        raise WeightsError(
            f"{path} could not be loaded, trusted as it is "
            f"({first_line(error)}). It may need the package that wrote it."
        ) from error


def misfit(weights, expected):
    """Returns in words why weights do not fill modules exactly.

    Arguments
    ---------
    weights : dict
        Tensors by name.
    expected : dict
        Tensors of the names and shapes wanted.

    Returns
    -------
    str
        What is missing, unexpected, of another shape or not finite; empty
        if they fit.

    Example
    -------
    >>> misfit({"bias": torch.ones(2)}, {"bias": torch.zeros(3)})
    '1 of another shape (bias [2] for [3])'
    """
    faults = {
        "missing": expected.keys() - weights.keys(),
        "unexpected": weights.keys() - expected.keys(),
        "of another shape": {
            f"{name} {list(weights[name].shape)} for {list(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        },
        "not finite": {
            name
            for name, value in weights.items()
            if not value.isfinite().all()
        },
    }
    return "; ".join(
        f"{len(names)} {fault} ({', '.join(sorted(names)[:5])}"
        f"{', ...' if len(names) > 5 else ''})"
        for fault, names in faults.items()
        if names
    )


def fill(modules, weights, path):
    """Loads weights into modules, all or nothing.

    An encoder that can ``save`` itself has its own from its backbone's
    folder, unless the weights name it.

    Arguments
    ---------
    modules : dict
        Modules by name.
    weights : dict
        Tensors by ``module.parameter``.
    path : Path
        Where they are from, for the message.

    Raises
    ------
    WeightsError
        If one is missing, unexpected, of another shape or not finite.
    """
    named = {name.partition(".")[0] for name in weights}
    modules = {
        name: module
        for name, module in modules.items()
        if name in named or not hasattr(module, "save")
    }
    expected = {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    faults = misfit(weights, expected)
    if faults:
        raise WeightsError(
            f"{path} and its page do not belong together: "
            f"{faults}. Export the retriever again."
        )
    for name, module in modules.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}.")
        }
        module.load_state_dict(own)


def fingerprint(modules, numbers):
    """Returns what tells one model's embeddings from another's.

    Arguments
    ---------
    modules : torch.nn.Module
        Parameters and buffers count, by name, shape, type and value.
    numbers : dict
        What else changes an embedding; JSON can hold it.

    Returns
    -------
    str
        Thirty-two hexadecimal digits.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1)
    >>> before = fingerprint(layer, {})
    >>> torch.nn.init.constant_(layer.bias, 7.0)[0].item()
    7.0
    >>> fingerprint(layer, {}) == before
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(numbers, sort_keys=True).encode())
    for name, value in sorted(modules.state_dict().items()):
        digest.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
        value = value.detach().cpu().contiguous()
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
