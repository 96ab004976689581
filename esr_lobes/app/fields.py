"""The fields of the page and where they stand.

Authors
 * The esr_lobes contributors
"""

from html import escape
from pathlib import Path

from esr_lobes.app.answers import MAX_UPLOAD_BYTES
from esr_lobes.app.asking import few_values, metadata_columns
from esr_lobes.app.corpus_map import METHODS
from esr_lobes.app.results import EMPTY

SCRIPT = Path(__file__).with_name("page.js")
ASKED = {
    "style": ("How should it sound?", "an exhausted, flat voice"),
    "content": ("What should be said?", "the price of a ticket"),
}
"""Of each space, what is asked and an example of an answer."""

NO_COLOUR = "(one colour)"
FUSIONS = [("by rank", "rank"), ("by score", "score")]
OWN_COLUMNS = ("path", "start", "stop", "channel", "duration")
LONGEST_TEXT = 2000
UPLOAD = (
    '<div class="esr-upload"><label>An example to search by: any audio file '
    f"of at most {MAX_UPLOAD_BYTES >> 20} MB"
    f'<input type="file" accept="audio/*" data-most="{MAX_UPLOAD_BYTES}">'
    "</label></div>"
)


class Fields:
    """Puts all fields on the page; to be made within ``gr.Blocks``.

    Arguments
    ---------
    gr : module
        Gradio.
    index : SearchIndex
        What is asked.
    """

    def __init__(self, gr, index):
        self._gr = gr
        self._store = index.store
        self._script = SCRIPT.read_text(encoding="utf-8")
        self.columns = few_values(index.store)
        self.is_fused = index.first != "content" and (
            "content" in index.store.spaces
        )
        gr.HTML(_title(index), elem_id="esr-title", js_on_load=None)
        with gr.Row(elem_id="esr-search"):
            self.text = self._question(index.first, 6, autofocus=True)
            self.content = self._question("content", 5, visible=self.is_fused)
            self.button = gr.Button("Search", variant="primary", scale=1)
        # What a client cannot set: it stays on the server.
        self.example = gr.State(None)
        self.token = gr.State("")
        self.shown_example = self._html("", elem_id="esr-example")
        with gr.Accordion("Refine and filter", open=False):
            self._put_refinements()
            self._put_filters()
            self.upload = self._html(UPLOAD)
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                self.results = self._html(EMPTY, elem_id="esr-results")
            with gr.Column(scale=4, min_width=320, elem_id="esr-side"):
                self._put_map()

    @property
    def form(self):
        """What a search depends on: dict of name to field.

        Behind them stand the choices, one a column of ``columns``.
        """
        names = (
            "text content minus example fusion k threshold per_file merge "
            "where shortest longest"
        )
        return {name: getattr(self, name) for name in names.split()}

    def _html(self, value, **more):
        return self._gr.HTML(
            value, js_on_load=self._script, apply_default_css=False, **more
        )

    def _question(self, space, scale, **more):
        label, example = ASKED.get(space, ASKED["style"])
        return self._gr.Textbox(
            label=label,
            placeholder=f"for example: {example}",
            scale=scale,
            max_length=LONGEST_TEXT,
            **more,
        )

    def _number(self, label, info=None, **more):
        return self._gr.Number(
            0, label=label, info=info, minimum=0, min_width=120, **more
        )

    def _put_refinements(self):
        gr = self._gr
        with gr.Row():
            self.minus = gr.Textbox(
                label="Not like", placeholder="angry", max_length=LONGEST_TEXT
            )
            self.k = gr.Slider(1, 100, 10, step=1, label="Segments to show")
            self.threshold = gr.Slider(
                0,
                6,
                0,
                step=0.1,
                label="At least z",
                info="deviations above the mean of the index; 0 for any",
            )
            self.fusion = gr.Radio(
                FUSIONS,
                value="rank",
                label="Join both questions",
                info="a threshold needs scores",
                visible=self.is_fused,
            )

    def _put_filters(self):
        gr = self._gr
        self.choices = []
        if self.columns:
            with gr.Row():
                for column, values in self.columns.items():
                    named = [(str(value), value) for value in values]
                    field = gr.Dropdown(
                        named, label=column, multiselect=True, min_width=150
                    )
                    self.choices.append(field)
        with gr.Row():
            self.shortest = self._number("Shortest, s", "0 for any")
            self.longest = self._number("Longest, s", "0 for any")
            self.per_file = self._number(
                "Most of one recording", "0 for any", precision=0
            )
            self.merge = self._number(
                "Join neighbours within, s", "0 for never"
            )
        known = [*metadata_columns(self._store.columns), *OWN_COLUMNS]
        # Unlike a label, this is Markdown to Gradio, and an index may come
        # from anyone.
        known = escape(", ".join(known))
        self.where = gr.Textbox(
            label="Condition",
            placeholder="duration > 2 and 'interview' in path",
            info=f"columns: {known}",
            max_length=LONGEST_TEXT,
        )

    def _put_map(self):
        gr = self._gr
        with gr.Row():
            self.method = gr.Radio(
                list(METHODS), value=METHODS[0], label="Map", min_width=160
            )
            self.colour = gr.Dropdown(
                [NO_COLOUR, *self.columns],
                value=next(iter(self.columns), NO_COLOUR),
                label="Colour",
                visible=bool(self.columns),
                min_width=140,
            )
        self.drawing = self._html("", elem_id="esr-drawing")


def _title(index):
    """Returns what is searched: its name and how much it is."""
    info = index.info
    folder = getattr(index.store, "folder", None)
    name = escape(Path(folder).resolve().name) if folder else "Index"
    hours = info.get("seconds", 0.0) / 3600
    length = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
    counts = [f"{len(index):,} segments", length]
    if files := info.get("files"):
        counts.append(f"{files:,} recordings")
    return f"<h1>{name}</h1><p>{' · '.join(counts)}</p>"
