"""How Milvus Lite answers beside the folder that was published to it.

    python benchmarks/publishing.py [--rows 10000]

The ways take turns query by query, so that another process slows all of them
down. Publishing is told in rows a second of processor time, client and server
together, for both run in this process.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from searching import DIMENSION, MadeUp, write_index

from esr_lobes.index.local import LocalStore
from esr_lobes.index.milvus import MilvusStore
from esr_lobes.index.publishing import publish
from esr_lobes.reports import markdown_table

KINDS = ("flat", "ivf_sq8", "hnsw")
K, N_QUERIES = 10, 40


def megabytes(folder):
    """Returns the size of all files in a folder."""
    sizes = (p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    return sum(sizes) / 1e6


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10**4)
    rows = parser.parse_args().rows
    made_up = MadeUp(rows)
    with tempfile.TemporaryDirectory() as root:
        folder = f"{root}/index"
        os.mkdir(folder)
        write_index(folder, made_up)
        stores, rates = {"folder": LocalStore(folder)}, {}
        sizes = {"folder": megabytes(folder)}
        for kind in KINDS:
            where = f"milvus://{root}/{kind}.db/talks"
            start = time.process_time()
            publish(folder, where, kind, progress=False)
            rates[kind] = rows / (time.process_time() - start)
            stores[kind] = MilvusStore(where)
            sizes[kind] = megabytes(f"{root}/{kind}.db")
        spent = {way: [] for way in stores}
        found = {way: [] for way in stores}
        for query in made_up.queries(N_QUERIES + 1):
            for way, store in stores.items():
                start = time.perf_counter()
                keys, scores = store.nearest("style", query[None], K)
                store.segments(keys[0])
                spent[way].append(1000 * (time.perf_counter() - start))
                found[way].append(set(scores[0].tolist()))
        for store in stores.values():
            store.close()
    lines = []
    for way, times in spent.items():
        # The first call of each loads what the others find loaded.
        p50, p95 = np.percentile(times[1:], [50, 95])
        same = [
            len(a & b) / K
            for a, b in zip(found[way], found["folder"], strict=True)
        ]
        rate = f"{rates[way]:,.0f}" if way in rates else ""
        lines.append(
            [way if way == "folder" else f"Milvus Lite, {way}", rate]
            + [f"{p50:.1f}", f"{p95:.1f}", f"{np.mean(same):.3f}"]
            + [f"{sizes[way]:.0f}"]
        )
    print(
        f"{rows:,} segments, {DIMENSION} numbers a vector, {os.cpu_count()} "
        "cores\n"
    )
    header = ["way", "published, rows/s of processor time", "p50, ms"]
    header += ["p95, ms", f"recall@{K}", "disk, MB"]
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
