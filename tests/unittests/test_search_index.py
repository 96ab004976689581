"""Search: the right segments in the right order, on vectors made by hand.

Authors
 * The esr_lobes contributors
"""

import math

import numpy as np
import pyarrow as pa
import pytest

from esr_lobes import EncoderRetriever
from esr_lobes.audio import AudioError, read
from esr_lobes.errors import MendableError
from esr_lobes.index import Segment
from esr_lobes.index.filters import FilterError
from esr_lobes.index.queries import QueryError
from esr_lobes.index.search import ModelMismatchError, SearchIndex
from esr_lobes.index.segments import SCHEMA, segment_id
from esr_lobes.index.store import IndexFolderError, commit, write_lock
from esr_lobes.searching import open_index


def turned(degrees):
    """A unit vector of the plane."""
    angle = math.radians(degrees)
    return [math.cos(angle), math.sin(angle)]


EAST, NORTH = np.array(turned(0)), np.array(turned(90))


@pytest.fixture
def write_index(tmp_path):
    """A function that commits segments with vectors, and opens them."""

    def write(rows, fingerprint="f", source=None, folder=None, **spaces):
        """Rows are (path, start, stop, channel, metadata)."""
        folder = folder or tmp_path / "index"
        folder.mkdir(exist_ok=True)
        lines, extra = [], {}
        for path, start, stop, channel, more in rows:
            lines.append(
                {
                    "id": segment_id(path, start, stop, channel, "d"),
                    "path": path,
                    "start": float(start),
                    "stop": float(stop),
                    "channel": channel,
                    "duration": float(stop - start),
                    "digest": "d",
                }
            )
            for name, value in more.items():
                extra.setdefault(name, []).append(value)
        table = pa.Table.from_pylist(lines, schema=SCHEMA)
        for name, values in extra.items():
            table = table.append_column(name, pa.array(values))
        spaces = {
            name: np.array(vectors, np.float32).reshape(len(rows), -1)
            if rows
            else np.empty((0, 2), np.float32)
            for name, vectors in spaces.items()
        }
        about = {
            name: {
                "dimension": vectors.shape[1],
                "fingerprint": fingerprint,
                "source": source,
            }
            for name, vectors in spaces.items()
        }
        info = {"spaces": about, "preprocessing": {}, "roots": []}
        with write_lock(folder):
            commit(folder, info, table, spaces, [])
        return folder

    return write


def row(path, start, stop=None, channel=None, **more):
    return path, start, start + 1 if stop is None else stop, channel, more


@pytest.fixture
def index(write_index):
    """Five segments at 0, 90, 180, 30 and 60 degrees; two recordings."""
    rows = [
        row("/a.wav", 0, actor=1, emotion="calm"),
        row("/a.wav", 1.5, actor=1, emotion="sad"),
        row("/a.wav", 9, 12, actor=2, emotion=None),
        row("/b.wav", 0, actor=2, emotion="sad"),
        row("/b.wav", 3, actor=3, emotion="angry"),
    ]
    style = [turned(d) for d in (0, 90, 180, 30, 60)]
    return SearchIndex.open(write_index(rows, style=style))


def places(hits):
    return [(h.segment.path[1], h.segment.start, h.segment.stop) for h in hits]


def starts(hits):
    return [(h.segment.path[1], h.segment.start) for h in hits]


# Scores


def test_scores_ranks_and_what_is_known_of_a_segment(index):
    hits = index.search(EAST, k=3)
    assert starts(hits) == [("a", 0), ("b", 0), ("b", 3)]
    assert [h.rank for h in hits] == [0, 1, 2]
    cosines = [math.cos(math.radians(d)) for d in (0, 30, 60)]
    assert [h.score for h in hits] == pytest.approx(cosines)
    assert hits[1].segment.metadata == {"actor": 2, "emotion": "sad"}
    assert hits[1].segment.id == segment_id("/b.wav", 0, 1, None, "d")
    assert len(index) == 5 and len(index.search(EAST, k=50)) == 5


