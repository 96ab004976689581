"""From folders of audio to an index, and from an index to one that is up to
date.

Authors
 * The esr_lobes contributors
"""

import os
import time
from contextlib import closing
from pathlib import Path

import pyarrow.compute as pc
from tqdm import tqdm

from esr_lobes.index.store import UNFINISHED, commit
from esr_lobes.indexing.engines import WorkerSpec, local_engine
from esr_lobes.indexing.merging import Committed, merge
from esr_lobes.indexing.metadata import join, read_metadata
from esr_lobes.indexing.output import (
    BuildError,
    check_folder,
    locked,
    one_line,
)
from esr_lobes.indexing.plan import (
    files_after,
    find_files,
    is_below,
    make_plan,
    make_units,
    read_digests,
)
from esr_lobes.indexing.report import BuildReport
from esr_lobes.indexing.settings import (
    check_same,
    choose_cutting,
    load_retrievers,
    source_of,
)
from esr_lobes.indexing.unfinished import Unfinished
from esr_lobes.indexing.worker import Worker

ENGINES = ("local", "ray")

# A file that could not be read may be there again, with the same content.
PASSING = ("missing", "changed")


def build_index(
    audio,
    out,
    retrievers=None,
    cutting=None,
    metadata=None,
    engine="local",
    n_workers=None,
    batch_size=16,
    device="cpu",
    precision=None,
    prune=False,
    rebuild=False,
    progress=True,
    address=None,
):
    """Makes an index of audio files, or brings one up to date.

    Files that are new or have changed are cut into segments and embedded,
    those that are gone are dropped, all others are left alone. Stopped at any
    moment, the index is as it was before; the same call then goes on without
    doing finished files again. What cannot be used is listed.

    Arguments
    ---------
    audio : str or list of str or None
        Files, and folders with files at any depth: the roots. They are
        brought up to date, and what other roots brought before stays. None
        stands for all roots of the index.
    out : str or Path
        Folder of the index; made if need be.
    retrievers : EncoderRetriever or str or dict, optional
        What embeds: a retriever or where it is, or of each space such. One
        alone is that of the space ``style``. May be left out once the index
        is there.
    cutting : Cutting or dict, optional
        How files are cut, or only what differs from the usual: lengths are
        those of the retriever's page, or of the index once it is there.
    metadata : str or Path, optional
        CSV to join, see :func:`esr_lobes.indexing.metadata.read_metadata`.
        Replaces all that was joined before; without one that stays.
    engine : str
        ``local`` for threads of this process, ``ray`` for a Ray cluster.
    n_workers : int, optional
        Files worked on at a time; one a core if not given.
    batch_size : int
        Segments a pass.
    device : str
        Where retrievers compute that are opened here.
    precision : str, optional
        With which precision: fp32, bf16 or fp16; that of the index, or fp32,
        if not given.
    prune : bool
        Whether to drop what lies below other roots than those of ``audio``.
    rebuild : bool
        Whether to embed everything again, with settings that may be others.
    progress : bool
        Whether to show bars.
    address : str, optional
        Of the Ray cluster.

    Returns
    -------
    BuildReport
        Counts; as text, some lines for a terminal.

    Raises
    ------
    BuildError
        If the settings are not those of the index, or the disk is full.
    MendableError
        If another writer is at work, or audio, retriever or metadata are
        not what they should be.
    """
    begun = time.perf_counter()
    out = Path(os.path.abspath(out))
    if engine not in ENGINES:
        raise BuildError(f"engine is {' or '.join(ENGINES)}, not {engine!r}")
    for name, number in (("workers", n_workers), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise BuildError(f"{name} must be at least 1, not {number}")
    check_folder(out)
    with locked(out):
        before = Committed(out, rebuild)
        paths, scanned, roots = find_files(audio, before.known, prune, rebuild)
        retrievers, precision = load_retrievers(
            retrievers, before.info, device, precision
        )
        cutting = choose_cutting(cutting, before.info, retrievers)
        settings = {
            "fingerprints": {s: r.fingerprint() for s, r in retrievers.items()},
            "preprocessing": {**cutting.as_dict(), "precision": precision},
        }
        if before.info and not rebuild:
            check_same(before.info, **settings)
        known, n_unmatched = None, None
        if metadata is not None:
            # Before the long work, because a CSV often needs mending.
            files = files_after(paths, before.known, scanned, prune)
            known, n_unmatched = read_metadata(metadata, files, roots)
        found, unread = read_digests(paths, n_workers, progress)
        plan = make_plan(found, unread, before.known, scanned, roots, prune)

        with one_line(out):
            unfinished = Unfinished(out / UNFINISHED, settings)
        wanted = plan.todo
        _, done, skips = unfinished.collect(wanted)
        done |= {p for p, s in skips.items() if s.reason not in PASSING}
        units = make_units(
            [(p, d, found[p][1]) for p, d in wanted.items() if p not in done]
        )
        if units:
            spec = WorkerSpec(
                {s: source_of(r) for s, r in retrievers.items()},
                cutting,
                batch_size,
                device,
                precision,
                settings["fingerprints"],
            )
            results = _start(
                engine, units, spec, retrievers, n_workers, address
            )
            with closing(results):
                _write(out, results, unfinished, len(done), units, progress)
        pieces, done_now, skips = unfinished.collect(wanted)
        lost = wanted.keys() - done_now - skips.keys()
        if lost:
            raise BuildError(
                f"nothing came back for {len(lost)} files, such as "
                f"{min(lost)}: run the same command again"
            )
        skips = [*plan.standing, *plan.unread] + [
            (skip, "" if skip.reason in PASSING else wanted[path])
            for path, skip in skips.items()
        ]
        info = {
            "spaces": {
                space: {
                    "dimension": int(retriever.hparams.embedding_size),
                    "fingerprint": settings["fingerprints"][space],
                    "source": source_of(retriever) or before.source(space),
                }
                for space, retriever in retrievers.items()
            },
            "preprocessing": settings["preprocessing"],
            "roots": plan.roots,
        }
        is_other = (
            rebuild or metadata is not None or before.differs(plan, skips)
        )
        n_bare = 0
        with one_line(out):
            if is_other:
                spaces = info["spaces"].items()
                pieces += before.pieces(plan)
                table, vectors = merge(
                    pieces, {s: v["dimension"] for s, v in spaces}
                )
                if known is None:
                    known = before.metadata(plan)
                    n_bare = _count_bare(table, known)
                info = commit(out, info, join(table, known), vectors, skips)
            else:
                info = before.renamed(info)
            unfinished.remove(lambda p: not (prune or is_below(p, scanned)))
    return BuildReport(
        folder=str(out),
        new=len(plan.new) + len(plan.unread),
        changed=len(plan.changed),
        moved=len(plan.moved),
        kept=len(plan.kept) + len(plan.standing),
        dropped=len(plan.dropped),
        skipped=len(skips),
        skips=str(out / info["skipped"]),
        resumed=len(done),
        segments=info["rows"],
        hours=info["seconds"] / 3600,
        seconds=time.perf_counter() - begun,
        unmatched=n_unmatched,
        unreadable=plan.unreadable,
        bare=n_bare,
        is_optimized_away=is_other and before.is_approximate,
    )


def _count_bare(table, known):
    """Returns how many files with segments have no row in the metadata."""
    if known.num_columns == 1:
        return 0
    files = pc.unique(table["path"])
    is_bare = pc.invert(pc.is_in(files, known["path"].combine_chunks()))
    return pc.sum(is_bare).as_py() or 0


def _start(engine, units, spec, retrievers, n_workers, address):
    """Returns an iterator over units and shards."""
    if engine == "local":
        worker = Worker(retrievers, spec.cutting, spec.batch_size)
        return local_engine(units, worker, n_workers)
    from esr_lobes.indexing.ray_engine import ray_engine

    for space, source in spec.sources.items():
        if source is None:
            raise BuildError(
                f"other machines open the retriever of {space} themselves: "
                "give its folder or hub id"
            )
    return ray_engine(units, spec, n_workers, address)


def _write(out, results, unfinished, n_done, units, progress):
    """Writes shards as they come."""
    bar = tqdm(
        desc="indexing",
        total=n_done + sum(len(unit.files) for unit in units),
        initial=n_done,
        unit="file",
        disable=not (progress and units),
    )
    hours = 0.0
    with bar:
        for unit, shard in results:
            with one_line(out):
                unfinished.add(unit, shard)
            hours += (pc.sum(shard.table["duration"]).as_py() or 0.0) / 3600
            bar.set_postfix_str(f"{hours:.2f} h of speech", refresh=False)
            bar.update(len(unit.files))
