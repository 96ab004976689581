"""``esr publish``: an index goes to Milvus, for many who search it.

Authors
 * The esr_lobes contributors
"""

from argparse import RawDescriptionHelpFormatter

KINDS = ("auto", "flat", "ivf_sq8", "hnsw")
DESCRIPTION = """\
Makes a collection in Milvus hold what the folder of an index holds. Run it
again after esr index: only what changed travels, and until the end searches
may find some segments as they were and some as they are. With another model,
cutting or columns a collection is made beside, and takes the place of the one
before when it is whole. Stopped at any moment, it goes on when it is run
again.

  esr publish speeches --to milvus://localhost:19530/speeches
  esr publish speeches --to milvus+https://milvus.example.org/speeches
  esr publish speeches --to milvus://speeches.db/speeches
  esr search milvus://speeches.db/speeches "an exhausted, flat voice"

The third is a Milvus Lite: a folder whose name ends in .db, here or by an
absolute path, for one process at a time. A token for a server is taken from
the environment variable MILVUS_TOKEN. Needs pip install 'esr_lobes[scale]'.
"""


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "publish",
        help="an index goes to Milvus, for many who search it",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", help="folder that esr index made")
    parser.add_argument(
        "--to",
        required=True,
        metavar="ADDRESS",
        help="milvus://HOST:PORT/COLLECTION, milvus+https://HOST/COLLECTION "
        "or milvus://PATH.db/COLLECTION",
    )
    parser.add_argument(
        "--index",
        dest="kind",
        default="auto",
        choices=KINDS,
        help="how Milvus finds candidates: flat looks at all vectors, ivf_sq8 "
        "needs the least memory, hnsw answers most questions a second; auto "
        "takes flat for up to 50,000 segments and ivf_sq8 for more, or what "
        "the collection has (auto)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="a collection of that name that is of another model, or not of "
        "esr, is dropped for it",
    )
    parser.set_defaults(run=run)


def run(options):
    """Publishes and prints what was done.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.index.publishing import publish

    report = publish(options.index, options.to, options.kind, options.replace)
    print(report)
    print(f'Search it: esr search {options.to} "a calm voice"')
