"""From the name of a retriever to its folder, and from its page to modules.

Authors
 * The esr_lobes contributors
"""

import os
import re
from collections.abc import Mapping
from math import isfinite
from numbers import Integral, Real
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.errors import MendableError
from esr_lobes.pages import PageError, did_you_mean

logger = get_logger(__name__)

WEIGHTS = "weights.safetensors"
# All of a hub's repository that a retriever is made of; no code.
PARTS = [
    WEIGHTS,
    "README.md",
    "text_backbone/*.json",
    "text_backbone/*.safetensors",
    "text_backbone/*.txt",
    "text_backbone/*.model",
    "speech_backbone/*.json",
    "speech_backbone/*.safetensors",
    "speech_backbone/*.txt",
    "speech_backbone/*.model",
    "speech_backbone/config.yaml",
]


def find_folder(source, hparams_file, savedir, fetch_config):
    """Returns the folder of a source, downloaded if it is a hub id.

    Arguments
    ---------
    source : str
        A folder, or a hub id like ``owner/name``.
    hparams_file : str
        Name of the page in it.
    savedir : str
        Where a download goes; None leaves it in the hub's cache.
    fetch_config : FetchConfig
        How to download.

    Returns
    -------
    Path
        An existing folder with page and weights.

    Raises
    ------
    FileNotFoundError
        If there is no such folder and no such id, or a file is missing.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise FileNotFoundError(
            f"no retriever at {source!r}: give its folder or a hub id"
        )
    source = os.fspath(source)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
            raise FileNotFoundError(
                f"no retriever at {source}: there is no such folder, and a "
                "hub id would look like owner/name"
            )
        folder = _download(source, hparams_file, savedir, fetch_config)
    for name in (hparams_file, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: is it an exported retriever?"
            )
    return folder.resolve()


def _download(source, hparams_file, savedir, fetch_config):
    """Returns the folder with a hub's repository, only what is needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(
            source,
            revision=fetch_config.revision,
            cache_dir=fetch_config.huggingface_cache_dir,
            local_dir=savedir,
            allow_patterns=[hparams_file, *PARTS],
            token=True if fetch_config.token else None,
            local_files_only=not fetch_config.allow_network,
            force_download=fetch_config.overwrite,
        )
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and could not be had from the hub: "
            f"{error}"
        ) from error
    return Path(folder)