def test_z_and_percentile_are_of_the_whole_index_whatever_is_asked(index):
    cosines = np.cos(np.radians([0, 90, 180, 30, 60]))
    z = (cosines - cosines.mean()) / cosines.std()
    hits = index.search(EAST, k=5)
    assert [h.z for h in hits] == pytest.approx(sorted(z, reverse=True))
    assert [h.percentile for h in hits] == pytest.approx([100, 80, 60, 40, 20])
    (only,) = index.search(EAST, where="duration > 2")
    assert only.z == pytest.approx(z[2]) and only.percentile == 20


def test_equal_scores_are_ranked_by_path_and_time(write_index):
    rows = [row("/a.wav", t) for t in (0, 5)] + [row("/b.wav", 1)]
    folder = write_index(rows, style=[turned(20)] * 3)
    with SearchIndex.open(folder) as index:
        hits = index.search(EAST)
    assert starts(hits) == [("a", 0), ("a", 5), ("b", 1)]
    # Nothing stands out: a z of 0/0 is none, and none is better.
    assert {h.z for h in hits} == {None}
    assert {h.percentile for h in hits} == {100.0}


def test_a_z_threshold_where_nothing_can_stand_out_says_so(write_index):
    folder = write_index([row("/a.wav", 0)], style=[turned(0)])
    index = SearchIndex.open(folder)
    assert len(index.search(EAST, threshold=0.5)) == 1
    with pytest.raises(QueryError, match="score alike.*as a cosine"):
        index.search(EAST, threshold=0.5, scale="z")


def test_thresholds_on_every_scale(index):
    def found(threshold, scale):
        hits = index.search(EAST, threshold=threshold, scale=scale)
        return starts(hits)

    assert found(0.8, "cosine") == [("a", 0), ("b", 0)]
    assert found(0.5, "z") == [("a", 0), ("b", 0)]
    assert found(60, "percentile") == [("a", 0), ("b", 0), ("b", 3)]
    # The best of a small index reaches any share.
    assert found(100, "percentile") == [("a", 0)]
    assert found(2, "cosine") == []


# What is asked


def test_minus_is_the_difference_of_the_cosines(index):
    hits = index.search(EAST, k=5, minus=[NORTH])
    expected = {
        ("a", 0): 0.5,
        ("a", 1.5): -0.5,
        ("a", 9): -0.5,
        ("b", 0): (math.cos(math.pi / 6) - 0.5) / 2,
        ("b", 3): (0.5 - math.cos(math.pi / 6)) / 2,
    }
    scores = dict(zip(starts(hits), (h.score for h in hits), strict=True))
    assert scores == pytest.approx(expected, abs=1e-6)


def test_several_are_averaged_as_they_weigh(index):
    both = index.search([EAST, NORTH], k=1)[0]
    assert both.score == pytest.approx((math.cos(math.pi / 6) + 0.5) / 2)
    assert index.search(np.stack([EAST, NORTH]), k=1) == [both]


def test_nothing_left_of_a_query(index):
    with pytest.raises(QueryError, match="cancel out"):
        index.search(EAST, minus=[EAST])


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "what is searched for"),
        ({"query": []}, "got nothing"),
        ({"query": "  "}, "say in words what is searched for; got '  '"),
        ({"query": 3}, "say in words what is searched for; got 3"),
        ({"query": ["sad", None]}, "say in words what is .* got None"),
        ({"query": {"sad": "much"}}, "weight of 'sad' is no number"),
        ({"query": {"sad": float("nan")}}, "weight of 'sad' is no number"),
        ({"query": "sad"}, "opened without a model"),
        ({"query": np.ones(3)}, "2 finite numbers, not shape"),
        ({"query": np.array([1, np.nan])}, "2 finite numbers"),
        ({"query": EAST, "style": EAST}, "either query or style"),
        ({"query": EAST, "content": EAST}, "no vectors of content: it has"),
        ({"query": EAST, "weights": {"style": 1}}, "ask for both"),
        ({"query": EAST, "k": 0}, "k is a whole number from 1, not 0"),
        ({"query": EAST, "k": True}, "k is a whole number"),
        ({"query": EAST, "per_file": 0}, "per_file is a whole number"),
        ({"query": EAST, "merge": -1}, "merge is a number of seconds"),
        ({"query": EAST, "threshold": "high"}, "threshold is a number"),
        ({"query": EAST, "threshold": float("nan")}, "threshold is a number"),
        ({"query": EAST, "scale": "db"}, "scale is one of cosine, z, perc"),
        ({"query": EAST, "threshold": 101, "scale": "percentile"}, "0 to 100"),
        ({"query": EAST, "fusion": "max"}, "fusion is rank or score"),
        ({"clip": []}, "an example is a file"),
        ({"clip": ("/a.wav", 3, 1)}, "3.0 to 1.0 s is no part"),
        ({"clip": 3}, "an example is a file"),
        ({"query": EAST, "where": "actr == 3"}, "did you mean 'actor'"),
    ],
)
def test_what_cannot_be_asked(index, asked, message):
    with pytest.raises(MendableError, match=message):
        index.search(**asked)


