"""One contract for all quantum services: every way to end, what is told of it, what was bought.

The services here are a rehearsal of IBM's with the real client, and the vendor of `vendor.py`; what
they share with the product's assumptions, such as what an error looks like, no test here proves.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from circuits import bell
from prefect import flow

from hpc_prefect import campaign
from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.operations import cancel_jobs, list_jobs
from hpc_prefect.quantum import QuantumBackendBlock, fetch, sample, submit_sampling
from hpc_prefect.quantum.jobs import make_known

from .journals import events
from .service import QuantumService, common_ibm_quantum

__all__ = ["common_ibm_quantum"]

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

ENDS = Path(__file__).parents[2] / "docs" / "ends.md"
COLUMNS = (
    "what happens", "raised", "in `hpc-prefect jobs`", "jobs bought", "the next call, jobs then",
    "what is said",
)  # fmt: skip
REASON = "the trap was empty"


class IBM:
    name, fields = "ibm", {"kind": "ibm", "backend_name": "fake_manila"}

    def __init__(self, service: QuantumService) -> None:
        self._service = service

    def fault(self, name: str) -> None:
        fault, values = {
            "hold": ("maintenance", {"backend": "fake_manila"}),
            "fail": ("job-fails", {"reason": REASON, "code": 9999, "times": 1}),
            "refuse": ("post-fails", {"status": 400, "times": 1}),
            "lose-reply": ("reply-lost", {"status": 503, "times": 1}),
        }[name]
        self._service.fault(fault, **values)

    def clear(self) -> None:
        self._service.clear()

    def bought(self, work_dir: Path) -> int:
        tags = {event["tag"] for event in events(work_dir) if event["event"] == "intent"}
        return sum(bool(tags & set(job["tags"])) for job in self._service.counters()["jobs"])


class Vendor:
    name, fields = "qiskit", {"kind": "qiskit", "backend_name": "vendor:machine"}

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fault(self, name: str) -> None:
        (self._folder / name).touch()

    def clear(self) -> None:
        for name in ("hold", "fail", "refuse", "lose-reply"):
            (self._folder / name).unlink(missing_ok=True)

    def bought(self, work_dir: Path) -> int:
        return len(list(self._folder.glob("*.json")))


Service = IBM | Vendor


@pytest.fixture(params=["ibm", "qiskit"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch):
    if request.param == "ibm":
        yield (found := IBM(request.getfixturevalue("common_ibm_quantum")))
        found.clear()
    else:
        folder = tmp_path_factory.mktemp("vendor")
        monkeypatch.setenv("VENDOR", str(folder))
        yield Vendor(folder)


@dataclass(frozen=True)
class Call:
    """One sampling in a campaign of its own, as often as it is made."""

    service: Service
    work_dir: Path
    block: str

    async def make(self, what: Callable[..., Awaitable[Any]] = sample) -> Any:
        @flow
        async def experiment() -> Any:
            with campaign("contract"):
                return await what(
                    [bell()],
                    quantum_backend_block_name=self.block,
                    work_dir=self.work_dir,
                    options={"shots": 20},
                )

        return await experiment()


async def is_done(call: Call) -> None:
    await call.make()


async def waits_when_its_process_goes(call: Call) -> None:
    await call.make(submit_sampling)


async def fails(call: Call) -> None:
    call.service.fault("fail")
    await call.make()


async def is_refused(call: Call) -> None:
    call.service.fault("refuse")
    await call.make()


async def is_posted_and_the_reply_is_lost(call: Call) -> None:
    call.service.fault("lose-reply")
    await call.make()


async def is_cancelled_by_a_person_in_the_queue(call: Call) -> None:
    call.service.fault("hold")
    job = await call.make(submit_sampling)
    make_known()
    (cancelled,) = await asyncio.to_thread(cancel_jobs, list_jobs(call.work_dir))
    assert cancelled.confirmed, cancelled.words
    call.service.clear()
    await flow(fetch)(job)


async def costs_more_than_is_left(call: Call) -> None:
    await QuantumBackendBlock(**call.service.fields, max_qpu_seconds=0.5).asave(
        call.block, overwrite=True
    )
    try:
        await call.make()
    finally:
        await QuantumBackendBlock(**call.service.fields).asave(call.block, overwrite=True)


ENDINGS = [
    is_done,
    waits_when_its_process_goes,
    fails,
    is_refused,
    is_posted_and_the_reply_is_lost,
    is_cancelled_by_a_person_in_the_queue,
    costs_more_than_is_left,
]


@pytest.mark.timeout(600)
async def test_every_way_to_end_is_told_and_nothing_is_bought_twice(service, tmp_path):
    rows = [await ended(service, tmp_path / each.__name__, each) for each in ENDINGS]
    check(service.name, rows)


async def ended(service: Service, work_dir: Path, ending: Callable[[Call], Any]) -> list[str]:
    """Bring a call to its end, and make it once more; the row of the table."""
    work_dir.mkdir()
    call = Call(service, work_dir, f"contract-{uuid.uuid4().hex[:8]}")
    await QuantumBackendBlock(**service.fields).asave(call.block)
    before = service.bought(work_dir)
    raised = await error_of(ending(call))
    jobs = list_jobs(work_dir)
    state = str(jobs[0].status.state) if jobs else "none"
    bought = service.bought(work_dir) - before
    again = await error_of(call.make())
    then = f"{name_of(again)}, {service.bought(work_dir) - before}"
    service.clear()
    what = ending.__name__.replace("_", " ")
    said = " ".join(str(raised or "").split())
    return [what, name_of(raised), state, str(bought), then, plain(said, work_dir)]


async def error_of(work: Awaitable[Any]) -> HpcPrefectError | None:
    try:
        await work
    except HpcPrefectError as error:
        return error
    return None


def name_of(error: Exception | None) -> str:
    return "a result" if error is None else type(error).__name__


def plain(text: str, work_dir: Path) -> str:
    """Without what is another in each run."""
    text = text.replace(str(work_dir), "WORK_DIR").replace("|", "\\|")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"(WORK_DIR/\.hpc-prefect)/[^ /]+/\w\w/[\w-]+", r"\1/…", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "SERVICE", text)
    return re.sub(r"\b([Jj]ob|tag) (?:hp-)?[0-9a-z]{15,}", r"\1 ID", text)


def check(name: str, rows: list[list[str]]) -> None:
    """Compare the service's section with what was seen; HPC_PREFECT_WRITE_DOCS=1 writes it anew."""
    text = ENDS.read_text()
    begin, end = f"<!-- {name}: by tests/quantum -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    assert found, f"docs/ends.md has no section for {name}"
    old, _, after = rest.partition(end)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    new = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        ENDS.write_text(f"{before}{begin}{new}{end}{after}")
    else:
        assert old == new
