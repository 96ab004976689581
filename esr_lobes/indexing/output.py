"""The folder that a build writes to: whose it is, who may write, and what its
disk says.

Authors
 * The esr_lobes contributors
"""

import errno
import json
import os
from contextlib import contextmanager

from esr_lobes.errors import MendableError
from esr_lobes.index.store import COMMIT, LOCK, UNFINISHED, write_lock
from esr_lobes.indexing.unfinished import SETTINGS

_DISK = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EIO EROFS EACCES EPERM".split()
    if hasattr(errno, name)
}


class BuildError(MendableError):
    """An index that cannot be built like this, and what to do instead."""


def check_folder(out):
    """Refuses a folder that holds other things, or that nothing can name.

    Arguments
    ---------
    out : Path
        Where an index is to be; absolute.

    Raises
    ------
    BuildError
        If it can be no index.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise BuildError(
            f"{os.fsencode(out)!r} is no name in UTF-8: give another --out"
        ) from error
    if out.is_dir() and any(out.iterdir()) and not _is_ours(out):
        raise BuildError(
            f"{out} holds other files: give the index a folder of its own, "
            "such as --out index"
        )
    unfinished = out / UNFINISHED
    if os.path.lexists(unfinished) and (
        unfinished.is_symlink() or not unfinished.is_dir()
    ):
        raise BuildError(
            f"{unfinished} is no folder, but that of an index: move it away"
        )


def _is_ours(out):
    """Whether a folder is that of an index, maybe a damaged one.

    Its files are replaced and deleted, so that a name alone is not enough.
    """
    if (out / LOCK).is_file() or (out / UNFINISHED / SETTINGS).is_file():
        return True
    try:
        info = json.loads((out / COMMIT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(info, dict) and {"format", "spaces"} <= info.keys()


@contextmanager
def locked(out):
    """Keeps other writers away; leaves no new folder if nothing comes of it.

    Arguments
    ---------
    out : Path
        Folder of the index; made if need be.

    Yields
    ------
    None
        While nobody else may write.
    """
    is_new = not out.exists()
    with write_lock(out):
        try:
            yield
        except BaseException:
            if is_new and os.listdir(out) == [LOCK]:
                (out / LOCK).unlink()
                out.rmdir()
            raise


@contextmanager
def one_line(out):
    """Says in one line that a disk is full or not to be written to.

    To be put round what writes the index, and nothing else: other files that
    cannot be read are no fault of its disk.

    Arguments
    ---------
    out : Path
        Folder of the index.

    Yields
    ------
    None
        While it is written to.

    Raises
    ------
    BuildError
        For what the disk says.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise BuildError(
            f"{out} could not be written ({error.strerror or error}). The "
            "index is as it was before, and finished files are kept: see to "
            "the disk and run the same command again"
        ) from error