def test_conditions(index):
    found = index.search(EAST, where="emotion in ['sad'] and actor == 2")
    assert starts(found) == [("b", 0)]
    assert starts(index.search(EAST, where={"emotion": "sad"})) == [
        ("b", 0),
        ("a", 1.5),
    ]
    assert starts(index.search(EAST, where="duration > 2")) == [("a", 9)]
    assert index.search(EAST, where="actor == 77") == []
    with pytest.raises(FilterError):
        index.search(EAST, where="emotion > 3")


def test_an_empty_index_answers_nothing(write_index):
    index = SearchIndex.open(write_index([], style=[]))
    assert index.search(EAST) == [] == index.search(EAST, merge=1, per_file=1)
    assert index.search_batch([EAST, NORTH]) == [[], []]
    with pytest.raises(QueryError, match="what is searched for"):
        index.search()


def test_a_batch_gives_what_one_by_one_gives(index):
    queries = [EAST, NORTH, np.array(turned(200))]
    alone = [index.search(q, k=2, where="actor < 3") for q in queries]
    assert index.search_batch(queries, k=2, where="actor < 3") == alone
    assert index.search_batch(np.stack(queries), k=2, where="actor < 3") == (
        alone
    )


# What is shown


def test_neighbours_are_joined_and_more_is_fetched(index):
    query = np.array(turned(44))
    hits = index.search(query, k=4, merge=0.5)
    # At 30 and 60 degrees, then at 0 and 90, which join, then at 180.
    assert places(hits) == [
        ("b", 0, 1),
        ("b", 3, 4),
        ("a", 0, 2.5),
        ("a", 9, 12),
    ]
    alone = index.search(query, k=5)
    assert starts(alone)[2:4] == [("a", 0), ("a", 1.5)]
    assert hits[2].score == alone[2].score and hits[2].z == alone[2].z
    assert hits[2].segment.metadata["emotion"] == "calm"
    assert places(index.search(query, k=3, merge=2.5))[0] == ("b", 0, 4)


def test_at_most_so_many_of_one_recording(index):
    hits = index.search(EAST, k=2, per_file=1)
    assert starts(hits) == [("a", 0), ("b", 0)]
    assert [h.rank for h in hits] == [0, 1]
    assert len(index.search(EAST, k=5, per_file=2)) == 4


def test_picking_is_the_same_however_much_is_fetched_at_once(write_index):
    """Once in steps of k, once from a plain loop over everything."""
    rng = np.random.default_rng(0)
    rows = [row(f"/{p}.wav", 2.0 * t) for p in "abc" for t in range(200)]
    vectors = rng.standard_normal((600, 8))
    vectors[:300] += 2  # most of the best are in one recording
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = SearchIndex.open(write_index(rows, style=vectors))
    query = np.full(8, 8**-0.5)
    everything = index.search(query, k=600)
    wanted, count = [], {}
    for hit in everything:
        count[hit.segment.path] = count.get(hit.segment.path, 0) + 1
        if count[hit.segment.path] <= 4:
            wanted.append((hit.segment, hit.score, hit.z))
    hits = index.search(query, k=12, per_file=4)
    assert [(h.segment, h.score, h.z) for h in hits] == wanted
    whole = index.search(query, k=600, threshold=0.6, merge=1.5)
    reached = {h.segment for h in everything if h.score >= 0.6}
    joined = sum(
        Segment(s.path, s.start + 2, s.stop + 2) not in reached for s in reached
    )
    assert len(whole) == joined < len(reached)
    first = index.search(query, k=5, threshold=0.6, merge=1.5)
    assert first == whole[:5]


