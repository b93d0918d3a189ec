"""One job for one intent: whatever dies or gets lost in between, it is posted once.

The intent is on disk before anything is posted; before each POST the service is asked for the
intent's tag, and a job that it knows is adopted. A POST whose reply was lost is such a case.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from hpc_prefect.errors import InvalidJob, LedgerError, QuantumServiceError
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns import CallIdentity
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.quantum_journal import Journal, QuantumAttempt
from hpc_prefect.quantum.services.ibm import client as words
from hpc_prefect.quantum.services.ibm.budget import Budget, check_usage, estimate
from hpc_prefect.quantum.services.ibm.client import Client, DeviceChoice, Order
from hpc_prefect.quantum.services.ibm.error_kinds import (
    Kind,
    is_of_the_client,
    kind_of,
    was_answered,
)
from hpc_prefect.quantum.services.ibm.retry import first_line, patiently
from hpc_prefect.quantum.services.ibm.sessions import session_for
from hpc_prefect.transports.local import LocalTransport

if TYPE_CHECKING:
    from hpc_prefect.quantum.sampling import Request

#: How long the service may be silent before a job is bought. Afterwards there is no limit.
BEFORE = 15 * 60.0
#: Pauses before a job whose reply was lost counts as not accepted: a list may lag behind.
LOOK_AGAIN = (0.0, 1.0, 3.0)
#: POSTs of one intent that may go wrong, each after the service did not know the tag.
MOST_POSTS = 5
#: Which of several jobs of one tag is kept: the one that is furthest.
_FURTHEST = {words.DONE: 0, words.RUNNING: 1, words.ERROR: 3, words.CANCELLED: 4}
#: How long a cancelled call waits for its POST to be answered, before it asks for the tag.
_ANSWER = 8.0


@dataclass(frozen=True)
class BackendTerms:
    """What a block says about buying, beside the device."""

    choice: DeviceChoice
    interface: str = "auto"
    mode: str = "job"
    max_session_seconds: int = 0
    max_qpu_seconds: float = 0.0
    on_cancel: str = "cancel"


@dataclass(frozen=True)
class Transpiled:
    """PUBs that the device can run, and what is worth telling about them (JSON values)."""

    pubs: Sequence[Any]
    facts: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Errand:
    """One job that was bought or will be: all that is needed to wait for it.

    Attributes:
        kind: sampler or estimator.
        digest: of the work.
        folder: of its record and journal.
    """

    kind: str
    digest: str
    folder: Path
    claimant: claims.Claimant
    terms: BackendTerms
    client: Client
    log: Any

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @property
    def campaign(self) -> Path:
        """The experiment's folder: `<campaign>/<2 hex>/<key>` without the last two."""
        return self.folder.parent.parent


@dataclass(frozen=True, kw_only=True)
class Purchase(Errand):
    """One job to be bought, in its place of the experiment; `block` names its backend."""

    block: str
    request: Request
    place: CallIdentity
    transpile: Callable[[Request, Any], Awaitable[Transpiled]]

    def write_asked(self) -> None:
        """Write down what is asked for: whoever fetches the result needs no circuits. Blocks."""
        from hpc_prefect.quantum.result_file import write_asked
        from hpc_prefect.quantum.sampling import describe

        write_asked(self.folder, describe(self.request), self.kind)


def claimed(errand: Errand) -> claims.Claim:
    """The claim on the folder: two processes of one flow run may come to the same place. Blocks.

    It is renewed until `executor().release`.

    Raises:
        JobHeld: another living process works on it.
    """
    transport = LocalTransport()
    transport.make_folder(str(errand.folder))
    claim, _ = claims.take(transport, str(errand.folder), errand.claimant, is_over)
    executor().keep(claim)
    return claim


async def bought(purchase: Purchase, claim: claims.Claim) -> QuantumAttempt:
    """The attempt with its job: the one that was posted earlier, or a new one."""
    last = await asyncio.to_thread(purchase.journal.last)
    if last is not None and last.intent.get("digest") != purchase.digest:
        raise LedgerError(f"{purchase.journal.path} belongs to other work")
    if last is not None and last.failed:
        purchase.log.info("job %s ended as %s: another one", last.job_id, last.ended["status"])
        last = None
    if last is not None and last.job_id:
        purchase.log.info("attached again to job %s on %s", last.job_id, last.device)
        return last
    if last is not None and (job_id := await adopted(purchase, last, True)):
        purchase.log.info("adopted job %s, which the service has under our tag", job_id)
        return await _known(purchase, last, job_id, adopted=True)
    device = await _device(purchase, last)
    _check_device(purchase, device)
    transpiled = await purchase.transpile(purchase.request, device)
    attempt = last or await _intend(purchase, device, transpiled)
    # Nobody can have a job of a tag that was drawn a moment ago.
    return await _posted(purchase, attempt, transpiled, claim, is_new=last is None)


