"""Who works through the units of a build: threads here, actors elsewhere.

An engine takes units and yields ``(unit, shard)`` as they are done, in any
order. All engines run the same worker, which computes a unit with one thread
of torch, so that all give the same bits. This one uses threads; that of a
cluster is :mod:`esr_lobes.indexing.ray_engine`.

Authors
 * The esr_lobes contributors
"""

import os
import queue
import threading
from dataclasses import dataclass, field

from esr_lobes.errors import MendableError
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.worker import Worker


class ModelMismatchError(MendableError):
    """Another model than the one that the vectors are to come from."""


def open_retrievers(sources, device="cpu", precision="fp32"):
    """Returns the retrievers of all spaces, opened as data.

    Arguments
    ---------
    sources : dict
        Space to a folder or a hub id.
    device : str
        Such as cpu or cuda:0.
    precision : str
        fp32, bf16 or fp16.

    Returns
    -------
    dict
        Space to retriever.
    """
    from esr_lobes import EncoderRetriever

    run_opts = {"device": device, "precision": precision}
    return {
        space: EncoderRetriever.from_hparams(str(source), run_opts=run_opts)
        for space, source in sources.items()
    }


@dataclass(frozen=True)
class WorkerSpec:
    """All that another process needs to make the same worker.

    Arguments
    ---------
    sources : dict
        Space to the folder or hub id of its retriever, as the other process
        finds it.
    cutting : Cutting
        How files are cut.
    batch_size : int
        Segments a pass.
    device : str
        Where to compute.
    precision : str
        fp32, bf16 or fp16.
    fingerprints : dict
        Space to the fingerprint that its model must have; a space that is
        not named may be any.
    """

    sources: dict
    cutting: Cutting
    batch_size: int = 16
    device: str = "cpu"
    precision: str = "fp32"
    fingerprints: dict = field(default_factory=dict)

    def make(self):
        """Returns the worker, its models loaded.

        Returns
        -------
        Worker
            Ready for units.

        Raises
        ------
        ModelMismatchError
            If a source holds another model here.
        """
        retrievers = open_retrievers(self.sources, self.device, self.precision)
        for space, expected in self.fingerprints.items():
            if retrievers[space].fingerprint() != expected:
                raise ModelMismatchError(
                    f"{self.sources[space]} holds another model on this "
                    "machine: copy the retriever's folder to the same path "
                    "on all"
                )
        return Worker(retrievers, self.cutting, self.batch_size)


def default_workers():
    """Returns how many threads to use: the cores this process may use.

    Returns
    -------
    int
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_engine(units, worker, n_workers=None):
    """Yields units and their shards, several worked on at a time.

    Leaving the loop early waits for no unit that is under way: a recording
    of ten hours must not keep a Ctrl-C waiting.

    Arguments
    ---------
    units : iterable of Unit
        What to do.
    worker : callable
        Unit to Shard; used from several threads at once.
    n_workers : int, optional
        Threads; one a core if not given.

    Yields
    ------
    (Unit, Shard)
        In the order in which they are done.

    Example
    -------
    >>> sorted(local_engine([1, 2, 3], lambda unit: unit * 10, 2))
    [(1, 10), (2, 20), (3, 30)]
    """
    units = list(units)
    n_workers = min(n_workers or default_workers(), len(units))
    waiting = queue.SimpleQueue()
    for unit in units:
        waiting.put(unit)
    # Few, so that shards do not pile up where the disk is slow.
    done = queue.Queue(maxsize=2 * n_workers)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            try:
                unit = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                result = worker(unit)
            except BaseException as error:  # raised again by the loop below
                result = error
            while not stop.is_set():
                try:
                    done.put((unit, result), timeout=0.2)
                    break
                except queue.Full:
                    continue

    for i in range(n_workers):
        name = f"index-{i}"
        threading.Thread(target=work, name=name, daemon=True).start()
    try:
        for _ in units:
            unit, result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield unit, result
    finally:
        stop.set()