# Example clips


def test_a_segment_of_the_index_finds_others_like_it(index):
    (hit,) = index.search(EAST, k=1)
    expected = [("b", 0), ("b", 3), ("a", 1.5), ("a", 9)]
    assert starts(index.search(clip=hit.segment)) == expected
    # As it is written in a table, where it has one decimal.
    assert starts(index.search(clip=("/a.wav", 0.04, 0.97))) == expected


def test_a_clip_given_through_a_link_is_not_its_own_answer(
    write_index, tmp_path
):
    """It was heard again, and was the first of its own answers."""
    path, link = tmp_path / "talk.wav", tmp_path / "link.wav"
    path.touch()
    link.symlink_to(path)
    rows = [row(str(path), 0), row("/b.wav", 0)]
    index = SearchIndex.open(write_index(rows, style=[turned(0), turned(50)]))
    for clip in str(link), (str(link), 0.0, 1.0):
        (hit,) = index.search(clip=clip)
        assert hit.segment.path == "/b.wav"


def test_a_whole_file_is_the_mean_of_its_segments(index):
    hits = index.search(clip="/b.wav", k=2)  # 30 and 60: 45 degrees
    assert starts(hits) == [("a", 0), ("a", 1.5)]
    assert hits[0].score == pytest.approx(math.cos(math.pi / 4))


def test_words_turn_an_example(index):
    plain = index.search(clip="/b.wav", k=1)[0]
    turned_north = index.search([NORTH], clip="/b.wav", k=1)[0]
    assert plain.segment.start == 0 and turned_north.segment.start == 1.5


def test_overlapping_windows_of_the_example_are_not_answers(write_index):
    rows = [row("/a.wav", t, t + 8) for t in (0, 4, 8, 12)]
    style = [turned(d) for d in (0, 1, 2, 3)]
    index = SearchIndex.open(write_index(rows, style=style))
    assert starts(index.search(clip=("/a.wav", 0, 8))) == [
        ("a", 8),
        ("a", 12),
    ]


def test_the_other_channel_is_another_speaker(write_index):
    rows = [row("/a.wav", 0, 2, channel) for channel in (0, 1)]
    index = SearchIndex.open(write_index(rows, style=[turned(0), turned(50)]))
    example = Segment("/a.wav", 0, 2, channel=0)
    (hit,) = index.search(clip=example)
    assert hit.segment.channel == 1


def test_a_file_that_is_nowhere(index):
    with pytest.raises(AudioError, match="c.wav: missing"):
        index.search(clip="/c.wav")


# With a model


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return EncoderRetriever.from_hparams(tiny_retriever)


@pytest.fixture
def heard(retriever, write_index, write_tone, tmp_path):
    """An index of four tones, one of them of 5 s; windows of 2 s."""
    for i, seconds in enumerate((1, 1.5, 5)):
        write_tone(tmp_path / f"{i}.wav", seconds, 200 + 300 * i, seed=i)
    retriever.index = type(retriever.index)(16)
    paths = [str(tmp_path / f"{i}.wav") for i in range(3)]
    vectors, segments = retriever.encode_files(paths, progress=False)
    rows = [row(s.path, s.start, s.stop) for s in segments]
    return write_index(
        rows,
        fingerprint=retriever.fingerprint(),
        source=retriever.source,
        style=vectors.numpy(),
    )


