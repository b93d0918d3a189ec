"""Which members have begun: seen soon, and folders that do not change are not listed again."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from hpc_prefect.executor.arrays.evidence import BegunMembers
from hpc_prefect.job import members as layout
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.transports.local import LocalTransport

COUNT = 3 * layout.SHARD
EVERY = range(COUNT)


class CountingTransport(LocalTransport):
    """Counts how often each folder is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: Counter[str] = Counter()

    def list(self, path: str) -> list[str]:
        self.listed[os.path.basename(path)] += 1
        return super().list(path)


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    """Of an array with three folders of members, none of which has changed for long."""
    folder = ArrayFolder(CountingTransport(), str(tmp_path / ".hpc-prefect" / "jobs" / "scan-1"))
    for shard in range(3):
        made = Path(folder.path, "m", str(shard))
        folder.transport.make_folder(str(made))
        os.utime(made, (1_000_000, 1_000_000))
    return folder


def listed(folder: ArrayFolder) -> Counter[str]:
    transport = folder.transport
    assert isinstance(transport, CountingTransport)
    return transport.listed


def begin(folder: ArrayFolder, index: int, at: float = 0.0) -> None:
    """A member's script is at its guard; `at`: the time that its folder then has."""
    guard = Path(folder.path, f"{layout.prefix(index)}guard")
    guard.symlink_to(f"7_{index}")
    if at:
        os.utime(guard.parent, (at, at))


def test_a_folder_in_which_nothing_happens_is_not_listed_again(folder: ArrayFolder) -> None:
    begun = BegunMembers(folder)
    for now in range(20):
        assert begun.among(EVERY, now, anew=False) == set()
    assert max(listed(folder).values()) < 6


def test_a_member_that_begins_in_a_folder_that_was_quiet_is_seen_at_the_next_look(
    folder: ArrayFolder,
) -> None:
    begun = BegunMembers(folder)
    for now in range(20):
        begun.among(EVERY, now, anew=False)
    before = listed(folder).copy()
    begin(folder, 117)
    assert begun.among(EVERY, 20, anew=False) == {117}
    assert listed(folder) - before == {"1": 1}


def test_members_that_begin_within_one_tick_of_the_file_servers_clock_are_all_seen(
    folder: ArrayFolder,
) -> None:
    begun = BegunMembers(folder)
    begin(folder, 5, at=2_000_000)
    assert begun.among(EVERY, 0, anew=False) == {5}
    begin(folder, 6, at=2_000_000)
    assert begun.among(EVERY, 1.9, anew=False) == {5, 6}


def test_what_a_folders_time_did_not_tell_is_seen_when_it_is_looked_at_anew(
    folder: ArrayFolder,
) -> None:
    begun = BegunMembers(folder)
    for now in range(20):
        begun.among(EVERY, now, anew=False)
    begin(folder, 117, at=1_000_000)  # a file system whose folders tell no change
    assert begun.among(EVERY, 20, anew=False) == set()
    assert begun.among(EVERY, 21, anew=True) == {117}


def test_a_place_that_tells_no_times_of_folders_is_listed_each_time(folder: ArrayFolder) -> None:
    for shard in range(3):
        os.utime(Path(folder.path, "m", str(shard)), (0, 0))
    begun = BegunMembers(folder)
    for now in range(20):
        begun.among(EVERY, now, anew=False)
    begin(folder, 117, at=1e-9)
    os.utime(Path(folder.path, "m", "1"), (0, 0))
    assert begun.among(EVERY, 20, anew=False) == {117}


def test_folders_of_members_that_have_all_begun_are_not_looked_at(folder: ArrayFolder) -> None:
    BegunMembers(folder).among(range(layout.SHARD), 0, anew=True)
    assert listed(folder) == {"0": 1}
