"""How well a question finds its place in half an hour of speech, and what
that is worth to a model that answers.

Puts the clips of a test set one after another into recordings of 30 minutes,
cuts them in several ways, and asks each question of the set in the recording
that voices its context. Run it from the repository root::

    python recipes/SyntheticSQA/long_recordings.py --source RETRIEVER \\
        --manifests MANIFESTS --data_root SPEECH \\
        --questions_json spoken_test-v1.1.json --out long

A question is a hit at k if one of its first k passages holds at least half of
the clip that answers it. Whether they hold the answer's words is told from
the true words of the passages, each clip's spread evenly over its length.
With ``--answer_with MODEL`` an audio model answers some of the questions,
from the first passage and from the whole recording.

Authors
 * The esr_lobes contributors
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from long_figures import measure, to_markdown
from long_speech import write_recordings
from tqdm import tqdm

from esr_lobes import EncoderRetriever
from esr_lobes.answering import PassageFinder
from esr_lobes.answering.handing_on import ask
from esr_lobes.answering.scoring import mean_scores
from esr_lobes.audio import read
from esr_lobes.clsr.spoken_qa import read_questions
from esr_lobes.content_manifests import read_content
from esr_lobes.devices import check_device
from esr_lobes.errors import MendableError, one_line_errors
from esr_lobes.files import write_text

SEGMENTS = ("40s", "40s/20s", "vad", "vad/10s")


def read_asked(options, recordings):
    """Returns the questions that a recording answers.

    Arguments
    ---------
    options : argparse.Namespace
        Where tables and answers are.
    recordings : dict
        From :func:`long_speech.write_recordings`.

    Returns
    -------
    list of dict
        With ``question``, ``recording``, ``clip`` and ``answers``, which are
        empty where no file says them.
    """
    _, rows = read_content(options.manifests, options.set, options.data_root)
    answers = {}
    if options.questions_json is not None:
        _, known = read_questions(options.questions_json)
        answers = {question.id: question.answers for question in known}
    places = {
        clip["context_id"]: (path, clip)
        for path, spoken in recordings.items()
        for clip in spoken
    }
    asked = [
        {
            "question": row["question"],
            "recording": places[row["context_id"]][0],
            "clip": places[row["context_id"]][1],
            "answers": answers.get(row["ID"], ()),
        }
        for row in rows
        if row["context_id"] in places
    ]
    if not asked:
        raise MendableError(
            f"no question of {options.set} is about what the recordings say: "
            "give more --minutes or --recordings"
        )
    return asked


def compare_answers(finder, asked, answerer):
    """Returns a model's figures with retrieval and without.

    Arguments
    ---------
    finder : PassageFinder
        Finds the passage to be heard.
    asked : list of dict
        Questions with answers.
    answerer : QwenAudioAnswerer
        The model.

    Returns
    -------
    list of dict
        Of each way ``way``, ``EM``, ``F1``, ``seconds`` of all questions,
        ``heard``, mean seconds of speech that the model took, and the
        ``answers``.
    """

    def from_passage(row):
        own = [row["recording"]]
        answer = ask(finder, row["question"], 1, answerer, recordings=own)
        if answer.text is None:  # nothing of this recording is searched
            return "", 0.0
        return answer.text, answerer.heard_seconds

    def from_recording(row):
        text = answerer(row["question"], [read(row["recording"])])
        return text, answerer.heard_seconds

    from_passage(asked[0])  # the first one loads, and is not timed
    results = []
    for way, answer in (
        ("best passage", from_passage),
        ("whole recording", from_recording),
    ):
        begun, heard, texts = time.perf_counter(), [], []
        for row in tqdm(asked, way):
            text, seconds = answer(row)
            texts.append(text)
            heard.append(seconds)
        scores = mean_scores(texts, [row["answers"] for row in asked])
        results.append(
            {
                "way": way,
                **scores,
                "seconds": time.perf_counter() - begun,
                "heard": float(np.mean(heard)),
                "answers": texts,
            }
        )
    return results


def parse(argv=None):
    """Returns what the command line says.

    Arguments
    ---------
    argv : list of str, optional
        Without the program's name; None takes those of the process.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--source", required=True, help="retriever of what is said")
    add("--manifests", required=True, help="folder of SET.csv")
    add("--set", default="test", help="whose clips and questions (test)")
    add("--data_root", required=True, help="folder of the clips")
    add("--questions_json", help="SQuAD's layout, for the answers")
    add("--out", required=True, help="folder for all of it")
    add("--minutes", type=float, default=30.0, help="of a recording (30)")
    add("--recordings", type=int, help="at most so many (all clips)")
    add(
        "--segments",
        nargs="+",
        default=SEGMENTS,
        help=f"ways to cut, as esr ask has them ({' '.join(SEGMENTS)})",
    )
    add("--seed", type=int, default=1986, help="of order, pauses, noise")
    add("--batch_size", type=int, default=16, help="segments a pass (16)")
    add("--workers", type=int, default=1, help="recordings at a time (1)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    add(
        "--answer_with",
        "--answer-with",
        metavar="MODEL",
        help="folder or hub id of a Qwen2-Audio: EM, F1 and time with the "
        "best passage of the first way to cut, and with whole recordings",
    )
    add("--max_questions", type=int, default=100, help="it answers (100)")
    add("--answer_precision", default="bf16", help="of that model (bf16)")
    return parser.parse_args(argv)


