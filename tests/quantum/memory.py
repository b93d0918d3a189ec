"""A quantum service in memory, and the life of its jobs without Prefect, network or transpiler.

What is asked of it and what it answers are those of `quantum.service.QuantumService`; it proves
nothing about a vendor's client. Whoever tests the executor with work that has no script uses it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult

from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.failure import Verdict
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.spec import Site
from hpc_prefect.job.state import Patience
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
from hpc_prefect.quantum.purchase.provider import ServiceProvider
from hpc_prefect.quantum.purchase.request import QuantumRequest
from hpc_prefect.quantum.purchase.run import QuantumRun
from hpc_prefect.quantum.service import CANCELLED, DONE, ENDS, QUEUED, Kind, Look
from hpc_prefect.transports.local import LocalTransport


class Trouble(Exception):
    """An error of the client's."""

    def __init__(self, kind: Kind, text: str = "trouble") -> None:
        super().__init__(text)
        self.kind = kind


class MemoryService:
    """Jobs by their ids, in the order in which they were taken.

    Attributes:
        on_post: faults of the next POSTs: `lose` the reply, `drop` the job, `refuse` it, `twice`.
        hidden: whether the list of jobs lags behind: it shows none.
        stubborn: whether a cancel is accepted, and the job goes on.
        ends: how each new job is, seen for the first time.
        late: how many lists show none, until they do.
        unanswered: the numbers of the lists that are asked for in vain.
        lists: how often it was asked for one.
        read_late: the number of a list that is read after `go_on` only, as by a stopped process.
        ends_told: how often it has said of a job that it has ended.
    """

    name = "memory"

    def __init__(self, *, searchable: bool = True, ends: str = DONE) -> None:
        self.searchable = searchable
        self.jobs: dict[str, dict[str, str]] = {}
        self.on_post: list[str] = []
        self.hidden = self.stubborn = False
        self.ends = ends
        self.late = self.lists = 0
        self.unanswered: set[int] = set()
        self.ends_told = self.read_late = 0
        self.go_on = threading.Event()

    def statuses(self) -> list[str]:
        return [job["status"] for job in self.jobs.values()]

    def end(self, status: str) -> None:
        """All jobs that have not ended end so."""
        for job in self.jobs.values():
            if job["status"] not in ENDS:
                job["status"] = status

    def post(self, order: Any) -> str:
        fault = self.on_post.pop(0) if self.on_post else ""
        if fault == "refuse":
            raise Trouble(Kind.REFUSED, "not like this")
        if fault != "drop":
            for _ in range(2 if fault == "twice" else 1):
                job_id = f"m{len(self.jobs) + 1}"
                self.jobs[job_id] = {"tag": str(order), "status": self.ends}
        if fault in ("lose", "drop"):
            raise Trouble(Kind.TRANSIENT, "the line is dead")
        return job_id

    def find(self, tag: str) -> list[tuple[str, str]]:
        self.lists += 1
        if self.lists in self.unanswered:
            raise Trouble(Kind.TRANSIENT, "no answer")
        jobs = {} if self.hidden or self.lists <= self.late else self.jobs
        found = [(job_id, job["status"]) for job_id, job in jobs.items() if job["tag"] == tag]
        if self.lists == self.read_late:
            self.go_on.wait(60)
        return found

    def look(self, job_id: str) -> Look:
        if job_id not in self.jobs:
            raise Trouble(Kind.MISSING)
        status = self.jobs[job_id]["status"]
        self.ends_told += status in ENDS
        return Look(status=status, facts={"qpu_seconds": 2.0 if status in ENDS else None})

    def cancel(self, job_id: str) -> bool:
        job = self.jobs[job_id]
        if not self.stubborn and job["status"] not in ENDS:
            job["status"] = CANCELLED
        return True

    def result(self, job_id: str, made_for: Mapping[str, Any]) -> Any:
        bits = BitArray(np.zeros((4, 1), dtype=np.uint8), 1)
        return PrimitiveResult([SamplerPubResult(DataBin(meas=bits, shape=()))])

    def drop(self, job_id: str) -> None: ...

    def kind_of(self, error: BaseException) -> Kind:
        return error.kind if isinstance(error, Trouble) else Kind.FOREIGN

    def is_of_the_client(self, error: BaseException) -> bool:
        return False

    def was_answered(self, error: BaseException) -> bool:
        return self.kind_of(error) is Kind.REFUSED


class MemoryAttempt(QuantumAttempt):
    """Nothing is transpiled; the order is the tag."""

    async def _prepared(self, purchase: object) -> Verdict | None:
        self.folder.transport.make_folder(self.request.base)
        await self.connection.in_thread(self.note_intent)
        self._order = self.tag
        return None

    def preparation(self) -> Any:
        return self._prepared(None)


class MemoryRun(QuantumRun):
    attempt_type: type[QuantumAttempt] = MemoryAttempt


class Lives:
    """Starts of one flow, each with the same job, at one service."""

    run_type = MemoryRun

    def __init__(self, folder: Path, service: MemoryService) -> None:
        self.folder = folder
        self.service = service
        self.provider = ServiceProvider(service)
        self.provider.hurry = 0.01
        self.provider.patience = Patience(find=0.05, confirm=0.3, confirm_earlier=float("inf"))
        self.pool = ThreadPoolExecutor(4)
        self.transport = LocalTransport()

    def run(self, **changes: Any) -> MemoryRun:
        """A new start's run of the job, in a process that took over from the last one."""
        spec = QuantumSpec(
            name="qpu",
            site=Site(scheduler=self.service.name, queue="chip"),
            digest="d",
            estimated_seconds=5.0,
        )
        request = QuantumRequest(
            spec=dataclasses.replace(spec, **changes.pop("spec", {})),
            provider=self.provider,
            base=f"{self.folder}/.hpc-prefect/campaign/ab/k",
            key="k",
            claimant=changes.pop("claimant", this_process()),
            poll_interval=0.02,
            **changes,
        )
        transport: Any = self.transport
        provider: Any = self.provider
        return self.run_type(request, Connection(provider, transport, {}, self.pool))


__all__ = ["QUEUED", "Lives", "MemoryAttempt", "MemoryRun", "MemoryService", "Trouble"]
