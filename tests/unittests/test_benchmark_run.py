"""What is written by hand into docs/benchmarks.md outlives a new run.

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from run import DOCUMENT, HEAD, REMARKS, SCRIPTS, read_sections, replaced


def test_a_new_table_keeps_the_remarks_and_the_other_sections():
    text = replaced("", "cif.py", "| old |\n")
    text = replaced(text, "trials.py", "| trials |")
    assert list(read_sections(text)) == ["trials.py", "cif.py"]  # as listed
    text += f"\n{REMARKS}\nSaid by hand,\n\nin two parts.\n"
    text = replaced(text, "cif.py", "| new |\n")
    assert text.startswith(HEAD) and "old" not in text
    assert read_sections(text) == {
        "trials.py": "| trials |",
        "cif.py": f"| new |\n\n{REMARKS}\nSaid by hand,\n\nin two parts.",
    }


def test_writing_the_same_again_changes_nothing():
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = read_sections(text)
    assert set(sections) <= set(SCRIPTS)
    for script, body in sections.items():
        shown = body.partition(REMARKS)[0]
        assert replaced(text, script, shown) == text


def test_every_script_is_there_and_explained():
    folder = Path(__file__).parents[2] / "benchmarks"
    explained = (folder / "README.md").read_text(encoding="utf-8")
    for script in SCRIPTS:
        assert (folder / script).is_file()
        assert f"| `{script}` |" in explained