async def _device(purchase: Purchase, last: QuantumAttempt | None) -> Any:
    """The device: that of the intent, if there is one."""
    choice = purchase.terms.choice
    if last is not None:
        choice = replace(choice, name=last.device)
    ask = partial(purchase.client.device, choice)
    what = f"asking for the device {choice.name}"
    try:
        try:
            return await patiently(ask, what, purchase.log, seconds=BEFORE)
        except Exception as error:
            if kind_of(error) is not Kind.MISSING:
                raise
            # The client hides trouble with the list of devices, and then knows none.
            purchase.client.forget()
            return await patiently(ask, what, purchase.log, seconds=BEFORE)
    except Exception as error:
        if kind_of(error) in (Kind.MISSING, Kind.REFUSED):
            raise QuantumServiceError(f"{what}: {first_line(error)}; nothing was bought") from error
        raise


def _check_device(purchase: Purchase, device: Any) -> None:
    """Whether the device, now that it is known, can do what is asked for.

    Raises:
        InvalidJob: with all that it cannot do; nothing was bought.
    """
    from hpc_prefect.quantum.checks import device_problems

    request = purchase.request
    twirled = bool(request.options.runtime.get("twirling"))  # the shots of many circuits then
    most = None if twirled else words.most_shots(device)
    if problems := device_problems(dict(enumerate(request.pubs)), device, most):
        raise InvalidJob(f"the job for {device.name}", problems)


async def _intend(purchase: Purchase, device: Any, transpiled: Transpiled) -> QuantumAttempt:
    """Write down what will be bought, if it can be paid for."""
    request, terms, place = purchase.request, purchase.terms, purchase.place
    seconds = estimate(list(transpiled.pubs), request.shots_of_pubs, device)
    what = "asking what the instance has left"
    usage = await patiently(purchase.client.usage, what, purchase.log, seconds=BEFORE)
    check_usage(usage, seconds)
    calibrated = await patiently(
        partial(words.calibrated_at, device), "asking for the calibration", purchase.log
    )

    def intend() -> QuantumAttempt:
        with Budget(purchase.campaign).reserved(seconds, terms.max_qpu_seconds) as left:
            purchase.write_asked()
            return purchase.journal.intend(
                request.digest,
                [place.key],
                block=purchase.block,
                on_cancel=terms.on_cancel,
                device=device.name,
                interface=interface_of(terms, request),
                campaign=place.campaign,
                scope=list(place.scope),
                n=place.n,
                shots=request.shots,
                estimated_seconds=seconds,
                allowed_seconds=round(left, 3) if terms.max_qpu_seconds else None,
                calibrated_at=calibrated,
                transpiled=list(transpiled.facts),
            )

    return await asyncio.to_thread(intend)


def interface_of(terms: BackendTerms, request: Request) -> str:
    """The client's primitive: the successor where it is installed and can do the work."""
    if terms.interface != "auto":
        return terms.interface
    same = len({request.spread(pub) for pub in request.pubs}) == 1
    return "executor" if same and words.has_executor() else "v2"


async def _posted(
    purchase: Purchase,
    attempt: QuantumAttempt,
    transpiled: Transpiled,
    claim: claims.Claim,
    *,
    is_new: bool,
) -> QuantumAttempt:
    lost = 0
    while True:
        # Whether a job of this tag may be there whose id nobody has learnt.
        doubtful = lost > 0 or not is_new
        if doubtful and (job_id := await adopted(purchase, attempt, lost=True)):
            purchase.log.info("adopted job %s, which the service has under our tag", job_id)
            return await _known(purchase, attempt, job_id, adopted=True)
        order = await _order(purchase, attempt, transpiled)
        await asyncio.to_thread(claim.check)
        try:
            job_id = await _uninterrupted(purchase, partial(purchase.client.post, order))
        except Exception as error:
            lost += 1
            if kind_of(error) not in (Kind.TRANSIENT, Kind.UNAUTHORIZED):
                return await _not_posted(purchase, attempt, error, doubtful=doubtful)
            if lost >= MOST_POSTS:
                raise QuantumServiceError(
                    f"posting the job went wrong {lost} times ({first_line(error)}); run again"
                    f" later: before another POST the service is asked for the tag {attempt.tag}"
                ) from error
            purchase.log.warning(
                "posting the job: %s; asking for its tag before another POST", first_line(error)
            )
            continue
        purchase.log.info("posted as %s on %s, tag %s", job_id, attempt.device, attempt.tag)
        known = await _known(purchase, attempt, job_id, adopted=False)
        kept = await adopted(purchase, attempt, False)
        if kept and kept != job_id:  # the first of two that a repeated POST made is furthest
            known = await _known(purchase, attempt, kept, adopted=True)
        return known


