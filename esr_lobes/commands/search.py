"""``esr search``: the segments of an index that sound as described.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from esr_lobes.commands.sources import read_sources
from esr_lobes.errors import MendableError
from esr_lobes.index.picking import check_picking

DESCRIPTION = """\
Ranks the segments of an index by how well they fit a description:

  esr search INDEX "an exhausted, flat voice" -k 10

Several descriptions are averaged. One that ends in =NUMBER weighs so much,
and --minus takes away, as a negative number does:

  esr search INDEX "excited=2" "out of breath" --minus "angry=0.5"

A text that begins with a dash stands behind the sign, --minus=-TEXT, or
behind -- at the end.

An example instead of words, or with them; it is not among its own answers:

  esr search INDEX --clip talk.wav@1:02.5-1:06
  esr search INDEX --clip talk.wav "but calmer"

Conditions are on any column of the index (text in quotes; and, or, not, ==,
!=, <, <=, >, >=, in [...], 'text' in column):

  esr search INDEX "sad" --where "actor == 3 and emotion in ['sad', 'calm']"

Passages that answer a question may be looked at more closely: of the N best,
the words are heard again and compared with those of the question (late
interaction; the model must know words, as CLSR and cascades do). The score
then is MaxSim, the mean over the question's words of the best cosine:

  esr search INDEX --content "who coached the team?" --rerank 50

The N are chosen by the cosine, and so --threshold and --scale are on it, not
on MaxSim. What cannot be read any more comes last, with a warning.

What is found goes elsewhere: --format json or csv writes nothing else to
standard output, --export cuts clips, --labels is for Audacity, --playlist for
VLC. The same from Python:

  from esr_lobes.searching import open_index
  index = open_index(INDEX)
  hits = index.search({"excited": 2}, minus="angry", k=10)
  from esr_lobes.highlights import cut_clips, write_labels, write_playlist
  cut_clips(hits, "clips")
  hits = index.search(content="who coached the team?", k=50)
  hits = index.encoders["content"].rerank("who coached the team?", hits)[:10]
"""
_WEIGHED = re.compile(r"(.*\S)\s*=\s*(-?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)
_TIMES = re.compile(r"(.+)@([\d:.]+)-([\d:.]+)", re.DOTALL)


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "search",
        help="segments of an index that sound as described",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "index", help="folder of an index, or milvus://... of a published one"
    )
    parser.add_argument(
        "text", nargs="*", help="descriptions; TEXT=2 weighs twice"
    )
    parser.add_argument("-k", type=int, default=10, help="hits at most (10)")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--minus",
        action="append",
        metavar="TEXT",
        help="what hits should not be like; may be given several times",
    )
    asked.add_argument(
        "--clip",
        action="append",
        metavar="FILE[@START-STOP]",
        help="an example, times in seconds or as 1:02:03.4; several times "
        "for their mean",
    )
    asked.add_argument(
        "--style",
        action="append",
        metavar="TEXT",
        help="same as TEXT, beside --content",
    )
    asked.add_argument(
        "--content",
        action="append",
        metavar="TEXT",
        help="what is spoken of, where the index has such vectors",
    )
    asked.add_argument(
        "--fusion",
        choices=("rank", "score"),
        default="rank",
        help="how style and content become one ranking: by reciprocal ranks "
        "or by z-scores (rank)",
    )
    asked.add_argument(
        "--weights",
        nargs="+",
        metavar="SPACE=NUMBER",
        help="of style and content, as in style=1 content=2 (1 each)",
    )
    asked.add_argument(
        "--rerank",
        type=int,
        metavar="N",
        help="read and hear the N best again, and order them by late "
        "interaction with the one text that is asked",
    )
    shown = parser.add_argument_group("which hits are shown")
    shown.add_argument("--where", metavar="CONDITION", help="see above")
    shown.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="lowest that counts, before --rerank",
    )
    shown.add_argument(
        "--scale",
        choices=("cosine", "z", "percentile"),
        default="cosine",
        help="what --threshold is on: the score, or how it compares with all "
        "segments of the index: standard deviations above their mean, or "
        "percent of them that score no more (cosine)",
    )
    shown.add_argument(
        "--merge",
        type=float,
        metavar="SECONDS",
        help="join neighbours in a recording with at most so much between",
    )
    shown.add_argument(
        "--per_file", type=int, metavar="N", help="at most N a recording"
    )
    shown.add_argument(
        "--exact",
        action="store_true",
        help="look at all segments, even if esr optimize was run",
    )
    out = parser.add_argument_group("what is done with them")
    out.add_argument(
        "--format", choices=("table", "json", "csv"), default="table"
    )
    out.add_argument(
        "--play", action="store_true", help="print a command that plays each"
    )
    out.add_argument(
        "--export", metavar="FOLDER", help="cut them to files in a new folder"
    )
    out.add_argument(
        "--labels", metavar="FOLDER", help="labels for Audacity, one a file"
    )
    out.add_argument("--playlist", metavar="FILE.m3u", help="for VLC")
    parser.add_argument(
        "--source",
        action="append",
        metavar="[SPACE=]RETRIEVER",
        help="where the model lies, if it was moved since",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=run)
    _take_text_anywhere(parser)


def _take_text_anywhere(parser):
    """Lets descriptions stand behind options, too, which argparse does not."""
    plain = parser.parse_known_args

    def parse(args=None, namespace=None):
        parser.parse_known_args = plain
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse

    parser.parse_known_args = parse


def run(options):
    """Prints hits and writes what was asked for.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.devices import check_device
    from esr_lobes.searching import open_index

    # Before a model is loaded, which takes its time.
    _check_places(options)
    asked = _asked(options)
    question = _question(asked, options)
    device = check_device(options.device)
    with open_index(
        options.index, read_sources(options.source), device=device
    ) as index:
        hits = _found(index, asked, question, options)
    _show(hits, options)
    _write(hits, options)


