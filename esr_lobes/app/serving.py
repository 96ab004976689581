"""Serving a page on this machine, and nothing else of it.

Gradio serves the page. What it plays and draws has routes of our own, see
:mod:`esr_lobes.app.routes`; what else Gradio offers is closed, see
:mod:`esr_lobes.app.guard`.

Authors
 * The esr_lobes contributors
"""

import contextlib
import signal
import time

from esr_lobes.app.guard import Guard
from esr_lobes.app.page import import_gradio, make_app
from esr_lobes.app.routes import routes
from esr_lobes.errors import MendableError

HOST = "127.0.0.1"


class ServingError(MendableError):
    """A page that cannot be served where it was asked for."""


class RunningApp:
    """A page that is being served; :meth:`close` ends it.

    Arguments
    ---------
    blocks : gradio.Blocks
        The page.
    url : str
        Where it is.
    opened : SearchIndex, optional
        Closed at the end, too.
    """

    def __init__(self, blocks, url, opened=None):
        self.blocks = blocks
        self.url = url
        self._opened = opened

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait(self):
        """Serves until Ctrl+C or a signal to terminate, then closes."""
        # Without this a terminated process would leave its clips behind.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            # Not join: interrupted once, it takes the thread for ended.
            with contextlib.suppress(KeyboardInterrupt):
                while self.blocks.server.thread.is_alive():
                    time.sleep(0.2)
        finally:
            signal.signal(signal.SIGTERM, before)
            self.close()

    def close(self):
        """Stops serving and removes what was written."""
        self.blocks.close(verbose=False)
        self.blocks.answers.close()
        if self._opened is not None:
            self._opened.close()


def launch_app(
    index, sources=None, host=HOST, port=None, device="cpu", block=True
):
    """Serves the page of an index.

    Arguments
    ---------
    index : str, Path or SearchIndex
        Folder of an index, URI of a published one, or an open one.
    sources : dict, optional
        Space to the retriever that made its vectors; those that the index
        names if not given.
    host : str
        Name or address to serve at. The page has no passwords: with another
        than this machine's own, whoever reaches it may search and listen.
    port : int, optional
        7860, or the next free one, if not given.
    device : str
        Of the retrievers, such as ``cuda:0``.
    block : bool
        Whether to return only when Ctrl+C was pressed.

    Returns
    -------
    RunningApp
        With its ``url``; close it at the end.

    Raises
    ------
    ImportError
        If Gradio is not installed.
    MendableError
        If the index cannot be opened or the port is taken.
    """
    from esr_lobes.index.search import SearchIndex
    from esr_lobes.searching import open_index

    import_gradio()  # before a model is loaded, which takes its time
    opened = None
    if not isinstance(index, SearchIndex):
        index = opened = open_index(index, sources, device=device)
    blocks = make_app(index)
    options = launch_options(blocks, host)
    try:
        _, url, _ = blocks.launch(server_name=host, server_port=port, **options)
    except OSError as error:
        RunningApp(blocks, None, opened).close()
        asked = "7860 to 7959" if port is None else port
        raise ServingError(
            f"cannot serve at {host}, port {asked}: {error}; choose another "
            "with --port"
        ) from error
    running = RunningApp(blocks, url, opened)
    if block:
        print(f"Open {url} in a browser; Ctrl+C ends the page.", flush=True)
        running.wait()
    return running


def launch_options(blocks, host=HOST):
    """Returns what ``launch`` of a page must be given.

    Arguments
    ---------
    blocks : gradio.Blocks
        From :func:`esr_lobes.app.page.make_app`.
    host : str
        Where it will be served.

    Returns
    -------
    dict
        Look, routes, and everything closed that the page does not need.
    """
    from starlette.middleware import Middleware

    return {
        **blocks.looks,
        "app_kwargs": {
            "routes": routes(blocks.answers),
            "middleware": [Middleware(Guard, host=host)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "show_error": False,
        "footer_links": [],
        "inbrowser": False,
        "inline": False,
        "quiet": True,
        "prevent_thread_lock": True,
    }
