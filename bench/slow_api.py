"""How many requests to Prefect's API a call waits for before its job is submitted.

Each request to the API takes DELAY longer, by a proxy on loopback. A call whose blocks are known
must then be submitted as soon as a bare Prefect task begins, give or take less than one DELAY:
labels, artifacts and logs are sent in the background. Ends with 1 when it is not.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
import time
from pathlib import Path

from common import HOME, PORT, free_port, prefect_server  # before Prefect

# isort: split

from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    JobResult,
    run_job_from_blocks,
)
from hpc_prefect.job.folder import read_entries

#: Seconds by which each request is held up, once it is switched on.
DELAY = 1.0
PROXY = free_port()
CALLS = 5
_REQUEST = re.compile(rb"^(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP", re.MULTILINE)


class SlowProxy:
    """Hands bytes on between Prefect's client and its server; what has a request in it, later.

    Attributes:
        delay: seconds; 0 for none.
        requests: when each was seen (`time.time`), and what it asked for.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.requests: list[tuple[float, str]] = []
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._joined, "127.0.0.1", PROXY)
        await server.serve_forever()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._pass_on(reader, back, of_client=True),
            self._pass_on(there, writer, of_client=False),
            return_exceptions=True,
        )

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_client: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                found = _REQUEST.search(data) if of_client else None
                if found:
                    self.requests.append((time.time(), f"{found[1]!r} {found[2]!r}"))
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


proxy = SlowProxy()


def save_blocks() -> None:
    CommandBlock(command_name="true", executable_key="true").save("cmd", _sync=True)
    profile = ExecutionProfileBlock(profile_name="true", command_name="true")
    profile.save("exec", _sync=True)
    here = HPCProfileBlock(
        scheduler="local",
        executables={"true": "/bin/true"},
        local={"slots": os.cpu_count() or 1, "spool": str(HOME / "spool")},
    )
    here.save("hpc", _sync=True)


async def job(label: str) -> JobResult:
    return await run_job_from_blocks(
        command_block_name="cmd",
        execution_profile_block_name="exec",
        hpc_profile_block_name="hpc",
        work_dir=HOME / "work",
        script_filename=label,
    )


@task
async def bare() -> float:
    """When a bare Prefect task does what it is for."""
    return time.time()


def intended_at(result: JobResult) -> float:
    """When the job was about to be submitted, as its journal says."""
    journal = read_entries(Path(result.folder, "journal.jsonl").read_bytes())
    return next(entry["time"] for entry in journal if entry["event"] == "intent")


@flow
async def measured() -> tuple[list[float], list[float]]:
    """Seconds from the call on: to a bare task's body, and to a job's submission, turn by turn."""
    await bare()
    await job("warm-up")
    proxy.delay = DELAY
    tasks, jobs = [], []
    for number in range(CALLS):
        began = time.time()
        tasks.append(await bare() - began)
        began = time.time()
        jobs.append(intended_at(await job(f"job-{number}")) - began)
    proxy.delay = 0.0
    return tasks, jobs


def main() -> int:
    with prefect_server():
        save_blocks()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{PROXY}/api"}):
            tasks, jobs = asyncio.run(measured())
    print(f"{len(proxy.requests)} requests in all; while measured each took {DELAY:g} s longer")
    print(f"to the body of a bare task  {min(tasks):6.2f} to {max(tasks):.2f} s")
    print(f"to the submission of a job  {min(jobs):6.2f} to {max(jobs):.2f} s")
    # The fastest, for a busy machine makes some slow; a request that is waited for makes all.
    waits = int((min(jobs) - min(tasks)) / DELAY)
    print(f"requests that a call waits for beside Prefect's own: {waits}")
    return 1 if waits else 0


if __name__ == "__main__":
    sys.exit(main())
