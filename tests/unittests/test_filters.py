"""Conditions: what they mean, in every engine the same, and what is refused.

Authors
 * The esr_lobes contributors
"""

import datetime
import re

import numpy as np
import pyarrow as pa
import pytest

from esr_lobes.index.filters import Filter, FilterError

ROWS = {
    "id": list("abcdef"),
    "emotion": ["sad", 'say "hi" \\ bye', None, "100% x_y", "100 xzy", "ü\nn"],
    "actor": [1, 2, None, 4, -5, 6],
    "level": [0.5, None, 1.5, 2.0, 2.5, 3.0],
    "is_read": [True, False, None, True, True, False],
}
TABLE = pa.table(ROWS)
COLUMNS = {field.name: str(field.type) for field in TABLE.schema}


def rows(condition, table=TABLE):
    columns = {field.name: str(field.type) for field in table.schema}
    found = table.filter(Filter.parse(condition, columns).arrow())
    return "".join(found["id"].to_pylist())


CONDITIONS = [
    ("emotion == 'sad'", "a"),
    ("emotion != 'sad'", "bdef"),
    ("not emotion == 'sad'", "bdef"),
    ("emotion in ['sad', 'calm']", "a"),
    ("emotion in ('sad', None)", "ac"),
    ("emotion not in ['sad']", "bdef"),
    ("emotion not in ['sad', None]", "bdef"),
    ("emotion in []", ""),
    ("emotion not in []", "abdef"),
    ("emotion == None", "c"),
    ("None != emotion", "abdef"),
    ("emotion > 'say'", "bf"),
    # What means something to an engine's own patterns and quotes.
    ("'%' in emotion", "d"),
    ("'x_y' in emotion", "d"),
    ("'\"' in emotion", "b"),
    (r"'\\' in emotion", "b"),
    (r"""emotion == 'say "hi" \\ bye'""", "b"),
    (r"emotion == 'ü\nn'", "f"),
    ("'sa' not in emotion", "def"),
    ("not 'sa' in emotion", "def"),
    ("emotion == '\" or id != \"'", ""),
    ("actor == 1", "a"),
    ("1 == actor", "a"),
    ("actor == 1.0", "a"),
    ("actor < 2", "ae"),
    ("2 > actor", "ae"),
    ("not actor < 2", "bdf"),
    ("-6 < actor <= 1.5", "ae"),
    ("actor in [1, -5, 1.5]", "ae"),
    ("actor == -5", "e"),
    ("level >= 2", "def"),
    ("is_read", "ade"),
    ("not is_read", "bf"),
    ("is_read == False", "bf"),
    ("is_read != True", "bf"),
    ("actor == 1 or actor == 2 and is_read", "a"),
    ("(actor == 1 or actor == 2) and not is_read", "b"),
    ("not (actor == 1 or emotion == None)", "bdef"),
    ("not (actor > 1 and is_read)", "abef"),
    ("actor > 1\n  and is_read  # read aloud", "d"),
    ({"actor": 2}, "b"),
    ({"actor": [2, 4], "is_read": True}, "d"),
    ({"emotion": None}, "c"),
    ({"actor": np.int64(4), "level": np.array([2.0])}, "d"),
]


@pytest.mark.parametrize("condition, found", CONDITIONS)
def test_what_a_condition_finds(condition, found):
    assert rows(condition) == found


def test_milvus_finds_the_same(tmp_path):
    """Each condition in a real engine, quotes, patterns and empty cells."""
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    from milvus_lite.server_manager import server_manager_instance

    uri = str(tmp_path / "x.db")
    client = pymilvus.MilvusClient(uri)
    schema = client.create_schema()
    kinds = pymilvus.DataType
    schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=9)
    schema.add_field("emotion", kinds.VARCHAR, max_length=99, nullable=True)
    schema.add_field("actor", kinds.INT64, nullable=True)
    schema.add_field("m_level", kinds.DOUBLE, nullable=True)
    schema.add_field("is_read", kinds.BOOL, nullable=True)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)
    params = client.prepare_index_params()
    params.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("c", schema=schema, index_params=params)
    lines = TABLE.rename_columns(
        ["id", "emotion", "actor", "m_level", "is_read"]
    ).to_pylist()
    client.insert("c", [{**line, "vector": [1.0, 0.0]} for line in lines])
    differ = []
    for condition, found in CONDITIONS:
        text = Filter.parse(condition, COLUMNS).milvus({"level": "m_level"})
        answer = client.query("c", filter=text, output_fields=["id"])
        got = "".join(sorted(row["id"] for row in answer))
        if got != found:
            differ.append((condition, text, got, found))
    client.close()
    server_manager_instance.release_server(uri)
    assert differ == []


DATES = pa.table(
    {
        "id": ["a", "b", "c"],
        "day": [datetime.date(2024, 1, 1), datetime.date(2025, 1, 1), None],
        "at": pa.array(
            [datetime.datetime(2024, 1, 1, 2), None, None], pa.timestamp("s")
        ),
        "zoned": pa.array(
            [datetime.datetime(2024, 1, 1, 2), None, None],
            pa.timestamp("s", "UTC"),
        ),
        "hour": pa.array([datetime.time(9), None, None], pa.time32("s")),
    }
)


