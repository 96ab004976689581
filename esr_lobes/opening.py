"""From the name of a retriever to a folder, and from its weights to modules.

Authors
 * The esr_lobes contributors
"""

import os
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from esr_lobes.safety import WeightsError

WEIGHTS = "weights.safetensors"
# All of a hub's repository that a retriever is made of; no code.
PARTS = [
    WEIGHTS,
    "README.md",
    "text_backbone/*.json",
    "text_backbone/*.safetensors",
    "text_backbone/*.txt",
    "text_backbone/*.model",
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
    ValueError
        If they are no YAML.
    """
    if isinstance(overrides, str):
        # As the loader reads them: tags are kept, nothing is built.
        try:
            overrides = YAML().load(overrides)
        except YAMLError as error:
            raise ValueError(f"overrides are not YAML: {error}") from error
    overrides = dict(overrides or {})
    if re.search(r"^folder\s*:", page, re.MULTILINE):
        overrides.setdefault("folder", str(folder))
    return overrides


def fill(modules, weights, path):
    """Loads weights into modules, all or nothing.

    The text encoder has its own from its backbone's folder, unless the
    weights name it.

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
    expected = {
        f"{name}.{key}": value
        for name, module in modules.items()
        if name != "text_encoder" or name in named
        for key, value in module.state_dict().items()
    }
    faults = [
        f"{len(names)} {fault} ({', '.join(sorted(names)[:5])}...)"
        for fault, names in {
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
        }.items()
        if names
    ]
    if faults:
        raise WeightsError(
            f"{path} and its page do not belong together: "
            f"{'; '.join(faults)}. Export the retriever again."
        )
    for name, module in modules.items():
        if name != "text_encoder" or name in named:
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in weights.items()
                if key.startswith(f"{name}.")
            }
            module.load_state_dict(own)
