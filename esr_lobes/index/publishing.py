"""An index in a folder goes to Milvus, and what changed goes there again.

A collection's name stands for one with a longer name, which its settings
decide: models, cutting, columns, kind of index. Under the same settings only
the rows that changed travel, into the collection that is searched: until the
end, who searches may find some rows as they were and some as they are. Under
others a collection is filled beside, and the name is given to it when it is
complete, so that who searches sees the old one or the new one. Rows are named
by the ids of their segments: publishing that was stopped goes on where it was,
when it is run again.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
import math
import time
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from esr_lobes.index.local import LocalStore
from esr_lobes.index.milvus import (
    FORMAT,
    INFO,
    field_of,
    is_published,
    published_info,
)
from esr_lobes.index.milvus_address import MilvusError, read_address
from esr_lobes.index.milvus_client import Connection
from esr_lobes.index.segments import COLUMNS

KINDS = ("auto", "flat", "ivf_sq8", "hnsw")

# Up to so many rows, looking at all is fast enough and misses nothing.
FLAT_ROWS = 50_000

# Bytes of vectors in one request; a server takes 64 MB.
REQUEST = 4 << 20

# How many rows the index's background has, as in a folder.
BACKGROUND = 4096

# Distinct values that are kept for choosing from, and characters of them.
VALUES, LETTERS = 200, 4000


@dataclass
class PublishReport:
    """What publishing did.

    Arguments
    ---------
    collection : str
        The collection that now answers.
    kind : str
        Its index: FLAT, IVF_SQ8 or HNSW.
    added : int
        Rows that were not there.
    changed : int
        Rows that were there with other values.
    kept : int
        Rows that stayed as they were.
    deleted : int
        Rows that the folder has no more.
    seconds : float
        How long it took.
    """

    collection: str
    kind: str
    added: int = 0
    changed: int = 0
    kept: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def __str__(self):
        rate = (self.added + self.changed) / max(self.seconds, 1e-9)
        return (
            f"{self.added} segments added, {self.changed} changed, "
            f"{self.deleted} deleted, {self.kept} kept in "
            f"{self.seconds:.1f} s ({rate:.0f} a second); "
            f"collection {self.collection}, index {self.kind}"
        )


def publish(folder, where, kind="auto", replace=False, progress=True):
    """Makes a collection in Milvus hold what a folder holds.

    Arguments
    ---------
    folder : str or Path
        The index.
    where : str
        An address, see :mod:`esr_lobes.index.milvus_address`.
    kind : str
        ``flat`` looks at all vectors, ``ivf_sq8`` and ``hnsw`` are
        approximate; ``auto`` takes flat for up to 50,000 segments and ivf_sq8
        for more, or what the collection has.
    replace : bool
        Whether a collection of that name may go that is of another model, or
        none of ours.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    PublishReport
        What was done.

    Raises
    ------
    IndexFolderError
        If the folder is no index.
    MilvusError
        If Milvus cannot be reached, or something else stands there.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    began = time.perf_counter()
    address = read_address(where)
    with LocalStore(folder) as store:
        connection = Connection(address, create=True)
        try:
            publisher = _Publisher(store, connection, kind, progress)
            report = publisher.run(address.collection, replace)
        finally:
            connection.close()
    report.seconds = time.perf_counter() - began
    return report


