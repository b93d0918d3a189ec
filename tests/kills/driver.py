"""Bare processes that run jobs at one place. They know no Prefect, and may be killed at any time.

    python driver.py PLACE            PLACE: JSON, as `Place.told` gives it

All lives of one folder are one run, which goes on: they write one record of it, and the keys of the
results that they have in hand into FOLDER/handed.

Each line of its input is a life, {"life": n, "folder": path, "jobs": [...], "trap": {...}}: a
process is forked for it, so that one costs next to nothing. It is told of in lines of JSON: its
pid, then its end. What it has to say itself, results or an error, is in FOLDER/life-<n>.json.

A trap is the fault of a transport (see `faults.py`), or one of: {"state": text, "nth": n} kills the
process at the nth state with that text, {"file": path} when the file is there, {"result": true}
when it has all results and has not handed them over. Beside these, {"lag": seconds}: so late is
written what the record is told after its beginning.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import selectors
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from faults import Faulty, die

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.identity import digest, job_key, spread
from hpc_prefect.job.numbers import Entry
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.records.fold import RUNS
from hpc_prefect.records.job_events import batch_wanted
from hpc_prefect.records.job_folders import batch_end
from hpc_prefect.records.write.code import environment_facts
from hpc_prefect.records.write.writer import RunWriter
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.transports.local import LocalTransport

RUN = "run-of-all-lives"


class Told:
    """A listener that may kill its process."""

    def __init__(self, state: str, nth: int) -> None:
        self.trap, self.left = state, nth

    def state(self, text: str, *, warning: bool = False, **_: object) -> None:
        if self.trap and self.trap in text:
            self.left -= 1
            if not self.left:
                die()

    def output(self, stream: str, text: str, path: str) -> None: ...


def request(
    place: dict[str, Any], folder: str, job: dict[str, Any], key: str, told: Told
) -> JobRequest:
    options = place["options"] | job.get("options", {})
    spec = JobSpec(
        name=job["label"],
        command_name="program",
        executable=Executable(path=job["program"]),
        arguments=(job["label"],),
        site=Site(
            scheduler=place["scheduler"],
            queue=job.get("queue", ""),
            options=options,
            teardown=tuple(job.get("teardown", ())),
        ),
        resources=Resources(walltime=600),
        work_dir=folder,
    )
    base = f"{folder}/{names.ROOT}/campaign/{spread(key)}/{key}"
    return JobRequest(
        spec=spec,
        base=base,
        key=key,
        claimant=this_process(RUN),
        provenance={"run": RUN},
        poll_interval=place["poll_interval"],
        listener=told,
    )


async def live(
    place: dict[str, Any], folder: str, jobs: list[dict[str, Any]], trap: dict[str, Any]
) -> list[JobResult]:
    """All jobs from the call to their results."""
    scheduler: Any = scheduler_for(place["scheduler"])
    scheduler.patience = dataclasses.replace(scheduler.patience, **place["patience"])
    scheduler.hurry = place["hurry"]
    own = {name: trap.pop(name) for name in ("state", "file", "result", "lag") if name in trap}
    told = Told(own.get("state", ""), trap.get("nth", 1))
    transport = Faulty(**trap)
    threads = (ThreadPoolExecutor(4), ThreadPoolExecutor(4))
    connection = Connection(scheduler, transport, place["options"], *threads)
    if "file" in own:
        threading.Thread(target=_die_with, args=[Path(own["file"])], daemon=True).start()
    writer, run = await asyncio.to_thread(begin_record, folder, own.get("lag", 0.0)), Entry()

    async def one(wanted: JobRequest) -> JobResult:
        writer.note("job", **batch_wanted(wanted))
        result = await JobRun(wanted, connection).carry_out()
        hand_over(folder, result)
        writer.later(lambda: [("job-ended", batch_end(result))])
        return result

    runs = []
    for job in jobs:
        what = digest([job["program"], job["label"]])
        key = job_key("campaign", (), what, run.next_number(((), what)))
        runs.append(one(request(place, folder, job, key, told)))
    results = await asyncio.gather(*runs)
    if "result" in own:
        die()
    writer.note("ended", state="completed", message="")
    writer.close()
    assert await asyncio.to_thread(writer.settle, 60.0)
    return results


class Lagging(LocalTransport):
    """The file server of a record, which is slow from some moment on."""

    lag = 0.0

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        time.sleep(self.lag)
        super().append(path, data, durable=durable)


def begin_record(folder: str, lag: float) -> RunWriter:
    """The record of this life's run, begun as `flow_runs.recording` does it."""
    campaign = f"{folder}/{names.ROOT}/campaign"
    os.environ["XDG_DATA_HOME"] = f"{folder}/data"
    writer = RunWriter(f"{campaign}/{RUNS}/{RUN}", server := Lagging())
    who = {"id": RUN, "name": "kills", "kind": "flow", "flow": "kills", "attempt": 1}
    writer.note("began", format=1, run=who, parameters={}, environment=environment_facts())
    writer.note("campaign", folder=campaign, work_dir=folder, name="campaign")
    assert writer.settle(60.0)
    server.lag = lag
    return writer


def hand_over(folder: str, result: JobResult) -> None:
    """One write at the end of a file: whoever dies after it had the result."""
    file = os.open(f"{folder}/handed", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{result.key} {result.state}\n".encode())
    os.close(file)


def _die_with(file: Path) -> None:
    while not file.exists():
        time.sleep(0.005)
    die()


def be(place: dict[str, Any], life: dict[str, Any]) -> None:
    """The whole life of a forked process."""
    said: dict[str, Any] = {}
    own = Path(life["folder"], f"life-{life['life']}")
    try:
        log = os.open(f"{own}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        results = asyncio.run(live(place, life["folder"], life["jobs"], life["trap"]))
        said["results"] = [result.as_dict() for result in results]
    except HpcPrefectError as error:
        said["error"] = f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - the top of a process: its parent has to read of it
        said["bug"] = traceback.format_exc()
    finally:
        own.with_suffix(".json").write_text(json.dumps(said))
        os._exit(0)


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main(place: dict[str, Any]) -> None:
    os.environ.update(place["environ"])
    with selectors.DefaultSelector() as events:
        events.register(0, selectors.EVENT_READ)
        buffer = b""
        while True:
            for key, _ in events.select():
                if key.fd == 0:
                    if not (news := os.read(0, 65536)):
                        return
                    *lines, buffer = (buffer + news).split(b"\n")
                    for line in lines:
                        life = json.loads(line)
                        if (pid := os.fork()) == 0:
                            be(place, life)
                        tell(life=life["life"], pid=pid)
                        handle = os.pidfd_open(pid)
                        events.register(handle, selectors.EVENT_READ, (life["life"], pid))
                else:
                    life, pid = key.data
                    tell(life=life, status=os.waitpid(pid, 0)[1])
                    events.unregister(key.fd)
                    os.close(key.fd)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
