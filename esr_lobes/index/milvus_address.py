"""Where an index is published in Milvus.

``milvus://HOST:PORT/COLLECTION`` is a server, ``milvus+https://`` one behind
TLS, and ``milvus://PATH.db/COLLECTION`` the folder of a Milvus Lite, which
runs inside this process; its path may be relative.

Authors
 * The esr_lobes contributors
"""

import os
import re
from dataclasses import dataclass

from esr_lobes.errors import MendableError

HELP = (
    "write milvus://HOST:PORT/COLLECTION, milvus+https://HOST/COLLECTION or, "
    "for Milvus Lite, milvus://PATH.db/COLLECTION"
)

_URI = re.compile(r"milvus(\+https)?://(.+)/([^/]+)")
_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


class MilvusError(MendableError):
    """What keeps an index from being published to, or searched in, Milvus."""


@dataclass(frozen=True)
class Address:
    """Where a collection is.

    Arguments
    ---------
    text : str
        As the user wrote it.
    uri : str
        As the client wants it: an http address, or the folder of a Milvus
        Lite.
    collection : str
        Its name.
    is_lite : bool
        Whether the uri is a folder.
    """

    text: str
    uri: str
    collection: str
    is_lite: bool


def is_milvus(where):
    """Returns whether something is meant for Milvus and is no folder.

    Arguments
    ---------
    where : str or Path
        What the user gave.

    Returns
    -------
    bool
        Whether it begins like an address.

    Example
    -------
    >>> is_milvus("milvus://localhost:19530/talks"), is_milvus("talks")
    (True, False)
    """
    return str(where).startswith(("milvus:", "milvus+"))


def read_address(text):
    """Returns the parts of an address.

    Arguments
    ---------
    text : str
        As in the module's docstring.

    Returns
    -------
    Address
        Its parts; the path of a Milvus Lite is absolute.

    Raises
    ------
    MilvusError
        If it is no such address.

    Example
    -------
    >>> read_address("milvus://localhost:19530/talks").uri
    'http://localhost:19530'
    >>> read_address("milvus:///data/speech.db/talks").uri
    '/data/speech.db'
    >>> read_address("milvus+https://db.example.org/talks").uri
    'https://db.example.org'
    """
    match = _URI.fullmatch(str(text))
    if match is None:
        raise MilvusError(f"{text} is no address of a collection: {HELP}")
    tls, place, collection = match.groups()
    if not _NAME.fullmatch(collection):
        raise MilvusError(
            f"{collection!r} cannot name a collection: use letters, digits "
            "and _, and no digit first"
        )
    if place.endswith(".db") and not tls:
        path = os.path.abspath(os.path.expanduser(place))
        return Address(str(text), path, collection, True)
    if not _HOST.fullmatch(place):
        raise MilvusError(f"{place!r} is neither host nor .db folder: {HELP}")
    scheme = "https" if tls else "http"
    return Address(str(text), f"{scheme}://{place}", collection, False)
