"""The web page of an index: describe a style, listen to what was found.

The page is Gradio's. What it plays and draws comes from routes of our own,
to which a client names an answer of a search and its rank, never a path; see
:mod:`esr_lobes.app.serving`.

Authors
 * The esr_lobes contributors
"""

from esr_lobes.app.page import make_app
from esr_lobes.app.serving import launch_app

__all__ = ["launch_app", "make_app"]
