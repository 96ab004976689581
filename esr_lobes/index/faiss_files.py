"""Files of FAISS that may come from a stranger.

FAISS believes what stands in a file; here the header and the size are
compared with what the index promises before it sees one.

Authors
 * The esr_lobes contributors
"""

import os
import struct

import faiss

from esr_lobes.index.state import damaged, unreadable

# What a file begins with: the kind, dimension, rows, two numbers that nobody
# reads, whether it is trained, the metric, how many numbers or lists follow.
HEADER = struct.Struct("<4siqqq?iQ")
_UNREAD = 1 << 20


def flat_header(rows, dimension):
    """Returns what the file of an ``IndexFlatIP`` begins with.

    Arguments
    ---------
    rows : int
        How many vectors it holds.
    dimension : int
        Their length.

    Returns
    -------
    bytes
        Before the vectors themselves.
    """
    return HEADER.pack(
        b"IxFI",
        dimension,
        rows,
        _UNREAD,
        _UNREAD,
        True,
        faiss.METRIC_INNER_PRODUCT,
        rows * dimension,
    )


def check_flat(path, rows, dimension):
    """Refuses a file that does not hold exactly what was promised.

    Arguments
    ---------
    path : str or Path
        Of an ``IndexFlatIP``.
    rows : int
        How many vectors it shall hold.
    dimension : int
        Their length.

    Raises
    ------
    IndexFolderError
        If its header says otherwise, or it is not as long as that says.
    """
    wanted = flat_header(rows, dimension)
    there, size = beginning(path, HEADER.size)
    if there != wanted or size != HEADER.size + 4 * rows * dimension:
        raise damaged(path, f"not {rows} vectors of {dimension} numbers")


def beginning(path, size):
    """Returns the first bytes of a file of the index, and how long it is.

    Arguments
    ---------
    path : str or Path
        The file.
    size : int
        How many.

    Returns
    -------
    first : bytes
        Fewer if there are no more.
    length : int
        Of the whole file, in bytes.

    Raises
    ------
    IndexFolderError
        If it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(size), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise unreadable(path, error) from error


def read_faiss(path, kind):
    """Opens a file of FAISS without reading it.

    Arguments
    ---------
    path : str or Path
        The file.
    kind : type
        What it must hold.

    Returns
    -------
    faiss.Index
        Mapped into memory, for reading only: adding to it would end the
        process.

    Raises
    ------
    IndexFolderError
        If it holds something else.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise damaged(path, "FAISS cannot read it") from error
    if not isinstance(index, kind):
        raise damaged(path, "another kind of FAISS index")
    return index
