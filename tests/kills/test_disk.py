"""A disk that is full at any write: an error that says so, no second job, and right afterwards."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lives import Driver, jobs_of, program, runs, until, wrong

PLACES = [
    pytest.param("local", id="local"),
    *(pytest.param(name, id=name, marks=pytest.mark.slow) for name in ("pbs", "pjm")),
]
LABELS = ["one", "two", "two"]


def fill_and_finish(driver: Driver, folder: Path, full: int) -> list[str]:
    """One cell: a life whose disk has no space from that write on, then one with space."""
    folder.mkdir()
    program(folder)
    jobs = jobs_of(folder, LABELS)
    first = driver.begin(folder, jobs, full=full)
    assert first.wait()
    error = first.said.get("error", "")
    found = [] if "No space left on device" in error else [f"it said {first.said}"]
    last = driver.begin(folder, jobs)
    assert last.wait()
    return found + wrong(folder, LABELS, last.said)


@pytest.mark.parametrize("driver", PLACES, indirect=True)
def test_a_disk_full_at_any_write_is_an_error_and_no_second_job(driver, tmp_path):
    """On the laptop's engine at each, else at every third."""
    # Folder, claim, script, two records, intent, id, run record, verdict.
    chosen = range(0, 9 * len(LABELS), 1 if driver.place.scheduler == "local" else 3)
    with ThreadPoolExecutor(6) as pool:
        cells = {n: pool.submit(fill_and_finish, driver, tmp_path / str(n), n) for n in chosen}
    assert {n: found for n, cell in cells.items() if (found := cell.result())} == {}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB, where one may be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(folder))
    if not shutil.which("mount") or subprocess.run(["mount", *options]).returncode:
        pytest.skip("a file system cannot be mounted here: needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, but: int = 0) -> Path:
    """Leave so many bytes of a file system free; the file that takes the rest."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    if but:
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - but)
    return filler


@pytest.mark.parametrize("free", [0, 4096, 16384])
@pytest.mark.parametrize("driver", ["local"], indirect=True)
def test_on_a_disk_that_is_full_indeed_nothing_starts_twice(driver, small_disk, tmp_path, free):
    """Only the ledger is on it: the program itself has room."""
    (tmp_path / "program").write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/runs\n')
    (tmp_path / "program").chmod(0o700)
    jobs = jobs_of(tmp_path, ["one"])
    filler = fill(small_disk, but=free)
    assert driver.begin(small_disk, jobs).wait()
    filler.unlink()
    last = driver.begin(small_disk, jobs)
    assert last.wait()
    (result,) = last.said["results"]
    ran, reason = runs(tmp_path)["one"], result["verdict"]["reason"]
    # Of a program that ended while there was no room for its exit record nobody can tell more.
    assert (ran, reason) in [(1, "succeeded"), (1, "output_lost")]


@pytest.mark.parametrize("driver", ["local"], indirect=True)
def test_a_program_whose_start_cannot_be_recorded_is_not_started(driver, small_disk, tmp_path):
    """Else a scheduler that starts it again could not be told that it ran."""
    program(small_disk)
    gate = tmp_path / "gate"  # which is to open when the disk is full
    jobs = jobs_of(small_disk, ["one"], **driver.place.fill(small_disk, gate))
    first = driver.begin(small_disk, jobs, state="submitted as")
    assert first.wait()
    (attempt,) = small_disk.glob(".hpc-prefect/campaign/*/*-1")
    filler = fill(small_disk)
    gate.touch()
    until(lambda: (attempt / "guard").is_symlink() or first.over, "the start of its script")
    until(lambda: not driver.place.run(*driver.place.active), "the end of its script")
    filler.unlink()
    last = driver.begin(small_disk, jobs)
    assert last.wait()
    (result,) = last.said["results"]
    # The next start, which has room, does not report a set-up that failed: it runs the job.
    assert (result["verdict"]["reason"], runs(small_disk)["one"]) == ("succeeded", 1)
    assert len(list(small_disk.glob(".hpc-prefect/campaign/*/*-2"))) == 1
