"""``esr ask``: the passages of long recordings that answer a question.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import sys
from pathlib import Path

from esr_lobes.errors import MendableError

DESCRIPTION = """\
Finds where in long recordings a question is answered: cuts them into
passages, embeds these with a retriever of what is said (CLSR, ParaBGE, a
cascade), and prints the best ones with their times.

  esr cascade --recogniser pocketsphinx --text minilm --out cascade
  esr ask lecture.mp3 --source cascade --question "why do tides come twice?"
  esr ask talks/ --source cascade --questions questions.txt -k 5

Listening is what takes time. With --index it is done once; later questions
take as long as loading the model does:

  esr ask talks/ --source cascade --index index --question "who built it?"
  esr ask --index index --question "and when?"
                                  all that an index holds, also one that
                                  esr index has made

How recordings are cut, --segments:

  40s       windows of 40 s, one behind the other, as CLSR's paper has them
  40s/20s   one every 20 s, so that no answer is cut in two
  vad       where somebody speaks, from pause to pause
  vad/10s   the same, passages of at least 10 s where pauses allow

What is found goes elsewhere: --json for programs, --clips cuts WAV files, and
--answer_with has a model listen to the best passage and answer in words:

  esr ask lecture.mp3 --source cascade --question "who built it?" \\
      --answer_with Qwen/Qwen2-Audio-7B-Instruct --device cuda

The same from Python:

  from esr_lobes.answering import find_passages
  hits = find_passages("cascade", "who built it?", "lecture.mp3", k=3)
"""


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "ask",
        help="where in long recordings a question is answered",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings",
        nargs="*",
        metavar="RECORDING",
        help="files, and folders searched to any depth (default: all that "
        "--index holds)",
    )
    parser.add_argument(
        "--question",
        action="append",
        default=[],
        metavar="TEXT",
        help="may be given several times",
    )
    parser.add_argument(
        "--questions", metavar="FILE", help="a text file, one question a line"
    )
    parser.add_argument("-k", type=int, default=3, help="passages at most (3)")
    passages = parser.add_argument_group("passages")
    passages.add_argument(
        "--source",
        metavar="RETRIEVER",
        help="folder or hub id of what embeds (default: that of --index)",
    )
    passages.add_argument(
        "--segments",
        metavar="HOW",
        help="see above (default: that of --index, or 40s)",
    )
    passages.add_argument(
        "--index",
        metavar="FOLDER",
        help="where the passages are kept for later questions; made if need be",
    )
    passages.add_argument(
        "--workers", type=int, help="recordings at a time (one a core)"
    )
    passages.add_argument(
        "--batch_size", type=int, default=16, help="passages a pass (16)"
    )
    out = parser.add_argument_group("what is done with them")
    out.add_argument(
        "--json",
        metavar="FILE",
        help="questions, passages, answers; - for standard output, on which "
        "is nothing else then",
    )
    out.add_argument(
        "--clips",
        metavar="FOLDER",
        help="cut them to files in a new folder; of several questions in "
        "folders 1, 2, ... in it",
    )
    out.add_argument(
        "--answer_with",
        "--answer-with",
        metavar="MODEL",
        help="folder or hub id of a Qwen2-Audio that answers",
    )
    out.add_argument(
        "--answer_from",
        type=int,
        default=1,
        metavar="N",
        help="so many of the best passages it hears (1)",
    )
    out.add_argument(
        "--answer_precision",
        choices=("bf16", "fp32", "fp16"),
        default="bf16",
        help="of that model (bf16)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=run)


def run(options):
    """Prints passages and writes what was asked for.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    # What is quickly found wrong comes before the long work.
    questions = _questions(options)
    _check(options)
    from esr_lobes.answering.handing_on import ask
    from esr_lobes.answering.passages import PassageFinder, skip_line

    answers, how = [], (options.k, _answerer(options), options.answer_from)
    try:
        with PassageFinder(
            options.source,
            options.recordings or None,
            options.segments,
            options.index,
            options.device,
            n_workers=options.workers,
            batch_size=options.batch_size,
        ) as finder:
            if finder.skips:
                print(f"{len(finder.skips)} skipped:", file=sys.stderr)
                for skip in finder.skips:
                    print(f"  {skip_line(skip)}", file=sys.stderr)
            try:
                for text in questions:
                    answers.append(ask(finder, text, *how))
                    _show(answers, options)
            finally:
                # Also what was found before a question that fails.
                _hand_on(answers, options, len(questions))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        # Threads may be in the middle of a recording.
        os._exit(130)


