"""What was found out about content retrievers, as JSON and as tables.

Authors
 * The esr_lobes contributors
"""

import json
import math
from pathlib import Path

from esr_lobes.errors import MendableError
from esr_lobes.files import write_text

NAME = "content.json"
CASCADE, BOUND = "cascade", "text (upper bound)"
LATE, SPOKEN = ", late interaction", ", spoken questions"
"""How the rows of a report are called: a system, a cascade of its own words,
the true words; behind them how they were compared."""
QUESTIONS_WER = "WER of questions"
"""The word error rate of questions that are spoken; that of clips is `WER`."""


class ContentReport:
    """Figures of systems on one test set, as JSON and as tables.

    Arguments
    ---------
    settings : dict
        What was judged, numbers of clips, contexts and questions, and how
        long it took.
    systems : dict
        Figures by name, of each system by its name, judged by context.
    by_pair : dict
        The same by pairs of question and context.

    Example
    -------
    >>> figures = {"Q-C R@1": 50.0, "WER": 12.345}
    >>> print(ContentReport({"clips": 2}, {"mine": figures}, {}))
    | | Q-C R@1 | WER |
    |---|---|---|
    | mine | 50.00 | 12.35 |
    <BLANKLINE>
    clips: 2
    """

    def __init__(self, settings, systems, by_pair):
        self.settings = settings
        self.systems = systems
        self.by_pair = by_pair

    def __str__(self):
        """Returns tables in Markdown, and below them what was judged."""
        parts = [_table(self.systems)]
        if self.by_pair:
            # Else no context has several questions, and the two agree.
            parts.append(
                "A context as often as it is asked about, once at least:"
            )
            parts.append(_table(self.by_pair))
        said = [f"{key}: {n}" for key, n in self.settings.items()]
        return "\n\n".join([*parts, ", ".join(said)])

    def to_json(self):
        """Returns settings and figures as text."""
        numbers = {
            "settings": self.settings,
            "systems": self.systems,
            "by_pair": self.by_pair,
        }
        return json.dumps(numbers, indent=2) + "\n"

    def save(self, folder):
        """Writes ``content.json`` and ``content.md``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        write_text(Path(folder) / NAME, self.to_json())
        write_text(Path(folder) / "content.md", f"{self}\n")


def _table(systems):
    """Returns a table in Markdown, a system a row."""
    names = dict.fromkeys(n for figures in systems.values() for n in figures)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system, figures in systems.items():
        cells = [
            f"{figures[name]:.2f}" if name in figures else "" for name in names
        ]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_content_report(path):
    """Returns the report that a ``content.json`` holds.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    ContentReport
        As it was saved.

    Raises
    ------
    MendableError
        If it is no such report.
    """
    try:
        numbers = json.loads(Path(path).read_text(encoding="utf-8"))
        parts = [numbers[k] for k in ("settings", "systems", "by_pair")]
        _check_parts(*parts)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise MendableError(
            f"{path} is no report on content ({type(error).__name__}: "
            f"{error}): evaluate again"
        ) from error
    return ContentReport(*parts)


def _check_parts(settings, systems, by_pair):
    """Raises a TypeError if they are not what a ContentReport takes."""
    tables = settings, systems, by_pair
    if not all(isinstance(table, dict) for table in tables):
        raise TypeError("no tables")
    if not systems:
        raise TypeError("no system")
    for name, value in settings.items():
        if not isinstance(value, (str, int, float)):
            raise TypeError(f"{name} is {value!r}")
    for system, figures in (*systems.items(), *by_pair.items()):
        if not isinstance(figures, dict):
            raise TypeError(f"{system} has no figures")
        for name, value in figures.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise TypeError(f"{name} of {system} is {value!r}")
