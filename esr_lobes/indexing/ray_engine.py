"""The units of a build, worked through by the machines of a Ray cluster.

Each actor of Ray Data makes the same worker as the engine that uses threads
and hands its shards back as bytes; this process alone writes the index, so
that a build that is killed goes on like any other. Every machine must find
the audio and the retriever under the same paths, and have ``esr_lobes``
installed.

Authors
 * The esr_lobes contributors
"""

import logging
import os
import re
import socket
import warnings
from contextlib import contextmanager

from speechbrain.utils.logger import get_logger

from esr_lobes.errors import MendableError
from esr_lobes.indexing.worker import Shard, Unit

logger = get_logger(__name__)

# How often a unit is tried again whose actor died. One that kills its actor
# each time, such as by memory that does not suffice, must not be for ever.
RETRIES = 3

# More blocks than this cost Ray more than they save.
MAX_BLOCKS = 10_000

# Seconds until a cluster that does not answer is given up.
PATIENCE = 10


class RayEngineError(MendableError):
    """What keeps a cluster from working through the units."""


def ray_engine(units, spec, n_workers=None, address=None):
    """Yields units and their shards, worked on by actors of a Ray cluster.

    An actor that dies is started again, and its unit is done again.

    Arguments
    ---------
    units : iterable of Unit
        What to do.
    spec : WorkerSpec
        Of what each actor makes its worker.
    n_workers : int, optional
        Actors, of one core each (or one GPU, where the spec's device is
        one); as many as the cluster has if not given.
    address : str, optional
        Of the cluster. Without one, that in ``RAY_ADDRESS``, or the one that
        runs on this machine; where none runs, one is started for so long, on
        this machine alone. A connection that there is already is used and
        left open.

    Yields
    ------
    (Unit, Shard)
        In the order in which they are done.

    Raises
    ------
    ImportError
        If Ray is not installed.
    RayEngineError
        If there is no cluster at the address, or a unit fails on it.
    MendableError
        If a machine finds another model than this one.
    """
    units = list(units)
    if not units:
        return
    ray = _ray()
    with _connection(ray, address), _quiet(ray):
        gpus = 0 if spec.device == "cpu" else 1
        kind = "GPU" if gpus else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if not there:
            raise RayEngineError(
                f"the Ray cluster has no {kind} to spare: add machines to it, "
                "or choose another --device"
            )
        n_workers = min(n_workers or there, there, len(units))
        rows = _start(ray, units, spec, n_workers, gpus)
        while row := _next(ray, rows):
            if row["error"]:
                raise MendableError(row["error"])
            yield units[row["number"]], Shard.from_bytes(row["shard"])


def _start(ray, units, spec, n_workers, gpus):
    """Returns an iterator over what the actors answer."""
    items = [{"number": i, "unit": unit.files} for i, unit in enumerate(units)]
    dataset = ray.data.from_items(
        items, override_num_blocks=min(len(items), MAX_BLOCKS)
    )
    with warnings.catch_warnings():
        # There is no other way yet to say how often to retry.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = dataset.map(
            _Actor,
            fn_constructor_args=(spec,),
            compute=ray.data.ActorPoolStrategy(size=n_workers),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            max_task_retries=RETRIES,
        )
    return iter(dataset.iter_rows())


def _ray():
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "the engine ray needs Ray: pip install 'esr_lobes[scale]'"
        ) from error
    return ray


def _next(ray, rows):
    """Returns the next row, or None, with errors that say what to do."""
    try:
        return next(rows, None)
    except ray.exceptions.RayError as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise RayEngineError(
            f"the Ray cluster could not go on ({words[-1].strip()}); what is "
            "done is kept: see the logs of Ray, check that all machines have "
            "esr_lobes and memory enough, and run the same command again"
        ) from error


@contextmanager
def _connection(ray, address):
    """Connects to a cluster, and parts from it again."""
    if ray.is_initialized():
        yield
        return
    # Ray asks its makers' server whether it may tell them of the cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        _connect(ray, address, options)
        yield
    finally:
        ray.shutdown()


def _connect(ray, address, options):
    where = address or os.environ.get("RAY_ADDRESS")
    if where:
        _check_answers(where)
    try:
        ray.init(address=where or "auto", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if where:
            raise _no_cluster(where) from error
        logger.warning(
            "no Ray cluster runs here: one is started on this machine alone, "
            "where the local engine does the same with less"
        )
        ray.init(address="local", include_dashboard=False, **options)


def _check_answers(where):
    """Says at once that nobody is there: Ray itself tries for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", where)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(where) from error


def _no_cluster(where):
    return RayEngineError(
        f"no Ray cluster answers at {where}: start one with ray start --head, "
        "or correct the address"
    )


@contextmanager
def _quiet(ray):
    """Has Ray Data show no bars beside those of the build."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    log = logging.getLogger("ray.data")
    level = log.level
    context.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        log.setLevel(level)


class _Actor:
    """A worker in another process; what the user can mend comes back."""

    def __init__(self, spec):
        self.worker, self.error = None, ""
        try:
            self.worker = spec.make()
        except (MendableError, FileNotFoundError, ImportError) as error:
            self.error = f"on a machine of the Ray cluster: {error}"

    def __call__(self, row):
        answer = {"number": row["number"], "shard": b"", "error": self.error}
        if not self.error:
            unit = Unit(tuple(tuple(file) for file in row["unit"]))
            answer["shard"] = self.worker(unit).to_bytes()
        return answer
