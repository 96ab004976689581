"""Hits, shown and handed on: a table, JSON, CSV, commands that play them,
labels for Audacity, a playlist, and files that are cut out.

Nothing here writes over what is there: folders must be new or empty, and a
playlist's name must be free.

Authors
 * The esr_lobes contributors
"""

import datetime
import json
import math
import os
import re
import shlex
from pathlib import Path

import numpy as np
import soundfile

from esr_lobes import audio
from esr_lobes.errors import MendableError
from esr_lobes.files import replacing, write_text
from esr_lobes.manifests import csv_text
from esr_lobes.preparation import Skip

COLUMNS = (
    "rank score z percentile path start stop duration channel id play".split()
)
"""What a line of CSV has; the user's own columns stand behind."""

CLIPS_LIST = "index.csv"
# A name keeps letters and digits of any script.
_ODD = re.compile(r"[^\w.+-]+")
_MOST_BYTES = 80
# What makes a spreadsheet take text for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# The narrowest column of paths that is still of use.
_NARROWEST = 24


def hits_table(hits, width=None, score="score"):
    """Returns hits as a table for the terminal.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    width : int, optional
        Characters a line: paths lose their beginning, and what the user
        joined to the segments its end. None leaves all whole.
    score : str
        What the scores are.

    Returns
    -------
    str
        Lines.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> hits = [Hit(Segment("/talks/a.wav", 61.0, 64.5), 0.42, 0, 3.1, 99.8)]
    >>> print(hits_table(hits))
     #    score      z    pct  time           file
     1    0.420   3.10   99.8  1:01.0-1:04.5  /talks/a.wav
    """
    has_channel = any(hit.segment.channel is not None for hit in hits)
    n = max(2, len(str(len(hits))))
    digits = 4 if any(0 < abs(hit.score) < 0.1 for hit in hits) else 3
    head = [f"{'#':>{n}}", f"{score:>7}", "    z", "  pct", "time", "file"]
    lines = []
    for hit in hits:
        segment = hit.segment
        lines.append(
            [
                f"{hit.rank + 1:{n}d}",
                f"{hit.score:7.{digits}f}",
                f"{hit.z:5.2f}" if hit.z is not None else "    -",
                f"{hit.percentile:5.1f}"
                if hit.percentile is not None
                else "    -",
                f"{clock(segment.start)}-{clock(segment.stop)}",
                _shown(segment.path),
            ]
        )
        if has_channel:
            channel = "mix" if segment.channel is None else segment.channel
            lines[-1].insert(5, f"{channel!s:>2}")
    if has_channel:
        head.insert(5, "ch")
    joined = [_metadata(hit.segment) for hit in hits]
    return "\n".join(_fitted([head, *lines], ["", *joined], width))


def _shown(path):
    """Returns a path in short if it lies below where we are."""
    path = str(path)
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here).translate(_NO_CONTROL)


_NO_CONTROL = {i: "?" for i in [*range(32), 127]}


def _metadata(segment):
    """Returns what the user joined to a segment, as text."""
    return " ".join(
        f"{name}={value}"
        for name, value in segment.metadata.items()
        if value is not None
    ).translate(_NO_CONTROL)


def _fitted(rows, joined, width):
    """Returns lines of which none is wider than width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        room = max(width - sum(widths[:-1]) - 2 * len(widths[:-1]), _NARROWEST)
        longest = max(map(len, joined))
        if longest:  # each gets half, or what the other leaves
            room = max(room // 2, room - longest - 2, _NARROWEST)
        widths[-1] = min(widths[-1], room)
    for row, more in zip(rows, joined, strict=True):
        row = [*row[:-1], _end(row[-1], widths[-1])]
        line = "  ".join(
            f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True)
        )
        line = f"{line}  {more}".rstrip() if more else line.rstrip()
        if width is not None and len(line) > max(width, sum(widths)):
            line = line[: width - 1] + "…"
        yield line


def _end(text, width):
    """Returns the end of a text that is too long."""
    return text if len(text) <= width else "…" + text[1 - width :]


def clock(seconds):
    """Returns a time as a player shows it.

    Arguments
    ---------
    seconds : float
        From the beginning.

    Returns
    -------
    str
        Minutes and seconds, with hours if there are any.

    Example
    -------
    >>> clock(4.25), clock(119.98), clock(3725.5)
    ('0:04.2', '2:00.0', '1:02:05.5')
    """
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    if hours:
        return f"{hours}:{minutes:02d}:{seconds}"
    return f"{minutes}:{seconds}"


def play_command(hit):
    """Returns the command that plays a hit, for a shell.

    Arguments
    ---------
    hit : Hit
        Which one.

    Returns
    -------
    str
        A call of ``ffplay``, which comes with FFmpeg.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> print(play_command(Hit(Segment("/my talk.wav", 61.0, 64.5), 0.4, 0)))
    ffplay -autoexit -nodisp -loglevel error -ss 61 -t 3.5 '/my talk.wav'
    """
    segment = hit.segment
    options = f"-ss {_seconds(segment.start)} -t {_seconds(segment.duration)}"
    if segment.channel is not None:
        options += f" -af 'pan=mono|c0=c{segment.channel}'"
    path = shlex.quote(os.path.abspath(segment.path))
    return f"ffplay -autoexit -nodisp -loglevel error {options} {path}"


def _seconds(seconds):
    """Returns seconds to the millisecond, without zeros behind."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def as_dict(hit):
    """Returns a hit as plain data.

    Arguments
    ---------
    hit : Hit
        Which one.

    Returns
    -------
    dict
        What `COLUMNS` names, with ranks from 1, and ``metadata``.
    """
    segment = hit.segment
    return {
        "rank": hit.rank + 1,
        "score": hit.score,
        "z": hit.z,
        "percentile": hit.percentile,
        "path": segment.path,
        "start": segment.start,
        "stop": segment.stop,
        "duration": round(segment.duration, 6),
        "channel": segment.channel,
        "id": segment.id,
        "play": play_command(hit),
        "metadata": {k: _plain(v) for k, v in segment.metadata.items()},
    }


