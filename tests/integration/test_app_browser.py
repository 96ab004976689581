"""The page in a real browser: search, listen, filter, and nothing leaves.

A screenshot of the page goes to the test's folder; with ``ESR_SCREENSHOTS``
to that folder as well. With ``ESR_APP_INDEX``, the folder of a real index,
one of that is taken, too: the picture in the README is

    ESR_APP_INDEX=... ESR_SCREENSHOTS=docs/images python -m pytest \\
        tests/integration/test_app_browser.py -k real

Authors
 * The esr_lobes contributors
"""

import io
import os
import shutil
from pathlib import Path

import pytest
import soundfile
import test_app
from conftest import tone

from esr_lobes.app import launch_app

sync_api = pytest.importorskip("playwright.sync_api")

folder = test_app.folder  # fixtures
index = test_app.index
app = test_app.app

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update "
    "--disable-sync --autoplay-policy=no-user-gesture-required"
).split()
PATIENCE = 60_000  # milliseconds; a page on a busy machine takes its time


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=FLAGS
        )
        yield browser
        browser.close()


class Tab:
    """A tab that notes what it asks for and what goes wrong in it."""

    def __init__(self, browser, url, width=1280, height=860):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.asked, self.wrong = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", self._on_dialog)
        self.page.goto(url)
        self.page.wait_for_selector(".esr-map circle", state="attached")
        self.box = self.page.get_by_label("How should it sound?")

    def _on_dialog(self, dialog):
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def search(self, text):
        """Types, presses Enter and waits for the answer and its marks."""
        self.box.fill(text)
        self.box.press("Enter")
        self.page.wait_for_selector(f".esr-summary q:text-is('{text}')")
        self.page.wait_for_selector(".esr-star", state="attached")

    def names(self):
        return self.page.locator(".esr-name").all_inner_texts()

    def shoot(self, name, tmp_path):
        """Takes a screenshot once all pictures in sight are drawn."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.esr-picture img')].every(i => "
            "i.complete || i.getBoundingClientRect().top > innerHeight)"
        )
        path = tmp_path / name
        self.page.screenshot(path=path)
        if extra := os.environ.get("ESR_SCREENSHOTS"):
            Path(extra).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, extra)
        return path

    def close(self):
        """Ends, and says whether all was as it should be."""
        self.context.close()
        assert not self.wrong
        own = ("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:")
        outside = [url for url in self.asked if not url.startswith(own)]
        assert self.asked and not outside


@pytest.fixture
def tab(browser, app):
    tab = Tab(browser, app.url)
    yield tab
    tab.close()


# True while the sound of a hit, or of the map, goes on.
RUNS = (
    "(css) => { const a = document.querySelector(css); "
    "return a.duration > 0 && a.currentTime > 0.1; }"
)


def test_search_play_filter_and_save(tab, tmp_path):
    page = tab.page
    tab.search("a low voice")
    assert page.locator(".esr-hit").count() == 10
    assert page.locator(".esr-ring").count() == 10

    # The map stays in sight beside the last of many hits.
    page.locator(".esr-hit").last.scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 200
    assert page.locator(".esr-map").bounding_box()["y"] >= 0
    page.evaluate("scrollTo(0, 0)")

    first = page.locator(".esr-hit").first
    button = first.locator(".esr-play")
    # Gradio's own look of buttons once made it white on white.
    colour = button.evaluate("b => getComputedStyle(b).backgroundColor")
    assert colour == "rgb(59, 91, 219)"
    button.click()
    page.wait_for_function(RUNS, arg=".esr-hit audio")
    page.wait_for_selector(".esr-hit.esr-playing .esr-cursor")
    sound = first.locator("audio")
    assert sound.evaluate("a => a.duration") == pytest.approx(2.0, abs=0.05)
    tab.shoot("app_tones.png", tmp_path)
    first.locator(".esr-around").click()
    page.wait_for_function(
        "document.querySelector('.esr-hit audio').duration > 2.9"
    )
    page.wait_for_function(RUNS, arg=".esr-hit audio")
    # Of two, only the one that was started last is heard.
    page.locator(".esr-play").nth(1).click()
    page.wait_for_function(
        "[...document.querySelectorAll('.esr-hit audio')]"
        ".map(a => !a.paused).join() .startsWith('false,true,false')"
    )

    page.get_by_text("Refine and filter").click()
    page.get_by_label("Condition").fill("voice == 'high' and take == 2")
    page.get_by_label("Condition").press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('.esr-name')]"
        ".every(n => n.textContent === 'tone_2.wav')"
    )
    assert tab.names()
    page.get_by_label("Condition").fill("")
    page.get_by_role("listbox", name="voice").or_(
        page.get_by_label("voice", exact=True)
    ).first.click()
    page.get_by_role("option", name="high").click()
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_function(
        "new Set([...document.querySelectorAll('.esr-name')]"
        ".map(n => n.textContent)).size === 2"
    )
    # What a file or a column is called is text, whatever it looks like.
    assert set(tab.names()) == {"tone_2.wav", test_app.EVIL}
    assert page.locator(".esr-chips b", has_text=test_app.BOLD).count() > 0

    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    text = Path(saved.value.path()).read_text()
    assert text.startswith("rank,score,z") and test_app.EVIL in text


def test_more_like_a_hit_a_dot_and_an_upload(tab):
    page = tab.page
    tab.search("a low voice")
    drawn = page.locator(".esr-spot").get_attribute("data-token")
    page.locator(".esr-hit .esr-more").first.click()
    page.wait_for_selector(".esr-example >> text=Sounds like")
    page.wait_for_function(
        "t => document.querySelector('.esr-spot').dataset.token !== t",
        arg=drawn,
    )
    assert tab.box.input_value() == ""
    assert page.locator(".esr-summary q").count() == 0

    dot = page.locator(".esr-map circle[data-rank]").last
    dot.dispatch_event("click")
    page.wait_for_function(RUNS, arg=".esr-spot audio")
    wanted = dot.locator("title").text_content()
    assert page.locator(".esr-caption").inner_text() == wanted
    page.locator(".esr-spot .esr-more").click()
    page.wait_for_function(
        "t => document.querySelector('.esr-example b').textContent === t",
        arg=wanted,
    )
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector(".esr-example", state="detached")

    page.get_by_text("Refine and filter").click()
    wave = io.BytesIO()
    soundfile.write(wave, tone(1.0, 220), 16000, format="WAV")
    field = page.locator(".esr-upload input")
    for name, data, seen in (
        (test_app.EVIL, wave.getvalue(), ".esr-example b"),
        ("passwd", b"root:x:0:0", "text=no audio that can be used"),
        ("large.wav", wave.getvalue(), "text=larger than 20 MB"),
    ):
        if name == "large.wav":  # rather than to send so much
            field.evaluate("field => { field.dataset.most = 100; }")
        file = {"name": name, "mimeType": "audio/wav", "buffer": data}
        field.set_input_files(file)
        page.wait_for_selector(seen)
    # The two that were refused left the good one in its place.
    assert page.locator(".esr-example b").inner_text() == test_app.EVIL


def test_a_mistake_is_one_line_on_the_page(tab):
    page = tab.page
    tab.box.press("Enter")
    page.wait_for_selector(".esr-problem >> text=describe how it should sound")
    page.get_by_text("Refine and filter").click()
    page.get_by_label("Condition").fill(f"voice == {test_app.EVIL}")
    tab.box.fill("x")
    tab.box.press("Enter")
    page.wait_for_selector(".esr-problem >> text=cannot read")
    assert page.locator("img[src=x]").count() == 0


def test_t_sne_and_colours(tab):
    page = tab.page
    tab.search("a low voice")
    before = page.locator(".esr-map circle").first.get_attribute("cx")
    page.get_by_label("t-SNE").click()
    page.wait_for_function(
        "x => document.querySelector('.esr-map circle')"
        ".getAttribute('cx') !== x",
        arg=before,
    )
    assert page.locator(".esr-ring").count() == 10
    assert page.locator(".esr-legend li").count() == 2


def test_a_phone_shows_all_of_it(browser, app, tmp_path):
    tab = Tab(browser, app.url, width=390, height=844)
    tab.search("a low voice")
    wide = "document.documentElement.scrollWidth"
    assert tab.page.evaluate(wide) <= 390
    side = tab.page.locator("#esr-side").bounding_box()
    last = tab.page.locator(".esr-hit").last.bounding_box()
    assert side["y"] > last["y"]
    tab.shoot("app_phone.png", tmp_path)
    tab.close()


def test_a_real_index_is_shown(browser, tmp_path):
    real = os.environ.get("ESR_APP_INDEX")
    if real is None:
        pytest.skip("no real index (set ESR_APP_INDEX to its folder)")
    with launch_app(real, block=False) as running:
        tab = Tab(browser, running.url, height=940)
        tab.search("someone who is furious and shouts")
        tab.page.locator(".esr-play").first.click()
        tab.page.wait_for_function(RUNS, arg=".esr-hit audio")
        path = tab.shoot("app.png", tmp_path)
        assert path.stat().st_size < 400_000
        tab.close()
