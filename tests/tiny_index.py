"""Small indexes on disk, for tests.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pyarrow as pa

from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.index.store import commit, write_lock

MOODS = "sad", "calm", None


def unit_rows(n_rows, dimension=8, seed=0):
    """Returns random unit vectors, float32 of shape [rows, dimension]."""
    rows = np.random.default_rng(seed).standard_normal((n_rows, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def clustered_rows(n_rows, dimension=32, n_clusters=50, spread=0.5, seed=0):
    """Returns unit vectors around some centres, as styles are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_clusters, dimension))
    rows = centres[rng.integers(n_clusters, size=n_rows)]
    rows = rows + spread * rng.standard_normal((n_rows, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def segment_table(n_rows, digest="d"):
    """Returns segments of one second, three a file, with a mood each."""
    paths = [f"/corpus/{i // 3:05d}.wav" for i in range(n_rows)]
    starts = [float(i % 3) for i in range(n_rows)]
    ids = [
        segment_id(path, start, start + 1, None, digest)
        for path, start in zip(paths, starts, strict=True)
    ]
    table = pa.table(
        {
            "id": ids,
            "path": paths,
            "start": starts,
            "stop": [start + 1 for start in starts],
            "channel": pa.nulls(n_rows, pa.int16()),
            "duration": [1.0] * n_rows,
            "digest": [digest] * n_rows,
        },
        schema=SCHEMA,
    )
    moods = [MOODS[i % 3] for i in range(n_rows)]
    return table.append_column("mood", pa.array(moods, pa.string()))


def commit_rows(folder, vectors, skips=(), fingerprint="f", source=None):
    """Commits an index with one space, "style"; returns its info."""
    info = {
        "spaces": {
            "style": {
                "dimension": vectors.shape[1],
                "fingerprint": fingerprint,
                "source": source,
            }
        },
        "preprocessing": {"kind": "voice"},
        "roots": ["/corpus"],
    }
    table = segment_table(len(vectors))
    with write_lock(folder):
        return commit(folder, info, table, {"style": vectors}, list(skips))
