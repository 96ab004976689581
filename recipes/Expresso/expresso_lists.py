"""Reads the official lists of Expresso, with their time ranges.

``splits/train.txt``, ``dev.txt`` and ``test.txt`` hold one recording a line,
or a part of one: ``ex03-ex01_awe_001<TAB>(,60.0s)`` is its first minute. Names
say all the rest:

- ``ex04-ex01_sad-sympathetic_002`` is a conversation. The first channel is
  ex04, who is sad, the second ex01, who is sympathetic;
- ``ex02_default_emphasis_00012`` is a sentence that ex02 reads;
- ``ex02_default_longform_00001`` is a longer text, read in one go.

Authors
 * The esr_lobes contributors
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from expresso_speech import SPEECH_FILE, lines_of, read_speech

from esr_lobes.preparation import PreparationError

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
"""From the official name of a split to that of its manifest."""

RENAMED = {"default": "neutral", "whisper": "whispered"}
KEPT = (
    "angry awe bored calm confused desire disgusted enunciated fast fearful "
    "happy laughing projected sad sarcastic sleepy sympathetic"
).split()
STYLES = {**RENAMED, **{name: name for name in KEPT}}
"""From Expresso's name of each of the 19 styles that are used to ours."""

UNUSED = frozenset(
    "animal animal_directed animaldir child child_directed childdir "
    "narration non_verbal nonverbal singing".split()
)
"""The 7 styles that are left out; three have two names."""

_CONVERSATION = re.compile(r"(ex\d\d)-(ex\d\d)_([a-z_]+)(?:-([a-z_]+))?_\d+")
_READING = re.compile(
    r"(ex\d\d)_(([a-z_]+?)(?:_(emphasis|essentials|longform))?)_\d+"
)
_SECONDS = r"(\d+(?:\.\d+)?)"
_RANGE = re.compile(rf"\((?:{_SECONDS}s)?, *(?:{_SECONDS}s)?\)")


@dataclass(frozen=True)
class Side:
    """A speaker in a recording.

    Arguments
    ---------
    channel : int or None
        0 or 1 in a conversation, None in a reading, which has but one.
    speaker : str
        ex01 to ex04.
    substyle : str
        The style as Expresso names it, such as default_emphasis.
    style : str or None
        The style as named here, None if it is one of those left out.
    """

    channel: int | None
    speaker: str
    substyle: str
    style: str | None


@dataclass(frozen=True)
class Entry:
    """A line of a split: a recording, or its seconds from start to stop.

    Arguments
    ---------
    name : str
        Of the recording, without suffix.
    part : str
        Of the corpus: conversational, longform or read.
    sides : tuple of Side
        Two for a conversation, else one.
    where : str
        File and line, for messages.
    start, stop : float
        In seconds; 0 and infinity if the line gives no range.
    has_range : bool
        Whether the line gives one.
    """

    name: str
    part: str
    sides: tuple
    where: str
    start: float = 0.0
    stop: float = math.inf
    has_range: bool = False

    @property
    def used_sides(self):
        """The sides whose style is one of the 19."""
        return tuple(side for side in self.sides if side.style is not None)


@dataclass
class Lists:
    """All lists.

    Arguments
    ---------
    entries : dict
        From train, dev and test to lists of Entry.
    speech : dict
        From (name, channel) to a list of (start, stop) in seconds.
    paths : list of Path
        The files they were read from.
    """

    entries: dict = field(default_factory=dict)
    speech: dict = field(default_factory=dict)
    paths: list = field(default_factory=list)


def read_lists(*folders):
    """Reads the splits and the segments, and checks that they agree.

    Arguments
    ---------
    *folders : str or Path
        Where to look, in this order: the folder of the corpus, or one that
        holds the four files; ``splits`` below each is looked into as well.

    Returns
    -------
    Lists

    Raises
    ------
    PreparationError
        If a list is not there, a line cannot be read, two entries share
        seconds of a recording, or a long recording has no segments.
    """
    lists = Lists()
    for split in SPLITS:
        path = _find(f"{split}.txt", folders)
        lists.paths.append(path)
        lists.entries[split] = read_split(path)
    path = _find(SPEECH_FILE, folders)
    lists.paths.append(path)
    lists.speech = read_speech(path)
    entries = [entry for split in lists.entries.values() for entry in split]
    _check_disjoint(entries)
    for entry in entries:
        for channel in (side.channel for side in entry.used_sides):
            if entry.part == "read" or (entry.name, channel) in lists.speech:
                continue
            key = "" if channel is None else f"/channel{channel + 1}"
            raise PreparationError(
                f"{path}: no line for {entry.name}{key}, which {entry.where} "
                "lists; take both files from the same release"
            )
    return lists


