"""One contract for everything that is handed work: a scheduler, a service in memory, two vendors.

Only the questions of `job.provider.Provider` are put here, as the executor puts them. What becomes
of a job by them is in `tests/contract` for schedulers, and in `test_contract.py` for services. The
services are stand-ins: what they share with the product's assumptions no test here proves.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qiskit.circuit import QuantumCircuit

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.provider import Accepted, NoAnswer, Provider, Refused, Unclear
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.quantum.purchase.provider import ServiceProvider
from hpc_prefect.quantum.service import CANCELLED, DONE, QUEUED, Kind
from hpc_prefect.quantum.services.ibm.client import Account, Client, PrimitiveOrder
from hpc_prefect.quantum.services.qiskit_backend.service import BackendService, CircuitOrder
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

from .memory import MemoryService, Trouble
from .service import QuantumService, common_ibm_quantum

__all__ = ["common_ibm_quantum"]

#: An id that the other side has never given.
NOBODY = "999999"


def flipped() -> QuantumCircuit:
    """In every device's own gates."""
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.measure_all()
    return circuit


class Side:
    """A provider, what is handed to it, and what can go wrong there."""

    provider: Provider
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    searchable = True
    transport: Any = LocalTransport()

    def order(self, tag: str, *, held: bool = False, wrong: bool = False) -> tuple[Any, Any]:
        """What `submit` takes; `held`: it waits until it is cancelled; `wrong`: it is refused."""
        raise NotImplementedError

    def away(self) -> None:
        """From now on nobody answers."""
        raise NotImplementedError

    def ask(self, dialogue: Any) -> Any:
        try:
            return Connection(self.provider, self.transport, {}, None).converse(dialogue)
        except TransportError as error:
            return NoAnswer(str(error))

    def submitted(self, tag: str, **how: bool) -> str:
        answer = self.ask(self.provider.submit(*self.order(tag, **how)))
        assert isinstance(answer, Accepted), answer
        return answer.id

    def seen(self, job_id: str) -> Any:
        answer = self.ask(self.provider.observe([job_id], self.options))
        return answer if isinstance(answer, NoAnswer) else answer.get(job_id)

    def ended(self, job_id: str) -> Observation:
        """Its last state; how long that takes is not judged."""
        while True:
            seen = self.seen(job_id)
            if isinstance(seen, Observation) and seen.state is JobState.ENDED:
                return seen
            time.sleep(0.05)


class Dead(LocalTransport):
    """No command can be run."""

    def run(self, command: Command) -> Reply:
        raise TransportError("the machine is gone")


class Local(Side):
    def __init__(self, folder: Path) -> None:
        self.provider, self.folder = LocalScheduler(), folder
        self.options = {"slots": 1, "spool": str(folder / "spool"), "kill_grace": 1.0}

    def order(self, tag: str, *, held: bool = False, wrong: bool = False) -> tuple[Any, Any]:
        folder = JobFolder(LocalTransport(), str(self.folder))
        script = self.folder / "script.sh"
        script.write_text(f"#!/bin/sh\n{'exec sleep 600' if held else 'exit 0'}\n")
        script.chmod(0o700)
        spec = JobSpec(
            name="job",
            command_name="command",
            executable=Executable(path=str(script)),
            site=Site(scheduler="local", options=self.options),
            resources=Resources(num_nodes=10_000 if wrong else 1),
            work_dir=str(self.folder),
        )
        return spec, folder.ticket(tag)

    def away(self) -> None:
        self.transport = Dead()


class Memory(Side):
    def __init__(self, *, searchable: bool = True) -> None:
        self.service = MemoryService(searchable=searchable)
        self.searchable = searchable
        self.provider = ServiceProvider(self.service)

    def order(self, tag: str, *, held: bool = False, wrong: bool = False) -> tuple[Any, Any]:
        self.service.ends = QUEUED if held else DONE
        self.service.on_post = ["refuse"] if wrong else []
        return tag, None

    def away(self) -> None:
        def nobody(*_: object) -> Any:
            raise Trouble(Kind.TRANSIENT, "the line is dead")

        self.service.find = self.service.look = self.service.cancel = nobody


