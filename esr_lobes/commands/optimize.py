"""``esr optimize``: an approximate index where it pays.

Authors
 * The esr_lobes contributors
"""

DESCRIPTION = """\
Makes searching a large index faster, at the price of a few hits: sorts the
vectors into lists, measures how many lists a search must look into to find
the wanted share of the ten best, and how much time that takes. Small indexes,
and those where it gains nothing, are searched exactly as before. Segments
that `esr index` adds later are not in the lists: optimize again then.

  esr optimize speeches
  esr optimize speeches --recall 0.99 --queries asked_before.txt
  esr optimize speeches --drop
"""


def add(commands):
    """Declares the command.

    Arguments
    ---------
    commands : argparse object
        Of ``add_subparsers``.
    """
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "optimize",
        help="make searching a large index faster",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", metavar="INDEX", help="folder of an index")
    parser.add_argument(
        "--recall",
        type=float,
        default=0.95,
        help="share of the ten best that a search shall find (0.95)",
    )
    parser.add_argument(
        "--queries",
        metavar="FILE",
        help="descriptions to measure with, one a line, such as users ask "
        "(default: those that retrievers are trained with)",
    )
    parser.add_argument(
        "--source",
        metavar="RETRIEVER",
        help="where the model lies, if not where the index says",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also if the index is small, or nothing is gained",
    )
    parser.add_argument(
        "--drop", action="store_true", help="search exactly again"
    )
    parser.set_defaults(run=run)


def run(options):
    """Optimises an index and prints what was measured.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.index.optimize import drop, optimize

    if options.drop:
        had = ", ".join(drop(options.index)) or "nothing was approximate"
        print(f"Searched exactly again: {had}")
        return
    reports = optimize(
        options.index,
        _queries(options),
        target=options.recall,
        force=options.force,
    )
    print(*reports, sep="\n")


def _queries(options):
    """Returns vectors to measure with: dict of space to array."""
    from esr_lobes.index.optimize import FEWEST_ROWS, N_QUERIES
    from esr_lobes.index.store import read_info
    from esr_lobes.prompts import PromptBank
    from esr_lobes.searching import open_index

    info = read_info(options.index)
    texts = _lines(options.queries) if options.queries else None
    is_small = info["rows"] < FEWEST_ROWS and not options.force
    if is_small or (texts is None and "style" not in info["spaces"]):
        return {}  # No query will be asked, or none is known: no model needed.
    queries = {}
    with open_index(options.index, sources=options.source) as index:
        for space, encoder in index.encoders.items():
            asked = texts
            if asked is None and space == "style":
                asked = PromptBank.load("train").all_prompts()
            if asked is not None:
                asked = asked[:: max(1, len(asked) // N_QUERIES)]
                queries[space] = encoder.encode_text(asked).cpu().numpy()
    return queries


def _lines(path):
    """Returns the descriptions in a file."""
    from esr_lobes.errors import MendableError

    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise MendableError(f"{path} is no UTF-8 text: save it so") from error
    except OSError as error:
        raise MendableError(
            f"{path} cannot be read ({error.strerror}): give a text file with "
            "a description on each line"
        ) from error
    if not any(lines):
        raise MendableError(f"{path} has no descriptions: write one a line")
    return [line for line in lines if line]