def _plain(value):
    """Returns what JSON knows; it has neither dates nor NaN."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def hits_json(hits):
    """Returns hits as JSON.

    Arguments
    ---------
    hits : list of Hit
        Best first.

    Returns
    -------
    str
        A list of objects, see :func:`as_dict`.
    """
    rows = [as_dict(hit) for hit in hits]
    return json.dumps(rows, indent=2, allow_nan=False)


def hits_csv(hits):
    """Returns hits as CSV.

    Arguments
    ---------
    hits : list of Hit
        Best first.

    Returns
    -------
    str
        `COLUMNS`, and those that the user joined; what is None is empty.
        Text that begins with ``= + - @`` has a ``'`` before it, because a
        spreadsheet would compute it; JSON has it as it is.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> segment = Segment("/a.wav", 1.0, 2.5, metadata={"actor": 3})
    >>> text = hits_csv([Hit(segment, 0.5, 0)])
    >>> text.splitlines()[0]
    'rank,score,z,percentile,path,start,stop,duration,channel,id,play,actor'
    >>> text.splitlines()[1].startswith("1,0.5,,,/a.wav,1.0,2.5,1.5,,,ffplay")
    True
    """
    return csv_text(*_lines(hits))


def _lines(hits):
    """Returns the header and the lines of a CSV of hits."""
    rows = [as_dict(hit) for hit in hits]
    joined = dict.fromkeys(key for row in rows for key in row["metadata"])
    lines = [
        [row[key] for key in COLUMNS]
        + [row["metadata"].get(key) for key in joined]
        for row in rows
    ]
    table = [[*COLUMNS, *joined], *lines]
    header, *lines = [[_cell(value) for value in row] for row in table]
    return header, lines


def _cell(value):
    """Returns a value that a spreadsheet shows and does not compute."""
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else value


def write_labels(hits, folder):
    """Writes labels that Audacity imports: one text file a recording.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    folder : str or Path
        New or empty.

    Returns
    -------
    list of Path
        The files, named after the recordings.

    Raises
    ------
    MendableError
        If there is something in the folder already.

    Example
    -------
    >>> from esr_lobes.index import Hit, Segment
    >>> folder = getfixture("tmp_path") / "labels"
    >>> hits = [Hit(Segment("/talk.wav", 1.0, 2.5), 0.5, 0)]
    >>> write_labels(hits, folder)[0].read_text().split("\\t")
    ['1.000000', '2.500000', '1 (0.500)\\n']
    """
    folder = _made(folder)
    recordings = {}
    for hit in hits:
        recordings.setdefault(hit.segment.path, []).append(hit)
    paths, taken = [], set()
    for recording, own in recordings.items():
        name = stem = safe_stem(recording)
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        paths.append(folder / f"{name}.txt")
        own = sorted(own, key=lambda hit: hit.segment.start)
        write_text(paths[-1], "".join(map(_label, own)))
    return paths


def _label(hit):
    times = f"{hit.segment.start:.6f}\t{hit.segment.stop:.6f}"
    channel = hit.segment.channel
    where = "" if channel is None else f" channel {channel}"
    return f"{times}\t{hit.rank + 1} ({hit.score:.3f}){where}\n"


def write_playlist(hits, path):
    """Writes a playlist that plays only the hits, for VLC and its like.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    path : str or Path
        An M3U file that is not there yet. Recordings below its folder are
        named relative to it, so that both can be moved together.

    Raises
    ------
    MendableError
        If there is something of that name.
    """
    check_free(path, is_folder=False)
    folder = os.path.dirname(os.path.abspath(path))
    lines = ["#EXTM3U"]
    for hit in hits:
        segment = hit.segment
        name = Path(segment.path).stem.translate(_NO_CONTROL)
        times = f"{clock(segment.start)}-{clock(segment.stop)}"
        lines += [
            f"#EXTINF:{max(1, round(segment.duration))},"
            f"{hit.rank + 1}. {name} {times} ({hit.score:.3f})",
            f"#EXTVLCOPT:start-time={_seconds(segment.start)}",
            f"#EXTVLCOPT:stop-time={_seconds(segment.stop)}",
            _entry(segment.path, folder),
        ]
    write_text(path, "\n".join(lines) + "\n")


def _entry(path, folder):
    """Returns how a playlist in a folder names a recording."""
    path = os.path.abspath(path)
    if any(character in path for character in "\r\n"):
        return Path(path).as_uri()  # a line cannot hold it
    inside = os.path.join(folder, "")
    if not path.startswith(inside):
        return path
    relative = path.removeprefix(inside)
    # What begins with # is a comment.
    return f"./{relative}" if relative.startswith("#") else relative


def cut_clips(hits, folder):
    """Cuts the hits to files, in the rate and channels of their recordings.

    Beside them lies ``index.csv``, which says what each is.

    Arguments
    ---------
    hits : list of Hit
        Best first.
    folder : str or Path
        New or empty.

    Returns
    -------
    paths : list of Path
        The clips, WAV with 16 bits.
    skips : list of Skip
        What could not be cut, because its recording is gone for example.

    Raises
    ------
    MendableError
        If there is something in the folder already.
    """
    folder = _made(folder)
    paths, skips, kept = [], [], []
    digits = max(2, len(str(len(hits))))
    for hit in hits:
        segment = hit.segment
        name = (
            f"{hit.rank + 1:0{digits}d}_{safe_stem(segment.path)}_"
            f"{segment.start:.1f}-{segment.stop:.1f}.wav"
        )
        try:
            rate, wave = _read(segment)
        except audio.AudioError as error:
            skips.append(Skip(error.path, error.reason, error.detail))
            continue
        paths.append(folder / name)
        with replacing(paths[-1]) as temporary:
            soundfile.write(temporary, wave, rate, "PCM_16", format="WAV")
        kept.append(hit)
    header, lines = _lines(kept)
    lines = [[p.name, *line] for p, line in zip(paths, lines, strict=True)]
    write_text(folder / CLIPS_LIST, csv_text(["clip", *header], lines))
    return paths, skips


def _read(segment):
    """Returns rate and samples [time, channels] of a segment."""
    info = audio.probe(segment.path)
    channels = range(info.channels)
    if segment.channel is not None:
        channels = [segment.channel]
    waves = [
        audio.read(
            segment.path,
            segment.start,
            segment.stop,
            channel,
            info.sample_rate,
        )
        for channel in channels
    ]
    return info.sample_rate, np.stack(waves, axis=1)


def safe_stem(path):
    """Returns the name of a file without suffix, fit for any file system.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        Letters, digits and ``_ . + -``, never empty, none first that hides
        a file or leads out of a folder.

    Example
    -------
    >>> safe_stem("/talks/Vortrag für Anna?.wav"), safe_stem("/x/...wav")
    ('Vortrag_für_Anna', 'clip')
    """
    stem = _ODD.sub("_", Path(path).stem).strip("._-")
    while len(stem.encode()) > _MOST_BYTES:
        stem = stem[:-1]
    return stem or "clip"


def check_free(path, is_folder=True):
    """Raises an error if a place is taken, or nothing can be written there.

    Arguments
    ---------
    path : str or Path
        Where something is to be written.
    is_folder : bool
        Whether that is a folder, which may be there if it is empty.

    Raises
    ------
    MendableError
        If it is not free.
    """
    path = Path(path)
    is_there = os.path.lexists(path)
    is_empty = is_folder and path.is_dir() and not os.listdir(path)
    if is_there and not is_empty:
        kind = "and no empty folder: give a new one"
        if not is_folder:
            kind = "already: give a free name"
        raise MendableError(f"{path} is there {kind}")
    whole = Path(os.path.abspath(path))
    place = next(p for p in (whole, *whole.parents) if os.path.lexists(p))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise MendableError(
            f"{path} cannot be made: {place} is no folder that may be written "
            "to; give another place"
        )


def _made(folder):
    """Returns a folder with nothing in it, made if need be."""
    check_free(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MendableError(
            f"{folder} cannot be made ({error.strerror}): give another folder"
        ) from error
    return Path(folder)
