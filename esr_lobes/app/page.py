"""The page: what happens on a key, a click, an upload.

Authors
 * The esr_lobes contributors
"""

import logging
import os
import time
from html import escape
from pathlib import Path

from esr_lobes.app.answers import MAX_UPLOAD_BYTES, Answers
from esr_lobes.app.asking import ask, condition
from esr_lobes.app.corpus_map import CorpusMap, place_of_query
from esr_lobes.app.fields import Fields
from esr_lobes.app.results import example_html, results_html, title_of
from esr_lobes.app.scatter import draw_legend, draw_map
from esr_lobes.errors import MENDABLE

logger = logging.getLogger(__name__)

STYLE_SHEET = Path(__file__).with_name("page.css")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
# What Gradio's theme is told to leave out or to draw, by day and by night.
QUIET = {
    "block_background_fill": "*background_fill_primary",
    "block_title_background_fill": "none",
    "block_title_text_color": "*body_text_color",
    "input_border_color": "*border_color_primary",
    "input_border_width": "1px",
    "input_shadow": "none",
    "body_background_fill": "*background_fill_primary",
}
QUIET |= {f"{key}_dark": value for key, value in QUIET.items()}
QUIET |= {"block_title_text_weight": "500", "block_title_padding": "0"}

# Gradio lets a style sheet reach what is inside its frame only. The frame
# hides what overflows, which would keep the map from staying in sight.
AROUND = """\
.gradio-container { overflow: visible !important; }
.gradio-container .main { max-width: 1320px; margin: 0 auto; }
@media (max-width: 760px) {
  .gradio-container .main { padding: 8px 12px !important; }
}
"""

MOST_ANSWERS = 256
PROBLEMS = {
    "size": f"the file is larger than {MAX_UPLOAD_BYTES >> 20} MB: cut out "
    "the part that sounds as you wish",
    "lost": "the upload was cut off: try it again",
}
SAID = (
    "Each dot is a segment{part}, rings are the hits. The star stands for the "
    "query: not at its own vector, since a text need not lie where speech "
    "does, but at the mean of its hits, where better ones weigh more."
)


def make_app(index):
    """Returns the page of an index.

    What it plays and draws comes from routes of its own, so that it is
    served by :func:`esr_lobes.app.serving.launch_app`, or by its ``launch``
    with what :func:`esr_lobes.app.serving.launch_options` returns.

    Arguments
    ---------
    index : esr_lobes.index.search.SearchIndex
        An open index.

    Returns
    -------
    gradio.Blocks
        With ``answers``, which is to be closed at the end.

    Raises
    ------
    ImportError
        If Gradio is not installed.
    """
    gr = import_gradio()
    with gr.Blocks(title="esr", analytics_enabled=False) as blocks:
        page = _Page(gr, index, Fields(gr, index))
    blocks.answers = page.answers
    blocks.looks = {
        "theme": gr.themes.Soft(
            primary_hue="indigo", neutral_hue="slate", font=FONTS
        ).set(**QUIET),
        "css_paths": [STYLE_SHEET],
        "head": f"<style>{AROUND}</style>",
    }
    return blocks


