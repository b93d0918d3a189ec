"""One attempt of a quantum job: it is bought once, whatever dies or gets lost in between.

The intent is on disk before anything is posted; before another POST the service is asked for the
intent's tag, and a job that it knows is the attempt's. The rest is the executor's; see
`hpc_prefect.executor.attempt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hpc_prefect.errors import BudgetExceeded, InvalidJob, LedgerError, QuantumServiceError
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.folder import Ledger
from hpc_prefect.job.identity import digest
from hpc_prefect.job.provider import NoAnswer, Refused, Submission
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.ledger.quantum_folder import refuse_old
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.budget import Budget, check_usage, estimate
from hpc_prefect.quantum.purchase.provider import NotPosted
from hpc_prefect.quantum.purchase.request import Purchase, QuantumRequest
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.quantum.purchase.transpile import Transpiled, transpile
from hpc_prefect.quantum.service import Kind
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

#: How many seconds the service may give no answer before a job is bought. Afterwards there is no
#: limit.
BEFORE = 15 * 60.0
#: Which of several jobs with one tag is kept: the one with the highest rank.
_FURTHEST = {words.DONE: 0, words.RUNNING: 1, words.ERROR: 3, words.CANCELLED: 4}


@dataclass(kw_only=True)
class QuantumAttempt(Attempt):
    """An attempt that we hold, of a quantum job.

    Attributes:
        posting: a POST was begun, to a service that cannot be searched for the job.
        intended_at: seconds since 1970 of its intent; 0 while there is none.
        drawn: the random the random part of its tag, so that two experiments of one name, in two
            folders, never take each other's jobs.
    """

    guarded = False  # a job that is listed late is running, and costs

    request: QuantumRequest
    posting: bool = False
    intended_at: float = 0.0
    drawn: str = field(default_factory=lambda: host().token(16))
    _tag: str = ""
    _why: str = ""
    _transpiled: Transpiled | None = None
    _order: Any = None

    @property
    def tag(self) -> str:  # random, not made of the key alone
        work = self.request.spec.digest
        own = "hp-" + digest([work, [self.request.key], self.number, self.drawn])[:32]
        return self._tag or own

    @property
    def spec(self) -> QuantumSpec:
        return self.request.spec

    @property
    def purchase(self) -> Purchase:
        """What is to be bought. Not for an attempt that is only attached to."""
        assert self.request.purchase is not None
        return self.request.purchase

    def restore(self, ledger: Ledger) -> None:
        """Restore an earlier intent's device and tag."""
        spec = QuantumSpec.from_dict(ledger.job)
        if self.spec.digest not in ("", spec.digest):
            raise LedgerError(
                f"the attempt in {self.folder.path} belongs to another quantum job: its digest"
                " differs. Move the folder away to have this job run"
            )
        self.request = replace(self.request, spec=replace(spec, on_cancel=self.spec.on_cancel))
        self._tag, self.intended_at = str(ledger.intent["tag"]), float(ledger.intent["time"])
        self.posting = ledger.posting

    # --- what the executor asks before it submits

    def may_be_there(self) -> bool:
        if self.request.service.searchable:
            return self.intended
        if self.posting:
            raise QuantumServiceError(self._undecided())
        return False

    def _undecided(self) -> str:
        """The message when it is unknown whether a job was accepted."""
        at, folder = datetime.fromtimestamp(self.intended_at).astimezone(), self.folder.path
        return (
            f"a job was posted to {self.spec.device} at {at:%Y-%m-%d %H:%M:%S}, and no reply with"
            f" its id came{self._why}. This service cannot be searched for it, so nothing is"
            f" posted again: look into its list of jobs. If it is there, give its id: hpc-prefect"
            f" jobs attach {folder} --job-id ID. If not, move {folder} away. Then run again"
        )

    async def chosen(self, found: Mapping[str, Observation]) -> str:
        """The job to keep, which has gone furthest; other jobs with the tag are cancelled."""
        keep = min(found, key=lambda job_id: _FURTHEST.get(found[job_id].word, 2))
        await self._end_others(keep, found)
        return keep

    async def _end_others(self, keep: str, found: Mapping[str, Observation]) -> None:
        """Note and cancel what else the service has under the tag."""
        for job_id in sorted(found.keys() - {keep}):
            known = (await self.connection.in_thread(self.folder.ledger)).duplicates
            if job_id not in known:
                note = partial(self.folder.note, "duplicate", durable=True, id=job_id)
                await self.connection.in_thread(note)
            if found[job_id].state is not JobState.ENDED:
                text = f"job {job_id} is a duplicate of {keep}: cancelled"
                self.request.listener.state(text, warning=True)
                await self.connection.cancel(job_id, self.tag)

    async def look_for_late_twins(self, *, tries: int = 1) -> None:
        """The same when the service's list of jobs has had the time to show all: ours is kept.

        Args:
            tries: how often the service is asked as long as it does not answer.
        """
        if not self.request.service.searchable:
            return
        for _ in range(tries):
            found = await self.connection.find(self.tag)  # paces itself
            if not isinstance(found, NoAnswer):
                await self._end_others(self.job_id, found)
                return

    async def look_for_twins(self) -> None:
        """Look for duplicates: a POST may be repeated on its way, which makes two jobs."""
        self.request.listener.state(
            f"posted as {self.job_id} on {self.spec.device}, tag {self.tag}", job_id=self.job_id
        )
        if not self.request.service.searchable:
            return
        found = await self.connection.find(self.tag)
        if isinstance(found, NoAnswer) or len(found) < 2:
            return
        keep = await self.chosen(found)
        if keep != self.job_id:
            await self.connection.in_thread(partial(self.submitted, keep, 0.0))

    # --- from the call to the POST

    def preparation(self) -> Awaitable[Verdict | None]:
        """Device, checks, transpilation and the intent, in the context of the call."""
        work, context = self._prepared(self.purchase), self.purchase.context
        return asyncio.get_running_loop().create_task(work, context=context)

    async def _prepared(self, purchase: Purchase) -> Verdict | None:
        if self._transpiled is None:
            device = await self._device(purchase)
            _check_device(purchase, device)
            self._transpiled = await transpile(purchase.request, device)
        if self.intended:  # an earlier attempt may have been bought
            await self.connection.in_thread(self.note_intent)
        else:
            try:
                await self._intend(purchase, device, self._transpiled)
            except BudgetExceeded as error:
                return Verdict(reason=Reason.OVER_BUDGET, summary=str(error))
        self._order = await purchase.backend.order(self, self._transpiled)
        if not self.request.service.searchable:
            self.request.listener.state(
                f"the service of {self.spec.device} cannot be searched for jobs by tag: if the"
                f" reply to the submission is lost, nothing is posted again until you have looked"
                f" whether the job is there"
            )
        return None

    async def _device(self, purchase: Purchase) -> Any:
        """The device: that of the intent, if there is one."""
        service, ask, choice = self.request.service, self.request.ask, purchase.backend.terms.choice
        if self.spec.device:
            choice = replace(choice, name=self.spec.device)
        question, what = partial(service.device, choice), f"asking for the device {choice.name}"
        try:
            try:
                return await ask(question, what, seconds=BEFORE)
            except Exception as error:
                if service.kind_of(error) is not Kind.MISSING:
                    raise
                # When the list of devices cannot be read, the client hides that and says that it
                # has none.
                service.forget()
                return await ask(question, what, seconds=BEFORE)
        except Exception as error:
            if service.kind_of(error) not in (Kind.MISSING, Kind.REFUSED):
                raise
            told = f"{what}: {first_line(error)}; nothing was bought"
            raise QuantumServiceError(told) from error

    async def _intend(self, purchase: Purchase, device: Any, transpiled: Transpiled) -> None:
        """Write the intent, if the budget allows it."""
        request, service, ask = purchase.request, self.request.service, self.request.ask
        seconds = estimate(list(transpiled.pubs), request.shots_of_pubs, device)
        what = "asking how many QPU seconds the instance has left"
        check_usage(await ask(service.usage, what, seconds=BEFORE), seconds)
        question = partial(service.calibrated_at, device)
        calibrated = await ask(question, "asking for the calibration")
        spec = replace(
            self.spec,
            site=replace(self.spec.site, queue=device.name),
            shots=request.shots,
            estimated_seconds=seconds,
            calibrated_at=calibrated,
            transpiled=tuple(transpiled.facts),
            made_for=dict(purchase.backend.facts(request)),
        )

        def intend() -> None:
            limit = purchase.backend.terms.max_qpu_seconds
            budget = Budget(self.request.campaign, self.folder.transport)
            with budget.reserved(seconds, limit, self.folder.path) as left:
                allowed = round(left, 3) if limit else None
                self.request = replace(self.request, spec=replace(spec, allowed_seconds=allowed))
                purchase.write_asked(self.request.work, self.folder.transport)
                self.note_intent()
                self.intended_at = host().time()

        await self.connection.in_thread(intend)

    def note_intent(self, **facts: Any) -> None:
        """As for every attempt; but who was slow to prepare it may have lost it meanwhile, and the
        tag of its own would hide that of who has it now."""
        self.claim.check()
        super().note_intent(**facts)

    def check_claims(self) -> None:
        """As for every attempt. No start guard turns a second job away, so NFS is not believed."""
        self.claim.check_anew()

    def _submission(self) -> Dialogue[Submission]:
        if not self.request.service.searchable:
            self.folder.note("posting", durable=True)
            self.posting = True
        return self.request.provider.submit(self._order, None)

    def _answered(self, said: Submission, *, in_doubt: bool) -> None:
        """Note the id, or raise an error that says what a person must do.

        Raises:
            InvalidJob: the client refused it, so that it was not posted.
            QuantumServiceError: the service refused it, but may have accepted an earlier POST. Then
                the intent stays open, since that job may be listed later.
        """
        may_be_listed = in_doubt and self.request.service.searchable
        outcome = "nothing was bought"
        if may_be_listed:
            outcome = (
                "an earlier POST of it may have been accepted: the next run searches for the tag"
                f" {self.tag} before another POST"
            )
        if isinstance(said, NotPosted):
            self.folder.note("refused", durable=True, said=said.said)
            problem = f"the client refuses it: {said.said}; {outcome}"
            raise InvalidJob(f"the job for {self.spec.device}", [problem]) from said.error
        super()._answered(said, in_doubt=in_doubt)
        if isinstance(said, Refused):
            self.posting = False
            if may_be_listed:
                raise QuantumServiceError(f"the service refuses the job: {said.said}; {outcome}")
        elif not self.job_id:
            self._why = f" ({said.said})"  # type: ignore[union-attr]

    @classmethod
    def check_earlier(cls, transport: Transport, base: str) -> None:
        refuse_old(transport, base)

    # --- a service has no start guard, and what it runs leaves no files

    def guard(self) -> str:
        return ""

    def job_inside(self, *, close: bool) -> str:
        return ""

    def close_unstarted(self) -> bool:
        return False

    # --- what is left of it

    @classmethod
    def is_over(cls, folder: JobFolder, ledger: Ledger) -> bool:
        """A finished job is over only when its result is stored."""
        succeeded = ledger.result.get("state") == "succeeded"
        return not succeeded and super().is_over(folder, ledger)

    @classmethod
    def has_result(
        cls, request: JobRequest, folder: JobFolder, ledger: Ledger, patience: Patience
    ) -> bool:
        from hpc_prefect.quantum.result_file import read_finished

        spec: Any = request.spec
        work, where = Path(request.base), folder.transport
        return read_finished(work, spec.digest, spec.primitive, where) is not None


def _check_device(purchase: Purchase, device: Any) -> None:
    """Check that the device, now that it is known, can run the job.

    Raises:
        InvalidJob: with all that it cannot do; nothing was bought.
    """
    from hpc_prefect.quantum.checks import device_problems

    request = purchase.request
    twirled = bool(request.options.runtime.get("twirling"))  # the shots of many circuits then
    most = None if twirled else _most_shots(device)
    if problems := device_problems(dict(enumerate(request.pubs)), device, most):
        raise InvalidJob(f"the job for {device.name}", problems)


def _most_shots(device: Any) -> int | None:
    """How many shots of one circuit the device takes; None if unknown. Does not ask the service."""
    try:
        return int(device.configuration().max_shots)
    except (AttributeError, TypeError, ValueError):
        return None
