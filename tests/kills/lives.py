"""Starting, killing and judging the bare processes of `driver.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from places import Place

from hpc_prefect.errors import LedgerError
from hpc_prefect.records.read import read_run

DRIVER = Path(__file__).with_name("driver.py")
PATIENCE = 150.0


class Life:
    """One forked process: jobs at a place, up to its end by itself or by a kill."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.pid = 0
        self.status: int | None = None
        self._born, self._over = threading.Event(), threading.Event()

    def take(self, facts: dict[str, Any]) -> None:
        """What the driver tells of it."""
        if "pid" in facts:
            self.pid = facts["pid"]
            self._born.set()
        else:
            self.status = facts["status"]
            self._over.set()

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Until its end; False when that did not come in time."""
        return self._over.wait(seconds)

    @property
    def over(self) -> bool:
        return self._over.is_set()

    @property
    def killed(self) -> bool:
        return self.status is not None and os.WIFSIGNALED(self.status)

    def kill(self, *, commands: bool = False) -> bool:
        """SIGKILL, with the `commands` that it is running if wanted; False when it was too late."""
        assert self._born.wait(PATIENCE)
        victims = _children(self.pid) if commands else []
        for pid in (self.pid, *victims):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        assert self.wait(PATIENCE)
        return self.killed

    @property
    def said(self) -> dict[str, Any]:
        """Its results, or its error."""
        path = self.folder / f"life-{self.number}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        assert "bug" not in found, found["bug"]
        return found


class Driver:
    """A process that forks lives at one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._numbers = count(1)
        self._lives: dict[int, Life] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(place.told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            facts = json.loads(line)
            self._lives[facts["life"]].take(facts)

    def begin(self, folder: Path, jobs: list[dict[str, Any]], **trap: Any) -> Life:
        assert self._process.stdin
        with self._lock:
            number = next(self._numbers)
            life = self._lives[number] = Life(number, folder)
            told = {"life": number, "folder": str(folder), "jobs": jobs, "trap": trap}
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        return life

    def close(self) -> None:
        for life in self._lives.values():
            if not life.over:
                life.kill()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()


def _children(pid: int) -> list[int]:
    """The processes that this one has started, now."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


# --- jobs that tell themselves how often they ran


def program(folder: Path, *, gate: str = "", seconds: float = 0.1) -> str:
    """A program that counts its runs by its label; waits for the file `gate`, if one is given."""
    path = folder / "program"
    wait = f"until [ -e {folder}/{gate} ]; do sleep 0.05; done\n" if gate else ""
    # One write at the end of a file: counted even if two run in the same moment.
    path.write_text(
        f'#!/bin/bash\necho "$1" >> {folder}/runs\n{wait}sleep {seconds}\necho "result of $1"\n'
    )
    path.chmod(0o700)
    return str(path)


def jobs_of(folder: Path, labels: list[str], **more: Any) -> list[dict[str, Any]]:
    path = str(folder / "program")
    return [{"label": label, "program": path, **more} for label in labels]


#: Ten jobs, of which two are the same in all.
TEN = [*"abcdefghi", "i"]


def runs(folder: Path) -> Counter[str]:
    path = folder / "runs"
    return Counter(path.read_text().split() if path.exists() else [])


def wrong(folder: Path, labels: list[str], said: dict[str, Any]) -> list[str]:
    """What is not as it must be after the last life: a sentence each."""
    if "results" not in said:
        return [f"no results: {said}"]
    found = of_whole_record(folder, labels)
    if runs(folder) != Counter(labels):
        found.append(f"the programs ran so often: {dict(runs(folder))}")
    results = said["results"]
    for label, result in zip(labels, results, strict=True):
        text = Path(result["stdout_path"]).read_text()
        if (result["state"], text) != ("succeeded", f"result of {label}\n"):
            found.append(f"{label}: {result['state']} in {result['folder']}, {text!r}")
    if len({result["folder"] for result in results}) != len(labels):
        found.append("two jobs have one result")
    return found


# --- their run's record


def of_record(folder: Path) -> list[str]:
    """What its record lacks of the results that were handed over so far: a sentence each."""
    path = folder / ".hpc-prefect" / "campaign" / "runs" / "run-of-all-lives"
    try:
        record, handed = read_run(path), folder / "handed"
    except LedgerError as error:  # killed before it began; so no job did
        return [f"there is no record: {error}"] * bool(runs(folder))
    lines = handed.read_text().split("\n")[:-1] if handed.exists() else []
    last = dict(line.split(" ", 1) for line in lines)  # what was lost may have been found since
    told = {key: str(job["state"]) for key, job in record.jobs.items()}
    return [f"the record lacks {key} {last[key]}" for key in last if told.get(key) != last[key]]


def of_whole_record(folder: Path, labels: list[str]) -> list[str]:
    """What is not in it as the programs counted it, when all has ended."""
    (path,) = (folder / ".hpc-prefect" / "campaign" / "runs").iterdir()
    record = read_run(path)
    found = of_record(folder)
    counted = (record.state, record.totals.jobs["succeeded"], record.totals.reused)
    if counted != ("completed", len(labels), 0):
        found.append(f"its state, jobs and reused ones are {counted}")
    if record.open or {job["state"] for job in record.jobs.values()} != {"succeeded"}:
        found.append(f"jobs without an end, or another one: {record.jobs}")
    return found


def until(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.02)
