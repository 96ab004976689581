"""The page over the wire, without a browser: answers, exports, bad requests.

Authors
 * The esr_lobes contributors
"""

import csv
import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import soundfile
from conftest import tone

from esr_lobes import EncoderRetriever, cli
from esr_lobes.app import launch_app
from esr_lobes.app.answers import Answers, UploadError
from esr_lobes.app.asking import AskError, ask, condition, few_values
from esr_lobes.app.corpus_map import CorpusMap, place_of_query
from esr_lobes.app.page import import_gradio
from esr_lobes.app.scatter import draw_map
from esr_lobes.app.serving import ServingError
from esr_lobes.audio import AudioError
from esr_lobes.index import Segment
from esr_lobes.index.publishing import publish
from esr_lobes.indexing.build import build_index
from esr_lobes.searching import open_index

pytest.importorskip("gradio", reason="the page needs the extra [app]")
httpx = pytest.importorskip("httpx")

EVIL = "<img src=x onerror=alert(1)>.wav"
BOLD = "<b onclick=alert(2)>bold</b>"
SECRET = "not for everyone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_retriever):
    """Recordings, and beside them their index, in windows of two seconds."""
    folder = tmp_path_factory.mktemp("app")
    clips = folder / "clips"
    clips.mkdir()
    rows = [("path", "voice", "note", "take")]
    for i, hertz in enumerate((150, 220, 330, 500)):
        name = EVIL if i == 3 else f"tone_{i}.wav"
        wave = tone(5.0, hertz, 8000, seed=i)
        soundfile.write(clips / name, np.stack([wave, wave], axis=1), 8000)
        note = BOLD if i == 3 else "plain"
        voice = "high" if hertz > 300 else "low"
        rows.append((name, voice, note, i % 3))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "secret.txt").write_text(SECRET)
    build_index(
        str(clips),
        folder / "index",
        EncoderRetriever.from_hparams(tiny_retriever),
        cutting={"kind": "windows"},
        metadata=folder / "metadata.csv",
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def index(folder):
    with open_index(folder / "index") as index:
        yield index


@pytest.fixture(scope="module")
def app(index):
    with launch_app(index, block=False) as running:
        yield running


class Visitor:
    """Sends what a browser sends."""

    def __init__(self, app, http):
        self.http = http
        self.fns = app.blocks.fns
        self.session = f"session{id(self)}"

    def call(self, name, data, event=None):
        """Returns the last message on an event, and all of them as text."""
        number = next(i for i, fn in self.fns.items() if fn.name == name)
        body = {
            "data": data,
            "fn_index": number,
            "session_hash": self.session,
            "event_data": event,
        }
        answer = self.http.post("/gradio_api/queue/join", json=body)
        assert answer.status_code == 200, answer.text
        url = f"/gradio_api/queue/data?session_hash={self.session}"
        said = []
        with self.http.stream("GET", url) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    said.append(json.loads(line[5:]))
                if said and said[-1]["msg"] == "process_completed":
                    break
        return said[-1], json.dumps(said)

    def search(self, text="a low voice", **fields):
        """Returns the results as HTML, and the token in them."""
        said, _ = self.call("_search", form(text, **fields))
        assert said["success"], said
        html = said["output"]["data"][0]
        token = re.search(r"esr/clips/([\w-]+)/0", html)
        return html, token and token[1]

    def raw(self, path, method="GET", body=None, **headers):
        """Returns status and content; the path goes out as it is."""
        place = urlsplit(str(self.http.base_url))
        link = http.client.HTTPConnection(place.hostname, place.port)
        link.request(method, path, body, headers)
        answer = link.getresponse()
        return answer.status, answer.read()


def form(text, **fields):
    """Returns the fields of the page in their order."""
    values = {
        "text": text,
        "content": "",
        "minus": "",
        "example": None,
        "fusion": "rank",
        "k": 10,
        "threshold": 0,
        "per_file": 0,
        "merge": 0,
        "where": "",
        "shortest": 0,
        "longest": 0,
        "voice": [],
        "note": [],
        "take": [],
    }
    assert fields.keys() <= values.keys()
    return list({**values, **fields}.values())


@pytest.fixture
def visitor(app):
    with httpx.Client(base_url=app.url, timeout=30) as http:
        yield Visitor(app, http)


# What is asked and answered


def test_a_search_answers_with_clips_that_can_be_heard(visitor, folder):
    html, token = visitor.search(where="duration > 1.9")
    assert html.count('<li class="esr-hit"') == 10
    assert "10 segments for <q>a low voice</q>" in html
    clip = visitor.http.get(f"/esr/clips/{token}/0")
    wave, rate = soundfile.read(io.BytesIO(clip.content))
    assert clip.headers["content-type"] == "audio/wav" and rate == 8000
    assert len(wave) == 2 * rate and np.abs(wave).max() > 0.2
    wider = visitor.http.get(f"/esr/clips/{token}/0?context=1")
    assert len(soundfile.read(io.BytesIO(wider.content))[0]) > 3 * rate
    part = visitor.http.get(
        f"/esr/clips/{token}/0", headers={"Range": "bytes=0-3"}
    )
    assert part.status_code == 206 and part.content == b"RIFF"
    picture = visitor.http.get(f"/esr/pictures/{token}/0")
    assert picture.content.startswith(b"\x89PNG")
    assert picture.headers["content-type"] == "image/png"


def test_a_clip_is_the_segment_itself(index):
    hits = ask(index, "a low voice", where=condition({}, "start == 1"), k=1)
    segment = hits[0].segment
    answers = Answers()
    try:
        token = answers.put([segment])
        wave, rate = soundfile.read(answers.clip(token, 0))
        whole, _ = soundfile.read(segment.path)
        own = whole.mean(axis=1)[rate : 3 * rate]
        assert np.abs(wave - own).max() < 1e-4
        wider, _ = soundfile.read(answers.clip(token, 0, True))
        # One second stands before, two behind.
        assert np.abs(wider - whole.mean(axis=1)).max() < 1e-4
    finally:
        answers.close()
    assert not answers.folder.exists()


def test_filters_of_all_fields_count(visitor):
    html, _ = visitor.search(voice=["high"], k=50)
    assert "voice <b>low</b>" not in html and "voice <b>high</b>" in html
    both, _ = visitor.search(voice=["high"], where="take == 2", k=50)
    names = set(re.findall(r'esr-name"[^>]*>([^<]*)<', both))
    assert names == {"tone_2.wav"}
    html, _ = visitor.search(longest=0.5)
    assert "Nothing found" in html
    html, _ = visitor.search(per_file=1, k=50)
    assert html.count('<li class="esr-hit"') == 4
    html, _ = visitor.search(threshold=6)
    assert "Nothing found" in html


def test_style_and_content_are_asked_together(folder, tiny_retriever, tmp_path):
    retriever = EncoderRetriever.from_hparams(tiny_retriever)
    build_index(
        str(folder / "clips"),
        tmp_path / "both",
        {"style": retriever, "content": retriever},
        cutting={"kind": "windows"},
        progress=False,
    )
    with open_index(tmp_path / "both") as index:
        asked = {"text": "a low voice", "content": "about trains"}
        hits = ask(index, **asked, fusion="score", threshold=-9, k=3)
        wanted = index.search(
            style="a low voice", content="about trains", fusion="score", k=3
        )
        assert hits == wanted
        (best,) = ask(index, content="about trains", k=1)
        assert best == index.search(content="about trains", k=1)[0]
        with launch_app(index, block=False) as running:
            fields = running.blocks.blocks.values()
            shown = [getattr(b, "label", "") for b in fields if b.visible]
            assert "How should it sound?" in map(str, shown)
            assert "What should be said?" in map(str, shown)


def test_conditions_are_read_apart():
    columns = {"actor": "int64", "sex": "string"}
    read = condition(columns, "actor > 2 or actor < 1", {"sex": ["f"]}, 1, 9)
    assert read.tree == (
        "and",
        (
            ("or", ((">", "actor", 2), ("<", "actor", 1))),
            ("in", "sex", ("f",)),
            (">=", "duration", 1.0),
            ("<=", "duration", 9.0),
        ),
    )


def test_more_like_this_searches_by_the_segment(visitor, index):
    _, token = visitor.search()
    event = {"token": token, "rank": 0}
    said, _ = visitor.call("take", [], event)
    assert said["success"] and "Sounds like" in said["output"]["data"][1]
    html, _ = visitor.search("", k=3)
    (best,) = ask(index, "a low voice", k=1)
    wanted = ask(index, example=best.segment, k=3)
    spans = re.findall(r'esr-time">([^<]*)<', html)
    assert len(spans) == 3
    assert f"score {wanted[0].score:.3f}" in html
    said, _ = visitor.call("forget", [])
    assert said["success"]
    html, _ = visitor.search("")
    assert "describe how it should sound" in html


def test_what_is_wrong_is_said_in_one_line(visitor):
    for fields, words in (
        ({"text": " "}, "describe how it should sound"),
        ({"text": "", "minus": "angry"}, "a minus alone says too little"),
        ({"where": "voise == 'low'"}, "did you mean &#x27;voice&#x27;"),
        ({"where": f"voice == {EVIL}"}, "cannot read"),
        ({"k": 0}, ""),
    ):
        said, all_said = visitor.call(
            "_search", form(**{"text": "x", **fields})
        )
        shown = said["output"]["data"][0] if said["success"] else all_said
        assert words in shown and "\n" not in shown
        assert "Traceback" not in all_said and "<img" not in all_said


def test_a_fault_of_ours_is_logged_not_shown(
    visitor, index, monkeypatch, caplog
):
    def fail(*args, **kwargs):
        raise RuntimeError(f"{SECRET} at /some/path")

    monkeypatch.setattr(index, "search", fail)
    said, all_said = visitor.call("_search", form("x"))
    assert "something went wrong" in said["output"]["data"][0]
    assert SECRET not in all_said and SECRET in caplog.text


def test_the_form_without_style_or_example_is_refused(index):
    with pytest.raises(AskError, match="or choose an example"):
        ask(index, minus="angry")


@pytest.mark.parametrize("kind", ["csv", "json", "labels", "m3u", "zip"])
def test_answers_are_exported(visitor, app, kind):
    _, token = visitor.search(k=3)
    answer = visitor.http.get(f"/esr/exports/{token}/{kind}")
    assert "attachment" in answer.headers["content-disposition"]
    text = answer.text
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["rank"] for row in rows] == ["1", "2", "3"]
        assert {"voice", "note", "take"} <= rows[0].keys()
    elif kind == "json":
        assert [row["rank"] for row in json.loads(text)] == [1, 2, 3]
    elif kind == "m3u":
        assert text.startswith("#EXTM3U") and text.count("start-time") == 3
    elif kind == "zip":
        file = zipfile.ZipFile(io.BytesIO(answer.content))
        names = [n for n in file.namelist() if n.endswith(".wav")]
        assert len(names) == 3 and "clips/index.csv" in file.namelist()
        wave, _ = soundfile.read(io.BytesIO(file.read(names[0])))
        assert wave.shape[1] == 2  # as in the recording
    elif answer.content.startswith(b"PK"):
        file = zipfile.ZipFile(io.BytesIO(answer.content))
        lines = b"".join(map(file.read, file.namelist()))
        assert lines.count(b"\n") == 3
    else:
        assert text.count("\n") == 3
    # What was made for it goes once it has been sent.
    kept = app.blocks.answers.folder
    for _ in range(100):
        left = [path for path in kept.iterdir() if path.is_dir()]
        if not left:
            break
        time.sleep(0.05)
    assert not left


