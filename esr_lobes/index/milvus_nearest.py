"""The rows of a collection that score highest.

Milvus chooses candidates, in single precision or among compressed vectors.
Here they are scored once more from their full vectors, in double precision
like those of a folder, and equal scores are ranked in the same order.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.index.vectors import NARROW

# Equal scores are ranked in the order of the folder's table.
ORDER = ("path", "channel", "start", "stop")

# Milvus answers with no more at once; more are read as a stream.
MOST = 16384

# How many candidates are fetched beyond those asked for: their scores in
# single precision may be out of order by a little.
SPARE = 16

# Bytes of vectors in one answer.
ANSWER = 16 << 20


class Nearest:
    """Finds the best rows of a collection.

    Arguments
    ---------
    connection : Connection
        To the server.
    collection : str
        Its name.
    rows : int
        How many it has.
    index : dict
        Its ``kind``, and ``nprobe`` or ``ef``.
    """

    def __init__(self, connection, collection, rows, index):
        self.connection, self.collection = connection, collection
        self.rows, self.index = rows, index

    def best(self, field, queries, count, condition="", exact=False):
        """Returns the best rows of each query.

        Arguments
        ---------
        field : str
            Of the vectors.
        queries : array
            Float32 of shape [batch, dimension].
        count : int
            How many rows of each.
        condition : str
            Which rows count, in Milvus' language; all if empty.
        exact : bool
            Whether to look at all of them.

        Returns
        -------
        list of list of (str, float)
            Id and score, best first, for each query.
        """
        is_flat = self.index["kind"] == "FLAT"
        reach = count + SPARE + (0 if is_flat else count)
        is_all = not is_flat and (exact or self._is_narrow(condition))
        if is_all or reach > MOST:
            ranked = self._stream(field, queries, count, condition)
        else:
            ranked = self._search(field, queries, count, reach, condition)
        return [[(key, score) for score, _, key in rows] for rows in ranked]

    def _is_narrow(self, condition):
        """Whether so few rows are left that all are compared.

        An approximate index under a narrow filter finds hardly any of them.
        """
        if not condition:
            return False
        most = min(int(NARROW * self.rows), MOST - 1)
        rows = self.connection.ask(
            "query",
            self.collection,
            filter=condition,
            output_fields=["id"],
            limit=most + 1,
        )
        return len(rows) <= most

    def _search(self, field, queries, count, reach, condition):
        """Returns the best of the candidates that Milvus gives."""
        best = []
        at_a_time = max(1, ANSWER // (4 * queries.shape[1] * reach))
        for i in range(0, len(queries), at_a_time):
            batch = queries[i : i + at_a_time]
            found = self.connection.ask(
                "search",
                self.collection,
                data=list(batch),
                anns_field=field,
                limit=reach,
                filter=condition,
                output_fields=[field, *ORDER],
                search_params=self._search_params(reach),
            )
            for query, hits in zip(batch, found, strict=True):
                rows = [{"id": hit["id"], **hit["entity"]} for hit in hits]
                ranked = _ranked(query, rows, field)
                wider = min(4 * reach, MOST, self.rows)
                # A tie may go on behind the last candidate.
                if (
                    len(rows) == reach < wider
                    and ranked[count - 1][0] - ranked[-1][0] < 1e-6
                ):
                    best += self._search(
                        field, query[None], count, wider, condition
                    )
                else:
                    best.append(ranked[:count])
        return best

    def _search_params(self, reach):
        params = {}
        if self.index["kind"] == "IVF_SQ8":
            params = {"nprobe": self.index["nprobe"]}
        elif self.index["kind"] == "HNSW":
            params = {"ef": max(self.index["ef"], 2 * reach)}
        return {"metric_type": "IP", "params": params}

    def _stream(self, field, queries, count, condition):
        """Returns the best of all rows that fit, as they pass by."""
        best = [[] for _ in queries]
        for rows in self.connection.rows(
            self.collection,
            ["id", field, *ORDER],
            condition,
            vectors_at_a_time(queries.shape[1]),
        ):
            for i, query in enumerate(queries):
                ranked = best[i] + _ranked(query, rows, field)
                best[i] = sorted(ranked, key=_by_score)[:count]
        return best


def vectors_at_a_time(dimension):
    """Returns how many vectors one answer may bring.

    Arguments
    ---------
    dimension : int
        Of a vector.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(4096, ANSWER // (4 * dimension)))


def place(row):
    """Returns what sorts rows like the folder's table.

    Arguments
    ---------
    row : dict
        With the fields of `ORDER`.

    Returns
    -------
    tuple
        A mix of channels comes before the first channel.

    Example
    -------
    >>> place({"path": "a.wav", "channel": None, "start": 0.0, "stop": 1.5})
    ('a.wav', -1, 0.0, 1.5)
    """
    channel = -1 if row["channel"] is None else row["channel"]
    return row["path"], channel, row["start"], row["stop"]


def _ranked(query, rows, field):
    """Returns (score, place, id) of rows, best first, equal ones in order."""
    if not rows:
        return []
    vectors = np.array([row[field] for row in rows], np.float64)
    scores = (vectors @ query.astype(np.float64)).astype(np.float32)
    ranked = [
        (score, place(row), row["id"])
        for score, row in zip(scores, rows, strict=True)
    ]
    return sorted(ranked, key=_by_score)


def _by_score(ranked):
    score, its_place, _ = ranked
    return -score, its_place
