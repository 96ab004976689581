"""What an index is built with: models, precision and how files are cut.

All segments of an index are made with the same settings. What a later build
leaves out is taken from the index; what it gives must be the same.

Authors
 * The esr_lobes contributors
"""

import os
import re
from collections.abc import Mapping

from esr_lobes.devices import check_device
from esr_lobes.errors import MendableError
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.engines import open_retrievers

SPACE = "style"
"""The space of a retriever that stands alone."""


class SettingsError(MendableError):
    """Settings that contradict the index or each other."""


def load_retrievers(given, info, device="cpu", precision=None):
    """Returns the retrievers of a build, opened where they are only named.

    Arguments
    ---------
    given : EncoderRetriever or str or dict or None
        A retriever or where it is, or of each space such; None for those
        that the index was built with.
    info : dict or None
        Of the index before.
    device : str
        Where those compute that are opened here.
    precision : str, optional
        Theirs; as the index has it, or fp32, if not given.

    Returns
    -------
    retrievers : dict
        Space to retriever.
    precision : str
        What they all compute with.

    Raises
    ------
    SettingsError
        If nothing says which, a space cannot have that name, or they compute
        with several precisions.
    """
    if given is None:
        given = _sources_of(info)
    if not isinstance(given, Mapping):
        given = {SPACE: given}
    if precision is None and info is not None:
        precision = info["preprocessing"].get("precision")
    precision = precision or "fp32"
    retrievers = {}
    for space, retriever in given.items():
        if not re.fullmatch("[a-z][a-z0-9_]*", space):
            raise SettingsError(
                f"a space is called by small letters, such as {SPACE} or "
                f"content, not {space!r}"
            )
        if isinstance(retriever, str | os.PathLike):
            device = check_device(device, precision)
            source = {space: os.fspath(retriever)}
            retriever = open_retrievers(source, device, precision)[space]
        retrievers[space] = retriever
    for space, retriever in retrievers.items():
        own = getattr(retriever, "precision", "fp32")
        if own != precision:
            raise SettingsError(
                f"the retriever of {space} computes with {own}, not "
                f"{precision}: give precision={own!r}, or open it with "
                f"run_opts={{'precision': {precision!r}}}"
            )
    return retrievers, precision


def _sources_of(info):
    """Returns where the retrievers of an index are."""
    if info is None:
        raise SettingsError(
            "there is no index yet, so say with which retriever to make one: "
            "--source RETRIEVER, a folder or a hub id"
        )
    sources = {s: space["source"] for s, space in info["spaces"].items()}
    for space, source in sources.items():
        if source is None:
            raise SettingsError(
                f"the index does not know where its retriever of {space} is: "
                "say so with --source"
            )
        if os.path.isabs(source) and not os.path.isdir(source):
            raise SettingsError(
                f"{source}, with which the index was made, is no longer "
                "there: say with --source where the same retriever is now"
            )
    return sources


def source_of(retriever):
    """Returns where a retriever may be opened again.

    Arguments
    ---------
    retriever : EncoderRetriever
        Its ``source`` counts.

    Returns
    -------
    str or None
        An absolute folder or a hub id; None if it was not opened from one.
    """
    source = getattr(retriever, "source", None)
    if source is not None and os.path.isdir(source):
        return os.path.abspath(source)
    return source


def choose_cutting(given, info, retrievers):
    """Returns how files are cut.

    Arguments
    ---------
    given : Cutting or dict or None
        All of it, or only what differs from the usual.
    info : dict or None
        Of the index before; what it was made with is the usual then.
    retrievers : dict
        Space to retriever; else the lengths of their pages are, the smallest
        of several.

    Returns
    -------
    Cutting
        Checked.
    """
    if isinstance(given, Cutting):
        return given
    given = dict(given or {})
    if info is not None:
        usual = dict(info["preprocessing"])
        usual.pop("precision", None)
        odd = usual.keys() - Cutting.__dataclass_fields__.keys()
        if odd:
            raise SettingsError(
                f"the index was cut with {', '.join(sorted(odd))}, which this "
                "version does not know: use the version that made it"
            )
    else:
        pages = [retriever.hparams for retriever in retrievers.values()]
        page = min(pages, key=lambda page: page.max_seconds)
        most = given.get("max_seconds", page.max_seconds)
        usual = {
            "max_seconds": page.max_seconds,
            "hop_seconds": min(page.hop_seconds, most / 2),
            "min_seconds": min(Cutting.min_seconds, most),
            "shortest": max(page.min_seconds for page in pages),
        }
    return Cutting(**{**usual, **given})


def check_same(info, fingerprints, preprocessing):
    """Refuses settings that are not those of the index.

    Arguments
    ---------
    info : dict
        Of the index.
    fingerprints : dict
        Space to that of its model.
    preprocessing : dict
        How files are cut, and the precision.

    Raises
    ------
    SettingsError
        With what differs and what can be done.
    """
    spaces, before = info["spaces"], info["preprocessing"]
    wrong = []
    if spaces.keys() != fingerprints.keys():
        wrong.append(
            f"it holds {' and '.join(spaces)}, not {' and '.join(fingerprints)}"
        )
    else:
        wrong += [
            f"its {space} was made with another model than this one "
            f"({spaces[space]['source']})"
            for space, fingerprint in fingerprints.items()
            if spaces[space]["fingerprint"] != fingerprint
        ]
    wrong += [
        f"it was made with {name} {before.get(name)}, not {value}"
        for name, value in preprocessing.items()
        if before.get(name, value) != value
    ]
    if wrong:
        raise SettingsError(
            f"this index is another one: {'; '.join(wrong)}. Leave that out "
            "to go on with the index as it is, give another folder, or add "
            "--rebuild to make all of it anew"
        )