def _find(name, folders):
    for folder in map(Path, folders):
        for path in (folder / "splits" / name, folder / name):
            if path.is_file():
                return path
    places = ", ".join(str(folder) for folder in folders)
    raise PreparationError(
        f"no {name} in {places} or in splits/ there; the official lists "
        "(splits/train.txt, dev.txt and test.txt, and VAD_segments.txt) come "
        "with the corpus, https://speechbot.github.io/expresso; give their "
        "folder as lists_folder if they lie elsewhere"
    )


def read_split(path):
    """Reads one of the three lists.

    Arguments
    ---------
    path : str or Path
        Such as ``splits/test.txt``.

    Returns
    -------
    list of Entry
        In the order of the file.

    Raises
    ------
    PreparationError
        If a line cannot be read, or there is none.

    Example
    -------
    >>> path = getfixture("tmp_path") / "test.txt"
    >>> _ = path.write_text("ex01-ex02_default_008\\t(,60.0s)\\n")
    >>> entry, = read_split(path)
    >>> entry.stop, [side.speaker for side in entry.sides]
    (60.0, ['ex01', 'ex02'])
    """
    entries = []
    for where, line in lines_of(path):
        name, tab, text = line.partition("\t")
        parts = parse_name(name)
        if parts is None:
            raise PreparationError(
                f"{where}: '{name}' is no name of Expresso's, such as "
                "ex01-ex02_default_001 or ex01_happy_00001; fetch the list "
                "again"
            )
        start, stop = _range(where, text) if tab else (0.0, math.inf)
        entries.append(Entry(name, *parts, where, start, stop, bool(tab)))
    if not entries:
        raise PreparationError(f"{path}: an empty list; fetch it again")
    return entries


def parse_name(name):
    """Tells what the name of a recording says.

    Arguments
    ---------
    name : str
        Without suffix.

    Returns
    -------
    (str, tuple of Side) or None
        The part of the corpus and who is heard; None if it is no name of
        Expresso's, or of a style that Expresso does not have.

    Example
    -------
    >>> parse_name("ex02_whisper_00001")[1][0].style
    'whispered'
    >>> parse_name("ex02_default_longform_00001")[0]
    'longform'
    """
    if match := _CONVERSATION.fullmatch(name):
        part, speakers = "conversational", match.groups()[:2]
        substyles = (match[3], match[4] or match[3])
        styles, channels = substyles, (0, 1)
    elif match := _READING.fullmatch(name):
        part = "longform" if match[4] == "longform" else "read"
        speakers, substyles = (match[1],), (match[2],)
        styles, channels = (match[3],), (None,)
    else:
        return None
    if not {*STYLES, *UNUSED}.issuperset(styles):
        return None
    return part, tuple(
        map(Side, channels, speakers, substyles, map(STYLES.get, styles))
    )


def _range(where, text):
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == (None, None):
        raise PreparationError(
            f"{where}: '{text}' is no time range such as (,60.0s), "
            "(60.0s,120.0s) or (60.0s,); fetch the list again"
        )
    start, stop = float(match[1] or 0), float(match[2] or math.inf)
    if start >= stop:
        raise PreparationError(
            f"{where}: the range {text} ends before it begins; fetch the "
            "list again"
        )
    return start, stop


def _check_disjoint(entries):
    """Turns down lists in which two entries share a part of a recording."""
    ordered = sorted(entries, key=lambda entry: (entry.name, entry.start))
    for first, second in zip(ordered, ordered[1:], strict=False):
        if first.name == second.name and second.start < first.stop:
            raise PreparationError(
                f"{second.where}: {second.name} from {second.start:g} s is "
                f"in {first.where} as well; a held-out second would be "
                "trained on. Take all three lists from the same release"
            )


def without_ranges(entries):
    """Gives the splits that come of passing over the time ranges.

    The published code of Kang and Roy (2025) reads the lists so: a
    recording belongs, as a whole, to the first list that names it.

    Arguments
    ---------
    entries : dict
        From train, dev and test, in this order, to lists of Entry.

    Returns
    -------
    dict
        From the same to the names of recordings, in their order.
    """
    seen, splits = set(), {}
    for split in SPLITS:
        names = dict.fromkeys(entry.name for entry in entries[split])
        splits[split] = [name for name in names if name not in seen]
        seen.update(names)
    return splits