def test_open_index_finds_its_model(heard, retriever):
    with open_index(heard) as index:
        hits = index.search("a flat voice", k=3)
        batch = index.search_batch(["a flat voice", "an angry voice"], k=3)
    expected = retriever.search("a flat voice", k=3)
    assert [h.segment for h in hits] == [h.segment for h in expected]
    scores = [h.score for h in expected]
    assert [h.score for h in hits] == pytest.approx(scores, abs=1e-6)
    assert [h.segment for h in batch[0]] == [h.segment for h in hits]
    assert [h.z for h in batch[0]] == pytest.approx(
        [h.z for h in hits], abs=1e-4
    )


def test_descriptions_weigh(heard, retriever):
    index = SearchIndex.open(heard, retriever)
    good, bad = retriever.encode_text(["good", "bad"]).numpy()
    asked = index.search({"good": 3}, minus={"bad": 1})
    expected = index.search((3 * good - bad) / 4)
    assert starts(asked) == starts(expected)
    scores = [h.score for h in expected]
    assert [h.score for h in asked] == pytest.approx(scores, abs=1e-6)


def test_an_example_from_outside_is_heard(
    heard, retriever, write_tone, tmp_path
):
    path = write_tone(tmp_path / "new.wav", 1.0, 500.0, seed=1)
    index = SearchIndex.open(heard, retriever)
    hit = index.search(clip=path, k=1)[0]
    wave = read(path)
    expected = index.search(retriever.encode_batch(wave), k=1)[0]
    assert hit.segment == expected.segment
    assert hit.score == pytest.approx(expected.score, abs=1e-5)
    with pytest.raises(QueryError, match="without a model"):
        SearchIndex.open(heard).search(clip=path)
    write_tone(tmp_path / "silent.wav", 1.0, level=0.0, hertz=0.0)
    # A part of a file of the index that is none of its segments, too.
    part = index.search(clip=(tmp_path / "2.wav", 0.3, 1.9), k=4)
    assert all(h.segment.start >= 1 for h in part if "2.wav" in h.segment.path)


def test_an_example_of_an_index_whose_audio_is_gone(heard, retriever, tmp_path):
    index = SearchIndex.open(heard, retriever)
    (tmp_path / "2.wav").unlink()
    hits = index.search(clip=(tmp_path / "2.wav", 0.3, 1.9), k=1)
    assert len(hits) == 1


def test_another_model_is_refused(heard, retriever, write_index):
    write_index([row("/a.wav", 0)], source="owner/voice", style=[turned(0)])
    with pytest.raises(ModelMismatchError, match="model, owner/voice: open"):
        SearchIndex.open(heard, retriever)


def test_opening_says_what_is_missing(write_index, tmp_path, retriever):
    with pytest.raises(IndexFolderError):
        open_index(tmp_path / "none")
    rows = [row("/a.wav", 0)]
    folder = write_index(rows, style=[turned(0)])
    with pytest.raises(MendableError, match="model of its style vectors"):
        open_index(folder)
    write_index(rows, source=str(tmp_path / "gone"), style=[turned(0)])
    with pytest.raises(MendableError, match="not at .*gone any more.*--source"):
        open_index(folder)
    with pytest.raises(MendableError, match="no space 'content', but: style"):
        open_index(folder, sources={"content": retriever})
    with pytest.raises(ModelMismatchError):
        open_index(folder, sources=retriever)


# Style and content


@pytest.fixture
def both(write_index):
    """Four segments; the first is best in neither, and good in both."""
    rows = [row(f"/{name}.wav", 0, name=name) for name in "abcd"]
    style = [turned(d) for d in (20, 0, 90, 120)]
    content = [[*turned(d), 0.0] for d in (20, 95, 0, 120)]
    folder = write_index(rows, style=style, content=content)
    return SearchIndex.open(folder)


CONTENT = np.array([1.0, 0.0, 0.0])


def test_fused_by_rank(both):
    hits = both.search(style=EAST, content=CONTENT)
    # a is 2nd and 2nd; b 1st and 3rd, c 3rd and 1st; d last twice.
    expected = [(1 / 62 + 1 / 62) / 2, (1 / 61 + 1 / 63) / 2]
    expected += [expected[1], 1 / 64]
    assert [h.segment.metadata["name"] for h in hits] == list("bcad")
    assert [h.score for h in hits] == pytest.approx(
        [expected[1], expected[2], expected[0], expected[3]]
    )


