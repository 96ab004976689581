"""How much faster trials are evaluated than by a loop over trials.

Both rank the same targets among the same distractors, once the trials are
made, and must agree; the loop sorts the candidates of one trial at a time.
Prints a Markdown table.

    python benchmarks/trials.py
    python benchmarks/trials.py --n_clips 10000 --n_trials 200

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from esr_lobes.metrics import score_clips, unit_rows
from esr_lobes.trial_files import read_trials, write_trials
from esr_lobes.trials import (
    DEFAULT_KS,
    evaluate_trials,
    make_trials,
)


def main():
    """Times each step and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n_clips", type=int, default=2200)
    parser.add_argument("--n_styles", type=int, default=22)
    parser.add_argument("--n_trials", type=int, default=1000)
    parser.add_argument("--n_distractors", type=int, default=400)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()

    rng = np.random.Generator(np.random.PCG64(options.seed))
    rows = [
        {"ID": f"clip{i:07d}", "style": f"style{i % options.n_styles:03d}"}
        for i in range(options.n_clips)
    ]
    ids = [row["ID"] for row in rows]
    clips = rng.standard_normal((options.n_clips, options.width))
    queries = {
        style: rng.standard_normal(options.width)
        for style in sorted({row["style"] for row in rows})
    }

    making, trials = timed(
        make_trials,
        rows,
        options.n_trials,
        options.n_distractors,
        options.seed,
    )
    scoring, scores = timed(score_all, clips, queries)
    ranking, found = timed(evaluate_trials, trials, scores, ids)
    looping, plain = timed(loop_over_trials, trials, scores, ids)
    if any(abs(found.macro[k] - plain[k]) > 1e-12 for k in plain):
        sys.exit(f"the two differ: {found.macro} and {plain}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.txt.gz"
        writing, _ = timed(write_trials, path, trials)
        reading, _ = timed(read_trials, path)
        megabytes = path.stat().st_size / 1e6

    print(
        f"{len(trials.styles)} styles x {options.n_trials} trials x "
        f"{trials.n_candidates(trials.styles[0])} candidates, "
        f"{options.n_clips} clips of width {options.width}.\n"
    )
    print("| step | seconds | against the loop |")
    print("|---|---:|---:|")
    print(f"| plain loop over trials | {looping:.2f} | 1.0 |")
    print(
        f"| vectorised (`evaluate_trials`) | {ranking:.3f} "
        f"| {looping / ranking:.0f} times as fast |"
    )
    print(f"| making the trials | {making:.2f} | |")
    print(f"| scores from embeddings | {scoring:.3f} | |")
    total = making + scoring + ranking
    print(f"| embeddings to Recall@k, in all | {total:.2f} | |")
    print(f"| writing the trials ({megabytes:.1f} MB) | {writing:.2f} | |")
    print(f"| reading the trials | {reading:.2f} | |")
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS "
        f"{threads}, Python {platform.python_version()}, numpy "
        f"{np.__version__}."
    )


def timed(function, *arguments):
    """Returns the seconds a call takes, and its result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def score_all(clips, queries):
    """Returns style to the cosine-like score of each clip."""
    units = unit_rows(clips, "clip")
    return {
        style: score_clips(units, query) for style, query in queries.items()
    }


def loop_over_trials(trials, scores, ids, ks=DEFAULT_KS):
    """Returns the mean Recall@k, one trial and one sort at a time."""
    place = {name: i for i, name in enumerate(ids)}
    where = np.array([place[name] for name in trials.clip_ids])
    recalls = {k: [] for k in ks}
    for style in trials.styles:
        of_style = scores[style][where]
        others = trials.distractors[style]
        found = dict.fromkeys(ks, 0)
        for i, target in enumerate(trials.targets[style]):
            if others is None:
                is_other = [name != style for name in trials.clip_styles]
                candidates = np.flatnonzero(is_other)
            else:
                candidates = others[i]
            # The target last, and a stable sort: ties go against it.
            candidates = np.append(candidates, target)
            order = np.argsort(-of_style[candidates], kind="stable")
            rank = 1 + int(np.flatnonzero(candidates[order] == target)[0])
            for k in ks:
                found[k] += rank <= k
        for k in ks:
            recalls[k].append(found[k] / trials.n_trials)
    return {k: float(np.mean(values)) for k, values in recalls.items()}


if __name__ == "__main__":
    main()
