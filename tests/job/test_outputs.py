"""What an output's inode, size and times say, of whether a job wrote it and of what came later."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.outputs import (
    FILE,
    FOLDER,
    Left,
    Stamp,
    Written,
    is_same,
    read_left,
    read_stamp,
    some,
    written,
)

NUMBERS = st.integers(0, 2**63)
LINKS = st.just([]) | st.lists(NUMBERS, min_size=2, max_size=2)


def stamps(kind: st.SearchStrategy[str]) -> st.SearchStrategy[Stamp]:
    facts = (*[NUMBERS] * 8, st.text(), st.booleans())
    return st.builds(Stamp, kind, LINKS, *facts)


FILES = stamps(st.just(FILE))
FOLDERS = stamps(st.just(FOLDER))
ANY = stamps(st.sampled_from([FILE, FOLDER, "a FIFO"]))
LEFT = st.builds(Left, *[NUMBERS] * 4, st.text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANY)
def test_a_stamp_survives_the_journal(stamp: Stamp) -> None:
    assert read_stamp(json.loads(json.dumps(stamp))) == stamp


@given(st.dictionaries(st.text(), LEFT))
def test_what_a_job_left_survives_the_journal(files: dict[str, Left]) -> None:
    assert read_left(json.loads(json.dumps(files))) == files


@given(JSON, st.none() | ANY)
def test_whatever_stands_in_a_journal_can_be_compared_with(
    value: object, now: Stamp | None
) -> None:
    written(read_stamp(value), now)
    assert all(isinstance(left, Left) for left in read_left(value).values())


@given(st.none() | ANY)
def test_what_did_not_change_was_not_written(stamp: Stamp | None) -> None:
    whether, words = written(stamp, stamp)
    # An impossible stamp: something in the folder is newer than the newest.
    if stamp is None or stamp.kind != FOLDER or stamp.written <= stamp.newest:
        assert whether is not Written.YES
        assert words


@given(st.none() | ANY, st.none() | ANY)
def test_only_files_and_folders_are_written_and_what_was_not_is_said(
    before: Stamp | None, now: Stamp | None
) -> None:
    whether, words = written(before, now)
    assert (whether is Written.YES) == (not words)
    if whether is Written.YES:
        assert now is not None
        assert now.kind in (FILE, FOLDER)


@given(FILES, FILES)
def test_a_file_was_written_unless_only_its_links_changed(before: Stamp, other: Stamp) -> None:
    linked = before._replace(changed=other.changed, links=before.links + 1)
    assert written(before, linked)[0] is Written.NO
    for done in (
        {"size": before.size + 1},
        {"modified": before.modified + 1},
        {"changed": before.changed + 1},
        {"changed": before.changed + 1, "inode": before.inode + 1, "links": before.links + 1},
        {"link": [1, 2, 3]},
    ):
        assert written(before, before._replace(**done))[0] is Written.YES


@given(FOLDERS.map(lambda folder: folder._replace(written=0, whole=True, files=9)))
def test_a_folder_was_written_when_something_in_it_was(before: Stamp) -> None:
    for written_in in ({"written": before.newest + 1}, {"files": 10}, {"digest": "other"}):
        assert written(before, before._replace(**written_in))[0] is Written.YES
    removed = before._replace(files=8, digest="other", modified=before.modified + 1)
    assert written(before, removed)[0] is Written.NO


@given(FOLDERS, FOLDERS)
def test_a_part_of_a_folder_never_tells_that_nothing_was_written(a: Stamp, b: Stamp) -> None:
    for before, now in ((a._replace(whole=False), b), (a, b._replace(whole=False))):
        whether, _ = written(before, now)
        link_or_new = before.link != now.link or before.inode != now.inode
        if not link_or_new and now.written <= before.newest:
            assert whether is Written.UNSEEN


def unread() -> str:
    raise AssertionError("it was read although the rest tells")


@given(LEFT)
def test_what_is_untouched_is_not_read_again(was: Left) -> None:
    assert is_same(was, was._replace(digest=""), unread)
    assert not is_same(was, was._replace(size=was.size + 1), unread)


@given(LEFT, LEFT)
def test_the_content_decides_where_it_is_known(was: Left, now: Left) -> None:
    was, now = was._replace(digest="d"), now._replace(size=was.size, inode=was.inode + 1)
    assert is_same(was, now, lambda: "d")
    assert not is_same(was, now, lambda: "e")
    assert not is_same(was, now, str)  # it cannot be read


@given(LEFT, LEFT)
def test_the_time_decides_for_what_is_not_small(was: Left, now: Left) -> None:
    was, now = was._replace(digest=""), now._replace(size=was.size, inode=was.inode + 1)
    assert is_same(was, now._replace(modified=was.modified), unread)
    assert is_same(was, now._replace(modified=was.modified // 10**9 * 10**9), unread)
    assert not is_same(was, now._replace(modified=was.modified + 10**9), unread)


def test_of_many_names_the_first_are_told() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([str(n) for n in range(1205)]) == "0, 1, 2, 3, 4 and 1,200 more"
