"""Shards of a build that is under way.

A shard is written whole as soon as its unit is done, so that a build that was
stopped, however hard, goes on from there.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import logging
import re
from functools import partial
from pathlib import Path

import pyarrow as pa

from esr_lobes.files import replacing, write_text
from esr_lobes.indexing.merging import Piece, rows_of
from esr_lobes.indexing.worker import Shard

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
SUFFIX = ".shard"
# What a build was writing when it was killed.
_TEMPORARY = re.compile(r"\.([0-9a-f]{32}\.shard|settings\.json)\.\d+\.tmp")


class Unfinished:
    """The shards that were made with some settings.

    Arguments
    ---------
    folder : str or Path
        Where they are; made if need be. Shards of other settings are thrown
        away.
    settings : dict
        Model and preprocessing; JSON can hold it.
    """

    def __init__(self, folder, settings):
        self.folder = Path(folder)
        path = self.folder / SETTINGS
        text = json.dumps(settings, indent=1, sort_keys=True)
        self.files_of = {}
        if not path.is_file() or path.read_bytes() != text.encode():
            if any(self.folder.glob(f"*{SUFFIX}")):
                logger.warning(
                    "%s: thrown away, because it was begun with another "
                    "model or other settings",
                    self.folder,
                )
            self.remove()
            write_text(path, text)

    def add(self, unit, shard):
        """Writes a shard; it is there whole or not at all.

        Arguments
        ---------
        unit : Unit
            What it is of.
        shard : Shard
            What it gave.
        """
        name = hashlib.blake2b(repr(unit.files).encode(), digest_size=16)
        path = self.folder / f"{name.hexdigest()}{SUFFIX}"
        with replacing(path) as temporary:
            temporary.write_bytes(shard.to_bytes())

    def collect(self, wanted):
        """Finds what is there of the files that are to be done.

        Arguments
        ---------
        wanted : dict
            Path to digest.

        Returns
        -------
        pieces : list of Piece
            Segments, of each file those of one shard.
        done : set of str
            The files that these segments are of.
        skips : dict
            Path to Skip, of files that gave nothing.
        """
        pieces, skips, done = [], {}, set()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                shard = Shard.from_bytes(path.read_bytes())
            except (pa.ArrowException, ValueError, KeyError) as error:
                # It was renamed when it was whole: the machine went down.
                logger.warning("%s: made again (%s)", path, error)
                path.unlink()
                continue
            files = shard.table.group_by(["path", "digest"]).aggregate([])
            self.files_of[path] = {
                *files["path"].to_pylist(),
                *(skip.path for skip, _ in shard.skips),
            }
            new = {
                file["path"]
                for file in files.to_pylist()
                if wanted.get(file["path"]) == file["digest"]
            } - done
            done |= new
            rows = rows_of(shard.table, new)
            take = partial(_take, path)
            pieces.append(Piece(shard.table.take(rows), rows, take))
            for skip, digest in shard.skips:
                if wanted.get(skip.path) == digest:
                    skips[skip.path] = skip
        for path in done:
            skips.pop(path, None)
        return pieces, done, skips

    def remove(self, is_elsewhere=None):
        """Deletes what was written here, and nothing else.

        Arguments
        ---------
        is_elsewhere : callable, optional
            Whether a path was not looked for this time. A shard of such files
            stays, for the build that asks for them again.
        """
        for path in self.folder.glob(f"*{SUFFIX}"):
            files = self.files_of.get(path, ())
            if not (is_elsewhere and any(map(is_elsewhere, files))):
                path.unlink()
        for path in self.folder.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.glob(f"*{SUFFIX}")):
            (self.folder / SETTINGS).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _take(path, space, rows):
    """Returns some vectors of a shard's file."""
    return Shard.from_bytes(path.read_bytes()).vectors[space][rows]
