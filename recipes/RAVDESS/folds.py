"""Trains and tests on five folds of actors, prints mean and spread.

Each fold tests on four actors and trains on the other sixteen, without
validation: the last weights of the schedule are judged, nothing is chosen on
anybody's clips. Folds that are finished are not done again, those broken off
are gone on with, and those of another page or other options are refused. Run
it from the repository root::

    python recipes/RAVDESS/folds.py hparams/compact.yaml --data_folder PATH

Further options are handed to ``train.py``.

Authors
 * The esr_lobes contributors
"""

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

from esr_lobes.errors import MendableError, one_line_errors
from esr_lobes.files import write_text
from esr_lobes.pages import flatten_page
from esr_lobes.runs import RunFolder

TRAIN = Path(__file__).with_name("train.py")
FOLDS = {n: list(range(4 * n - 3, 4 * n + 1)) for n in range(1, 6)}
HELD_OUT = "held_out"  # the bank that no training learns from
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


def command_of(page, options):
    """Returns what a fold is trained by, to tell another command from it.

    Arguments
    ---------
    page : str
        The page to train.
    options : list of str
        Handed to ``train.py``.

    Returns
    -------
    dict
        The options, and a digest of the page, the parts it includes, and the
        recipe's own page.

    Raises
    ------
    FileNotFoundError
        If there is no such page.
    """
    corpus = TRAIN.with_name("ravdess.yaml")
    flat = flatten_page(page, {"data_folder": ""}, corpus)
    digest = hashlib.sha256(flat.encode())
    return {"page": digest.hexdigest(), "options": list(options)}


def is_finished(folder, command):
    """Tells whether a fold has its report; refuses that of another command.

    Arguments
    ---------
    folder : Path
        Where the fold's results go.
    command : dict
        From :func:`command_of`.

    Returns
    -------
    bool
        True if there is nothing left to do.

    Raises
    ------
    MendableError
        If another command has begun or finished this fold.
    """
    finished = (RunFolder(folder).evaluation("test") / "report.json").exists()
    begun = finished or any((folder / "checkpoints").glob("CKPT*"))
    path = folder / "command.json"
    if begun and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in command if old.get(key) != command[key]]
        if changed:
            raise MendableError(
                f"{folder} holds a fold of another {' and '.join(changed)} "
                f"(its options: {' '.join(old['options'])}): give another "
                "--out, remove the folder, or only print it with --report"
            )
    return finished


def run_fold(fold, folder, page, options):
    """Trains one fold, unless it is finished.

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

    Raises
    ------
    SystemExit
        With the status of the training if it fails.
    """
    command = command_of(page, options)
    if is_finished(folder, command):
        return
    write_text(folder / "command.json", json.dumps(command, indent=2) + "\n")
    actors = [actor for n in FOLDS if n != fold for actor in FOLDS[n]]
    status = _run_timed(
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
        folder / "minutes.txt",
    )
    if status:
        print(
            f"error: fold {fold} ended with status {status}; see above, or "
            f"{folder / 'log.txt'}",
            file=sys.stderr,
        )
        sys.exit(status)


def _run_timed(arguments, path):
    """Runs a program, adds its minutes to a file, returns its status."""
    before = float(path.read_text()) if path.exists() else 0.0
    start = time.perf_counter()
    status = None
    with subprocess.Popen(arguments) as process:
        try:
            while status is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(timeout=60)
                # Each minute, so that a kill loses one at most.
                minutes = before + (time.perf_counter() - start) / 60
                write_text(path, f"{minutes:.2f}\n")
        except BaseException:
            process.terminate()
            raise
    return 128 - status if status < 0 else status


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
        Rows a fold and a prompt bank, then mean and spread; below, what
        share of the mean mAP is left with prompts never trained on.
    """
    reports = {}
    for fold in folds:
        run = RunFolder(folder / f"fold{fold}")
        path = run.evaluation("test") / "report.json"
        if path.exists():
            reports[fold] = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"| prompts | fold | {' | '.join(FIGURES)} | minutes |",
        "|---" * (len(FIGURES) + 3) + "|",
    ]
    banks = {name for report in reports.values() for name in report["systems"]}
    means = {}
    for bank in sorted(banks, key=lambda name: (name == HELD_OUT, name)):
        rows = []
        for fold, report in reports.items():
            if bank not in report["systems"]:
                continue
            macro = report["systems"][bank]["macro"]
            rows.append([macro[name] for name in FIGURES])
            minutes = _minutes(folder / f"fold{fold}" / "minutes.txt")
            lines.append(_line(bank, fold, rows[-1], minutes))
        columns = list(zip(*rows, strict=True))
        means[bank] = mean(columns[FIGURES.index("mAP")])
        if len(rows) > 1:
            spread = [f"{mean(c):.3f} ± {stdev(c):.3f}" for c in columns]
            cells = " | ".join(f"**{cell}**" for cell in spread)
            lines.append(f"| {bank} | mean ± deviation | {cells} | |")
    for name, figures in YARDSTICKS.items():
        lines.append(_line(name, "mean", figures, ""))
    held_out = means.pop(HELD_OUT, None)
    if held_out is not None:
        lines += [
            f"\n{HELD_OUT} / {bank}, ratio of the mean mAP: "
            f"{held_out / value:.3f}"
            for bank, value in means.items()
        ]
    return "\n".join(lines) + "\n"


def _minutes(path):
    """Returns the minutes of a fold as text; none if nobody noted them."""
    return f"{float(path.read_text()):.1f}" if path.exists() else ""


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
        command = command_of(options.page, others)
        for fold in options.folds:  # before the first is trained
            is_finished(folder / f"fold{fold}", command)
        for fold in options.folds:
            run_fold(fold, folder / f"fold{fold}", options.page, others)
    text = table(folder, options.folds)
    if folder.is_dir():
        write_text(folder / "folds.md", text)
    print(text)


if __name__ == "__main__":
    main()