class IBM(Side):
    def __init__(self, service: QuantumService) -> None:
        self.service = service
        self.provider = ServiceProvider(Client(Account()))

    def order(self, tag: str, *, held: bool = False, wrong: bool = False) -> tuple[Any, Any]:
        if held:
            self.service.fault("maintenance", backend="fake_manila")
        if wrong:
            self.service.fault("post-fails", status=400, times=1)
        order = PrimitiveOrder(
            kind="sampler",
            interface="v2",
            device="fake_manila",
            fractional_gates=False,
            pubs=[(flipped(), None, 20)],
            options={},
            tags=[tag],
            max_execution_time=None,
        )
        return order, None

    def away(self) -> None:
        self.service.fault("unavailable")


class Vendor(Side):
    searchable = False

    def __init__(self, folder: Path) -> None:
        import vendor

        self.folder = folder
        self.provider = ServiceProvider(BackendService("vendor:machine", lambda: vendor.machine))

    def order(self, tag: str, *, held: bool = False, wrong: bool = False) -> tuple[Any, Any]:
        for name, wanted in (("hold", held), ("refuse", wrong)):
            if wanted:
                (self.folder / name).touch()
        return CircuitOrder(circuits=[flipped()], shots=20, options={}), None

    def away(self) -> None:
        def nobody(job_id: str) -> Any:
            raise ConnectionError("the line is dead")

        service: Any = self.provider.service
        service._job = nobody


@pytest.fixture(params=["local", "memory", "memory-without-search", "ibm", "qiskit"])
def side(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Iterator[Side]:
    if request.param == "local":
        side: Side = Local(tmp_path)
    elif request.param.startswith("memory"):
        side = Memory(searchable=request.param == "memory")
    elif request.param == "ibm":
        service = request.getfixturevalue("common_ibm_quantum")
        yield IBM(service)
        service.clear()
        return
    else:
        monkeypatch.setenv("VENDOR", str(tmp_path))
        monkeypatch.syspath_prepend(str(Path(__file__).parent))
        side = Vendor(tmp_path)
    yield side
    sys.modules.pop("vendor", None)


@pytest.fixture
def tag() -> str:
    return f"hp{uuid.uuid4().hex[:12]}"


def test_what_is_submitted_is_seen_to_its_end(side, tag):
    end = side.ended(side.submitted(tag))

    assert end.cause in (None, Reason.SUCCEEDED)
    assert end.tag in ("", tag)


def test_what_it_has_is_found_by_its_tag_and_nothing_else_is(side, tag):
    job_id = side.submitted(tag)
    other = tag[::-1]
    found = side.ask(side.provider.find([tag, other], side.options))

    if side.searchable:
        assert (list(found[tag]), found[other]) == ([job_id], {})
    else:
        assert isinstance(found, NoAnswer)


def test_a_job_that_it_does_not_know_has_not_ended(side):
    seen = side.seen(NOBODY)

    assert seen is None or isinstance(seen, NoAnswer)


def test_what_is_cancelled_is_seen_to_end(side, tag):
    job_id = side.submitted(tag, held=True)
    assert side.seen(job_id).state is not JobState.ENDED

    assert side.ask(side.provider.cancel({job_id: tag}, side.options)) is None
    assert side.ended(job_id).cause in (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE)


def test_what_it_refuses_is_not_there(side, tag):
    said = side.ask(side.provider.submit(*side.order(tag, wrong=True)))

    assert isinstance(said, Refused)
    if side.searchable:
        assert side.ask(side.provider.find([tag], side.options))[tag] == {}


def test_a_question_that_failed_tells_nothing(side, tag):
    job_id = side.submitted(tag)
    side.away()

    assert isinstance(side.seen(job_id), NoAnswer)
    found = side.ask(side.provider.find([tag], side.options))
    assert isinstance(found if isinstance(found, NoAnswer) else found[tag], NoAnswer)


@pytest.mark.parametrize("searchable", [True, False])
def test_a_reply_that_is_lost_is_no_refusal_and_submits_again_only_where_it_can_be_found(
    searchable, tag
):
    side = Memory(searchable=searchable)
    order = side.order(tag)
    side.service.on_post = ["lose"]

    said = side.ask(side.provider.submit(*order))

    assert isinstance(said, Unclear)
    assert said.again is searchable
    assert [job["tag"] for job in side.service.jobs.values()] == [tag]
    assert CANCELLED not in side.service.statuses()


def test_the_environment_leads_to_the_rehearsal(common_ibm_quantum):
    """Otherwise the questions of this module could go to a real account."""
    assert "127.0.0.1" in os.environ["QISKIT_IBM_URL"]
