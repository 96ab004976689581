"""The ``esr`` command.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
from pathlib import Path

from esr_lobes import __version__
from esr_lobes.devices import check_device
from esr_lobes.errors import MendableError, one_line_errors

EVALUATE = """\
Ranks the clips of a manifest for every style, and writes report.json,
report.md, the trials and the plots into a folder. Of a training's output
folder, its own report is made anew; anything else needs --out.

  esr evaluate results/RAVDESS/compact/1986
  esr evaluate RETRIEVER --manifest test.csv --data_root AUDIO --out report
"""
# What makes a report another one than the training's own.
SETTINGS = ("manifest", "data_root", "banks", "trials", "distractors", "seed")


def main(argv=None):
    """Runs a command.

    Arguments
    ---------
    argv : list of str
        Without the program's name; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="esr", description="Search speech by how it is spoken."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True)
    _add_evaluate(commands)
    options = parser.parse_args(argv)
    one_line_errors(options.run)(options)


def _add_evaluate(commands):
    parser = commands.add_parser(
        "evaluate",
        help="Recall@k and ranking figures of a retriever on a manifest",
        description=EVALUATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        help="folder of a retriever, its hub id, or a training's output "
        "folder (whose retriever and test split are taken)",
    )
    parser.add_argument(
        "--manifest", help="CSV of the clips; default: the training's test"
    )
    parser.add_argument(
        "--data_root",
        help="what $data_root in the manifest stands for; default: the "
        "training's data_folder",
    )
    parser.add_argument(
        "--out",
        help="folder of the report; may be left out only where a training's "
        "own report is made again, with none of the other settings",
    )
    parser.add_argument(
        "--banks",
        nargs="+",
        help="prompt banks: train, held_out or YAML files (default: both, "
        "or those of the training)",
    )
    parser.add_argument(
        "--trials", type=int, default=1000, help="trials a style (1000)"
    )
    parser.add_argument(
        "--distractors", type=int, default=400, help="clips of others (400)"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    own = {name: parser.get_default(name) for name in SETTINGS}
    parser.set_defaults(run=evaluate, own=own)


def evaluate(options):
    """Prints and writes the figures of a retriever.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes import EncoderRetriever
    from esr_lobes.evaluation import evaluate_retriever
    from esr_lobes.manifests import read_manifest

    device = check_device(options.device)
    source, manifest, data_root, names = _what(options)
    out = _out(options)
    banks = _banks(names)
    rows = read_manifest(
        manifest,
        data_root=data_root,
        styles=set.intersection(*(set(bank.styles) for bank in banks)),
    )
    if not rows:
        raise MendableError(f"{manifest} has no clips to evaluate on")
    retriever = EncoderRetriever.from_hparams(
        source=source, run_opts={"device": device}
    )
    report = evaluate_retriever(
        retriever,
        rows,
        banks,
        out_folder=out,
        encode_options={"on_error": "skip"},
        n_trials=options.trials,
        n_distractors=options.distractors,
        seed=options.seed,
    )
    print(report)
    print(f"\nReport and plots: {out}")


def _is_training(source):
    return (Path(source) / "retriever").is_dir()


def _what(options):
    """Returns the retriever, the manifest, its data root, and the banks."""
    manifest, data_root = options.manifest, options.data_root
    source, banks = options.source, options.banks
    if _is_training(source):
        from ruamel.yaml import YAML

        folder = Path(source)
        trained = YAML().load(folder / "hyperparams.yaml")
        source = str(folder / "retriever")
        manifest = manifest or folder / "manifests" / "test.csv"
        data_root = data_root or trained["data_folder"]
        banks = banks or trained.get("train_bank")
    if manifest is None:
        raise MendableError("which clips? add --manifest CSV")
    return source, manifest, data_root, banks


def _out(options):
    """Returns the folder of the report, which may be made or filled."""
    out = options.out
    if out is None:
        is_own = all(getattr(options, k) == v for k, v in options.own.items())
        if not (is_own and _is_training(options.source)):
            raise MendableError(
                "where shall the report go? add --out FOLDER, such as "
                "--out ./evaluation (only the report of a training on its "
                "own test split has a place of its own)"
            )
        out = Path(options.source) / "evaluation"
    there = Path(out).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise MendableError(
            f"{there} is no folder that can be written to: give another --out"
        )
    return Path(out)


def _banks(names):
    """Returns the banks to ask with: a list's, or those of a training."""
    from esr_lobes.prompts import PromptBank
    from esr_lobes.training import judging_banks

    if not isinstance(names, list):
        return judging_banks(PromptBank.load(names or "train", unique=False))
    banks = [PromptBank.load(name, unique=False) for name in names]
    titles = [bank.name for bank in banks]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise MendableError(
            f"--banks names {', '.join(twice)} twice: give each once, and "
            "files of different names"
        )
    return banks