def _check_places(options):
    """Raises an error if what is to be written would find no place."""
    from esr_lobes.highlights import check_free

    earlier = {}
    for option in "export", "labels", "playlist":  # as they are written
        if (given := getattr(options, option)) is None:
            continue
        check_free(given, is_folder=option != "playlist")
        place = Path(os.path.realpath(given))
        for other, taken in earlier.items():
            if place in (taken, *taken.parents):
                raise MendableError(
                    f"--{option} {given} is where --{other} writes: give "
                    "each a place of its own"
                )
        earlier[option] = place


def _asked(options):
    """Returns the arguments of ``SearchIndex.search``."""
    asked = {
        name: _weighed(texts)
        for name, texts in (
            ("query", options.text),
            ("minus", options.minus),
            ("style", options.style),
            ("content", options.content),
        )
        if texts
    }
    if options.clip:
        asked["clip"] = [read_clip(text) for text in options.clip]
    if options.weights:
        asked["weights"] = dict(map(_space_weight, options.weights))
    for name in "k fusion where threshold scale merge per_file exact".split():
        asked[name] = getattr(options, name)
    return asked


def _question(asked, options):
    """Returns the one text by which hits are ranked again, or None."""
    if options.rerank is None:
        return None
    texts = [
        part
        for name in ("query", "style", "content")
        for part in asked.get(name, {}).items()
    ]
    if len(texts) != 1 or options.minus or options.clip or texts[0][1] <= 0:
        raise MendableError(
            "--rerank compares the words of one text with those of each "
            "hit: give one, and no --minus and no --clip"
        )
    check_picking(options.k, None, None)
    if options.rerank < options.k:
        raise MendableError(
            f"--rerank {options.rerank} is less than the {options.k} hits "
            "that are shown (-k): look at more again, or show fewer"
        )
    return texts[0][0]


def _found(index, asked, question, options):
    """Returns the hits, ranked again if that is asked for."""
    if question is None:
        return index.search(**asked)
    space = next((s for s in ("style", "content") if s in asked), index.first)
    index.encoders[space].need_words()  # before anything is searched
    hits = index.search(**asked | {"k": options.rerank})
    return index.encoders[space].rerank(question, hits)[: options.k]


def _weighed(texts):
    """Returns description to weight, 1 where none is given."""
    weights = {}
    for text in texts:
        match = _WEIGHED.fullmatch(text)
        text, weight = (match[1], float(match[2])) if match else (text, 1.0)
        weights[text] = weights.get(text, 0.0) + weight
    return weights


def _space_weight(text):
    """Returns the space and the weight that SPACE=NUMBER says."""
    match = _WEIGHED.fullmatch(text)
    if match is None:
        raise MendableError(
            f"--weights {text!r}: write a space and a number, as content=2"
        )
    return match[1], float(match[2])


def read_clip(text):
    """Returns an example clip as it is written on the command line.

    Arguments
    ---------
    text : str
        ``FILE``, or ``FILE@START-STOP``.

    Returns
    -------
    str or (str, float, float)
        The file, and the times in seconds if there are any.

    Raises
    ------
    MendableError
        If the times are none.

    Example
    -------
    >>> read_clip("talk.wav"), read_clip("talk.wav@59.5-1:02:03.4")
    ('talk.wav', ('talk.wav', 59.5, 3723.4))
    """
    match = _TIMES.fullmatch(text)
    if match is None or os.path.exists(text):
        return text
    return match[1], _read_time(match[2]), _read_time(match[3])


def _read_time(text):
    """Returns seconds from 62.5, 1:02.5 or 0:01:02.5."""
    seconds = 0.0
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError as error:
        raise MendableError(
            f"{text!r} is no time: write seconds, as 62.5, or 1:02.5"
        ) from error
    for part in parts:
        seconds = 60 * seconds + part
    return seconds


def _show(hits, options):
    """Prints the hits; on standard output is nothing else."""
    from esr_lobes import highlights

    if not hits:
        print(
            "nothing matches: ask for less with --where or --threshold",
            file=sys.stderr,
        )
    if options.format == "json":
        print(highlights.hits_json(hits))
    elif options.format == "csv":
        print(highlights.hits_csv(hits), end="")
    elif hits:
        is_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else None
        score = "score" if options.rerank is None else "maxsim"
        print(highlights.hits_table(hits, width, score))
        if options.play:
            print()
            for hit in hits:
                print(highlights.play_command(hit))


def _write(hits, options):
    """Writes files, and says on standard error what was written."""
    from esr_lobes import highlights

    notes = []
    if options.export is not None and hits:
        paths, skips = highlights.cut_clips(hits, options.export)
        notes.append(f"{len(paths)} clips cut to {options.export}")
        if skips:
            notes.append(f"{len(skips)} could not be cut:")
            notes += [f"  {s.path}: {s.reason} ({s.detail})" for s in skips]
    if options.labels is not None and hits:
        paths = highlights.write_labels(hits, options.labels)
        notes.append(f"labels of {len(paths)} files in {options.labels}")
    if options.playlist is not None and hits:
        highlights.write_playlist(hits, options.playlist)
        notes.append(f"playlist of {len(hits)} hits: {options.playlist}")
    for note in notes:
        print(note, file=sys.stderr)
