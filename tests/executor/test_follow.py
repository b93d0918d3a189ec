"""Following a growing file: whole lines, grouped, bounded, and nothing silently left out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Told, until

from hpc_prefect.executor.output import CHUNK, EVERY, Follower
from hpc_prefect.transports.local import LocalTransport

LEFT_OUT = re.compile(r"… (\d+) bytes left out, see (.*)")


class Growing:
    """A file that a program writes, and its follower with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stdout"
        self.follower = Follower(LocalTransport(), str(self.path))
        self.now = 0.0

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def news(self, *, last: bool = False) -> str:
        self.now += EVERY
        return self.follower.news(self.now, last=last)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path)


def test_a_file_that_is_not_there_yet_has_no_news(growing):
    assert growing.news() == growing.news(last=True) == ""


def test_new_lines_come_once_and_together(growing):
    growing.write(b"one\ntwo\n")
    assert growing.news() == "one\ntwo"
    assert growing.news() == ""
    growing.write(b"three\n")
    assert growing.news() == "three"


def test_a_chatty_program_is_heard_once_a_second(growing):
    growing.write(b"one\n")
    assert growing.follower.news(100.0) == "one"
    growing.write(b"two\n")
    assert growing.follower.news(100.0 + EVERY / 2) == ""
    growing.write(b"three\n")
    assert growing.follower.news(100.0 + EVERY) == "two\nthree"


def test_a_line_is_shown_when_it_is_complete_or_the_program_has_ended(growing):
    growing.write(b"one\ntwo")
    assert growing.news() == "one"
    assert growing.news() == ""
    growing.write(b" and a half\nend")
    assert growing.news() == "two and a half"
    assert growing.news(last=True) == "end"


def test_a_character_that_is_written_in_two_halves_is_whole(growing):
    first, second = "größe\n".encode()[:3], "größe\n".encode()[3:]
    growing.write(first)
    assert growing.news() == ""
    growing.write(second)
    assert growing.news() == "größe"


def test_bytes_that_are_no_utf8_are_shown_as_such(growing):
    growing.write(b"caf\xe9\n")
    assert growing.news() == "caf\ufffd"


def test_what_is_too_much_for_a_record_is_left_out_and_counted(growing):
    lines = b"".join(b"line %d\n" % n for n in range(20_000))
    growing.write(lines)
    note, _, text = growing.news().partition("\n")
    left_out = int(LEFT_OUT.fullmatch(note)[1])
    assert LEFT_OUT.fullmatch(note)[2] == str(growing.path)
    assert text.encode() + b"\n" == lines[left_out:]
    assert lines[:left_out].endswith(b"\n"), "the rest begins with a line"


def test_one_huge_line_is_shown_in_parts_between_characters(growing):
    """Three-byte characters, so that no power of two is a boundary."""
    growing.write("€".encode() * CHUNK)
    note, _, text = growing.news().partition("\n")
    assert int(LEFT_OUT.fullmatch(note)[1]) + len(text.encode()) == 3 * CHUNK
    assert set(text) == {"€"}
    growing.write("€".encode() * (CHUNK // 4) + "€".encode()[:1])
    assert growing.news() == "€" * (CHUNK // 4)
    growing.write("€".encode()[1:] + b"\n")
    assert growing.news() == "€"


def test_one_huge_line_that_ends_is_shown_although_no_other_follows(growing):
    growing.write(b"x" * 3 * CHUNK + b"\n")
    note, _, text = growing.news().partition("\n")
    assert set(text) == {"x"}
    assert int(LEFT_OUT.fullmatch(note)[1]) + len(text) + 1 == 3 * CHUNK + 1
    assert growing.news() == ""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40).map(lambda part: part.replace(b"\r", b"")),
            st.sampled_from([0, 1, 7, CHUNK // 40, CHUNK // 3]),
        ),
        max_size=12,
    )
)
def test_every_byte_is_shown_or_counted_and_no_record_is_larger_than_allowed(writes):
    with tempfile.TemporaryDirectory() as folder:
        growing = Growing(Path(folder))
        written = 0
        for part, times in [*writes, (b"", 0)]:
            growing.write(part * times)
            written += len(part) * times
            before = growing.follower.offset
            text = growing.news(last=part == b"" and times == 0)
            note = LEFT_OUT.match(text)
            left_out = int(note[1]) if note else 0
            shown = text.partition("\n")[2] if note else text
            moved = growing.follower.offset - before
            assert len(shown) <= moved - left_out <= CHUNK
        growing.news(last=True)
        assert growing.follower.offset == written


async def test_output_is_seen_while_the_program_runs(rig):
    gate, told = rig.folder / "gate", Told()
    spec = rig.spec(f"echo first; echo bad >&2; until [ -e {gate} ]; do sleep 0.05; done; printf z")
    with rig.under_way(rig.request(spec, listener=told)) as (_, task):
        await until(lambda: {("stdout", "first"), ("stderr", "bad")} <= {*told.outputs}, "output")
        assert not task.done()
        gate.touch()
        await task
    assert told.text("stdout") == "first\nz"


async def test_output_that_follows_the_last_look_is_shown_with_the_end(rig):
    told = Told()
    await rig.run(rig.request(rig.spec("seq 1000; printf tail"), listener=told))
    assert told.text().split("\n") == [*map(str, range(1, 1001)), "tail"]
