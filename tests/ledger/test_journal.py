"""A line that was appended can be read, whatever others leave behind at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_prefect.job.folder import journal_line, read_entries
from hpc_prefect.ledger import journal
from hpc_prefect.transports.local import LocalTransport

MINE, NEXT = journal_line(2, "intent", tag="h"), journal_line(3, "submitted", id="7")


class Raced(LocalTransport):
    """Another process is killed in the middle of its line, right before each of ours is written."""

    def __init__(self, torn: bytes) -> None:
        super().__init__()
        self.torn = torn

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        super().append(path, self.torn)
        super().append(path, data, durable=durable)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_line_is_whole_though_another_is_cut_off_right_before_it_is_written(
    tmp_path: Path, cut: int, durable: bool
) -> None:
    path, transport = (
        tmp_path / "journal.jsonl",
        Raced(journal_line(1, "intent", tag="other")[:cut]),
    )
    for line in (MINE, NEXT):
        journal.append(transport, str(path), line, durable=durable)
    mine = [entry for entry in read_entries(path.read_bytes()) if entry.get("tag") != "other"]
    assert mine == [*read_entries(MINE + NEXT)]


def test_nothing_is_appended_where_a_file_is_only_forced_to_disk(tmp_path: Path) -> None:
    path = tmp_path / "ended.jsonl"
    journal.append(LocalTransport(), str(path), b"", durable=True)
    assert path.read_bytes() == b""