# What comes from a client is data


def test_names_and_metadata_are_escaped(visitor):
    html, _ = visitor.search(where="take == 0 and voice == 'high'", k=50)
    assert "&lt;img src=x onerror=alert(1)&gt;.wav" in html
    assert "<img src=x" not in html and "<b onclick" not in html
    said, _ = visitor.call("_draw", ["PCA", "note", ""])
    drawn = said["output"]["data"][0]
    assert "&lt;img src=x" in drawn and "<img" not in drawn
    assert "<b onclick" not in drawn


def test_no_path_leads_to_a_file(visitor, folder):
    _, token = visitor.search()
    own = [folder / "secret.txt", folder / "index" / "index.json"]
    own += [folder / "clips" / "tone_0.wav", folder / "index", "/etc/passwd"]
    tries = []
    for path in map(str, own):
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
            tries += [prefix + path, prefix + quote(path, safe="")]
        up = "../" * 12 + path.lstrip("/")
        for base in ("/esr/clips/", f"/esr/clips/{token}/", "/esr/uploads/"):
            tries += [base + up, base + quote(up, safe="")]
            tries += [base + up.replace("../", "..%2f")]
        for base in ("/assets/", "/static/", "/gradio_api/file=", "/"):
            tries += [base + up, base + up.replace("../", "..%2f")]
        tries += [f"/esr/exports/{token}/{quote(path, safe='')}"]
        tries += [f"/esr/exports/{quote(path, safe='')}/csv"]
        tries += [f"/gradio_api//file={path}", f"//gradio_api/file={path}"]
        tries += [f"/gradio_api/upload?path={path}"]
    tries += [f"/esr/clips/{token}/{n}" for n in ("999", "-1", "0.wav", "a")]
    tries += ["/esr/clips/guess/0", f"/esr/pictures/{token}/10"]
    tries += [
        "/gradio_api/file=http://127.0.0.1/x",
        "/gradio_api/file=file:///etc/passwd",
    ]
    tries += ["/gradio_api/proxy=https://x.hf.space/", "/docs", "/openapi.json"]
    for path in tries:
        status, content = visitor.raw(path)
        assert 400 <= status < 500, (path, status)
        for secret in (SECRET.encode(), b"root:", b"RIFF", b'"generation"'):
            assert secret not in content, path