@pytest.mark.parametrize(
    "condition, found",
    [
        ("day == '2024-01-01'", "a"),
        ("day >= '2024-06-01'", "b"),
        ("day in ['2024-01-01', '2025-01-01']", "ab"),
        ("at > '2024-01-01'", "a"),
        ("at == '2024-01-01 02:00:00'", "a"),
        ("zoned == '2024-01-01 02:00:00'", "a"),
        ("zoned in ['2024-01-01 04:00:00+02:00']", "a"),
        ("hour < '10:00'", "a"),
    ],
)
def test_dates_and_times(condition, found):
    assert rows(condition, DATES) == found


def test_a_date_is_no_sentence():
    columns = {"day": "date32[day]"}
    with pytest.raises(FilterError, match="no date: write it like '2024-12"):
        Filter.parse("day == 'May'", columns)
    text = Filter.parse("day == '2024-01-01'", columns).milvus()
    assert text == 'day == "2024-01-01"'


def test_columns_of_any_name_and_kind():
    table = pa.table(
        {
            "id": ["a", "b"],
            "speaker id": [1, 2],
            "class": ["x", "y"],
            "tag": pa.array(["p", "q"]).dictionary_encode(),
            "none": pa.nulls(2),
        }
    )
    assert rows("`speaker id` == 1 or `class` == 'y'", table) == "ab"
    assert rows("'`' in `class`", table) == ""
    assert rows("tag in ['p'] and 'p' in tag", table) == "a"
    assert rows("none == 3", table) == ""
    assert rows("none == None and id == 'b'", table) == "b"
    own = Filter.parse("duration > 2 and path != ''", {"actor": "int64"})
    assert own.columns["duration"] == "double"


def test_a_name_is_found_however_its_letters_are_put_together():
    """Python composes plain names; those in backticks were left as typed."""
    for columns in {"größe": "int64"}, {"gro\u0308ße": "int64"}:
        filters = [
            Filter.parse(condition, columns).tree
            for condition in (
                *("`gro\u0308ße` == 3", {"gro\u0308ße": 3}),
                *(["größe == 3", "gro\u0308ße == 3"] * ("größe" in columns)),
            )
        ]
        assert set(filters) == {("==", *columns, 3)}


@pytest.mark.parametrize(
    "condition, message",
    [
        ("", "write for example: actor == 3"),
        ("actor = 1", "write == to compare"),
        ("actor == 1 AND is_read", "are written small"),
        ("actor == 1 && is_read", "write and, or"),
        ("actr == 1", "no column 'actr'; did you mean 'actor'?"),
        ("emotion == sad", "text stands in quotes: 'sad'"),
        ("emotion == is_read", "are both columns"),
        ("emotion == 3", "emotion holds text, but 3 is none"),
        ("actor == '3'", "actor holds numbers, but '3' is none"),
        ("actor == True", "actor holds numbers, but True is none"),
        ("is_read == 1", "is_read holds true and false, but 1 is none"),
        ("is_read > False", "write == or !="),
        ("actor", "actor holds numbers, but True is none"),
        ("actor > None", "nothing is"),
        ("actor in 3", "give a list"),
        ("actor == [3]", "write actor in"),
        ("actor in ['x']", "actor holds numbers, but 'x' is none"),
        ("'x' in actor", "only text can be in text"),
        ("3 == 4", "4 is no column"),
        ("actor is None", "write == None or != None"),
        ("actor == 9223372036854775808", "too large a number"),
        ("level == 1e999", "inf is too large"),
        ("level == float('nan')", "is no number and no text"),
        ("actor == 1; import os", "cannot read"),
        ("actor > 1) or (actor > 0", "cannot read"),
        ("__import__('os').system('true') == 1", "1 is no column"),
        ("(lambda: 1)()", "is no comparison"),
        ("[actor for actor in id]", "is no comparison"),
        ("(" * 5000, "cannot read"),
        ("not " * 2400 + "actor", "cannot read|numbers, but True"),
        ("actor == " + "1" * 9000, "cannot read"),
        ("x" * 10_001, "at most 10000 characters"),
        ("actor == 1\0", "cannot read"),
        ({}, "an empty dict says nothing"),
        ({"actr": 1}, "did you mean 'actor'"),
        ({"actor": {"min": 1}}, "but {'min': 1} is none"),
        (3, "a condition is a text or a dict, not 3"),
    ],
)
def test_what_is_refused(condition, message):
    with pytest.raises(FilterError, match=message) as refused:
        Filter.parse(condition, COLUMNS)
    assert len(str(refused.value)) < 400
    assert not re.search("[\n\0]", str(refused.value))


def test_a_filter_is_read_once_more_for_other_columns():
    """A filter of one index is checked against those of the next."""
    read = Filter.parse("actor == 1", COLUMNS)
    assert Filter.parse(read, COLUMNS) == Filter.parse("actor == 1", COLUMNS)
    with pytest.raises(FilterError, match="no column 'actor'"):
        Filter.parse(read, {"emotion": "string"})
