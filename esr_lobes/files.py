"""Files that are whole or not there, whatever happens while they are made.

Authors
 * The esr_lobes contributors
"""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Gives a name beside `path` to write to, and moves it there at the end.

    After an error nothing is left of the new file and the old one stands.

    Arguments
    ---------
    path : str
        File to be made or replaced; its folder is made if needed.

    Yields
    ------
    pathlib.Path
        Where to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file that is either whole or not there.

    Arguments
    ---------
    path : str or Path
        The file; its folder is made if need be.
    text : str
        What to write, as UTF-8. Names of files that are no valid UTF-8 come
        out as they are.
    """
    with (
        replacing(path) as temporary,
        open(
            temporary,
            "w",
            newline="",
            encoding="utf-8",
            errors="surrogateescape",
        ) as file,
    ):
        file.write(text)