def test_nothing_is_uploaded_to_gradio(visitor):
    files = {"files": ("a.wav", b"RIFF")}
    answer = visitor.http.post("/gradio_api/upload", files=files)
    assert answer.status_code == 403


def test_payloads_made_by_hand_reach_no_file(visitor, folder):
    paths = ["/etc/passwd", str(folder / "secret.txt")]
    paths += [str(folder / "clips" / "tone_0.wav"), "http://127.0.0.1:9/x"]
    files = [
        {"path": p, "meta": {"_type": "gradio.FileData"}, "url": p}
        for p in paths
    ]
    _, token = visitor.search()
    for value in [paths[1], files[0], files[3], True]:
        events = [
            ("take", [], {"upload": value, "name": "x"}),
            ("take", [], {"token": value, "rank": 0}),
            ("take", [], {"token": token, "rank": value}),
            ("take", [], value),
        ]
        fields = ("text", "where", "voice", "k", "fusion")
        events += [
            ("_search", form(**{"text": "x", field: value}), None)
            for field in fields
        ]
        events.append(("_draw", [value, value, value], None))
        for name, data, event in events:
            said, all_said = visitor.call(name, data, event)
            assert "Traceback" not in all_said, (name, data, event)
            assert SECRET not in all_said and "root:" not in all_said
            if name == "take":
                assert not said["success"], event