def _questions(options):
    """Returns what is asked, in order."""
    questions = [question.strip() for question in options.question]
    if not all(questions):
        raise MendableError("a --question is blank: ask in words")
    if options.questions is not None:
        lines = _read(options.questions).splitlines()
        questions += [line.strip() for line in lines if line.strip()]
    if not questions:
        raise MendableError(
            "what is asked? give --question, or --questions with one a line"
        )
    for question in questions:
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise MendableError(
                f"the question {question!a} is no text in UTF-8: write it so"
            ) from error
    return questions


def _read(path):
    """Returns the text of a file of questions."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MendableError(
            f"{path} is no text in UTF-8: write one question a line"
        ) from error
    except OSError as error:
        raise MendableError(
            f"--questions {path} cannot be read ({error.strerror}): name a "
            "text file with one question a line"
        ) from error


def _check(options):
    """Raises an error if something would fail behind the long work."""
    from esr_lobes.devices import check_device
    from esr_lobes.highlights import check_free

    check_device(options.device)
    if options.source is None and options.index is None:
        raise MendableError("with what? give --source RETRIEVER, or --index")
    if options.k < 1:
        raise MendableError(f"-k {options.k}: give 1 or more")
    if not 1 <= options.answer_from <= options.k:
        raise MendableError(
            f"--answer_from {options.answer_from}: give 1 to {options.k}, the "
            "passages that -k finds"
        )
    if options.clips is not None:
        check_free(options.clips)
    if options.json not in (None, "-"):
        _check_json(options.json)


def _check_json(path):
    """Raises an error if no file can be written there, or replaced."""
    if not path:
        raise MendableError("--json: name a file, or - for standard output")
    if os.path.exists(path) and not os.path.isfile(path):
        raise MendableError(f"--json {path} is a folder or device: name a file")
    parents = Path(os.path.abspath(path)).parents
    place = next(p for p in parents if os.path.lexists(p))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise MendableError(
            f"--json {path} cannot be written: {place} is no folder that may "
            "be written to; give another place"
        )


def _answerer(options):
    """Returns the model that answers, if there is one."""
    if options.answer_with is None:
        return None
    from esr_lobes.answering.qwen_audio import QwenAudioAnswerer

    return QwenAudioAnswerer(
        options.answer_with, options.device, options.answer_precision
    )


def _show(answers, options):
    """Prints the last answer, unless all are printed as JSON at the end."""
    from esr_lobes.answering.handing_on import answer_lines

    if options.json != "-":
        between = "\n" if len(answers) > 1 else ""
        print(between + answer_lines(answers[-1]), flush=True)


def _hand_on(answers, options, n_questions):
    """Writes the JSON and the clips of the answers that there are."""
    from esr_lobes.answering.handing_on import answers_json
    from esr_lobes.files import write_text
    from esr_lobes.highlights import cut_clips

    if not answers:
        return
    if options.json == "-":
        print(answers_json(answers), flush=True)
    elif options.json is not None:
        write_text(options.json, answers_json(answers) + "\n")
    if options.clips is None:
        return
    for number, answer in enumerate(answers, start=1):
        folder = Path(options.clips)
        if n_questions > 1:
            folder = folder / str(number)
        paths, skips = cut_clips(answer.hits, folder)
        print(f"{len(paths)} clips cut to {folder}", file=sys.stderr)
        for skip in skips:
            print(f"  not {skip.path}: {skip.reason}", file=sys.stderr)