class _Publisher:
    """One way of a folder to a collection."""

    def __init__(self, store, connection, kind, progress):
        self.store, self.connection = store, connection
        self.progress = progress
        self.kind = kind.upper()
        self.types = store.columns
        self.fields = {c: field_of(c, i) for i, c in enumerate(self.types)}

    def run(self, name, replace):
        """Fills the collection and gives it its name."""
        ask = self.connection.ask
        before = self.connection.resolve(name)
        is_there, info = ask("has_collection", before), None
        if is_there and not replace:
            info = self._info_of(name, before)
        self.index = self._choose_index(info)
        target = f"{name}_{self._settings()}"
        if ask("has_collection", target):
            # How it is searched follows from how it was made.
            self.index = published_info(self.connection, target)["index"]
        else:
            self._create(target)
        ask("load_collection", target)
        report = self._fill(target)
        self._describe(target, is_complete=True)
        if is_there and before == name:
            ask("drop_collection", name)
            ask("create_alias", target, name)
        elif is_there and before != target:
            ask("alter_alias", target, name)
        elif not is_there:
            ask("create_alias", target, name)
        self._drop_others(name, target)
        return report

    def _choose_index(self, info):
        """Returns the kind of index and its settings."""
        kind = self.kind
        if kind == "AUTO":
            # What was asked for once stays, unless looking at all gets slow.
            kind = "IVF_SQ8" if len(self.store) > FLAT_ROWS else "FLAT"
            there = info["index"]["kind"] if info else "FLAT"
            if there != "FLAT":
                kind = there
        return _index(kind, len(self.store))

    def _settings(self):
        """Returns eight letters that stand for all that a row depends on."""
        spaces = self.store.info["spaces"]
        settings = [
            FORMAT,
            {n: [s["dimension"], s["fingerprint"]] for n, s in spaces.items()},
            self.store.info["preprocessing"],
            self.types,
            self.index["kind"],
        ]
        text = json.dumps(settings, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def _info_of(self, name, collection):
        """Returns what is published, if it is of the same models."""
        if not is_published(self.connection, collection):
            raise MilvusError(
                f"{name} is a collection that esr has not published: take "
                "another name, or --replace it"
            )
        info = published_info(self.connection, collection)
        for space, mine in self.store.info["spaces"].items():
            there = info["spaces"].get(space)
            if there and there["fingerprint"] != mine["fingerprint"]:
                raise MilvusError(
                    f"{name} was made with another model ({there['source']}) "
                    f"than {self.store.folder} ({mine['source']}): take "
                    "another name, or --replace it"
                )
        return info

    def _create(self, collection):
        """Makes an empty collection, marked as not complete."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False
        )
        for column, field in self.fields.items():
            schema.add_field(
                field,
                **_field_type(column, self.types[column]),
                is_primary=column == "id",
                nullable=column == "channel" or column not in COLUMNS,
            )
        schema.add_field("revision", DataType.VARCHAR, max_length=16)
        schema.add_field("is_background", DataType.BOOL)
        params = MilvusClient.prepare_index_params()
        for space, dimension in self.store.spaces.items():
            field = f"v_{space}"
            schema.add_field(field, DataType.FLOAT_VECTOR, dim=dimension)
            params.add_index(
                field,
                index_type=self.index["kind"],
                metric_type="IP",
                # Twice, because Milvus Lite reads only what is nested.
                params={"params": self.index["params"]},
            )
        self.connection.ask(
            "create_collection",
            collection,
            schema=schema,
            index_params=params,
            properties={INFO: self._info(is_complete=False)},
        )

    def _info(self, is_complete):
        """Returns what the collection says of the index, as JSON."""
        info = self.store.info
        kept = ("rows", "files", "seconds", "preprocessing", "roots")
        told = ("dimension", "fingerprint", "source")
        return json.dumps(
            {
                "format": FORMAT,
                "is_complete": is_complete,
                **{key: info[key] for key in (*kept, "columns", "version")},
                "spaces": {
                    name: {key: space[key] for key in told}
                    for name, space in info["spaces"].items()
                },
                "types": self.types,
                "index": self.index,
                "values": self._values() if is_complete else {},
            }
        )

    def _values(self):
        """Returns the values of the columns that have few of them."""
        values = {}
        for column in ("channel", *self.store.info["columns"]):
            some = self.store.values(column, VALUES + 1)
            if len(some) <= VALUES and len(json.dumps(some)) <= LETTERS:
                values[column] = some
        return values

    def _describe(self, collection, is_complete):
        self.connection.ask(
            "alter_collection_properties",
            collection,
            {INFO: self._info(is_complete)},
        )

    def _fill(self, collection):
        """Writes what is new or changed and deletes what is gone."""
        report = PublishReport(collection, self.index["kind"])
        there = self._revisions(collection)
        n_there = len(there)
        bar = tqdm(
            desc="publishing",
            total=len(self.store),
            unit="segment",
            disable=not self.progress,
        )
        with bar:
            for rows in self._rows():
                todo = []
                for position, row in rows:
                    revision = there.pop(row["id"], None)
                    if revision == row["revision"]:
                        report.kept += 1
                        continue
                    report.added += revision is None
                    report.changed += revision is not None
                    todo.append((position, row))
                self._write(collection, todo)
                bar.update(len(rows))
        gone = list(there)
        for i in range(0, len(gone), 1000):
            self.connection.ask("delete", collection, ids=gone[i : i + 1000])
        report.deleted = len(gone)
        if report.kept < max(n_there, len(self.store)):
            self.connection.ask("flush", collection)
        return report

    def _revisions(self, collection):
        """Returns id to revision of the rows that are there."""
        return {
            row["id"]: row["revision"]
            for rows in self.connection.rows(
                collection, ["id", "revision"], at_a_time=16384
            )
            for row in rows
        }

    def _rows(self):
        """Yields lists of (position, row) of the folder, without vectors."""
        background = set(self.store.sample(BACKGROUND).tolist())
        width = 4 * sum(self.store.spaces.values()) + 512
        position = 0
        for lines in self.store.lines(max(1, REQUEST // width)):
            rows = []
            for line in lines:
                row = {self.fields[column]: v for column, v in line.items()}
                row["is_background"] = position in background
                row["revision"] = _revision(row)
                rows.append((position, row))
                position += 1
            yield rows

    def _write(self, collection, todo):
        """Writes rows with their vectors."""
        if not todo:
            return
        positions = np.array([position for position, _ in todo])
        vectors = {
            f"v_{space}": self.store.take(space, positions)
            for space in self.store.spaces
        }
        rows = [
            {**row, **{field: some[i] for field, some in vectors.items()}}
            for i, (_, row) in enumerate(todo)
        ]
        self.connection.ask("upsert", collection, rows)

    def _drop_others(self, name, target):
        """Drops what was published under the name with other settings."""
        for other in self.connection.ask("list_collections"):
            start, _, end = other.rpartition("_")
            is_like = start == name and len(end) == 8 and other != target
            if is_like and is_published(self.connection, other):
                self.connection.ask("drop_collection", other)


def _index(kind, rows):
    """Returns a kind of index and its settings."""
    if kind == "IVF_SQ8":
        # A server indexes half a million rows or so at a time.
        n_lists = round(4 * math.sqrt(min(max(rows, 16), 500_000)))
        params = {"nlist": n_lists}
        return {"kind": kind, "params": params, "nprobe": n_lists // 4}
    if kind == "HNSW":
        params = {"M": 16, "efConstruction": 200}
        return {"kind": kind, "params": params, "ef": 128}
    return {"kind": kind, "params": {}}


def _field_type(column, arrow_type):
    """Returns the type of a field as arguments of ``add_field``."""
    from pymilvus import DataType

    if column == "id":
        return {"datatype": DataType.VARCHAR, "max_length": 32}
    if arrow_type in ("string", "large_string", "null"):
        return {"datatype": DataType.VARCHAR, "max_length": 65535}
    if arrow_type == "bool":
        return {"datatype": DataType.BOOL}
    if arrow_type in ("double", "float"):
        return {"datatype": DataType.DOUBLE}
    if arrow_type.startswith("int"):
        return {"datatype": DataType.INT64}
    raise MilvusError(
        f"the column {column!r} holds {arrow_type}, which is not published: "
        "join it as text, a number or true and false"
    )


def _revision(row):
    """Returns sixteen letters that change with any value of a row."""
    text = json.dumps(row, ensure_ascii=False, sort_keys=True)
    data = text.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
