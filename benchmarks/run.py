"""Runs all benchmarks and writes their tables into docs/benchmarks.md.

    python benchmarks/run.py

Authors
 * The esr_lobes contributors
"""

import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

from esr_lobes.files import write_text

HERE = Path(__file__).parent
SCRIPTS = (
    "training.py",
    "style_towers.py",
    "trials.py",
    "indexing.py",
    "searching.py",
    "cif.py",
)
HEAD = """# Benchmarks

Ratios of two ways, measured in one run by `make benchmark` on {day}
({machine}, {cores} cores, Python {python}). Read the ratios, not the seconds:
these depend on the machine.
"""


def main():
    """Runs, prints and writes."""
    parts = [
        HEAD.format(
            day=date.today().isoformat(),
            machine=platform.machine(),
            cores=os.cpu_count(),
            python=platform.python_version(),
        )
    ]
    for script in SCRIPTS:
        print(f"{script} ...", flush=True)
        shown = subprocess.run(
            [sys.executable, str(HERE / script)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        print(shown)
        parts.append(f"## `benchmarks/{script}`\n\n{shown.strip()}\n")
    write_text(HERE.parent / "docs" / "benchmarks.md", "\n".join(parts))


if __name__ == "__main__":
    main()
