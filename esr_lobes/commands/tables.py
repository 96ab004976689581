"""``esr tables``: the tables of the papers from a folder of results.

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

DESCRIPTION = """\
Prints Table II and Table III of Kang and Roy 2025 beside the figures of the
trainings in a folder, and a table of systems and ablations for every other
test set. What has not been run is said to be, with its command. Then, for
every corpus of content, the figures of Hu et al. 2025 and those of all systems
that were judged on it, by their training or by esr evaluate. Reports that
cannot be read are left out, and listed.

  esr tables results
  esr tables results --out tables.md
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
        "tables",
        help="tables of a folder of results, beside the paper's figures",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results",
        help="folder of CORPUS/PAGE/SEED/evaluation/SET/report.json (styles) "
        "and .../content.json",
    )
    parser.add_argument("--out", help="Markdown file to write as well")
    parser.set_defaults(run=run)


def run(options):
    """Prints the tables, and writes them if asked to.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.content_tables import content_tables
    from esr_lobes.files import write_text
    from esr_lobes.results import find_content_results, find_results
    from esr_lobes.tables import other_tables, paper_tables

    skips = []
    results = find_results(options.results, skips)
    contents = find_content_results(options.results, skips)
    others = other_tables(results)
    text = paper_tables(results)
    n_reports = len(results) + len(contents)
    text += f"\nFrom {n_reports} reports below `{options.results}`.\n"
    if skips:
        lines = "".join(f"- {error}\n" for error in skips)
        text += f"Left out, since they cannot be read, {len(skips)}:\n\n{lines}"
    if not Path(options.results).is_dir():
        text += "There is no such folder yet: trainings make it.\n"
    if others:
        text += f"\n# Other systems and test sets\n\n{others}"
    text += f"\n{content_tables(contents)}"
    print(text, end="")
    if options.out is not None:
        write_text(options.out, text)
