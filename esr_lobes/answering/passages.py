"""The passages of long recordings that a question is about.

Recordings are cut and embedded once, into an index; a question then costs
one pass of the text encoder and a search.

Authors
 * The esr_lobes contributors
"""

import os
import tempfile
from pathlib import Path

from speechbrain.utils.logger import get_logger

from esr_lobes.answering.segments import SEGMENTS, read_segments
from esr_lobes.audio import find_audio
from esr_lobes.errors import MendableError
from esr_lobes.index.search import SearchIndex
from esr_lobes.index.state import read_info
from esr_lobes.index.store import COMMIT, read_skips
from esr_lobes.indexing.build import build_index
from esr_lobes.indexing.settings import SettingsError, load_retrievers

logger = get_logger(__name__)

SPACE = "content"


class PassageError(MendableError):
    """Questions or recordings that no passage can be found for."""


class PassageFinder:
    """Answers questions with passages of recordings.

    Arguments
    ---------
    retriever : EncoderRetriever or str, optional
        What embeds passages and questions, or where it is: any that knows
        what is said (CLSR, ParaBGE, a cascade). Not needed for an index that
        knows its own.
    recordings : str or list of str, optional
        Files, and folders with files. Without, all that the index holds.
    segments : str, optional
        How they are cut, see :mod:`.segments`; that of the index, or
        40 s windows.
    folder : str or Path, optional
        Where the index is kept for later questions. What it holds already is
        not embedded again, and what else it holds does not answer. Without,
        the index is temporary.
    device : str
        Where a retriever computes that is opened here.
    **options : dict
        For :func:`esr_lobes.indexing.build.build_index`, such as
        ``batch_size``, ``n_workers``, ``progress``.

    Attributes
    ----------
    report : BuildReport or None
        What the build did, if recordings were given.
    skips : list of Skip
        Recordings that gave nothing, and why.
    index : SearchIndex
        What is searched.

    Raises
    ------
    PassageError
        If there is neither recording nor index, nothing could be embedded,
        or the index is of other settings.

    Example
    -------
    ::

        with PassageFinder("cascade", "lectures", folder="index") as finder:
            for hit in finder.find("why do tides come twice a day?", k=3):
                print(hit.score, hit.segment.path, hit.segment.start)
    """

    def __init__(
        self,
        retriever=None,
        recordings=None,
        segments=None,
        folder=None,
        device="cpu",
        **options,
    ):
        self.report, self.index, self._temporary = None, None, None
        self.recordings, self.skips = None, []
        if recordings is not None:
            self.recordings = _paths(recordings)
        elif segments is not None:
            raise PassageError(
                "segments say how recordings are cut: give recordings, too"
            )
        elif folder is None:
            raise PassageError("ask what? give recordings, or an index")
        cutting = None if segments is None else read_segments(segments)
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="esr_")
            folder = self._temporary.name
        try:
            self._open(retriever, cutting, Path(folder), device, options)
        except BaseException:
            self.close()
            raise

    def _open(self, retriever, cutting, folder, device, options):
        """Brings the index up to date and opens it."""
        is_there = self.recordings is None or (folder / COMMIT).is_file()
        info = read_info(folder) if is_there else None
        if retriever is not None:
            retriever = {_space(info): retriever}
        retrievers, precision = load_retrievers(
            retriever, info, device, options.pop("precision", None)
        )
        if _is_of_style(retrievers[_space(info)]):
            logger.warning(
                "This retriever hears how something is said, not what: give "
                "one of what is said, such as a cascade"
            )
        if self.recordings is not None:
            if info is None and cutting is None:
                cutting = read_segments(SEGMENTS)
            try:
                self.report = build_index(
                    self.recordings,
                    folder,
                    retrievers,
                    cutting,
                    precision=precision,
                    **options,
                )
            except SettingsError as error:
                raise PassageError(
                    f"the index in {folder} was made otherwise: give another "
                    "folder, or leave out how to cut and with what to embed "
                    f"({error})"
                ) from error
        self.index = SearchIndex.open(folder, retrievers)
        asked = None
        if self.recordings is not None:
            asked = set(_as_indexed(self.recordings))
        self.skips = [
            skip
            for skip, _ in read_skips(folder, self.index.info)
            if asked is None or skip.path in asked
        ]
        if len(self.index) == 0 or asked == {s.path for s in self.skips}:
            why = "; ".join(map(skip_line, self.skips[:3])) or "no recordings"
            raise PassageError(f"nothing to search: {why}")

    def find(self, question, k=5, recordings=None):
        """Returns the passages that a question is most likely about.

        Arguments
        ---------
        question : str
            In words.
        k : int
            At most so many.
        recordings : str or list of str, optional
            Only these answer; otherwise all that the finder was made for.

        Returns
        -------
        list of Hit
            Best first: ``hit.score`` (a cosine), ``hit.segment.path``,
            ``.start`` and ``.stop`` in seconds.

        Raises
        ------
        PassageError
            If there is no question.
        """
        if not isinstance(question, str) or not question.strip():
            raise PassageError(f"ask in words; got {question!r}")
        paths = self.recordings if recordings is None else _paths(recordings)
        where = None if paths is None else {"path": _as_indexed(paths)}
        name = SPACE if SPACE in self.index.store.spaces else "query"
        return self.index.search(**{name: question}, k=k, where=where)

    def close(self):
        """Lets go of the index; a temporary one is deleted."""
        if self.index is not None:
            self.index.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def find_passages(
    retriever,
    question,
    recordings,
    k=5,
    segments=None,
    folder=None,
    **options,
):
    """Returns the passages of recordings that a question is most likely about.

    For several questions keep a :class:`PassageFinder`, or give a folder.

    Arguments
    ---------
    retriever : EncoderRetriever or str
        A retriever of what is said, or where it is.
    question : str
        In words.
    recordings : str or list of str
        Files, and folders with files.
    k : int
        At most so many.
    segments : str, optional
        How recordings are cut, see :mod:`.segments`; 40 s windows.
    folder : str or Path, optional
        Where the index is kept; temporary without.
    **options : dict
        As for :class:`PassageFinder`.

    Returns
    -------
    list of Hit
        Best first, see :meth:`PassageFinder.find`.

    Raises
    ------
    MendableError
        If recordings, retriever or question are not what they should be.

    Example
    -------
    ::

        hits = find_passages("cascade", "who built the mill?", "talk.flac")
        print(hits[0].segment.start, hits[0].segment.stop)
    """
    with PassageFinder(
        retriever, recordings, segments, folder, **options
    ) as finder:
        return finder.find(question, k)


