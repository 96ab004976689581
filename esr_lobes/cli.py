"""The ``esr`` command.

Authors
 * The esr_lobes contributors
"""

import argparse
import os

# Before torch and FAISS start their threads: on few cores, threads that spin
# while they wait for each other take the time of those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from esr_lobes import __version__, commands
from esr_lobes.errors import one_line_errors


def main(argv=None):
    """Runs a command.

    Arguments
    ---------
    argv : list of str
        Without the program's name; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="esr",
        description="Search speech by how it is spoken and what it says.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(title="commands", required=True)
    for command in commands.ALL:
        command.add(subparsers)
    options = parser.parse_args(argv)
    one_line_errors(options.run)(options)
