"""The folders of one campaign find each other, whoever joins them and in whatever order."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_prefect.ledger.campaign_folder import begin_campaign
from hpc_prefect.ledger.campaign_parts import folders_of, has_lost_others, home_of, join
from hpc_prefect.transports.local import LocalTransport

HERE = LocalTransport()
PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12)


def made(below: Path, count: int = 8) -> list[str]:
    folders = [str(below / f"work-{n}" / ".hpc-prefect" / "x") for n in range(count)]
    for folder in folders:
        begin_campaign(HERE, folder, name="x", identity="of x", instance=1)
    return folders


def sets(pairs: Iterable[tuple[int, int]], count: int = 8) -> list[set[int]]:
    """Who is with whom, by the plainest means."""
    found = [{n} for n in range(count)]
    for one, other in pairs:
        for n in (both := found[one] | found[other]):
            found[n] = both
    return found


def are_as_joined(folders: list[str], pairs: Iterable[tuple[int, int]]) -> None:
    for n, together in enumerate(sets(pairs, len(folders))):
        expected = sorted(folders[m] for m in together)
        assert home_of(HERE, folders[n]) == expected[0]
        assert sorted(folders_of(HERE, folders[n])) == expected


@given(PAIRS)
@settings(deadline=None)
def test_folders_that_were_joined_have_one_home_whatever_came_first(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    folders = made(tmp_path_factory.mktemp("joined"))
    for done, (one, other) in enumerate(pairs, start=1):
        assert join(HERE, folders[one], folders[other]) == home_of(HERE, folders[one])
        are_as_joined(folders, pairs[:done])


@given(PAIRS)
@settings(deadline=None, max_examples=50)
def test_so_have_folders_that_processes_join_at_the_same_time(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    folders = made(tmp_path_factory.mktemp("at-once"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: join(HERE, folders[pair[0]], folders[pair[1]]), pairs))
    are_as_joined(folders, pairs)


def test_a_copy_is_no_part_of_what_it_was_copied_from(tmp_path: Path) -> None:
    one, other = made(tmp_path / "mine", 2)
    join(HERE, one, other)
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    for folder in (one, other):
        copy = folder.replace("/mine/", "/copy/")
        assert home_of(HERE, copy) == copy
        assert folders_of(HERE, copy) == [copy]
        assert has_lost_others(HERE, copy)
    are_as_joined([one, other], [(0, 1)])
    assert not any(has_lost_others(HERE, folder) for folder in (one, other))
    shutil.rmtree(tmp_path / "mine")
    assert folders_of(HERE, copy) == [copy]  # what it was copied from is none of its own


def test_a_folder_whose_home_was_removed_is_its_own_and_can_be_joined_again(
    tmp_path: Path,
) -> None:
    first, second, third = made(tmp_path, 3)
    join(HERE, first, third)
    shutil.rmtree(first)
    assert home_of(HERE, third) == third
    assert has_lost_others(HERE, third)
    assert folders_of(HERE, third) == [third, first]  # which must not look as if it had never been
    assert join(HERE, third, first) == third
    assert not Path(first).exists()
    assert join(HERE, second, third) == second
    assert sorted(folders_of(HERE, third)) == [second, third]


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_a_part_that_is_gone_is_still_named(tmp_path: Path, instead: str) -> None:
    """Its file system may not be mounted."""
    first, second = made(tmp_path, 2)
    join(HERE, first, second)
    shutil.rmtree(work_dir := Path(second).parents[1])
    if instead == "a file":
        work_dir.touch()
    assert folders_of(HERE, first) == [first, second]
    assert has_lost_others(HERE, first)


def test_whatever_the_order_a_home_is_near(tmp_path: Path) -> None:
    """Each new one is the home of all before: nobody is to walk through all of them."""

    class Counting(LocalTransport):
        reads = 0

        def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
            self.reads += path.endswith("/home")
            return super().read(path, offset, size)

    transport = Counting()
    folders = made(tmp_path, 60)
    for new, last in itertools.pairwise(reversed(folders)):
        join(transport, last, new)
    home_of(transport, folders[-1])
    transport.reads = 0
    assert home_of(transport, folders[-1]) == min(folders)
    assert transport.reads <= 2
