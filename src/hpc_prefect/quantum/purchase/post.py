"""One job for one intent: whatever dies or gets lost in between, it is posted once.

The intent is on disk before anything is posted; before each POST the service is asked for the
intent's tag, and a job that it knows is adopted. A POST whose reply was lost is such a case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import anyio

from hpc_prefect.errors import InvalidJob, LedgerError, QuantumServiceError
from hpc_prefect.ledger.claim import Claim
from hpc_prefect.ledger.quantum_journal import QuantumAttempt
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.budget import Budget, check_usage, estimate
from hpc_prefect.quantum.purchase.errand import Errand, Purchase, Transpiled
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.quantum.service import Kind

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


async def bought(purchase: Purchase, claim: Claim) -> QuantumAttempt:
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
    if last is not None and last.posting:
        raise QuantumServiceError(_undecided(purchase, last, ""))
    if last is not None and (job_id := await adopted(purchase, last, True)):
        purchase.log.info("adopted job %s, which the service has under our tag", job_id)
        return await _known(purchase, last, job_id, adopted=True)
    device = await _device(purchase, last)
    _check_device(purchase, device)
    transpiled = await purchase.transpile(purchase.request, device)
    attempt = last or await _intend(purchase, device, transpiled)
    # Nobody can have a job of a tag that was drawn a moment ago, or whose POST was never begun.
    is_new = last is None or not purchase.service.searchable
    return await _posted(purchase, attempt, transpiled, claim, is_new=is_new)


def _undecided(errand: Errand, attempt: QuantumAttempt, why: str) -> str:
    """What a person is told where nobody can tell whether a job was taken."""
    at = datetime.fromtimestamp(attempt.intended_at).astimezone()
    return (
        f"a job was posted to {attempt.device} at {at:%Y-%m-%d %H:%M:%S}, and no reply told its id"
        f"{why}. This service cannot be asked whether it has it, so nothing is posted again: look"
        " into its list of jobs. If it is there, give its id: hpc-prefect jobs attach"
        f" {errand.folder} --job-id ID. If not, remove {errand.journal.path}. Then run again"
    )


async def _device(purchase: Purchase, last: QuantumAttempt | None) -> Any:
    """The device: that of the intent, if there is one."""
    choice = purchase.terms.choice
    if last is not None:
        choice = replace(choice, name=last.device)
    service = purchase.service
    question = partial(service.device, choice)
    what = f"asking for the device {choice.name}"
    try:
        try:
            return await purchase.ask(question, what, seconds=BEFORE)
        except Exception as error:
            if service.kind_of(error) is not Kind.MISSING:
                raise
            # The client hides trouble with the list of devices, and then knows none.
            service.forget()
            return await purchase.ask(question, what, seconds=BEFORE)
    except Exception as error:
        if service.kind_of(error) in (Kind.MISSING, Kind.REFUSED):
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
    most = None if twirled else _most_shots(device)
    if problems := device_problems(dict(enumerate(request.pubs)), device, most):
        raise InvalidJob(f"the job for {device.name}", problems)


def _most_shots(device: Any) -> int | None:
    """How many shots of one circuit the device takes; None if it does not say. Asks nobody."""
    try:
        return int(device.configuration().max_shots)
    except (AttributeError, TypeError, ValueError):
        return None


async def _intend(purchase: Purchase, device: Any, transpiled: Transpiled) -> QuantumAttempt:
    """Write down what will be bought, if it can be paid for."""
    request, terms, place = purchase.request, purchase.terms, purchase.place
    seconds = estimate(list(transpiled.pubs), request.shots_of_pubs, device)
    what = "asking what the instance has left"
    check_usage(await purchase.ask(purchase.service.usage, what, seconds=BEFORE), seconds)
    question = partial(purchase.service.calibrated_at, device)
    calibrated = await purchase.ask(question, "asking for the calibration")

    def intend() -> QuantumAttempt:
        with Budget(purchase.campaign).reserved(seconds, terms.max_qpu_seconds) as left:
            purchase.write_asked()
            return purchase.journal.intend(
                request.digest,
                [place.key],
                service=purchase.service.name,
                block=purchase.block,
                on_cancel=terms.on_cancel,
                device=device.name,
                campaign=place.campaign,
                scope=list(place.scope),
                n=place.n,
                shots=request.shots,
                estimated_seconds=seconds,
                allowed_seconds=round(left, 3) if terms.max_qpu_seconds else None,
                calibrated_at=calibrated,
                transpiled=list(transpiled.facts),
                **purchase.backend.facts(request),
            )

    return await asyncio.to_thread(intend)


async def _posted(
    purchase: Purchase,
    attempt: QuantumAttempt,
    transpiled: Transpiled,
    claim: Claim,
    *,
    is_new: bool,
) -> QuantumAttempt:
    if not purchase.service.searchable:
        purchase.log.info(
            "the service of %s cannot be asked for a job by our tag: should its reply be lost,"
            " nothing is posted again before you have looked whether the job is there",
            attempt.device,
        )
    lost = 0
    while True:
        # Whether a job of this tag may be there whose id nobody has learnt.
        doubtful = lost > 0 or not is_new
        if doubtful and (job_id := await adopted(purchase, attempt, lost=True)):
            purchase.log.info("adopted job %s, which the service has under our tag", job_id)
            return await _known(purchase, attempt, job_id, adopted=True)
        order = await purchase.backend.order(purchase, attempt, transpiled)
        await asyncio.to_thread(claim.check)
        if not purchase.service.searchable:
            await asyncio.to_thread(purchase.journal.note, "posting")
        try:
            job_id = await _uninterrupted(purchase, partial(purchase.service.post, order))
        except Exception as error:
            lost += 1
            passes = purchase.service.kind_of(error) in (Kind.TRANSIENT, Kind.UNAUTHORIZED)
            if not (passes and purchase.service.searchable):
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
    service = purchase.service
    own = service.is_of_the_client(error)
    outcome = "nothing was bought"
    if doubtful:
        outcome = (
            "an earlier POST of it may have been taken: when this is run again the service is asked"
            f" for the tag {attempt.tag} before another POST"
        )
    elif own or service.was_answered(error):
        purchase.journal.note("ended", status="REFUSED", reason=first_line(error))
    if own:
        problem = f"the client refuses it: {error}; {outcome}"
        raise InvalidJob(f"the job for {attempt.device}", [problem]) from error
    if service.was_answered(error):
        raise QuantumServiceError(
            f"the service refuses the job: {first_line(error)}; {outcome}"
        ) from error
    if not service.searchable:
        why = f" ({first_line(error)})"
        raise QuantumServiceError(_undecided(purchase, attempt, why)) from error
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
    if not errand.service.searchable:
        return ""
    question = partial(errand.service.find, attempt.tag)
    what = f"asking for jobs with the tag {attempt.tag}"
    found: list[tuple[str, str]] = []
    for pause in LOOK_AGAIN if lost else LOOK_AGAIN[:1]:
        await asyncio.sleep(pause)
        found = await errand.ask(question, what, seconds=BEFORE)
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
        await errand.ask(partial(errand.service.cancel, job_id), f"cancelling {job_id}")


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
