"""Requests that the page never makes are turned away.

Gradio has routes that serve, fetch and take files; the page needs none of
them. And a page of another web site, open in the same browser, could ask this
one in its user's name: it answers only under the name it was opened by.

Authors
 * The esr_lobes contributors
"""

from urllib.parse import urlsplit

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
CLOSED = ("/file", "/proxy", "/upload", "/component_server", "/stream")
"""Of Gradio's own routes, those that reach beyond the page."""


class Guard:
    """Turns away requests that the page itself never makes.

    Arguments
    ---------
    app : callable
        The ASGI application behind.
    host : str
        Where it is served. Under a name of this machine alone, requests
        must call it by such a name, so that a foreign site cannot pass for
        it (DNS rebinding).
    """

    def __init__(self, app, host):
        self.app = app
        self.is_local = host in LOCAL_NAMES

    async def __call__(self, scope, receive, send):
        """Passes a request on, or answers 403.

        Arguments
        ---------
        scope : dict
            The request, as ASGI has it.
        receive : callable
            Gives its body.
        send : callable
            Takes the answer.
        """
        from starlette.responses import PlainTextResponse

        app = self.app
        if scope["type"] == "http" and not self._is_welcome(scope):
            app = PlainTextResponse("not served here", 403)
        await app(scope, receive, send)

    def _is_welcome(self, scope):
        path = "/" + scope["path"].removeprefix("/gradio_api").lstrip("/")
        if path.startswith(CLOSED):
            return False
        sent = dict(scope["headers"])
        host = sent.get(b"host", b"").decode("latin-1")
        origin = sent.get(b"origin", b"").decode("latin-1")
        if self.is_local and urlsplit(f"//{host}").hostname not in LOCAL_NAMES:
            return False
        return not origin or urlsplit(origin).netloc == host