async def _not_posted(
    purchase: Purchase, attempt: QuantumAttempt, error: Exception, *, doubtful: bool
) -> QuantumAttempt:
    """The job of a POST that asking again would not help: what the service has, if it has it.

    Args:
        doubtful: an earlier POST of the same tag may have been taken: then the intent stays open,
            whatever is said of this one, for a list that lags may show its job later.

    Raises:
        InvalidJob: the client refused it, so that it was not posted.
        QuantumServiceError: the service did, or nobody knows; then the intent stays open.
    """
    own = is_of_the_client(error)
    outcome = "nothing was bought"
    if doubtful:
        outcome = (
            "an earlier POST of it may have been taken: when this is run again the service is asked"
            f" for the tag {attempt.tag} before another POST"
        )
    elif own or was_answered(error):
        purchase.journal.note("ended", status="REFUSED", reason=first_line(error))
    if own:
        problem = f"the client refuses it: {error}; {outcome}"
        raise InvalidJob(f"the job for {attempt.device}", [problem]) from error
    if was_answered(error):
        raise QuantumServiceError(
            f"the service refuses the job: {first_line(error)}; {outcome}"
        ) from error
    purchase.log.warning("posting the job: %s; asking for its tag", first_line(error))
    if job_id := await adopted(purchase, attempt, lost=True):
        return await _known(purchase, attempt, job_id, adopted=True)
    raise QuantumServiceError(
        f"posting the job went wrong ({first_line(error)}), and the service does not list it; when"
        f" this is run again the service is asked for the tag {attempt.tag} before another POST"
    ) from error


async def _known(
    purchase: Purchase, attempt: QuantumAttempt, job_id: str, *, adopted: bool
) -> QuantumAttempt:
    await asyncio.to_thread(purchase.journal.note, "posted", job_id=job_id, adopted=adopted)
    return replace(attempt, job_id=job_id)


async def adopted(errand: Errand, attempt: QuantumAttempt, lost: bool) -> str:
    """The job that the service has under the intent's tag; what else it has there is cancelled.

    Args:
        lost: whether a job may have been posted whose id nobody has learnt.
    """
    ask = partial(errand.client.find, attempt.tag)
    what = f"asking for jobs with the tag {attempt.tag}"
    found: list[tuple[str, str]] = []
    for pause in LOOK_AGAIN if lost else LOOK_AGAIN[:1]:
        await asyncio.sleep(pause)
        found = await patiently(ask, what, errand.log, seconds=BEFORE)
        if found:
            break
    if not found:
        return ""
    keep = min(found, key=lambda each: _FURTHEST.get(each[1], 2))[0]
    for job_id, status in found:
        if job_id != keep:
            await _end_duplicate(errand, job_id, status, keep)
    return keep


async def _end_duplicate(errand: Errand, job_id: str, status: str, keep: str) -> None:
    """Cancel a job of the tag that is one too many. It may have run, and costs what it cost."""
    last = await asyncio.to_thread(errand.journal.last)
    if last is None or job_id not in last.duplicates:
        await asyncio.to_thread(errand.journal.note, "duplicate", job_id=job_id)
    if status not in words.ENDS:
        errand.log.warning("job %s is a duplicate of %s: cancelled", job_id, keep)
        cancel = partial(errand.client.cancel, job_id)
        await patiently(cancel, f"cancelling {job_id}", errand.log)


async def _order(purchase: Purchase, attempt: QuantumAttempt, transpiled: Transpiled) -> Order:
    request, terms = purchase.request, purchase.terms
    limits = [request.options.max_execution_time, attempt.intent.get("allowed_seconds")]
    limit = min((math.floor(each) for each in limits if each is not None), default=None)
    session_id = "" if terms.mode == "job" else await session_for(purchase, attempt.device)
    return Order(
        kind=request.kind,
        interface=str(attempt.intent["interface"]),
        device=attempt.device,
        fractional_gates=terms.choice.fractional_gates,
        pubs=list(transpiled.pubs),
        options=request.options.runtime,
        tags=[attempt.tag],
        max_execution_time=None if limit is None else max(1, limit),
        mode=terms.mode,
        session_id=session_id,
    )


async def _uninterrupted(purchase: Purchase, post: Callable[[], str]) -> str:
    """Post; a call that is cancelled meanwhile still learns and writes down the job's id."""
    posting = asyncio.ensure_future(asyncio.to_thread(post))
    try:
        return await asyncio.shield(posting)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([posting], timeout=_ANSWER)
            if posting.done() and posting.exception() is None:
                purchase.journal.note("posted", job_id=posting.result(), adopted=False)
        raise
