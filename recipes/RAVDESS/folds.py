"""Trains and tests on five folds of actors, prints mean and spread.

Each fold tests on four actors and trains on the other sixteen, without
validation: the last weights of the schedule are judged, nothing is chosen on
anybody's clips. Folds that are finished are not done again. Run it from the
repository root::

    python recipes/RAVDESS/folds.py hparams/compact.yaml --data_folder PATH

Further options are handed to ``train.py``.

Authors
 * The esr_lobes contributors
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

from esr_lobes.errors import one_line_errors
from esr_lobes.files import write_text

TRAIN = Path(__file__).with_name("train.py")
FOLDS = {n: list(range(4 * n - 3, 4 * n + 1)) for n in range(1, 6)}
FIGURES = ("R@1", "R@5", "R@10", "R@20", "mAP")
YARDSTICKS = {
    "eGeMAPS + SVM (yardstick)": (
        0.144,
        0.313,
        0.437,
        0.565,
        0.551,
    ),
}


def run_fold(fold, folder, page, options):
    """Trains one fold, unless its report is there already.

    Arguments
    ---------
    fold : int
        From 1 to 5.
    folder : Path
        Where the fold's results go.
    page : str
        The page to train.
    options : list of str
        Handed to ``train.py``.
    """
    if (folder / "evaluation" / "report.json").exists():
        return
    start = time.perf_counter()
    actors = [actor for n in FOLDS if n != fold for actor in FOLDS[n]]
    subprocess.run(
        [
            sys.executable,
            str(TRAIN),
            page,
            f"--output_folder={folder}",
            f"--test_actors={FOLDS[fold]}",
            f"--train_actors={actors}",
            "--valid_actors=[]",
            *options,
        ],
        check=True,
    )
    minutes = (time.perf_counter() - start) / 60
    write_text(folder / "minutes.txt", f"{minutes:.1f}\n")


def table(folder, folds):
    """Returns a Markdown table of the finished folds.

    Arguments
    ---------
    folder : Path
        Holds ``fold1`` and so on.
    folds : list of int
        Which to show.

    Returns
    -------
    str
        Rows a fold and a prompt bank, then mean and spread.
    """
    reports = {}
    for fold in folds:
        path = folder / f"fold{fold}" / "evaluation" / "report.json"
        if path.exists():
            reports[fold] = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"| prompts | fold | {' | '.join(FIGURES)} | minutes |",
        "|---" * (len(FIGURES) + 3) + "|",
    ]
    for bank in ("train", "held_out"):
        rows = []
        for fold, report in reports.items():
            macro = report["systems"][bank]["macro"]
            rows.append([macro[name] for name in FIGURES])
            minutes = (folder / f"fold{fold}" / "minutes.txt").read_text()
            lines.append(_line(bank, fold, rows[-1], minutes.strip()))
        if len(rows) > 1:
            columns = list(zip(*rows, strict=True))
            spread = [f"{mean(c):.3f} ± {stdev(c):.3f}" for c in columns]
            cells = " | ".join(f"**{cell}**" for cell in spread)
            lines.append(f"| {bank} | mean ± deviation | {cells} | |")
    for name, figures in YARDSTICKS.items():
        lines.append(_line(name, "mean", figures, ""))
    return "\n".join(lines) + "\n"


def _line(bank, fold, figures, minutes):
    cells = " | ".join(f"{figure:.3f}" for figure in figures)
    return f"| {bank} | {fold} | {cells} | {minutes} |"


@one_line_errors
def main():
    """Runs the folds in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", help="such as hparams/compact.yaml")
    parser.add_argument(
        "--folds", nargs="+", type=int, choices=FOLDS, default=list(FOLDS)
    )
    parser.add_argument(
        "--out", help="folder of the folds (results/RAVDESS/<page>/folds)"
    )
    parser.add_argument(
        "--report", action="store_true", help="only print what is finished"
    )
    options, others = parser.parse_known_args()
    name = Path(options.page).stem
    folder = Path(options.out or f"results/RAVDESS/{name}/folds")
    if not options.report:
        for fold in options.folds:
            run_fold(fold, folder / f"fold{fold}", options.page, others)
    text = table(folder, options.folds)
    if folder.is_dir():
        write_text(folder / "folds.md", text)
    print(text)


if __name__ == "__main__":
    main()
