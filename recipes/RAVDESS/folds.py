"""Trains and tests on five folds of actors, and prints mean and spread.

Each fold tests on four actors and trains on the others; folds that are
finished are not done again. Run it from the repository root::

    python recipes/RAVDESS/folds.py hparams/compact.yaml --data_folder PATH

Further options are those of train.py. ``--folds 1 3`` does some of them,
``--report`` only prints what is there.

Authors
 * The esr_lobes contributors
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from esr_lobes.manifests import write_text

TRAIN = Path(__file__).with_name("train.py")
FOLDS = {n: list(range(4 * n - 3, 4 * n + 1)) for n in range(1, 6)}