def test_the_example_of_a_session_is_not_the_client_s_to_set(visitor):
    """A state stays on the server, whatever a payload says."""
    html, _ = visitor.search("", example="/etc/passwd")
    assert "describe how it should sound" in html


def test_no_event_is_offered_as_an_api(visitor):
    offered = visitor.http.get("/gradio_api/info").json()
    assert offered["named_endpoints"] == {}
    assert offered["unnamed_endpoints"] == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_are_turned_away(visitor, headers):
    for path, method in (("/", "GET"), ("/esr/uploads", "POST")):
        assert visitor.raw(path, method, b"", **headers)[0] == 403
    host = visitor.http.base_url.netloc.decode()
    assert visitor.raw("/", Host=host, Origin=f"http://{host}")[0] == 200


# Uploads


def as_wav(seconds, hertz=220.0):
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, hertz), 16000, format="WAV")
    return file.getvalue()


def test_an_uploaded_clip_is_an_example(visitor, app):
    answer = visitor.http.post("/esr/uploads", content=as_wav(1.0))
    token = answer.json()["token"]
    heard = visitor.http.get(f"/esr/uploads/{token}")
    assert heard.content == as_wav(1.0)
    event = {"upload": token, "name": EVIL}
    said, all_said = visitor.call("take", [], event)
    assert "&lt;img src=x" in said["output"]["data"][1]
    assert "<img" not in all_said
    html, _ = visitor.search("", k=4)
    assert html.count('<li class="esr-hit"') == 4


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "no audio that can be used: empty"),
        (b"root:x:0:0", "no audio that can be used: corrupt"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "no audio that can be used"),
        (bytes(20 * 2**20 + 1), "larger than 20 MB"),
        (as_wav(0.01), "too short"),
    ],
    ids=["empty", "text", "picture", "large", "short"],
)
def test_what_is_no_example_is_refused(visitor, app, data, words):
    before = set(app.blocks.answers.folder.iterdir())
    answer = visitor.http.post("/esr/uploads", content=data)
    assert answer.status_code == 400
    assert words in answer.json()["problem"]
    assert str(app.blocks.answers.folder) not in answer.text
    assert set(app.blocks.answers.folder.iterdir()) == before