def read_page(path):
    """Returns the text of a page.

    Arguments
    ---------
    path : Path
        The page.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    PageError
        If it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PageError(f"{path} is not UTF-8: save it as such") from error


def with_folder(page, overrides, folder):
    """Returns overrides with the page's ``folder`` set to where it lies.

    Arguments
    ---------
    page : str
        The text of the page.
    overrides : dict or str
        What the caller changes.
    folder : Path
        Where the page lies.

    Returns
    -------
    dict
        The overrides.

    Raises
    ------
    PageError
        If page or overrides are no keys and values, or the path of the
        folder would be taken for a reference.

    Example
    -------
    >>> with_folder("'folder': .", "n: 2", Path("here"))
    {'n': 2, 'folder': 'here'}
    """
    if isinstance(overrides, str):
        # As the loader reads them: tags are kept, nothing is built.
        try:
            overrides = YAML().load(overrides)
        except (YAMLError, ValueError) as error:
            raise PageError(f"overrides are not YAML: {error}") from error
    if overrides is None:
        overrides = {}
    if not isinstance(overrides, Mapping):
        raise PageError(f"overrides are no keys and values: {overrides!r}")
    overrides = dict(overrides)
    if "folder" in _keys(page):
        if "<" in str(folder):
            raise PageError(
                f"a page takes a < in a path for a reference: rename {folder}"
            )
        overrides.setdefault("folder", str(folder))
    return overrides


def _keys(page):
    """Returns the keys at the root of a page."""
    try:
        document = YAML().compose(page)
    except (YAMLError, ValueError, RecursionError) as error:
        raise PageError(f"the page is not YAML: {error}") from error
    if not isinstance(document, MappingNode):
        raise PageError("the page is empty, or no keys and values")
    for key, _ in document.value:
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            line = key.start_mark.line + 1
            raise PageError(f"the page, line {line}: {key.value!r} is no name")
    return [key.value for key, _ in document.value]


def build(page, overrides, name, must_match=True):
    """Returns what a page makes.

    Arguments
    ---------
    page : str
        Its text. It can run code, unless it was checked.
    overrides : dict
        Values to lay over it.
    name : str
        What messages call it.
    must_match : bool
        Whether each override must name a key that the page has.

    Returns
    -------
    dict
        The objects by name.

    Raises
    ------
    PageError
        If it cannot be built, or an encoder would have weights at random;
        what was the matter is in the message.
    """
    known = _keys(page)
    for key in overrides if must_match else ():
        if key not in known and "<<" not in known:
            hint = did_you_mean(key, known)
            raise PageError(f"{name}: no key {key!r} to override; {hint}")
    try:
        hparams = load_hyperpyyaml(page, overrides, must_match)
    except MendableError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        YAMLError,
    ) as error:
        # The loader puts what it was about to do before the reason.
        reason = "; ".join(str(part) for part in error.args) or str(error)
        reason = " ".join(reason.split())
        raise PageError(f"{name} cannot be built: {reason}") from error
    _check_sources(hparams.get("modules"), name)
    return hparams


def _check_sources(modules, name):
    """Refuses an encoder whose own weights were to come from nowhere."""
    for key, module in modules.items() if hasattr(modules, "items") else ():
        if hasattr(module, "save") and getattr(module, "source", "") is None:
            raise PageError(
                f"{name}: {key} has no source, so that its weights would be "
                "random: name the folder that its save() wrote, or export "
                "the retriever again"
            )


def check_numbers(hparams, name="the page"):
    """Returns nothing for numbers that a retriever can work with.

    Arguments
    ---------
    hparams : dict
        With sample_rate, embedding_size, max_seconds, hop_seconds and
        min_seconds.
    name : str
        What messages call it.

    Raises
    ------
    PageError
        Naming the number and what it should be.

    Example
    -------
    >>> numbers = dict(sample_rate=16000, embedding_size=8, max_seconds=2.0)
    >>> check_numbers(numbers | dict(hop_seconds=3.0, min_seconds=0.1))
    Traceback (most recent call last):
    esr_lobes.pages.PageError: the page: hop_seconds is 3.0, but must be \
more than 0 and at most max_seconds
    """
    longest = hparams.get("max_seconds")
    is_longest = _is_length(longest)
    wanted = {
        "sample_rate": (
            lambda value: value == SAMPLE_RATE,
            f"{SAMPLE_RATE}, the rate that the encoders take",
        ),
        "embedding_size": (
            lambda value: (
                isinstance(value, Integral)
                and not isinstance(value, bool)
                and value > 0
            ),
            "a whole number above 0",
        ),
        "max_seconds": (_is_length, "a number above 0"),
        **{
            key: (
                lambda value: (
                    _is_length(value) and (not is_longest or value <= longest)
                ),
                "more than 0 and at most max_seconds",
            )
            for key in ("hop_seconds", "min_seconds")
        },
    }
    for key, (is_good, text) in wanted.items():
        if key not in hparams:
            raise PageError(f"{name} needs {key}: {text}")
        if not is_good(hparams[key]):
            raise PageError(
                f"{name}: {key} is {hparams[key]!r}, but must be {text}"
            )


def _is_length(value):
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and isfinite(value) and value > 0


def plain_values(hparams, needed):
    """Returns what of a stranger's page is kept: what is needed, and data.

    SpeechBrain also takes from a page how to run (``device``, ``jit``,
    ``compile`` ...): that is for the caller to say, with ``run_opts``.

    Arguments
    ---------
    hparams : dict
        What the page made.
    needed : collection of str
        Names that are kept in any case.

    Returns
    -------
    dict
        Part of it.

    Example
    -------
    >>> plain_values({"modules": {}, "jit": True, "note": "mine"}, ["modules"])
    {'modules': {}, 'note': 'mine'}
    """
    refused = {*RunOptions().as_dict(), "audio_normalizer"}
    ignored = sorted(refused & set(hparams))
    if ignored:
        logger.warning(
            "the page's %s left aside: pass run_opts to say how to run",
            ", ".join(ignored),
        )
    return {
        key: value
        for key, value in hparams.items()
        if key in needed or (key not in refused and _is_plain(value))
    }


def _is_plain(value):
    """Whether a value is data all the way down."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, Real))
