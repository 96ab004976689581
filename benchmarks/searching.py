"""How fast an index answers, exactly and approximately.

    python benchmarks/searching.py [--sizes 10000 100000 1000000]

Each index holds made-up vectors in clusters, unit length, 512 numbers each,
and is written to disk and opened as a user's. Beside it stand what one would
write otherwise: a dot product in NumPy, and ``semantic_search`` of
sentence-transformers. Queries lie near the vectors, as a description lies
near the clips it is trained to find.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from esr_lobes.reports import markdown_table

DIMENSION, N_CLUSTERS, SPREAD = 512, 2000, 0.8
BATCH, K, BLOCK = 64, 10, 100_000


def unit(rows):
    """Returns rows of unit length, float32."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class MadeUp:
    """Vectors of an index of any size, and queries near them.

    Arguments
    ---------
    n_rows : int
        How many vectors.
    seed : int
        Of all that is drawn.
    """

    def __init__(self, n_rows, seed=0):
        self.n_rows, self.seed = n_rows, seed
        rng = np.random.default_rng(seed)
        self.centres = rng.standard_normal((N_CLUSTERS, DIMENSION), np.float32)

    def near(self, rng, count):
        """Returns points around the clusters, of shape [count, dimension]."""
        centres = self.centres[rng.integers(N_CLUSTERS, size=count)]
        noise = rng.standard_normal((count, DIMENSION), np.float32)
        return unit(centres + SPREAD * noise)

    def blocks(self):
        """Yields the vectors, some thousand at a time."""
        rng = np.random.default_rng(self.seed + 1)
        for i in range(0, self.n_rows, BLOCK):
            yield self.near(rng, min(BLOCK, self.n_rows - i))

    def queries(self, count, seed=2):
        """Returns queries of shape [count, dimension]."""
        return self.near(np.random.default_rng(self.seed + seed), count)


def write_index(folder, made_up):
    """Writes an index of ten-segment recordings."""
    import pyarrow as pa

    from esr_lobes.index.segments import SCHEMA
    from esr_lobes.index.store import commit

    n = made_up.n_rows
    rows = np.arange(n)
    paths = np.char.add(np.char.zfill((rows // 10).astype(str), 8), ".wav")
    start = (rows % 10) * 4.0
    table = pa.table(
        {
            "id": np.char.zfill(rows.astype(str), 32),
            "path": paths,
            "start": start,
            "stop": start + 4,
            "channel": pa.nulls(n, pa.int16()),
            "duration": np.full(n, 4.0),
            "digest": paths,
        },
        schema=SCHEMA,
    )
    space = {"dimension": DIMENSION, "fingerprint": "made up", "source": None}
    info = {
        "spaces": {"style": space},
        "preprocessing": {},
        "roots": [],
    }
    commit(folder, info, table, {"style": made_up.blocks()}, [])


def timed(search, queries, least=0.5, most=200):
    """Returns p50 and p95 of calls, in milliseconds."""
    search(queries[0])
    spent, begin = [], time.perf_counter()
    for query in queries[:most]:
        start = time.perf_counter()
        search(query)
        spent.append(1000 * (time.perf_counter() - start))
        if time.perf_counter() - begin > least and len(spent) >= 20:
            break
    return np.percentile(spent, [50, 95])


def memory():
    """Returns what this process holds: its own, and mapped files, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return [
        int(values[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile")
    ]


def measure(folder, n_rows, way):
    """Prints the cells of one line; runs in a process of its own."""
    made_up = MadeUp(n_rows)
    queries = made_up.queries(200)
    batches = queries[: 3 * BATCH].reshape(3, BATCH, DIMENSION)
    before = sum(memory())
    begin = time.perf_counter()
    if way in ("exact", "approximate"):
        from esr_lobes.index.local import LocalStore

        store = LocalStore(folder)
        opened = time.perf_counter() - begin

        def search(query):
            return store.nearest(
                "style", np.atleast_2d(query), K, exact=way == "exact"
            )
    else:
        vectors = np.concatenate(list(made_up.blocks()))
        opened = None
        search = {"numpy": numpy_search, "semantic_search": semantic_search}[
            way
        ](vectors)
    one = timed(search, queries)
    many = timed(search, batches, least=0.0) / BATCH
    own, mapped = memory()
    cells = ["" if opened is None else f"{opened:.2f}"]
    cells += [*(f"{x:.2f}" for x in (*one, *many))]
    cells += [f"{own + mapped - before:.0f}", f"{mapped:.0f}"]
    print("|".join(cells))


def numpy_search(vectors):
    """Returns a search by a dot product."""

    def search(query):
        scores = np.atleast_2d(query) @ vectors.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    return search


def semantic_search(vectors):
    """Returns the search that comes with sentence-transformers."""
    import torch
    from sentence_transformers.util import semantic_search

    corpus = torch.from_numpy(vectors)

    def search(query):
        query = torch.from_numpy(np.atleast_2d(query))
        return semantic_search(query, corpus, top_k=K)

    return search


def line_of(folder, n_rows, way):
    """Returns the cells of one line, measured in a fresh process."""
    shown = subprocess.run(
        [sys.executable, __file__, "--measure", folder, str(n_rows), way],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return shown.strip().splitlines()[-1].split("|")


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6]
    )
    parser.add_argument("--folder", help="where the indexes go for a while")
    parser.add_argument(
        "--measure", nargs=3, help=argparse.SUPPRESS, metavar="X"
    )
    options = parser.parse_args()
    if options.measure:
        folder, n_rows, way = options.measure
        return measure(folder, int(n_rows), way)
    from esr_lobes.index.optimize import optimize

    lines = []
    for n_rows in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            made_up = MadeUp(n_rows)
            start = time.perf_counter()
            write_index(folder, made_up)
            written = time.perf_counter() - start
            ways = {way: "1" for way in ("numpy", "semantic_search", "exact")}
            start = time.perf_counter()
            queries = made_up.queries(200, seed=3)
            (report,) = optimize(
                folder, {"style": queries}, force=True, progress=False
            )
            built = time.perf_counter() - start
            if report.is_kept:
                ways["approximate"] = f"{report.steps[-1].recall:.3f}"
            exact = None
            for way, recall in ways.items():
                cells = line_of(folder, n_rows, way)
                p50 = float(cells[1])
                exact = p50 if way == "exact" else exact
                ratio = f"{exact / p50:.1f}" if exact else ""
                made = {"exact": written, "approximate": built}.get(way)
                made = f"{made:.1f}" if made else ""
                lines.append([f"{n_rows:,}", way, recall, made, *cells, ratio])
    print(f"{DIMENSION} numbers a vector, {os.cpu_count()} cores\n")
    header = ["segments", "way", f"recall@{K}", "made, s", "opened, s"]
    header += ["p50, ms", "p95, ms", f"p50 of {BATCH}, ms a query"]
    header += [f"p95 of {BATCH}", "memory, MB", "of it mapped", "ratio"]
    print(markdown_table(header, lines))
    print("\nratio: exact p50 over this p50, single queries.")


if __name__ == "__main__":
    main()