def test_a_small_file_of_a_long_clip_is_refused():
    """Silence of an hour is some kilobytes of FLAC."""
    file = io.BytesIO()
    wave = np.zeros(301 * 8000, np.float32)
    wave[::8000] = 0.5
    soundfile.write(file, wave, 8000, format="FLAC")
    answers = Answers()
    try:
        with pytest.raises(UploadError, match="lasts 301 s, more than 300"):
            answers.keep_upload(file.getvalue())
    finally:
        answers.close()


def test_old_answers_are_forgotten_with_their_clips(index):
    (hit,) = ask(index, "x", k=1)
    answers = Answers(most=2)
    try:
        first = answers.put([hit.segment], [hit])
        clip = answers.clip(first, 0)
        upload = answers.keep_upload(as_wav(1.0))
        kept = answers.upload(upload)
        for _ in range(2):
            answers.put([hit.segment])
            answers.keep_upload(as_wav(1.0))
        assert not clip.exists() and answers.clip(first, 0) is None
        assert answers.hits(first) == []
        assert not kept.exists() and answers.upload(upload) is None
    finally:
        answers.close()


# Recordings that are gone


def test_a_recording_that_is_gone_is_shown_with_a_note(visitor, folder):
    path = folder / "clips" / "tone_1.wav"
    _, before = visitor.search(where="'tone_1' in path", k=1)
    hidden = path.rename(folder / "hidden.wav")
    try:
        html, token = visitor.search(where="'tone_1' in path", k=2)
        assert html.count("The recording is no longer at") == 2
        assert token is None and "More like this" in html
        answer = visitor.http.get(f"/esr/clips/{before}/0")
        assert answer.status_code == 410 and str(folder) not in answer.text
        assert visitor.http.get(f"/esr/pictures/{before}/0").status_code == 410
        token = re.search(r"exports/([\w-]+)/zip", html)[1]
        answer = visitor.http.get(f"/esr/exports/{token}/zip")
        file = zipfile.ZipFile(io.BytesIO(answer.content))
        assert "clips/left_out.txt" in file.namelist()
    finally:
        hidden.rename(path)
    assert visitor.http.get(f"/esr/clips/{before}/0").status_code == 200


def test_a_damaged_recording_is_shown_with_a_note(visitor, folder):
    path = folder / "clips" / "tone_1.wav"
    whole = path.read_bytes()
    path.write_bytes(b"no sound")
    try:
        html, _ = visitor.search(where="'tone_1' in path", k=2)
        assert html.count("The recording cannot be played") == 2
    finally:
        path.write_bytes(whole)


def test_a_segment_of_a_lost_recording_has_no_surroundings():
    answers = Answers()
    try:
        token = answers.put([Segment("/no/such.wav", 0.0, 1.0)])
        with pytest.raises(AudioError, match="missing"):
            answers.clip(token, 0, with_context=True)
    finally:
        answers.close()


# The map


def test_the_map_places_what_is_in_it_and_what_is_not(index):
    whole = CorpusMap(index.store, "style")
    part = CorpusMap(index.store, "style", most=9)
    assert len(whole) == len(index) and len(part) == 9
    hits = ask(index, "x", k=len(index))
    segments = [hit.segment for hit in hits]
    rows = [s.id for s in whole.segments]
    for method in ("PCA", "t-SNE"):
        places = whole.places(method)
        assert places.shape == (len(index), 2) and np.isfinite(places).all()
        assert whole.places(method) is places  # computed once
        found = whole.place(segments, method)
        wanted = places[[rows.index(s.id) for s in segments]]
        assert np.array_equal(found, wanted)
        assert np.isfinite(part.place(segments, method)).all()
    # Not in the sample: by the same components, as those that are.
    vectors = index.store.take("style", np.arange(len(index)))
    projected = part._pca.transform(vectors)
    by_row = index.store.segments(np.arange(len(index)))
    assert np.allclose(part.place(by_row), projected, atol=1e-4)
    with pytest.raises(ValueError, match="one of PCA"):
        whole.places("UMAP")


