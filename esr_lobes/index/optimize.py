"""Makes an approximate index where it pays, and measures that it does.

Authors
 * The esr_lobes contributors
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from esr_lobes.errors import MendableError
from esr_lobes.index.approximate import (
    OVER_FETCH,
    ROWS_A_LIST,
    Approximate,
)
from esr_lobes.index.store import (
    read_info,
    replace_info,
    whole_file,
    write_lock,
)
from esr_lobes.index.vectors import FlatVectors, as_rows

# Below, an exact search takes a few ms; measured on two cores.
FEWEST_ROWS = 20_000

# Queries that recall is measured with, and those that are timed one by one.
N_QUERIES = 256
N_TIMED = 30

# Length of the noise that is added to a vector to make a query of it: the
# cosine with the vector itself becomes 0.89.
NOISE = 0.5


@dataclass(frozen=True)
class Step:
    """What looking into `nprobe` lists gave: recall, and ms of a query."""

    nprobe: int
    recall: float
    ms: float


@dataclass(frozen=True)
class SpaceReport:
    """What was measured for one space.

    Arguments
    ---------
    space : str
        Its name.
    rows : int
        How many vectors it has.
    is_kept : bool
        Whether the index has an approximate index of it now.
    why : str
        If not, why not.
    kind : str
        Of the index, in FAISS's words.
    k, target : int, float
        The recall at this k that was asked for.
    queries : str
        "given", or "own": vectors of the index with noise.
    steps : tuple of Step
        What was tried; the last one counts.
    own_recall : float
        Recall at k of the last step for queries of the kind "own".
    exact_ms : float
        Median time of one exact search.
    build_seconds : float
        What making it took.
    megabytes : float
        Size of its file.
    """

    space: str
    rows: int
    is_kept: bool
    why: str = ""
    kind: str = ""
    k: int = 10
    target: float = 0.95
    queries: str = ""
    steps: tuple = ()
    own_recall: float = math.nan
    exact_ms: float = math.nan
    build_seconds: float = math.nan
    megabytes: float = math.nan

    def __str__(self):
        lines = [f"{self.space}: {self.rows} segments"]
        if self.kind:
            lines[0] += (
                f", {self.kind} ({self.megabytes:.1f} MB, made in "
                f"{self.build_seconds:.0f} s)"
            )
            kind = {
                "given": "the queries given",
                "own": "vectors of the index with noise",
            }[self.queries]
            lines.append(f"  measured with {kind}:")
            lines.append(
                f"  exact        recall 1.000  {self.exact_ms:8.2f} ms"
            )
            lines += [
                f"  nprobe {step.nprobe:<5} recall {step.recall:.3f}  "
                f"{step.ms:8.2f} ms"
                for step in self.steps
            ]
            if self.queries == "given":
                own = f"{self.own_recall:.3f}"
                lines.append(f"  (vectors of the index with noise: {own})")
        if self.is_kept:
            best = self.steps[-1]
            lines.append(
                f"  searched with nprobe {best.nprobe} from now on: recall@"
                f"{self.k} {best.recall:.3f}, "
                f"{self.exact_ms / best.ms:.1f} times as fast as exact search"
            )
        else:
            lines.append(f"  searched exactly: {self.why}")
        return "\n".join(lines)


def optimize(
    folder, queries=None, target=0.95, k=10, force=False, progress=True
):
    """Gives every space of an index an approximate index, if that pays.

    Rows are sorted into about ``4 * sqrt(rows)`` lists by k-means; a search
    looks into the fewest lists, of 1, 2, 4, ..., that reach the target. Where
    that is not faster than looking at all, the space is searched exactly. A
    later commit has other rows and no approximate index: optimize again.

    Arguments
    ---------
    folder : str or Path
        Of the index.
    queries : dict, optional
        Space to vectors of shape [queries, dimension] such as users will
        ask. Recall depends on them: descriptions lie farther from any
        segment than segments do from each other. Where there are none,
        vectors of the index with noise are taken.
    target : float
        Recall at k that is wanted, above 0 and at most 1.
    k : int
        How long the answers are that it is measured on.
    force : bool
        Also below `FEWEST_ROWS` segments, and if it is not faster.
    progress : bool
        Show a bar.

    Returns
    -------
    list of SpaceReport
        One a space.

    Raises
    ------
    MendableError
        If the target or the queries do not fit.
    IndexFolderError
        If the folder is no index.
    IndexBusyError
        If somebody is writing it.
    """
    if not 0 < target <= 1:
        raise MendableError(f"recall must be above 0 and up to 1, not {target}")
    queries = queries or {}
    read_info(folder)  # first, because a lock makes a folder
    with write_lock(folder):
        info = read_info(folder)
        unknown = set(queries) - set(info["spaces"])
        if unknown:
            raise MendableError(
                f"the index has no space {min(unknown)!r}, but: "
                f"{', '.join(info['spaces'])}"
            )
        reports, spaces = [], {}
        for name, space in info["spaces"].items():
            wish = _Wish(target, k, force, progress)
            measured = _Space(Path(folder), info, name, wish)
            report = measured.optimize(queries.get(name))
            reports.append(report)
            fast = measured.note(report) if report.is_kept else None
            spaces[name] = {**space, "approximate": fast}
            if fast is None:
                measured.path.unlink(missing_ok=True)
        if spaces != info["spaces"]:
            replace_info(folder, {**info, "spaces": spaces})
    return reports


def drop(folder):
    """Takes the approximate indexes away; all is searched exactly again.

    Arguments
    ---------
    folder : str or Path
        Of the index.

    Returns
    -------
    list of str
        Spaces that had one.
    """
    read_info(folder)
    with write_lock(folder):
        info = read_info(folder)
        spaces = info["spaces"].items()
        had = [name for name, space in spaces if space["approximate"]]
        if had:
            spaces = {n: {**s, "approximate": None} for n, s in spaces}
            replace_info(folder, {**info, "spaces": spaces})
    return had


@dataclass(frozen=True)
class _Wish:
    """What was asked for; see `optimize`."""

    target: float
    k: int
    force: bool
    progress: bool


class _Space:
    """One space while it is optimised."""

    def __init__(self, folder, info, name, wish):
        self.name, self.wish = name, wish
        space = info["spaces"][name]
        self.flat = FlatVectors(
            folder / space["vectors"], info["rows"], space["dimension"]
        )
        self.file = f"{name}.{info['generation'] + 1:06d}.ivf.faiss"
        self.path = folder / self.file
        self.k = min(wish.k, len(self.flat))

    def optimize(self, queries):
        """Returns the report; the file is there if one was made."""
        rows, wish = len(self.flat), self.wish
        about = {"space": self.name, "rows": rows}
        about |= {"k": self.k, "target": wish.target}
        if rows == 0:
            return SpaceReport(**about, is_kept=False, why="it is empty")
        own = own_queries(self.flat)
        is_given = queries is not None and len(queries) > 0
        asked = (
            _some(as_rows(queries, self.flat.dimension)) if is_given else own
        )
        about["exact_ms"] = exact_ms = _milliseconds(self.flat, asked, self.k)
        if rows < FEWEST_ROWS and not wish.force:
            why = (
                f"that takes {exact_ms:.1f} ms, and below {FEWEST_ROWS} "
                "segments an approximate index gains nothing worth its errors"
            )
            return SpaceReport(**about, is_kept=False, why=why)
        seconds = time.perf_counter()
        n_lists = max(1, min(round(4 * math.sqrt(rows)), rows // ROWS_A_LIST))
        with whole_file(self.path) as temporary:
            Approximate.write(temporary, self.flat, n_lists, wish.progress)
        about["build_seconds"] = time.perf_counter() - seconds
        about["megabytes"] = self.path.stat().st_size / 1e6
        about["kind"] = f"IVF{n_lists},SQ8"
        about["queries"] = "given" if is_given else "own"
        steps, fast = self._steps(asked, exact_ms, n_lists)
        about["steps"] = tuple(steps)
        about["own_recall"] = recall(fast, own, self.k)
        why = self._objection(steps[-1], exact_ms)
        return SpaceReport(**about, is_kept=not why, why=why)

    def _steps(self, queries, exact_ms, n_lists):
        """Looks into more lists until it is good enough, or too slow."""
        steps, nprobe = [], 1
        # Fewer hold no candidates enough, and a search takes more lists.
        while nprobe < 2 * OVER_FETCH * self.k * n_lists / len(self.flat):
            nprobe *= 2
        truth = self.flat.nearest(queries, self.k)[1]
        while True:
            fast = Approximate(self.path, self.flat, nprobe)
            found = recall(fast, queries, self.k, truth)
            ms = _milliseconds(fast, queries, self.k)
            steps.append(Step(nprobe, found, ms))
            is_slow = ms >= exact_ms and not self.wish.force
            if found >= self.wish.target or is_slow or 2 * nprobe >= n_lists:
                return steps, fast
            nprobe *= 2

    def _objection(self, step, exact_ms):
        """Says why the approximate index is not worth having, if so."""
        found = f"recall@{self.k} {step.recall:.3f} with nprobe {step.nprobe}"
        if step.recall < self.wish.target:
            return f"{found} is the most it gave below the time of exact search"
        if step.ms >= exact_ms and not self.wish.force:
            return f"{found} takes {step.ms:.2f} ms, which is not faster"
        return ""

    def note(self, report):
        """Returns what index.json says of it."""
        best = asdict(report.steps[-1])
        keys = "kind", "k", "queries", "own_recall", "exact_ms"
        about = {key: getattr(report, key) for key in keys}
        return {"file": self.file, **best, **about}


def own_queries(flat, count=N_QUERIES, seed=0):
    """Returns vectors of an index with noise, as queries.

    Arguments
    ---------
    flat : FlatVectors
        The vectors.
    count : int
        At most so many.
    seed : int
        Of the noise.

    Returns
    -------
    array
        Float32 of shape [at most count, dimension], of unit length.
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(flat), min(count, len(flat)), replace=False)
    noise = rng.standard_normal((len(rows), flat.dimension))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = flat.take(rows) + NOISE * noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries.astype(np.float32)


def recall(fast, queries, k, truth=None):
    """Returns how much of the exact answers an approximate index finds.

    A row with the score of the exact answer's last one counts as found,
    because equal scores may stand in any order.

    Arguments
    ---------
    fast : Approximate
        What is judged.
    queries : array
        Of shape [queries, dimension].
    k : int
        Length of the answers.
    truth : array, optional
        Exact scores of shape [queries, k], if they are known.

    Returns
    -------
    float
        From 0 to 1.
    """
    if truth is None:
        truth = fast.flat.nearest(queries, k)[1]
    scores = fast.nearest(queries, k)[1]
    return float((scores >= truth[:, -1:]).mean())


def _some(queries):
    """Returns some of the queries, evenly spaced."""
    count = min(N_QUERIES, len(queries))
    return queries[np.arange(count) * len(queries) // count]


def _milliseconds(vectors, queries, k):
    """Returns the median time of one search."""
    times = []
    vectors.nearest(queries[:1], k)  # the first one fetches from the disk
    for query in queries[:N_TIMED]:
        start = time.perf_counter()
        vectors.nearest(query[None], k)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
