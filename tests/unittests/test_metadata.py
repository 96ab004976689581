"""Columns that the user joins to files.

Authors
 * The esr_lobes contributors
"""

import os
from unicodedata import normalize

import pyarrow as pa
import pytest

from esr_lobes.indexing.metadata import MetadataError, join, read_metadata

FILES = ["/audio/a/1.wav", "/audio/b/1.wav", "/audio/b/2.flac"]


@pytest.fixture
def read(tmp_path):
    """Writes a CSV and reads it: rows by path, and the unmatched."""

    def call(text, files=FILES, roots=("/audio",), encoding="utf-8"):
        path = tmp_path / "metadata.csv"
        path.write_text(text, encoding=encoding)
        table, n_unmatched = read_metadata(path, files, roots)
        rows = {row.pop("path"): row for row in table.to_pylist()}
        return rows, n_unmatched

    return call


@pytest.mark.parametrize(
    "name, path",
    [
        ("/audio/a/1.wav", FILES[0]),
        ("/audio/b/../a/1.wav", FILES[0]),
        ("a/1.wav", FILES[0]),
        ("./b/1.wav", FILES[1]),
        ("2.flac", FILES[2]),
        ("2", FILES[2]),
    ],
)
@pytest.mark.parametrize("key", ["path", "file"])
def test_ways_to_name_a_file(read, name, path, key):
    assert read(f"actor,{key}\n3,{name}\n") == ({path: {"actor": 3}}, 0)


def test_paths_relative_to_the_csv(read, tmp_path):
    file = str(tmp_path / "clips" / "1.wav")
    rows, _ = read("path,actor\nclips/1.wav,3\n", [file], [])
    assert rows == {file: {"actor": 3}}


def test_types(read):
    rows, n_unmatched = read(
        "path,count,share,is_real,day,word,nothing\n"
        "a/1.wav,1,0.5,true,2020-01-31,x,\n"
        "b/1.wav,,1,false,2020-02-01,,\n"
        "c/1.wav,3,2,true,,y,\n"
    )
    assert n_unmatched == 1
    assert rows[FILES[0]] == {
        "count": 1,
        "share": 0.5,
        "is_real": True,
        "day": "2020-01-31",
        "word": "x",
        "nothing": None,
    }
    assert rows[FILES[1]] == {
        "count": None,
        "share": 1.0,
        "is_real": False,
        "day": "2020-02-01",
        "word": None,
        "nothing": None,
    }


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "12"],
        ["1", "-01"],
        ["00.5", "1"],
        ["1234567890123456789", "1"],
        ["12345678901234567890", "1"],
    ],
)
def test_numbers_that_are_names_stay_text(read, cells):
    rows, _ = read(f"path,code\na/1.wav,{cells[0]}\nb/1.wav,{cells[1]}\n")
    assert [rows[path]["code"] for path in FILES[:2]] == cells


@pytest.mark.parametrize("cells", [[0, 10], [0.5, -0.25], [10**17, -1]])
def test_other_numbers_are_numbers(read, cells):
    rows, _ = read(f"path,n\na/1.wav,{cells[0]}\nb/1.wav,{cells[1]}\n")
    assert [rows[path]["n"] for path in FILES[:2]] == cells


def test_names_are_those_of_a_filter(read):
    """A filter takes letter and accent for the letter with the accent."""
    apart = normalize("NFD", "größe")
    assert apart != "größe"
    assert read(f"path,{apart}\n2,1\n")[0] == {FILES[2]: {"größe": 1}}
    with pytest.raises(MetadataError, match="'größe' stands twice"):
        read(f"path,{apart},größe\n2,1,1\n")


def test_a_csv_that_cannot_be_read():
    memory = "/proc/self/mem"
    if not os.path.isfile(memory):
        pytest.skip("no file here that even its owner cannot read")
    with pytest.raises(MetadataError, match="mem cannot be read .*Input/outp"):
        read_metadata(memory, FILES)


def test_quotes_newlines_and_a_byte_order_mark(read):
    text = 'path,said\n2,"well,\n""no"""\n'
    rows, _ = read(text, encoding="utf-8-sig")
    assert rows == {FILES[2]: {"said": 'well,\n"no"'}}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is no CSV in UTF-8"),
        ("path,a\n1,2,3\n", "is no CSV in UTF-8"),
        ("wav,a\nx,1\n", "'wav', 'a', but one must be called path"),
        ("path;a\n2;1\n", "'path;a', but one must be called path"),
        ("path\n2\n", "no column besides 'path'"),
        ("path,a,a\n2,1,1\n", "'a' stands twice"),
        ("path,start\n2,1\n", "'start' is a column of the index itself"),
        ("path,play\n2,1\n", "'play' is a column of the index itself"),
        ("path,clip\n2,1\n", "'clip' is a column of the index itself"),
        ("path,score\n2,1\n", "'score' is a column of the index itself"),
        ("path,how loud\n2,1\n", "'how loud' cannot stand in a filter"),
        ("path,in\n2,1\n", "'in' cannot stand in a filter"),
        ("path,a\n1.wav,1\n", "line 2: '1.wav' is the name of 2 files, such"),
        ("path,a\n2,1\n2.flac,1\n", "lines 2 and 3 are both about /audio/b/2"),
        ("path,a\n4.wav,1\n", "no row names a file of the index, such as /au"),
        ("path,a\n", "no row names a file of the index"),
    ],
)
def test_what_is_wrong_is_said(read, text, message):
    with pytest.raises(MetadataError, match=message):
        read(text)


@pytest.mark.parametrize("text", ["path,a\n2,é\n", "path,é\n2,a\n"])
def test_another_encoding_is_said(read, text):
    with pytest.raises(MetadataError, match="is no CSV in UTF-8"):
        read(text, encoding="latin-1")


def test_many_problems_are_counted(read):
    with pytest.raises(MetadataError, match="and 3 more$"):
        read("path,a\n" + "1.wav,1\n" * 8)


def test_a_missing_csv(tmp_path):
    with pytest.raises(MetadataError, match="no such file"):
        read_metadata(tmp_path / "none.csv", FILES)


def test_joined_columns_keep_their_types_without_rows():
    segments = pa.table({"path": pa.array([], pa.string())})
    metadata = pa.table({"path": ["a"], "actor": [1]})
    joined = join(segments, metadata)
    assert joined.schema.field("actor").type == pa.int64()
