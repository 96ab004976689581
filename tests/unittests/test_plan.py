"""What a build has to do, worked out on paper.

Authors
 * The esr_lobes contributors
"""

import os
import shutil

import pytest

from esr_lobes.audio import AudioError
from esr_lobes.indexing.plan import (
    Known,
    PlanError,
    files_after,
    find_files,
    make_plan,
    make_units,
    read_digests,
)
from esr_lobes.preparation import Skip

SILENT = Skip("/a/silent", "silent", "")


@pytest.fixture
def folders(tmp_path):
    """Two folders: a with 1.wav and b/2.wav, c with 3.wav."""
    for name in ("a/1.wav", "a/b/2.wav", "c/3.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


def test_each_file_has_one_fate():
    known = Known(
        ["/a"],
        {"/a/same": "s", "/a/other": "o", "/a/old": "m", "/a/gone": "g"},
        [(SILENT, "q"), (Skip("/a/mended", "corrupt"), "bad")],
    )
    found = {
        "/a/same": ("s", 1),
        "/a/other": ("o2", 1),
        "/a/renamed": ("m", 1),
        "/a/new": ("n", 1),
        "/a/silent": ("q", 1),
        "/a/mended": ("good", 1),
    }
    plan = make_plan(found, [], known, ["/a"], ["/a"])
    assert plan.kept == ["/a/same"]
    assert plan.changed == ["/a/mended", "/a/other"]
    assert plan.moved == {"/a/renamed": "/a/old"}
    assert plan.new == ["/a/new"]
    assert plan.dropped == ["/a/gone", "/a/old"]
    assert plan.standing == [(SILENT, "q")]
    assert plan.todo == {"/a/mended": "good", "/a/new": "n", "/a/other": "o2"}


def test_two_files_that_swap_their_names_are_not_heard_again():
    known = Known(["/a"], {"/a/1": "x", "/a/2": "y"})
    found = {"/a/1": ("y", 1), "/a/2": ("x", 1)}
    plan = make_plan(found, [], known, ["/a"], ["/a"])
    assert plan.moved == {"/a/1": "/a/2", "/a/2": "/a/1"}
    assert plan.todo == {} and plan.dropped == []


def test_a_copy_takes_the_vectors_of_what_stays():
    known = Known(["/a"], {"/a/1": "x"})
    found = {"/a/1": ("x", 1), "/a/2": ("x", 1)}
    plan = make_plan(found, [], known, ["/a"], ["/a"])
    assert plan.kept == ["/a/1"] and plan.moved == {"/a/2": "/a/1"}


def test_other_roots_stay_unless_pruned():
    skip = Skip("/b/broken", "corrupt")
    known = Known(["/a", "/b"], {"/a/1": "x", "/b/1": "y"}, [(skip, "z")])
    found = {"/a/1": ("x", 1)}
    plan = make_plan(found, [], known, ["/a"], ["/a", "/b"])
    assert plan.kept == ["/a/1", "/b/1"] and plan.standing == [(skip, "z")]
    plan = make_plan(found, [], known, ["/a"], ["/a"], prune=True)
    assert plan.kept == ["/a/1"]
    assert plan.dropped == ["/b/1", "/b/broken"]


def test_what_cannot_be_read_is_tried_again_each_time():
    locked = Skip("/a/1", "missing", "Permission denied")
    plan = make_plan({}, [locked], Known(), ["/a"], ["/a"])
    assert plan.unread == [(locked, "")] and plan.todo == {}
    known = Known(["/a"], {}, [(locked, "")])
    plan = make_plan({}, [locked], known, ["/a"], ["/a"])
    assert plan.standing == [(locked, "")] and plan.unread == []
    plan = make_plan({"/a/1": ("x", 1)}, [], known, ["/a"], ["/a"])
    assert plan.new == ["/a/1"]


def test_a_known_file_that_cannot_be_read_now_stays():
    known = Known(["/a"], {"/a/1": "x"}, [(SILENT, "q")])
    locked = Skip("/a/1", "missing", "Permission denied")
    also = Skip(SILENT.path, "missing", "Permission denied")
    plan = make_plan({}, [locked, also], known, ["/a"], ["/a"])
    assert plan.kept == ["/a/1"] and plan.unreadable == [locked]
    assert plan.standing == [(SILENT, "q")]
    assert plan.dropped == plan.unread == [] and plan.todo == {}


def test_files_after_a_build():
    known = Known(["/a", "/b"], {"/b/1": "x"}, [(SILENT, "q")])
    assert files_after(["/a/2"], known, ["/a"]) == ["/a/2", "/b/1"]
    assert files_after(["/a/2"], known, ["/a"], prune=True) == ["/a/2"]
    assert files_after([], known, ["/b"]) == [SILENT.path]


def test_a_file_below_two_roots_counts_once(folders):
    roots = [str(folders / "a"), str(folders / "a" / "b")]
    paths, scanned, kept = find_files(roots, Known())
    assert names(paths, folders) == ["a/1.wav", "a/b/2.wav"]
    assert scanned == roots and kept == roots


def test_paths_are_absolute(folders, monkeypatch):
    monkeypatch.chdir(folders)
    paths, _, roots = find_files(["c", "./a/../a/1.wav"], Known())
    assert paths == [str(folders / "a/1.wav"), str(folders / "c/3.wav")]
    assert roots == [str(folders / "a/1.wav"), str(folders / "c")]


def test_only_the_given_roots_are_searched(folders):
    a, c = str(folders / "a"), str(folders / "c")
    paths, scanned, roots = find_files(c, Known([a]))
    assert names(paths, folders) == ["c/3.wav"]
    assert scanned == [c] and roots == [a, c]
    assert find_files(None, Known([a, c]))[1] == [a, c]
    assert find_files(c, Known([a]), rebuild=True)[1] == [a, c]
    assert find_files(c, Known([a]), prune=True)[2] == [c]


def test_a_hidden_root_is_searched_with_the_one_around_it(folders):
    """Else what it brought would look as if it were gone."""
    hidden = folders / "a" / ".hidden"
    (folders / "c").rename(hidden)
    paths, scanned, _ = find_files(str(folders / "a"), Known([str(hidden)]))
    assert str(hidden / "3.wav") in paths and str(hidden) in scanned


@pytest.mark.parametrize("is_there", [True, False])
def test_a_drive_that_is_not_mounted_drops_nothing(folders, is_there):
    root = str(folders / "c")
    known = Known([root], {f"{root}/3.wav": "x"})
    shutil.rmtree(root)
    if is_there:
        os.mkdir(root)
    with pytest.raises(PlanError, match="nothing was dropped. Mount its"):
        find_files(None, known)


def test_an_unknown_folder_that_is_not_there(folders):
    with pytest.raises(AudioError, match="no such file or folder"):
        find_files(str(folders / "d"), Known())


def test_a_file_that_was_a_root_may_go(folders):
    a, c = str(folders / "a" / "1.wav"), str(folders / "c" / "3.wav")
    known = Known([a, c], {a: "x"}, [(Skip(c, "corrupt"), "y")])
    os.unlink(a)
    paths, scanned, roots = find_files(None, known)
    assert paths == [c] and scanned == [a, c] and roots == [c]
    os.unlink(c)  # now its folder is empty, as a drive that is not mounted
    with pytest.raises(PlanError, match="no such file or folder"):
        find_files(None, known)


@pytest.mark.parametrize("rebuild", [True, False])
def test_a_root_that_gave_nothing_and_is_empty_now(folders, rebuild):
    """Nothing said how to get rid of it."""
    a, c = str(folders / "a"), str(folders / "c")
    skips = [] if rebuild else [(Skip(f"{c}/3.wav", "corrupt"), "y")]
    known = Known([a, c], {}, skips)
    os.unlink(folders / "c/3.wav")
    with pytest.raises(PlanError, match="c: no file .* and add --prune"):
        find_files(None, known, rebuild=rebuild)
    assert find_files(a, known, prune=True)[2] == [a]


def test_a_file_that_is_asked_for_must_be_there(folders):
    a = str(folders / "a" / "1.wav")
    os.unlink(a)
    with pytest.raises(PlanError, match="nothing was dropped"):
        find_files(a, Known([a], {a: "x"}))


@pytest.mark.parametrize(
    "prune, message", [(False, "index what?"), (True, "prune down to what?")]
)
def test_there_must_be_something_to_index(prune, message):
    known = Known(["/a"] if prune else [])
    with pytest.raises(PlanError, match=message):
        find_files(None, known, prune)


def test_digests_tell_contents_apart(folders):
    shutil.copy(folders / "a/1.wav", folders / "c/same.wav")
    paths = [str(folders / n) for n in ("a/1.wav", "c/3.wav", "c/same.wav")]
    found, unread = read_digests(paths)
    digests = [found[path][0] for path in paths]
    assert digests[0] == digests[2] != digests[1] and unread == []
    assert [found[path][1] for path in paths] == [7, 7, 7]


def test_what_cannot_be_read_is_listed(folders):
    pipe, gone = str(folders / "pipe.wav"), str(folders / "gone.wav")
    odd = os.fsdecode(os.fsencode(folders) + b"/\xff.wav")
    os.mkfifo(pipe)
    shutil.copy(folders / "a/1.wav", odd)
    found, unread = read_digests([pipe, gone, odd])
    assert found == {}
    assert [skip.reason for skip in unread] == [
        "missing",
        "missing",
        "odd name",
    ]
    assert unread[2].path == f"{folders}/\\xff.wav"  # fit for any table


def test_units_are_small_and_sorted():
    files = [(f"{i:03d}", str(i), 1) for i in range(70)]
    units = make_units(reversed(files))
    assert [len(unit.files) for unit in units] == [32, 32, 6]
    assert [file for unit in units for file in unit.files] == [
        (path, digest) for path, digest, _ in files
    ]


def test_a_big_file_stands_alone():
    sizes = {"a": 40, "b": 24, "c": 1, "d": 200, "e": 64}
    files = [(path, "", size << 20) for path, size in sizes.items()]
    units = ["".join(p for p, _ in unit.files) for unit in make_units(files)]
    assert units == ["ab", "c", "d", "e"]
