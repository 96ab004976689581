"""``esr index``: from folders of audio to an index that can be searched.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import sys

from esr_lobes.commands.sources import read_sources

DESCRIPTION = """\
Cuts recordings into segments where somebody speaks, embeds them with a
retriever, and writes a folder that esr search opens. Stopped at any moment,
the same command goes on where it was; run again later, it adds what is new,
embeds anew what has changed, drops what is gone and skips the rest.

  esr index recordings --source RETRIEVER --out index
  esr index --out index                    bring it up to date
  esr index more/ talk.mp3 --out index     add to it
  esr index kept/ --out index --prune      drop all that lies elsewhere

  esr index calls --source RETRIEVER --out index --channels split
                                           one speaker a channel
  esr index music --source RETRIEVER --out index --cut windows
                                           at fixed times, voice or not
  esr index ravdess --source RETRIEVER --out index --metadata actors.csv
                                           columns to filter by; "path" or
                                           "file" names the file
"""
CUTTING = (
    "min_seconds",
    "max_seconds",
    "hop_seconds",
    "channels",
    "threshold",
)


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "index",
        help="make a folder of audio searchable, or bring an index up to date",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "audio",
        nargs="*",
        metavar="AUDIO",
        help="files, and folders searched to any depth (default: all that "
        "the index was given before)",
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="the index"
    )
    parser.add_argument(
        "--source",
        action="extend",
        nargs="+",
        metavar="RETRIEVER",
        help="folder or hub id of what embeds; several as style=R content=R2 "
        "(default: those of the index)",
    )
    parser.add_argument(
        "--metadata",
        metavar="CSV",
        help="columns to join by path or file name; replaces those of before",
    )
    cutting = parser.add_argument_group(
        "how recordings are cut",
        "Part of the index: on later runs they may be left out. Lengths not "
        "given are those of the retriever's page.",
    )
    cutting.add_argument(
        "--cut",
        choices=("voice", "windows"),
        help="where somebody speaks, or into overlapping windows (voice)",
    )
    cutting.add_argument(
        "--min_seconds",
        type=float,
        help="voice: shorter ones are joined or widened (1)",
    )
    cutting.add_argument(
        "--max_seconds", type=float, help="no segment is longer"
    )
    cutting.add_argument(
        "--hop_seconds",
        type=float,
        help="windows: from one start to the next",
    )
    cutting.add_argument(
        "--channels",
        choices=("mix", "split"),
        help="mix them, or cut each for itself (mix)",
    )
    cutting.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="voice: lowest probability of a voice that counts (0.3)",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="drop what lies outside AUDIO; without it, that stays",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="embed everything anew, with settings that may be others",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="threads of this machine, or actors of a Ray cluster, whose "
        "machines see audio and retriever under the same paths (local)",
    )
    parser.add_argument(
        "--address", help="of the Ray cluster (default: Ray's own rules)"
    )
    parser.add_argument(
        "--workers", type=int, help="files at a time (default: one a core)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="segments a pass (16)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the model; part of the index (fp32)",
    )
    parser.set_defaults(run=run)


def run(options):
    """Makes or updates an index and prints what was done.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.indexing.build import build_index

    cutting = {name: getattr(options, name) for name in CUTTING}
    cutting["kind"] = options.cut
    try:
        report = build_index(
            options.audio or None,
            options.out,
            read_sources(options.source),
            cutting={k: v for k, v in cutting.items() if v is not None},
            metadata=options.metadata,
            engine=options.engine,
            n_workers=options.workers,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            prune=options.prune,
            rebuild=options.rebuild,
            address=options.address,
        )
    except KeyboardInterrupt:
        print(
            "stopped: the index is as it was before, and the same command "
            "goes on from here",
            file=sys.stderr,
            flush=True,
        )
        # Threads may be in the middle of a recording; nothing that they have
        # not finished would be used.
        os._exit(130)
    print(report)
