"""Pretrained checkpoints of transformers, whole or refused.

Authors
 * The esr_lobes contributors
"""

import contextlib
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from esr_lobes.weights import DAMAGE, WeightsError, first_line

# What is downloaded is data: code that comes with a checkpoint is not run,
# and weights that are pickles are read as plain tensors.
SAFE = {"trust_remote_code": False, "weights_only": True}


def broken(what, source, reason):
    """Returns the error for a checkpoint that is not whole.

    Arguments
    ---------
    what : str
        ``text`` or ``speech``.
    source : str
        Its folder or hub id.
    reason : str
        What is the matter.

    Returns
    -------
    WeightsError
        To be raised.
    """
    files = {"text": "all files of its tokenizer"}.get(
        what, "preprocessor_config.json"
    )
    return WeightsError(
        f"the {what} backbone {source} is damaged or not complete ({reason}). "
        f"Export or download it again: config, weights and {files}, as "
        "save_pretrained of transformers writes them."
    )


@contextlib.contextmanager
def naming_damage(what, source):
    """Turns what transformers raises into one error that says what to do.

    Arguments
    ---------
    what : str
        ``text`` or ``speech``.
    source : str
        The folder or hub id.

    Yields
    ------
    None

    Raises
    ------
    FileNotFoundError
        If it is no folder, and a hub does not give it.
    WeightsError
        If its files are damaged or missing.
    """
    try:
        yield
    except (TimeoutError, WeightsError):  # the caller's, or says it already
        raise
    except (*DAMAGE, StrictDataclassError) as error:
        if isinstance(error, OSError) and not Path(source).is_dir():
            raise FileNotFoundError(
                f"the {what} backbone {source} is no folder here, and "
                f"could not be had from the hub: {first_line(error)}"
            ) from error
        raise broken(what, source, first_line(error)) from error


@contextlib.contextmanager
def _no_bar_for(source):
    """Lets a folder load without a bar: it takes no time to speak of."""
    from transformers.utils import logging

    is_shown = logging.is_progress_bar_enabled()
    if Path(source).is_dir():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_shown:
            logging.enable_progress_bar()


def load_whole(
    auto_class, what, source, unused=(), dtype=torch.float32, **options
):
    """Returns a model that has all its weights from its checkpoint.

    transformers draws missing weights at random; such a model answers, and
    means nothing.

    Arguments
    ---------
    auto_class : type
        Such as ``transformers.AutoModel``.
    what : str
        ``text`` or ``speech``, for messages.
    source : str
        A folder or a hub id.
    unused : tuple of str
        Beginnings of the names of weights that are not used and may be
        missing.
    dtype : torch.dtype
        Of the weights.
    **options : dict
        For ``from_pretrained``.

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    FileNotFoundError
        If a hub id cannot be had.
    WeightsError
        If a weight is missing, of another shape or not finite, or the files
        are damaged.
    """
    with naming_damage(what, source), _no_bar_for(source):
        model, report = auto_class.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            **SAFE | options,
        )
    missing = [
        str(name)
        for name in (*report["missing_keys"], *report["mismatched_keys"])
        if not str(name).startswith(tuple(unused))
    ]
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise broken(
            what, source, f"{len(missing)} weights are missing: {names}..."
        )
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise broken(what, source, "some weights are not finite")
    return model
