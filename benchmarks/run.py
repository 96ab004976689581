"""Runs benchmarks and writes their tables into docs/benchmarks.md.

    python benchmarks/run.py                        all
    python benchmarks/run.py cif.py content.py      these; others stay

What stands in a section below a line ``<!-- remarks -->`` was written by hand
and is kept: look whether it still holds.

Authors
 * The esr_lobes contributors
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from esr_lobes.files import write_text

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
SCRIPTS = (
    "training.py",
    "style_towers.py",
    "trials.py",
    "indexing.py",
    "searching.py",
    "cif.py",
    "content.py",
)
HEAD = """# Benchmarks

Ratios of two ways, measured in one run each by `make benchmark`, or one alone
by `python benchmarks/run.py cif.py`. Read the ratios, not the seconds: these
depend on the machine.
"""
REMARKS = "<!-- remarks -->"


def main():
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "scripts", nargs="*", metavar="SCRIPT", help=", ".join(SCRIPTS)
    )
    options = parser.parse_args()
    unknown = set(options.scripts) - set(SCRIPTS)
    if unknown:
        parser.error(f"no benchmarks: {', '.join(sorted(unknown))}")
    for script in options.scripts or SCRIPTS:
        print(f"{script} ...", flush=True)
        shown = subprocess.run(
            [sys.executable, str(HERE / script)],
            stdout=subprocess.PIPE,  # why one fails is seen
            text=True,
            check=True,
        ).stdout
        print(shown)
        # One by one, so that a failure does not cost what was measured.
        text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
        write_text(DOCUMENT, replaced(text, script, f"{machine()}\n\n{shown}"))


def machine():
    """Returns when and on what this is measured."""
    return (
        f"{date.today().isoformat()}, {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}."
    )


def processor():
    """Returns what the processor is called."""
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        said = ""
    name = re.search(r"(?m)^model name\s*:\s*(.+)$", said)
    return name[1] if name else platform.processor() or platform.machine()


def replaced(text, script, shown):
    """Returns the document with what a script has shown in its place.

    Arguments
    ---------
    text : str
        The document so far; sections of scripts that are no more are left
        out.
    script : str
        One of ``SCRIPTS``.
    shown : str
        Its tables.

    Returns
    -------
    str
        The document, its remarks kept.
    """
    sections = read_sections(text)
    remarks = sections.get(script, "").partition(REMARKS)[2].strip()
    sections[script] = shown.strip()
    if remarks:
        sections[script] += f"\n\n{REMARKS}\n{remarks}"
    parts = [
        f"## `benchmarks/{name}`\n\n{sections[name]}\n"
        for name in SCRIPTS
        if name in sections
    ]
    return "\n".join([HEAD, *parts])


def read_sections(text):
    """Returns what stands in the document for each script, by its name."""
    _, *pieces = re.split(r"(?m)^## `benchmarks/(.+)`$", text)
    return {
        name: body.strip()
        for name, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


if __name__ == "__main__":
    main()
