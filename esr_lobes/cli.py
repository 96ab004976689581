"""The ``esr`` command.

Authors
 * The esr_lobes contributors
"""

import argparse
from pathlib import Path

from esr_lobes import __version__
from esr_lobes.errors import one_line_errors

EVALUATE = """\
Ranks the clips of a manifest for every style, and writes report.json,
report.md, the trials and the plots into a folder.

  esr evaluate results/RAVDESS/compact/1986
  esr evaluate RETRIEVER --manifest test.csv --data_root AUDIO --out report
"""


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
    parser.add_argument("--out", help="folder of the report")
    parser.add_argument(
        "--banks",
        nargs="+",
        default=["train", "held_out"],
        help="prompt banks: train, held_out or YAML files (default: both)",
    )
    parser.add_argument(
        "--trials", type=int, default=1000, help="trials a style (1000)"
    )
    parser.add_argument(
        "--distractors", type=int, default=400, help="clips of others (400)"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=evaluate)


def evaluate(options):
    """Prints and writes the figures of a retriever.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from ruamel.yaml import YAML

    from esr_lobes import EncoderRetriever
    from esr_lobes.evaluation import evaluate_retriever
    from esr_lobes.manifests import read_manifest
    from esr_lobes.prompts import PromptBank

    folder = Path(options.source)
    source, manifest = options.source, options.manifest
    data_root = options.data_root
    if (folder / "retriever").is_dir():
        source = str(folder / "retriever")
        manifest = manifest or folder / "manifests" / "test.csv"
        trained = YAML().load(folder / "hyperparams.yaml")
        data_root = data_root or trained["data_folder"]
    if manifest is None:
        raise FileNotFoundError("which clips? add --manifest CSV")
    out = options.out or folder / "evaluation"
    retriever = EncoderRetriever.from_hparams(
        source=source, run_opts={"device": options.device}
    )
    banks = [PromptBank.load(name) for name in options.banks]
    report = evaluate_retriever(
        retriever,
        read_manifest(manifest, data_root=data_root),
        banks,
        out_folder=out,
        encode_options={"on_error": "skip"},
        n_trials=options.trials,
        n_distractors=options.distractors,
        seed=options.seed,
    )
    print(report)
    print(f"\nReport and plots: {out}")
