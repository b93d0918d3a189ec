"""A quantum job from start to end: like a batch job, but polled and collected in its own way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from hpc_prefect.errors import JobHeld, LedgerError, NotOurs, TransportError
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.executor.finalize import that_stands
from hpc_prefect.executor.monitor import JobMonitor
from hpc_prefect.executor.output import Output
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job.failure import Verdict
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.state import Evidence, JobState, Observation
from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
from hpc_prefect.quantum.purchase.provider import QuantumObservation
from hpc_prefect.quantum.purchase.words import described

logger = logging.getLogger("hpc_prefect.quantum")

#: Seconds between two polls of a job: a tenth of the time since its submission, within these.
SOONEST, LATEST = 1.0, 60.0
#: A quantum job writes no files, so looking for some can wait.
_NEVER = 3600.0
#: How often a service that does not answer is asked, in the end, for other jobs of the tag: what is
#: not seen then is not counted.
_TRIES = 10


class QuantumMonitor(JobMonitor):
    """Watches one job of a service up to its verdict, which is made of the service's word alone."""

    def __init__(
        self, attempt: QuantumAttempt, output: Output, cancelled_by: Callable[[], str]
    ) -> None:
        self._quantum = attempt
        super().__init__(attempt, output, cancelled_by, ask=True)

    def look(self, now: float) -> None:
        self.next_look = now + _NEVER

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        super().answered(now, seen, asked)
        self.poll_interval = min(max(SOONEST, 0.1 * (now - self._began)), LATEST)
        if isinstance(seen, QuantumObservation):
            request = self._quantum.request
            if request.page is not None:
                request.page.seen(request.spec, self._quantum.tag, seen)
            self._check_price(seen)

    def _check_price(self, seen: QuantumObservation) -> None:
        """Cancel a queued job whose estimate by the service is above the budget."""
        allowed, price = self._quantum.spec.allowed_seconds, seen.facts.get("estimated_seconds")
        if allowed is None or price is None or seen.state is not JobState.QUEUED:
            return
        if price > allowed and not self._cancelled_by():
            self._quantum.request.listener.state(
                f"job {self.job_id} is estimated at {price:g} QPU seconds, and {allowed:g} are"
                " left: cancelling it",
                warning=True,
            )
            self._quantum.on_cancel_request("budget")

    def _collect(self, now: float) -> Evidence:
        cancel = self._cancelled_by()
        if self._ended_since is not None and not cancel:
            cancel = self._quantum.cancel_request()
        return Evidence(
            job_id=self.job_id,
            walltime=0,
            observation=self._seen,
            silent_for=now - self._answered_at,
            cancel=cancel,
            word_is_all=True,
        )

    def _show(self, evidence: Evidence) -> None:
        seen = evidence.observation
        if isinstance(seen, QuantumObservation) and seen.word != self._shown:
            self._shown = seen.word
            text = described(self._quantum.spec.device, seen)
            self._quantum.request.listener.state(text, job_id=self.job_id)