def import_gradio():
    """Returns Gradio, with its telemetry off.

    Returns
    -------
    module
        ``gradio``.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    # Heeded only if it is there before the import.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the web page needs Gradio: pip install 'esr_lobes[app]'"
        ) from error
    return gradio


class _Page:
    """What the fields do; one for all who look at the page."""

    def __init__(self, gr, index, fields):
        self.gr = gr
        self.index = index
        self.fields = fields
        self.answers = Answers(MOST_ANSWERS)
        self.map = CorpusMap(index.store, index.first)
        self._connect()

    def _connect(self):
        """Says what follows on what; no event is offered as an API."""
        gr, fields = self.gr, self.fields

        def take(event: gr.EventData):  # the annotation is what asks for it
            return self._take(event._data)

        def forget():
            return None, ""

        search = {
            "fn": self._search,
            "inputs": [*fields.form.values(), *fields.choices],
            "outputs": [fields.results, fields.token],
            "concurrency_id": "search",
            "api_visibility": "private",
        }
        draw = {
            "fn": self._draw,
            "inputs": [fields.method, fields.colour, fields.token],
            "outputs": fields.drawing,
            "show_progress": "minimal",
            "api_visibility": "private",
        }
        typed = (fields.text, fields.content, fields.minus, fields.where)
        asked = [*(field.submit for field in typed), fields.button.click]
        gr.on(asked, **search).success(**draw)
        chosen = (fields.results, fields.drawing, fields.upload)
        gr.on(
            [field.select for field in chosen],
            take,
            outputs=[fields.example, fields.shown_example, fields.text],
            api_visibility="private",
        ).success(**search).success(**draw)
        fields.shown_example.clear(
            forget,
            outputs=[fields.example, fields.shown_example],
            api_visibility="private",
        )
        gr.on([fields.method.change, fields.colour.change], **draw)
        gr.on(None, **draw)  # when the page is opened

    def _search(self, *values):
        """Returns the results and their token; a problem as one line."""
        began = time.perf_counter()
        fields = self.fields
        form = dict(zip(fields.form, values, strict=False))
        chosen = values[len(fields.form) :]
        try:
            form["where"] = condition(
                self.index.columns,
                form.pop("where"),
                dict(zip(fields.columns, chosen, strict=True)),
                form.pop("shortest"),
                form.pop("longest"),
            )
            hits = ask(self.index, **form)
        except Exception as error:
            return self._problem(error), ""
        seconds = time.perf_counter() - began
        token = self.answers.put([hit.segment for hit in hits], hits)
        said = [form[key].strip() for key in ("text", "content") if form[key]]
        said += [f"not {form['minus'].strip()}"] if form["minus"] else []
        return results_html(token, hits, seconds, ", ".join(said)), token

    def _problem(self, error):
        """Says in one line what went wrong; what is our fault is logged."""
        if isinstance(error, (*MENDABLE, ValueError)):
            words = str(error)
        else:
            logger.error("A search failed.", exc_info=error)
            words = "something went wrong here; the program's log says what"
        self.gr.Warning(escape(words), title="Not searched")
        return f'<div class="esr-note esr-problem">{escape(words)}</div>'

    def _take(self, data):
        """Makes a segment or an upload the example to search by."""
        data = data if isinstance(data, dict) else {}
        if problem := data.get("problem"):
            words = PROBLEMS.get(problem) if isinstance(problem, str) else None
            raise self._refusal(words or str(problem))
        if upload := data.get("upload"):
            path = self.answers.upload(upload)
            if path is None:
                raise self._refusal("this upload is gone: choose it again")
            name = str(data.get("name") or "your clip")[:200]
            return str(path), example_html(name, f"esr/uploads/{upload}"), ""
        segment = self.answers.segment(data.get("token"), data.get("rank"))
        if segment is None:
            raise self._refusal("this answer is gone: search again")
        return segment, example_html(title_of(segment)), ""

    def _refusal(self, words):
        return self.gr.Error(
            escape(words), title="Not taken", print_exception=False
        )

    def _draw(self, method, colour, token):
        """Returns the map, with the answer of that token in it."""
        segments = self.map.segments
        groups = None
        if colour in self.fields.columns:
            groups = [s.metadata.get(colour) for s in segments]
        hits = self.answers.hits(token)
        places = query = None
        if hits:
            places = self.map.place([hit.segment for hit in hits], method)
            scores = [h.score if h.z is None else h.z for h in hits]
            query = place_of_query(places, scores)
        titles = [title_of(segment) for segment in segments]
        drawn = draw_map(self.map.places(method), titles, groups, places, query)
        n_all = len(self.index)
        is_part = len(segments) < n_all
        part = f" ({len(segments):,} of {n_all:,})" if is_part else ""
        return (
            f"{drawn}{draw_legend(groups) if groups else ''}"
            f'<div class="esr-spot" data-token="{self.answers.put(segments)}">'
            '<span class="esr-caption">Click a dot to hear it.</span> '
            '<button type="button" class="esr-more">More like this</button>'
            '<audio preload="none"></audio></div>'
            f'<p class="esr-said">{SAID.format(part=part)}</p>'
        )
