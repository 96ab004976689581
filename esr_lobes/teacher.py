"""What a teacher hears: the words of clips, written down once and kept.

Authors
 * The esr_lobes contributors
"""

import hashlib
import json
from pathlib import Path

import torch
from speechbrain.utils.distributed import ddp_barrier
from speechbrain.utils.logger import get_logger
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from esr_lobes.cascading import open_recogniser
from esr_lobes.distributed import n_ranks, rank
from esr_lobes.errors import MendableError
from esr_lobes.export import PAGE
from esr_lobes.indexing.digests import digest_of
from esr_lobes.inference import EncoderRetriever
from esr_lobes.weights import fingerprint

logger = get_logger(__name__)

# Clips that go side by side, and are lost when a run is killed.
BATCH = 8


def open_teacher(name):
    """Returns what writes down the words of clips.

    Arguments
    ---------
    name : str
        That of a recogniser, see
        :func:`esr_lobes.cascading.open_recogniser`, or the folder of a
        retriever that recognises words, such as one of CLSR.

    Returns
    -------
    torch.nn.Module
        With ``transcribe(wavs, wav_lens)``, in evaluation mode.

    Raises
    ------
    MendableError
        If the retriever in the folder knows no words.
    """
    if not (Path(name) / PAGE).is_file():
        return open_recogniser(name).eval()
    retriever = EncoderRetriever.from_hparams(source=str(name))
    encoder = retriever.mods.speech_encoder
    if not hasattr(encoder, "transcribe"):
        raise MendableError(
            f"the retriever in {name} writes no words down: give one of CLSR, "
            "a cascade, or a recogniser"
        )
    return encoder.eval()


def write_down(teacher, clips, reader, folder, device="cpu", is_shown=True):
    """Returns what a teacher hears in clips, each heard once for all.

    The words stand in the folder as soon as they are there, so that a run
    that was killed goes on where it was; what another teacher heard, or what
    was heard in files that have changed, is not used. Processes that train
    together share the work.

    Arguments
    ---------
    teacher : torch.nn.Module
        From :func:`open_teacher`.
    clips : list of dict
        Rows of a manifest; their transcripts are not looked at.
    reader : ClipReader
        Reads them.
    folder : str or Path
        For ``words-<process>.jsonl``.
    device : str
        Where the teacher works.
    is_shown : bool
        Whether a bar shows how far it is.

    Returns
    -------
    dict
        Words by ID of the clip; empty where there are none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = read_words(folder)
    model = fingerprint(teacher, {})
    digests = {path: digest_of(path)[0] for path in {c["wav"] for c in clips}}
    keys = {
        clip["ID"]: _key(model, digests[clip["wav"]], clip) for clip in clips
    }
    missing = [clip for clip in clips if keys[clip["ID"]] not in known]
    ddp_barrier()  # none may write before all know what is missing
    missing.sort(key=lambda clip: clip["duration"])
    own = missing[rank() :: n_ranks()]
    teacher.to(device)
    with (
        open(folder / f"words-{rank()}.jsonl", "a", encoding="utf-8") as file,
        tqdm(
            desc="teacher",
            total=len(own),
            unit="clip",
            disable=not (is_shown and own and rank() == 0),
        ) as bar,
    ):
        file.write("\n")  # ends a line that a kill has cut off
        for begin in range(0, len(own), BATCH):
            some = own[begin : begin + BATCH]
            for clip, words in zip(
                some, _transcribe(teacher, some, reader, device), strict=True
            ):
                line = {"key": keys[clip["ID"]], "ID": clip["ID"]}
                file.write(json.dumps(line | {"words": words}) + "\n")
            file.flush()
            bar.update(len(some))
    ddp_barrier()
    known = read_words(folder)
    return {clip["ID"]: known[keys[clip["ID"]]] for clip in clips}


def read_words(folder):
    """Returns all that teachers have heard, by the key of a clip.

    Arguments
    ---------
    folder : str or Path
        With ``words-<process>.jsonl``; may have none.

    Returns
    -------
    dict
        Words by key. A line that is cut off is left out, to be heard again.
    """
    known, n_broken = {}, 0
    for path in sorted(Path(folder).glob("words-*.jsonl")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in filter(str.strip, text.split("\n")):
            try:
                heard = json.loads(line)
                known[heard["key"]] = heard["words"]
            except (ValueError, LookupError, TypeError):
                n_broken += 1
    if n_broken:
        logger.warning(
            f"{n_broken} lines of what the teacher heard are cut off; their "
            "clips are heard again"
        )
    return known


def _transcribe(teacher, clips, reader, device):
    """Returns the words of some clips."""
    waves = [
        reader(clip["wav"], clip["start"], clip["stop"], clip["channel"])
        for clip in clips
    ]
    lengths = torch.tensor([len(wave) for wave in waves])
    wavs = pad_sequence(waves, batch_first=True)
    lengths = lengths / wavs.shape[1]
    return teacher.transcribe(wavs.to(device), lengths.to(device))


def _key(model, file, clip):
    """Returns what tells a clip as a teacher hears it from any other."""
    place = [clip[key] for key in ("start", "stop", "channel")]
    told = json.dumps([model, file, *place])
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
