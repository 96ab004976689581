"""An answer as one file to take away.

Authors
 * The esr_lobes contributors
"""

import zipfile

from esr_lobes.files import write_text
from esr_lobes.highlights import (
    cut_clips,
    hits_csv,
    hits_json,
    write_labels,
    write_playlist,
)

KINDS = {
    "csv": "CSV",
    "json": "JSON",
    "labels": "Audacity labels",
    "m3u": "Playlist",
    "zip": "Clips (zip)",
}
"""What there is to choose from, and its name on the page."""


def export(hits, kind, folder):
    """Writes an answer as one file.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    kind : str
        One of `KINDS`.
    folder : Path
        Where to, an empty one.

    Returns
    -------
    Path
        The file. Labels of several recordings are a zip, as clips are;
        recordings that are gone are named in it.
    """
    if kind in ("csv", "json"):
        path = folder / f"hits.{kind}"
        write_text(path, hits_csv(hits) if kind == "csv" else hits_json(hits))
        return path
    if kind == "m3u":
        path = folder / "hits.m3u8"
        write_playlist(hits, path)
        return path
    if kind == "labels":
        paths = write_labels(hits, folder / "labels")
        return paths[0] if len(paths) == 1 else _zipped(folder / "labels")
    if kind == "zip":
        _, skips = cut_clips(hits, folder / "clips")
        lines = [f"{skip.path}: {skip.reason}\n" for skip in skips]
        if lines:
            write_text(folder / "clips" / "left_out.txt", "".join(lines))
        return _zipped(folder / "clips")
    raise ValueError(f"one of {', '.join(KINDS)}, not {kind!r}")


def _zipped(folder):
    """Returns a zip file, beside a folder, of what is in it."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for inside in sorted(folder.iterdir()):
            file.write(inside, f"{folder.name}/{inside.name}")
    return path