@one_line_errors
def main(argv=None):
    """Writes ``long_recordings.json`` and ``.md``, and prints the latter."""
    options = parse(argv)
    out = Path(options.out).absolute()
    check_device(options.device)
    clips, _ = read_content(options.manifests, options.set, options.data_root)
    recordings = write_recordings(
        clips,
        out / "recordings",
        options.minutes,
        options.recordings,
        options.seed,
    )
    asked = read_asked(options, recordings)
    retriever = EncoderRetriever.from_hparams(
        options.source, run_opts={"device": options.device}
    )
    answerer = some = None
    if options.answer_with is not None:
        from esr_lobes.answering.qwen_audio import QwenAudioAnswerer

        some = some_of(asked, options.max_questions, options.seed)
        answerer = QwenAudioAnswerer(
            options.answer_with, options.device, options.answer_precision
        )
    report = {
        "settings": vars(options),
        "fingerprint": retriever.fingerprint(),
        "threads": torch.get_num_threads(),
        "minutes": [own[-1]["stop"] / 60 for own in recordings.values()],
        "questions": len(asked),
        "with_answers": sum(bool(row["answers"]) for row in asked),
        "segments": {},
        "answers": [],
    }
    took = Took(out / "indexing.json")
    for i, name in enumerate(options.segments):
        with PassageFinder(
            retriever,
            list(recordings),
            name,
            out / f"index_{name.replace('/', '_')}",
            n_workers=options.workers,
            batch_size=options.batch_size,
        ) as finder:
            figures = measure(finder, asked, recordings, retriever)
            figures["indexing_seconds"] = took.look(
                name, finder.report, len(recordings)
            )
            report["segments"][name] = figures
            if i == 0 and answerer is not None:
                report["answers"] = compare_answers(finder, some, answerer)
        write_text(out / "long_recordings.json", json.dumps(report, indent=1))
        write_text(out / "long_recordings.md", to_markdown(report))
    print(to_markdown(report), end="")


class Took:
    """Remembers how long indexing took, for runs that find it done.

    Arguments
    ---------
    path : Path
        A JSON file, made if it is not there.
    """

    def __init__(self, path):
        self.path, self.seconds = path, {}
        if path.is_file():
            self.seconds = json.loads(path.read_text(encoding="utf-8"))

    def look(self, name, report, n_recordings):
        """Returns the seconds of a way to cut; None if nobody knows.

        A run that was stopped leaves a part of the work to the next, whose
        seconds are not those of all of it.
        """
        n_heard = report.new + report.changed
        if n_heard:
            is_whole = n_heard == n_recordings and not report.resumed
            self.seconds[name] = report.seconds if is_whole else None
            write_text(self.path, json.dumps(self.seconds))
        return self.seconds.get(name)


def some_of(asked, n, seed):
    """Returns n questions whose answers are known, drawn with the seed."""
    known = [row for row in asked if row["answers"]]
    if not known:
        raise MendableError(
            "no answers are known to compare with: give --questions_json"
        )
    order = np.random.default_rng(seed).permutation(len(known))
    return [known[i] for i in sorted(order[:n])]


if __name__ == "__main__":
    main()
