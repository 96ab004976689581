"""``esr evaluate``: how good a retriever is on some clips.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
from pathlib import Path

from esr_lobes.devices import check_device
from esr_lobes.errors import MendableError

DESCRIPTION = """\
Of styles: ranks the clips of a manifest for every style, and writes
report.json, report.md, the trials and the plots into a folder. Of a training's
output folder, the reports on all its test sets are made anew; anything else
needs --out.

  esr evaluate results/RAVDESS/compact/1986
  esr evaluate RETRIEVER --manifest test.csv --data_root AUDIO --out report

Of content, where the manifest has the columns context_id and transcript: asks
all questions of questions_test.csv, which lies beside test.csv, and writes
content.json and content.md. Any retriever can be judged on what another was
trained with, a cascade or a CLAP too. Beside it stand the true words as its
text encoder reads them (upper bound) and, where the retriever recognises
words, late interaction.

  esr evaluate results/SyntheticSQA/clsr_compact/1986
  esr cascade --recogniser pocketsphinx --text minilm --out CASCADE
  esr evaluate CASCADE --data_root AUDIO \\
      --manifest results/SyntheticSQA/clsr_compact/1986/manifests/test.csv \\
      --out results/SyntheticSQA/cascade_pocketsphinx/0/evaluation/test

In a folder of that name, results/CORPUS/SYSTEM/SEED/evaluation/SET, esr tables
finds the report.
"""
# What makes a report another one than the training's own.
SETTINGS = ("manifest", "data_root", "banks", "trials", "distractors", "seed")
OF_STYLES = ("banks", "trials", "distractors", "seed")


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "evaluate",
        help="how well a retriever finds styles, or answers to questions",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        help="folder of a retriever, its hub id, or a training's output "
        "folder (whose retriever and test sets are taken)",
    )
    parser.add_argument(
        "--manifest", help="CSV of the clips; default: the training's test sets"
    )
    parser.add_argument(
        "--data_root",
        help="what $data_root in the manifest stands for; default: where the "
        "training's corpus lay",
    )
    parser.add_argument(
        "--out",
        help="folder of the report; may be left out only where a training's "
        "own report is made again, with none of the other settings",
    )
    parser.add_argument(
        "--banks",
        nargs="+",
        help="of styles: prompt banks: train, held_out or YAML files (default: "
        "both, or those of the training)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=1000,
        help="of styles: trials of each (1000)",
    )
    parser.add_argument(
        "--distractors", type=int, default=400, help="clips of others (400)"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    own = {name: parser.get_default(name) for name in SETTINGS}
    parser.set_defaults(run=run, own=own)


def run(options):
    """Prints and writes the figures of a retriever.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.runs import RunFolder

    device = check_device(options.device)
    training = _training(options.source)
    if options.manifest is None and training is None:
        if RunFolder(options.source).is_training():
            raise MendableError(
                f"{options.source} holds no retriever: its training has not "
                "come to its end, or was of a classifier, which knows no words "
                "(its report is in evaluation/)"
            )
        raise MendableError("which clips? add --manifest CSV")
    is_content = _is_content(options, training)
    judge = _judge_content if is_content else _judge_styles
    judge(options, training, device)


def _judge_styles(options, training, device):
    """Writes the report on a retriever of styles, or several."""
    from esr_lobes.evaluation import evaluate_retriever

    banks = _banks(options.banks, training)
    out = _out(options, training)
    styles = set.intersection(*(set(bank.styles) for bank in banks))
    parts = _parts(options, training, styles)
    retriever = _opened(options, training, device)
    for name, rows, searched in parts:
        report = evaluate_retriever(
            retriever,
            rows,
            banks,
            out_folder=out / name,
            encode_options={"on_error": "skip"},
            styles=searched,
            n_trials=options.trials,
            n_distractors=options.distractors,
            seed=options.seed,
        )
        title = f"{name}\n\n" if len(parts) > 1 else ""
        print(f"{title}{report}\n\nReport and plots: {out / name}\n")