class QuantumRun(JobRun):
    """A quantum job under way."""

    attempt_type = QuantumAttempt

    def _monitor_for(self, attempt: Attempt, output: Output, *, ask: bool) -> JobMonitor:
        assert isinstance(attempt, QuantumAttempt)
        return QuantumMonitor(attempt, output, lambda: self._cancelled_by)

    async def _monitored(self, monitor: JobMonitor) -> Verdict:
        begun = asyncio.Event()
        looking = asyncio.get_running_loop().create_task(self._look_for_late_twins(begun))
        try:
            verdict = await super()._monitored(monitor)
            if begun.is_set():  # the service may not say again what it is saying now
                await looking
            return verdict
        finally:
            looking.cancel()

    async def _look_for_late_twins(self, begun: asyncio.Event) -> None:
        """Early, so that what is bought twice costs little; what fails is done at the end."""
        assert isinstance(self._attempt, QuantumAttempt)
        await asyncio.sleep(self._connection.scheduler.patience.find)
        begun.set()
        try:
            await self._attempt.look_for_late_twins()
        except (JobHeld, LedgerError, NotOurs, TransportError) as error:
            logger.warning("looking for other jobs of %s: %s", self._attempt.tag, error)

    async def _finalize(
        self, attempt: Attempt, verdict: Verdict, evidence: Evidence, *, confirmed: bool
    ) -> JobResult:
        """Fetch and store the result, and write the verdict with what the job has cost."""
        assert isinstance(attempt, QuantumAttempt)
        last = evidence.observation
        seen = last if isinstance(last, QuantumObservation) else None
        in_thread, request = self._connection.in_thread, attempt.request
        if not confirmed:
            await in_thread(attempt.claim.check)
            await in_thread(partial(attempt.folder.note, "unconfirmed", durable=True))
            self._request.listener.state(
                f"job {attempt.job_id or 'with the tag ' + attempt.tag} was cancelled, but its"
                f" end is not confirmed. It may run on and cost QPU seconds; the next start of"
                f" this flow asks again and buys nothing before",
                warning=True,
            )
            return _result_of(attempt, verdict, seen)
        if verdict.succeeded and seen is not None:
            question = partial(request.service.result, attempt.job_id, request.spec.made_for)
            result = await request.ask(question, f"fetching the result of {attempt.job_id}")
            await in_thread(partial(_keep, attempt, seen, result))
        if attempt.job_id:
            await attempt.look_for_late_twins(tries=_TRIES)
        await self._settle_duplicates(attempt)
        ended = _result_of(attempt, verdict, seen)
        await in_thread(partial(_write, attempt, ended, seen))
        ended = await in_thread(partial(that_stands, attempt, ended))
        if attempt.job_id:
            request.service.drop(attempt.job_id)
        if request.page is not None:
            request.page.ended(request.spec, ended, seen)
        return ended

    async def _settle_duplicates(self, attempt: QuantumAttempt) -> None:
        """Write down what duplicates have cost; one whose end is not seen in time stays open."""
        known = (await self._connection.in_thread(attempt.folder.ledger)).duplicates
        clock = asyncio.get_running_loop().time
        until = clock() + self._connection.scheduler.patience.confirm
        unknown = {job_id for job_id, cost in known.items() if cost is None}
        while unknown and clock() < until:
            observe = self._connection.scheduler.observe
            said = await self._connection.ask(observe([*unknown], self._connection.options))
            for job_id, seen in said.items() if isinstance(said, dict) else ():
                if isinstance(seen, Observation) and seen.state is JobState.ENDED:
                    unknown.discard(job_id)
                    cost = seen.used.get("qpu_seconds")
                    note = partial(attempt.folder.note, "duplicate", id=job_id, qpu_seconds=cost)
                    await self._connection.in_thread(note)
                    attempt.request.service.drop(job_id)
            await asyncio.sleep(SOONEST if unknown else 0)


def _result_of(
    attempt: QuantumAttempt, verdict: Verdict, seen: QuantumObservation | None
) -> JobResult:
    used = dict(seen.used) if seen is not None else {}
    if attempt.job_id and "qpu_seconds" not in used:
        used["estimated_qpu_seconds"] = attempt.spec.estimated_seconds
    return JobResult(
        job_id=attempt.job_id,
        name=attempt.spec.name,
        tag=attempt.tag,
        key=attempt.request.key,
        attempt=attempt.number,
        verdict=verdict,
        folder=attempt.folder.path,
        script_path="",
        stdout_path="",
        stderr_path="",
        host=attempt.spec.device,
        resources_used=used,
    )


def _write(attempt: QuantumAttempt, result: JobResult, seen: QuantumObservation | None) -> None:
    attempt.claim.check()
    facts = dict(seen.facts) if seen is not None else {}
    attempt.folder.note("verdict", durable=True, result=result.as_dict(), facts=facts)
    attempt.claim.check()  # as in `executor.finalize`


#: What the record of the work copies from the intent.
_TOLD = ("device", "calibrated_at", "transpiled")
_PLACE = ("campaign", "scope", "n")


def _keep(attempt: QuantumAttempt, seen: QuantumObservation, result: Any) -> None:
    """Record the result, with the job that it came from."""
    from hpc_prefect.quantum.result_file import read_asked, write_finished
    from hpc_prefect.quantum.sampling import iso_time, now_as_iso

    attempt.claim.check()
    spec, request = attempt.spec, attempt.request
    actual = "qpu_seconds" in seen.used
    transport = attempt.folder.transport
    facts = read_asked(request.work, spec.primitive, transport) | {
        "digest": spec.digest,
        "asked_at": iso_time(attempt.intended_at),
        "job": {
            "id": attempt.job_id,
            "tag": attempt.tag,
            "attempt": attempt.number,
            **{name: getattr(spec, name) for name in _TOLD},
            **{name: request.provenance.get(name) for name in _PLACE},
            **({"interface": spec.made_for["interface"]} if "interface" in spec.made_for else {}),
            **seen.facts,
            "qpu_seconds_are": "actual" if actual else "estimated",
        },
        "finished_at": now_as_iso(),
    }
    write_finished(request.work, facts, result, spec.primitive, transport)