def skip_line(skip):
    """Returns which recording gave nothing and why, as text.

    Arguments
    ---------
    skip : Skip
        Of :attr:`PassageFinder.skips`.

    Returns
    -------
    str
        One line.

    Example
    -------
    >>> from esr_lobes.preparation import Skip
    >>> skip_line(Skip("/a.wav", "too short", "0.05 s"))
    '/a.wav: too short (0.05 s)'
    """
    detail = f" ({skip.detail})" if skip.detail else ""
    return f"{skip.path}: {skip.reason}{detail}"


def _paths(recordings):
    """Returns the absolute paths of all files."""
    return [os.path.abspath(path) for path in find_audio(recordings)]


def _as_indexed(paths):
    """Returns files as an index names them, odd names among its skips."""
    return [os.fsencode(p).decode("utf-8", "backslashreplace") for p in paths]


def _is_of_style(retriever):
    """Returns whether it hears how something is said, by its encoder."""
    from esr_lobes.encoders.compact import CompactEncoder
    from esr_lobes.encoders.emotion2vec import Emotion2vec
    from esr_lobes.encoders.huggingface import HuggingFaceSpeech

    style = CompactEncoder, Emotion2vec, HuggingFaceSpeech
    return isinstance(retriever.mods.speech_encoder, style)


def _space(info):
    """Returns the space of a retriever of what is said."""
    spaces = list(info["spaces"]) if info else [SPACE]
    return SPACE if SPACE in spaces else spaces[0]
