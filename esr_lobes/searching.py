"""Opening an index together with the models it was built with.

Authors
 * The esr_lobes contributors
"""

import os

from esr_lobes.errors import MendableError
from esr_lobes.index.local import LocalStore
from esr_lobes.index.milvus_address import is_milvus
from esr_lobes.index.search import SearchIndex


def open_index(where, sources=None, device="cpu", trust_source=False):
    """Returns an index that can be searched by words, clips and conditions.

    Arguments
    ---------
    where : str or Path
        Folder of an index, or the address of one published to Milvus
        (``milvus://...``).
    sources : str, Path, object or dict, optional
        Where the model lies if it is no longer where it was when the index
        was built: a retriever's folder or hub id, or the retriever itself;
        for several spaces a dict of space to these.
    device : str
        Such as cpu, cuda or cuda:1.
    trust_source : bool
        Whether a retriever's page may run code. Only for authors whose
        programs you would run.

    Returns
    -------
    SearchIndex
        Ready to search.

    Raises
    ------
    MendableError
        If the index, or the model of one of its spaces, cannot be found.
    ModelMismatchError
        If a model is another than the index was built with.

    Example
    -------
    ::

        with open_index("speeches") as index:
            for hit in index.search("an exhausted, flat voice", k=3):
                print(hit.score, hit.segment.path, hit.segment.start)
    """
    store = _open_store(where)
    try:
        given = _by_space(sources, list(store.spaces))
        encoders = {}
        for space, what in store.info["spaces"].items():
            source = given.get(space, what.get("source"))
            encoders[space] = _load(space, source, device, trust_source)
        return SearchIndex(store, encoders)
    except BaseException:
        store.close()  # a Milvus Lite would stay locked
        raise


def _open_store(where):
    """Returns the store of a folder, or of an address."""
    if is_milvus(where):
        from esr_lobes.index.milvus import MilvusStore

        return MilvusStore(where)
    return LocalStore(where)


def _by_space(sources, spaces):
    """Returns sources by space; one alone is that of the only space."""
    if sources is None:
        return {}
    if not isinstance(sources, dict):
        if len(spaces) > 1:
            names = " ".join(f"{space}=..." for space in spaces)
            raise MendableError(
                f"this index has several spaces: say which is meant, {names}"
            )
        return {spaces[0]: sources}
    unknown = set(sources) - set(spaces)
    if unknown:
        raise MendableError(
            f"this index has no space {min(unknown)!r}, but: "
            f"{', '.join(spaces)}"
        )
    return sources


def _load(space, source, device, trust_source):
    """Returns the model of a space."""
    from esr_lobes.inference import EncoderRetriever

    if source is None:
        raise MendableError(
            f"the index does not say where the model of its {space} vectors "
            "lies: give its folder or hub id as the source (--source)"
        )
    if not isinstance(source, (str, os.PathLike)):
        return source
    try:
        return EncoderRetriever.from_hparams(
            source=os.fspath(source),
            run_opts={"device": device},
            trust_source=trust_source,
        )
    except FileNotFoundError as error:
        raise MendableError(
            f"the model of the {space} vectors is not at {source} any more "
            f"({error}): give its place as the source (--source)"
        ) from error