def _judge_content(options, training, device):
    """Writes the report on a retriever of content, or several."""
    from esr_lobes.cascade.encoder import CascadeEncoder
    from esr_lobes.content_evaluation import SYSTEM, evaluate_content
    from esr_lobes.content_reports import CASCADE

    for name in OF_STYLES:
        if getattr(options, name) != options.own[name]:
            raise MendableError(
                f"--{name} is for styles: content is judged by all questions "
                "on all clips, once"
            )
    out = _out(options, training)
    sets = _content_sets(options, training)
    retriever = _opened(options, training, device)
    is_cascade = isinstance(retriever.mods.speech_encoder, CascadeEncoder)
    name = CASCADE if is_cascade else SYSTEM
    if training is not None:
        name = _page(training).get("name", SYSTEM)
    for test_set, (clips, questions) in sets.items():
        report = evaluate_content(retriever, clips, questions, name)
        report.save(out / test_set)
        title = f"{test_set}\n\n" if len(sets) > 1 else ""
        print(f"{title}{report}\n\nReport: {out / test_set}\n")


def _is_content(options, training):
    """Whether content is to be judged, as the manifests' columns say."""
    from esr_lobes.content_evaluation import is_content

    if options.manifest is not None:
        return is_content(options.manifest)
    manifests = training.path.glob("manifests/**/test*.csv")
    return any(map(is_content, manifests))


def _content_sets(options, training):
    """Returns clips and questions by name of the report's folder."""
    from esr_lobes.content_evaluation import content_sets
    from esr_lobes.content_manifests import read_content

    if options.manifest is None:
        sets = content_sets(training, options.data_root)
    else:
        path, root = Path(options.manifest), _root(options, training)
        rows = read_content(path.parent, path.stem, root)
        sets = {"": rows} if all(rows) else {}
    if not sets:
        what = options.manifest or training.path
        raise MendableError(f"{what} has no clips that anything is asked about")
    return sets


def _opened(options, training, device):
    """Returns the retriever, which takes its time."""
    from esr_lobes import EncoderRetriever

    source = training.retriever if training else options.source
    return EncoderRetriever.from_hparams(
        source=str(source), run_opts={"device": device}
    )


def _root(options, training):
    """Returns what $data_root stands for; None if nobody says."""
    if options.data_root is None and training is not None:
        if len(training.corpora) == 1:
            return next(iter(training.corpora.values()))
    return options.data_root


def _training(source):
    """Returns the folder of a training, or None if it is something else."""
    from esr_lobes.runs import RunFolder

    folder = RunFolder(source)
    return folder if folder.retriever.is_dir() else None


def _parts(options, training, styles):
    """Returns what is judged: name of the report's folder, rows, styles."""
    from esr_lobes.manifests import read_manifest

    if options.manifest is None:
        held_out = _page(training).get("holdout_styles", [])
        parts = list(training.parts(held_out, styles, options.data_root))
        if not parts:
            raise MendableError(f"{training.path} has no test clips")
        return parts
    root = _root(options, training)
    rows = read_manifest(options.manifest, data_root=root, styles=styles)
    if not rows:
        raise MendableError(f"{options.manifest} has no clips to evaluate on")
    return [("", rows, None)]


def _page(training):
    """Returns the page of a training as plain data."""
    from ruamel.yaml import YAML

    return YAML().load(training.page)


def _out(options, training):
    """Returns the folder of the report, which may be made or filled."""
    out = options.out
    if out is None:
        is_own = all(getattr(options, k) == v for k, v in options.own.items())
        if not (is_own and training):
            raise MendableError(
                "where shall the report go? add --out FOLDER, such as "
                "--out ./evaluation (only the report of a training on its "
                "own test sets has a place of its own)"
            )
        out = training.evaluation("")
    there = Path(out).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise MendableError(
            f"{there} is no folder that can be written to: give another --out"
        )
    return Path(out)


def _banks(names, training):
    """Returns the banks to ask with: a list's, or those of a training."""
    from esr_lobes.prompts import PromptBank
    from esr_lobes.training import judging_banks

    if not names:
        return judging_banks(_page(training) if training else {})
    banks = [PromptBank.load(name, unique=False) for name in names]
    titles = [bank.name for bank in banks]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise MendableError(
            f"--banks names {', '.join(twice)} twice: give each once, and "
            "files of different names"
        )
    return banks
