"""How fast the overlap form of CIF is, as ratios in one run.

    python benchmarks/cif.py

Three ways from 16 clips of 500 steps (half a minute of speech) to their token
vectors, forward and with the backward pass: a loop over steps that collects
weight and fires, as the paper of CIF tells it and as FunASR's first predictor
does it, each step a slice of all; the same loop over steps taken apart
beforehand, so that a step's gradient is not as large as all of them; sums up
to each fire and their differences, as FunASR's second predictor does it; and
the overlap matrix of esr_lobes.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import statistics
import time
from functools import partial

import torch

from esr_lobes.clsr.cif import cif_overlap

SHAPE = 16, 500, 512
# Tokens a step of 60 ms, as in read English.
RATE = 0.25


def cif_loop(h, alphas, n_tokens, is_apart=False):
    """Returns token vectors, collected step by step.

    A step that brings the collected weight to 1 or above fires: it completes
    a token with what was missing, and what is left of its weight begins the
    next. No step may weigh more than 1.

    Arguments
    ---------
    h, alphas, n_tokens
        See :func:`esr_lobes.clsr.cif.cif_overlap`.
    is_apart : bool
        Whether steps are taken apart beforehand.

    Returns
    -------
    torch.Tensor
        Of shape [batch, n_tokens, channel].
    """
    collected = h.new_zeros(len(h))
    vector = h.new_zeros(len(h), h.shape[2])
    vectors, fires = [], []
    steps = zip(h.unbind(1), alphas.unbind(1), strict=True)
    if not is_apart:
        steps = ((h[:, t], alphas[:, t]) for t in range(h.shape[1]))
    for step, alpha in steps:
        missing = 1 - collected
        is_fire = alpha >= missing
        used = torch.where(is_fire, missing, alpha)
        left = alpha - used
        collected = torch.where(is_fire, left, collected + used)
        vector = vector + used.unsqueeze(1) * step
        vectors.append(vector)
        fires.append(is_fire)
        begun = left.unsqueeze(1) * step
        vector = torch.where(is_fire.unsqueeze(1), begun, vector)
    vectors, fires = torch.stack(vectors, dim=1), torch.stack(fires, dim=1)
    tokens = h.new_zeros(len(h), n_tokens, h.shape[2])
    rows = [vectors[i][fires[i]][:n_tokens] for i in range(len(h))]
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    return tokens


def cif_sums(h, alphas, n_tokens):
    """Returns token vectors as differences between sums at their fires.

    Arguments
    ---------
    h, alphas, n_tokens
        See :func:`cif_loop`.

    Returns
    -------
    torch.Tensor
        Of shape [batch, n_tokens, channel].
    """
    weights = alphas.cumsum(dim=1)
    whole = weights.floor()
    is_fire = whole.diff(dim=1, prepend=whole.new_zeros(len(h), 1)) > 0
    left = (weights - whole).unsqueeze(2) * h
    # All that was given out until a fire, without what begins the next.
    sums = (alphas.unsqueeze(2) * h).cumsum(dim=1) - left
    tokens = h.new_zeros(len(h), n_tokens, h.shape[2])
    for i in range(len(h)):
        at_fires = sums[i][is_fire[i]][:n_tokens]
        before = torch.cat([h.new_zeros(1, h.shape[2]), at_fires[:-1]])
        tokens[i, : len(at_fires)] = at_fires - before
    return tokens


WAYS = {
    "loop": cif_loop,
    "loop, taken apart": partial(cif_loop, is_apart=True),
    "sums": cif_sums,
    "overlap": cif_overlap,
}


def make_rows(n_rows, n_steps, width, seed=0):
    """Returns steps, weights below 1, and how many tokens all rows have.

    Arguments
    ---------
    n_rows, n_steps, width : int
        Sizes.
    seed : int
        Of the draws.

    Returns
    -------
    h : torch.Tensor
        Of shape [n_rows, n_steps, width].
    alphas : torch.Tensor
        Of shape [n_rows, n_steps].
    n_tokens : int
        The most whole tokens of a row.
    """
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n_rows, n_steps, width, generator=generator)
    alphas = 2 * RATE * torch.rand(n_rows, n_steps, generator=generator)
    return h, alphas, int(alphas.double().sum(dim=1).max())


def run(way, h, alphas, n_tokens, is_backward):
    """Runs one way once; returns the seconds it took: wall, processor."""
    h = h.detach().requires_grad_(is_backward)
    alphas = alphas.detach().requires_grad_(is_backward)
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = way(h, alphas, n_tokens)
    if is_backward:
        tokens.square().sum().backward()
    if h.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    h, alphas, n_tokens = make_rows(*SHAPE)
    h, alphas = h.to(options.device), alphas.to(options.device)
    print(
        f"{list(SHAPE)}, {n_tokens} tokens, on {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}; medians of "
        f"{options.rounds} rounds, the first left out.\n"
    )
    print(
        "| pass | way | ms | overlap is faster by | of processor time |\n"
        "|---|---|---|---|---|"
    )
    for is_backward, name in ((False, "forward"), (True, "with backward")):
        # They take turns, so that another process slows all down.
        spent = {way: [] for way in WAYS}
        for _ in range(options.rounds + 1):
            for way, function in WAYS.items():
                spent[way].append(
                    run(function, h, alphas, n_tokens, is_backward)
                )
        walls, cpus = (
            {
                w: statistics.median(pair[i] for pair in s[1:])
                for w, s in spent.items()
            }
            for i in range(2)
        )
        for way in WAYS:
            print(
                f"| {name} | {way} | {1000 * walls[way]:.1f} | "
                f"{walls[way] / walls['overlap']:.1f} | "
                f"{cpus[way] / cpus['overlap']:.1f} |"
            )


if __name__ == "__main__":
    main()
