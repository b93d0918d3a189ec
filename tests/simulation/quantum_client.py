"""What one process sees of the quantum service: what IBM's client gives, over a line that breaks.

The product's own client (`quantum.services.ibm.client`) is above it. The errors are those that the
network's library raises, so that the product tells their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import requests
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit.providers.exceptions import QiskitBackendNotFoundError

from hpc_prefect.quantum.service import ENDS, QUEUED
from simulation.quantum_service import QuantumJob, QuantumService

if TYPE_CHECKING:
    from simulation.process import Process

T = TypeVar("T")

#: What a POST can come to, and how likely each is: made and the reply lost, lost on its way, made
#: and answered with 503, the same and not made, made twice by something on the way, refused.
_FATES = (
    ("the reply to a POST is lost", 0.08),
    ("a POST is lost", 0.05),
    ("a POST is taken and answered with 503", 0.05),
    ("a POST is answered with 503 and not taken", 0.03),
    ("a POST is made twice", 0.03),
    ("a POST is refused", 0.03),
)
_REP_DELAY = 250e-6


class Signed:
    """What a sign-in gives; stands where `QiskitRuntimeService` does."""

    def __init__(self, process: Process, service: QuantumService) -> None:
        self.process, self.service = process, service
        self._until = float("inf")
        self.asked("sign in", lambda: None)
        self._until = process.world.now + service.token_life

    def asked(self, what: str, answer: Callable[[], T]) -> T:
        """A question on its way to the service and back; the process may die at it."""
        return self.process.asking(partial(self._asked, what, answer))

    def _asked(self, what: str, answer: Callable[[], T]) -> T:
        process, service = self.process, self.service
        world, chance = process.world, process.world.chance
        how = process.step(what)
        process.pause(chance.number("the line", 0.005, 0.3))
        if how == "torn":  # it goes on without us
            world.later(0.1, lambda: _unheard(answer))
            process.die(f"in the middle of: {what}")
            process.check()
        if service.has("unreachable"):
            raise requests.ConnectionError("the line is dead")
        if world.now >= self._until:
            world.coverage.sometimes("a token of the quantum service expires")
            raise _answered(401)
        for trouble, status in (("closed to our token", 401), ("busy", 429), ("broken", 503)):
            if service.has(trouble):
                raise _answered(status)
        said = answer()
        if chance.fault("an answer of the quantum service is lost", 0.02):
            world.coverage.sometimes("an answer of the quantum service is lost")
            raise requests.ReadTimeout("no answer")
        process.pause(chance.number("the line", 0.005, 0.3))
        if how == "after":
            process.die(f"after: {what}")
            process.check()
        return said

    # --- as the product's client asks

    def backend(self, name: str, **more: object) -> Device:
        def answer() -> Device:
            if self.service.has("without its device"):
                raise QiskitBackendNotFoundError(f"no backend {name}")
            return Device(self, name)

        return self.asked(f"device {name}", answer)

    def usage(self) -> Mapping[str, Any]:
        return self.asked("usage", lambda: {"usage_remaining_seconds": 1e6})

    def jobs(self, job_tags: Sequence[str], limit: int, descending: bool) -> list[Job]:
        def answer() -> list[Job]:
            self.process.site.purchases.asked(job_tags[0])
            return [Job(self, each) for each in self.service.listed(job_tags)[:limit]]

        return self.asked(f"jobs with {job_tags[0]}", answer)

    def job(self, job_id: str) -> Job:
        def answer() -> Job:
            if job_id not in self.service.jobs:
                raise _answered(404)
            return Job(self, self.service.jobs[job_id])

        return self.asked(f"job {job_id}", answer)


class Device:
    """One that takes circuits as they are."""

    simulator = True
    num_qubits = 5
    default_rep_delay = _REP_DELAY

    def __init__(self, signed: Signed, name: str) -> None:
        self.signed, self.name = signed, name

    def properties(self) -> object:
        return self.signed.asked("calibration", lambda: None)


class Primitive:
    """What posts a job; stands where `SamplerV2` does."""

    def __init__(self, mode: Device, options: Mapping[str, Any]) -> None:
        self._device, self._options = mode, options

    def run(self, pubs: Sequence[Any]) -> Job:
        signed, options = self._device.signed, self._options
        service = signed.service
        (tag,) = options["environment"]["job_tags"]
        seconds = round(2.0 + sum(pub.shots for pub in pubs) * _REP_DELAY, 3)
        limit = options.get("max_execution_time")

        def make() -> QuantumJob:
            return service.made(tag, seconds, limit)

        purchases = signed.process.site.purchases

        def answer() -> QuantumJob:
            purchases.posts(tag, seconds, signed.process)
            return _fate(service, make, lambda: purchases.refused(tag))

        return Job(signed, signed.asked(f"post {tag}", answer))


def _fate(
    service: QuantumService, make: Callable[[], QuantumJob], refuse: Callable[[], object]
) -> QuantumJob:
    """Make a job, or not, and say so, or not."""
    chance, coverage = service.world.chance, service.world.coverage
    fates = [chance.fault(name, likely) for name, likely in _FATES]
    for (name, _), there in zip(_FATES, fates, strict=True):
        if there:
            coverage.sometimes(name)
    lost, never, taken, untaken, twice, refused = fates
    if never:
        raise requests.ConnectionError("the line is dead")
    if untaken:
        raise _answered(503)
    if refused:
        refuse()
        raise _answered(400)
    job = make()
    if twice:
        make()
    if lost:
        raise requests.ReadTimeout("no answer")
    if taken:
        raise _answered(503)
    return job


class Job:
    """A job as the client's object shows it: each question is asked anew."""

    def __init__(self, signed: Signed, job: QuantumJob) -> None:
        self._signed, self._job = signed, job

    def _asked(self, what: str, answer: Callable[[], T]) -> T:
        return self._signed.asked(f"{what} of {self._job.id}", answer)

    def job_id(self) -> str:
        return self._job.id

    def status(self) -> str:
        return self._asked("status", lambda: self._job.status)

    def error_message(self) -> str:
        return self._job.reason

    def metrics(self) -> Mapping[str, Any]:
        job, now = self._job, self._signed.process.world.now

        def answer() -> Mapping[str, Any]:
            if job.status == QUEUED:
                return {"position_in_queue": 3}
            if job.status not in ENDS or now < job.told_at:
                return {"usage": {"qpu_charge_time_seconds": 0.0, "status": "pending"}}
            return {"usage": {"qpu_charge_time_seconds": job.cost, "status": "final"}}

        return self._asked("metrics", answer)

    @property
    def usage_estimation(self) -> Mapping[str, Any]:
        return {"quantum_seconds": self._job.estimate}

    def cancel(self) -> None:
        def answer() -> None:
            if not self._signed.service.cancel(self._job):
                raise _answered(409)

        self._signed.process.site.purchases.cancels(self._job)
        self._asked("cancel", answer)

    def result(self, timeout: float) -> PrimitiveResult:
        return self._asked("result", lambda: result_of(self._job))


def result_of(job: QuantumJob) -> PrimitiveResult:
    """What came out of a job: its own number."""
    bits = BitArray(np.full((4, 1), job.number % 256, dtype=np.uint8), 8)
    return PrimitiveResult([SamplerPubResult(DataBin(meas=bits, shape=()))])


def _answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"the service answers {status}", response=response)


def _unheard(answer: Callable[[], object]) -> None:
    """What nobody hears any more."""
    try:
        answer()
    except (requests.RequestException, QiskitBackendNotFoundError):
        return