def test_fused_by_score(both):
    hits = both.search(style=EAST, content=CONTENT, fusion="score")
    style = np.cos(np.radians([20, 0, 90, 120]))
    content = np.cos(np.radians([20, 95, 0, 120]))
    z = (style - style.mean()) / style.std()
    z = (z + (content - content.mean()) / content.std()) / 2
    assert hits[0].segment.metadata["name"] == "a"
    assert [h.score for h in hits] == pytest.approx(sorted(z)[::-1])
    assert [h.z for h in hits] == [h.score for h in hits]
    assert [h.percentile for h in hits] == [100, 75, 50, 25]
    reached = both.search(
        style=EAST, content=CONTENT, fusion="score", threshold=0.5, scale="z"
    )
    assert reached == [h for h in hits if h.score >= 0.5]


def test_weights_of_a_fusion(both):
    asked = {"style": EAST, "content": CONTENT}
    for fusion in "rank", "score":
        for weights, name in ({"content": 0}, "b"), ({"style": 0}, "c"):
            hits = both.search(**asked, fusion=fusion, weights=weights)
            assert hits[0].segment.metadata["name"] == name


def test_fused_hits_are_picked_and_filtered_too(both):
    hits = both.search(
        style=EAST, content=CONTENT, where="name != 'b'", k=2, per_file=1
    )
    # Without b, a has ranks 1 and 2, c has 2 and 1.
    assert [h.segment.metadata["name"] for h in hits] == ["a", "c"]
    assert hits[0].score == hits[1].score


def test_query_and_content_are_style_and_content(both):
    assert both.search(EAST, content=CONTENT) == both.search(
        style=EAST, content=CONTENT
    )


@pytest.mark.parametrize(
    "more, message",
    [
        ({"threshold": 0.1}, "fusion score and scale z"),
        ({"threshold": 0.1, "scale": "z"}, "fusion score and scale z"),
        ({"weights": {"stile": 1}}, "weights are of style and content"),
        ({"weights": {"style": -1}}, "weights are numbers from 0"),
        ({"weights": {"style": 0, "content": 0}}, "not all 0"),
    ],
)
def test_what_a_fusion_cannot_do(both, more, message):
    with pytest.raises(MendableError, match=message):
        both.search(style=EAST, content=CONTENT, **more)


def test_one_source_for_several_spaces(write_index, tmp_path):
    folder = write_index(
        [row("/a.wav", 0)], style=[turned(0)], content=[turned(0)]
    )
    with pytest.raises(MendableError, match="content=... style=..."):
        open_index(folder, sources="somewhere")


def test_a_segment_that_is_best_in_one_only_has_its_rank_in_both(write_index):
    """Candidates of one ranking are looked up in the other, too."""
    rows = [row(f"/{i:04d}.wav", 0) for i in range(3000)]
    rng = np.random.default_rng(0)
    style, content = rng.standard_normal((2, 3000, 4))
    style[7], content[7] = [9, 0, 0, 0], [-9, 0, 0, 0]  # best and worst
    style, content = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (style, content)
    )
    query = np.eye(4)[0]
    index = SearchIndex.open(write_index(rows, style=style, content=content))
    hits = index.search(style=query, content=query, k=3000)
    scores = {h.segment.path: h.score for h in hits}
    expected = (1 / 61 + 1 / (60 + len(hits))) / 2
    assert scores["/0007.wav"] == pytest.approx(expected)
    few = index.search(
        style=query, content=query, fusion="score", where="path != '/0007.wav'"
    )
    z = [
        (v @ query - (v @ query).mean()) / (v @ query).std()
        for v in (style, content)
    ]
    best = np.argsort(-np.delete((z[0] + z[1]) / 2, 7))[:10]
    best += best >= 7
    assert [h.segment.path for h in few] == [f"/{i:04d}.wav" for i in best]