def test_a_published_index_has_a_map(folder, index, tmp_path):
    pytest.importorskip("milvus_lite", reason="needs the extra [scale]")
    where = f"milvus://{tmp_path}/lite.db/tones"
    publish(folder / "index", where, progress=False)
    with open_index(where) as published:
        shown = CorpusMap(published.store, "style")
        ids = {segment.id for segment in shown.segments}
        known = CorpusMap(index.store, "style")
        assert len(shown) == len(ids) == len(index)
        assert ids == {segment.id for segment in known.segments}
        hits = ask(published, "x", k=3)
        places = shown.place([hit.segment for hit in hits])
        assert places.shape == (3, 2) and np.isfinite(places).all()
        assert few_values(published.store) == few_values(index.store)


def test_a_tiny_index_has_a_map(index):
    for most in (1, 2, 3):
        tiny = CorpusMap(index.store, "style", most)
        for method in ("PCA", "t-SNE"):
            places = tiny.places(method)
            assert places.shape == (most, 2) and np.isfinite(places).all()
            assert "nan" not in draw_map(places, ["a"] * most)


def test_the_query_stands_nearer_to_the_better_hit():
    places = [[0.0, 0.0], [1.0, 1.0]]
    assert np.allclose(place_of_query(places, [800.0, 800.0]), 0.5)
    near = place_of_query(places, [2.0, 1.0])
    assert np.allclose(near, 1 / (1 + np.e))


def test_the_map_marks_hits_and_query(visitor):
    said, _ = visitor.call("_search", form("a low voice", k=4))
    token = said["output"]["data"][1]
    # The token is a state: only the session's own search has set it.
    said, _ = visitor.call("_draw", ["t-SNE", "voice", None])
    drawn = said["output"]["data"][0]
    assert drawn.count('class="esr-ring"') == 4
    assert drawn.count('class="esr-star"') == 1
    assert drawn.count("<title>") == drawn.count("data-rank=")
    assert "high</li>" in drawn and "mean of its hits" in drawn
    spot = re.search(r'esr-spot" data-token="([\w-]+)"', drawn)[1]
    assert visitor.http.get(f"/esr/clips/{spot}/0").status_code == 200
    assert visitor.http.get(f"/esr/exports/{spot}/csv").status_code == 404
    assert not token or token not in drawn


# Serving


def test_closing_ends_and_tidies(index):
    running = launch_app(index, block=False)
    folder = running.blocks.answers.folder
    assert folder.is_dir() and running.url.startswith("http://127.0.0.1:")
    running.close()
    assert not folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)


def test_a_port_that_is_taken_is_said(app, index):
    port = urlsplit(app.url).port
    with pytest.raises(ServingError, match="choose another with --port"):
        launch_app(index, port=port, block=False)


def test_without_gradio_the_extra_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"esr_lobes\[app\]"):
        import_gradio()


def test_the_command_serves_what_it_is_told(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "esr_lobes.app.launch_app",
        lambda index, **more: asked.update(more, index=index),
    )
    cli.main(["app", "speeches", "--port", "8123", "--source", "style=there"])
    assert asked == {
        "index": "speeches",
        "sources": {"style": "there"},
        "host": "127.0.0.1",
        "port": 8123,
        "device": "cpu",
    }


def test_a_terminated_command_leaves_nothing_behind(folder, tmp_path):
    command = [sys.executable, "-c", "from esr_lobes.cli import main; main()"]
    command += ["app", str(folder / "index")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        line = process.stdout.readline()
        url = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/) .*\n", line)[1]
        assert httpx.get(url).status_code == 200
        assert list(tmp_path.glob("esr_app_*"))
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert not list(tmp_path.glob("esr_app_*"))


def test_the_command_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["app", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}")
