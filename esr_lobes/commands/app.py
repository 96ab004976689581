"""``esr app``: a web page to search an index and to listen.

Authors
 * The esr_lobes contributors
"""

DESCRIPTION = """\
Serves a page on this machine: describe how somebody speaks, see and hear the
segments that fit, filter, look at the map of the index, download the answer.
It needs the extra: pip install "esr_lobes[app]".

  esr app speeches
  esr app speeches --port 8000 --source results/retriever
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
        "app",
        help="a web page to search an index and to listen",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "index", help="folder of an index, or the address of a published one"
    )
    parser.add_argument(
        "--source",
        action="append",
        metavar="[SPACE=]RETRIEVER",
        help="where the model lies, if it was moved since",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; with any other than the default, whoever "
        "reaches this machine can search and listen, without a password",
    )
    parser.add_argument(
        "--port", type=int, help="7860, or the next free one, if not given"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=run)


def run(options):
    """Serves the page until Ctrl+C.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.app import launch_app
    from esr_lobes.commands.sources import read_sources
    from esr_lobes.devices import check_device

    launch_app(
        options.index,
        sources=read_sources(options.source),
        host=options.host,
        port=options.port,
        device=check_device(options.device),
    )
