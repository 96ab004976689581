"""Shows, from the official lists alone, what becomes of Expresso's test when
its time ranges are passed over, as in the published code of Kang and Roy.

Run it from the repository root::

    python recipes/Expresso/show_split.py --lists FOLDER

Authors
 * The esr_lobes contributors
"""

import argparse
import sys
from collections import Counter

from expresso_lists import read_lists, without_ranges
from expresso_speech import cut_speech

from esr_lobes.errors import one_line_errors


def finding(lists):
    """Counts the test with and without its time ranges.

    Arguments
    ---------
    lists : expresso_lists.Lists
        The official ones.

    Returns
    -------
    dict
        ``entries`` and ``ranged`` of test.txt; how many of the ranged go
        ``to_train`` if ranges are passed over; ``read``, clips by style of
        the test that is left; ``honoured``, clips by style of the test as
        it was meant; ``leaked_minutes``, the test's speech that would be
        trained on.
    """
    test = lists.entries["test"]
    ranged = [entry for entry in test if entry.has_range]
    naive = {k: set(v) for k, v in without_ranges(lists.entries).items()}
    read, honoured, leaked = Counter(), Counter(), 0.0
    for entry in test:
        for side in entry.used_sides:
            pieces = [(0.0, 0.0)]  # a sentence, whose length no list tells
            if entry.part != "read":
                segments = lists.speech[entry.name, side.channel]
                bounds = entry.start, min(entry.stop, segments[-1][1])
                pieces, _ = cut_speech(segments, bounds, 1.0, 10.0, 2.0)
            honoured[side.style] += len(pieces)
            if entry.name in naive["test"]:
                read[side.style] += len(pieces)
            if entry.name in naive["train"]:
                leaked += sum(stop - start for start, stop in pieces) / 60
    return {
        "entries": len(test),
        "ranged": len(ranged),
        "to_train": sum(entry.name in naive["train"] for entry in ranged),
        "read": dict(sorted(read.items())),
        "honoured": dict(sorted(honoured.items())),
        "leaked_minutes": leaked,
    }


def _styles(counts):
    named = ", ".join(f"{style} {count}" for style, count in counts.items())
    return f"{sum(counts.values())} clips, {len(counts)} styles: {named}"


@one_line_errors
def main(argv):
    """Prints the finding."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--lists",
        required=True,
        metavar="FOLDER",
        help="folder with splits/ (or train.txt, dev.txt and test.txt) and "
        "VAD_segments.txt",
    )
    found = finding(read_lists(parser.parse_args(argv).lists))
    print(
        f"test.txt: {found['entries']} entries, {found['ranged']} of them "
        "with a time range\n\n"
        "Time ranges passed over, a recording goes to the first list that "
        "names it:\n"
        f"  {found['to_train']} of the {found['ranged']} go to train.txt, "
        f"and with them {found['leaked_minutes']:.0f} minutes of speech of "
        "the test\n"
        f"  the test that is left: {_styles(found['read'])}\n\n"
        "Time ranges honoured:\n"
        f"  the test: {_styles(found['honoured'])}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
