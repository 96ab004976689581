"""The results of trainings: every report in a folder, and what it is of.

Trainings leave their reports in
``<results>/<Corpus>/<page>[-<variant>...]/<seed>/evaluation/<set>/``; a joint
training, whose folder is ``Joint``, in ``evaluation/<Corpus>_<set>/``. That
on styles is ``report.json``, that on content ``content.json``.

Authors
 * The esr_lobes contributors
"""

from dataclasses import dataclass
from pathlib import Path

from esr_lobes.content_reports import NAME, read_content_report
from esr_lobes.errors import MendableError
from esr_lobes.published import read_report

JOINT = "Joint"


@dataclass(frozen=True, eq=False)
class Result:
    """One report and what it is of.

    Arguments
    ---------
    trained_on : str
        Name of the folder of the corpus: `ESD`, `Joint`.
    name : str
        Name of the page, with its variants joined by `-`.
    seed : int
        Seed of the training.
    corpus : str
        Name of the corpus of the test set.
    test_set : str
        Name of the test set.
    numbers : dict
        What `report.json` or `content.json` holds.
    """

    trained_on: str
    name: str
    seed: int
    corpus: str
    test_set: str
    numbers: dict

    @property
    def page(self):
        """The name without variants."""
        return self.name.split("-")[0]


def full_system(name):
    """Returns which system an ablation is taken from.

    Arguments
    ---------
    name : str
        Name of a page, with its variants joined by `-`; an ablation is a
        variant whose name begins with `no_`.

    Returns
    -------
    str
        The name without ablations.

    Example
    -------
    >>> full_system("compact-paper-no_classifier")
    'compact-paper'
    """
    parts = name.split("-")
    return "-".join(part for part in parts if not part.startswith("no_"))


def find_results(folder, skips=None):
    """Returns all results below a folder, sorted.

    Arguments
    ---------
    folder : str
        Holds a folder for each corpus. Folders of trainings that are no
        number, such as copies, do not count.
    skips : list, optional
        Takes the MendableError of each report that cannot be read.

    Returns
    -------
    list of Result
        One for each report; none if there is no such folder yet.

    Raises
    ------
    MendableError
        If a report cannot be read, and there is no list of skips.
    """
    return _find(folder, "report.json", read_report, skips)


def find_content_results(folder, skips=None):
    """Returns all results on content below a folder, sorted.

    Arguments
    ---------
    folder, skips
        As for :func:`find_results`.

    Returns
    -------
    list of Result
        One for each ``content.json``, with its ``settings`` and ``systems``.

    Raises
    ------
    MendableError
        As :func:`find_results`.
    """

    def read(path):
        return vars(read_content_report(path))

    return _find(folder, NAME, read, skips)


def _find(folder, report, read, skips):
    """Returns a result for each report of that name."""
    found = []
    for path in sorted(Path(folder).glob(f"*/*/*/evaluation/*/{report}")):
        trained_on, name, seed, _, test_set, _ = path.parts[-6:]
        if not seed.isdecimal():
            continue
        corpus = trained_on
        if trained_on == JOINT:
            corpus, _, test_set = test_set.partition("_")
        try:
            numbers = read(path)
        except MendableError as error:
            if skips is None:
                raise
            skips.append(error)
            continue
        found.append(
            Result(trained_on, name, int(seed), corpus, test_set, numbers)
        )
    return found
