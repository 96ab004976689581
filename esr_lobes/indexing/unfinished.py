"""Shards of a build that is under way.

A shard is written whole as soon as its unit is done, so that a build that was
stopped, however hard, goes on from there.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import logging
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa

from esr_lobes.files import replacing, write_text
from esr_lobes.indexing.merging import Piece, rows_of
from esr_lobes.indexing.worker import Shard

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
SUFFIX = ".shard"


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
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
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

    def remove(self):
        """Deletes all of it."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


def _take(path, space, rows):
    """Returns some vectors of a shard's file."""
    return Shard.from_bytes(path.read_bytes()).vectors[space][rows]
