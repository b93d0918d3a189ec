"""Runs one small real job at the site, like every job, and makes findings of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from hpc_prefect.doctor.here import WORK_DIR, converse, file_server_ahead
from hpc_prefect.doctor.profile import launcher_word
from hpc_prefect.doctor.report import (
    PROGRAM,
    Moments,
    Report,
    clock_findings,
    executable_findings,
    launcher_findings,
    read_report,
)
from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest, Listener, Silence
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import ADVICE, Reason
from hpc_prefect.job.identity import digest, job_key, spread
from hpc_prefect.job.program_script import quote
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec, launch_line
from hpc_prefect.job.state import JobState
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, ok, unknown, wrong
from hpc_prefect.transports.base import Transport

JOB = "job"
SET_UP = "modules and set-up"
STATUS = "status of a job"
CAMPAIGN = "doctor"
#: How often to ask about a job that has ended, until the scheduler says so too.
_QUESTIONS = 20
#: A job may have left the queue and not yet come into the history.
_ABSENT = 4

_SET_UP_REMEDY = (
    "correct `modules` and `setup` of the HPC profile, or of the executable; where `module` itself"
    " is not there, login_shell = true may bring it"
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A job to try, and how.

    Attributes:
        paths: what to look for in it, by executable key.
        file: in work_dir, there and empty; the job writes into it.
        wait: seconds after which the job is cancelled.
        unseen: seconds for which a file that a node has written may be hidden by caches.
    """

    spec: JobSpec
    secrets: Mapping[str, str] = field(repr=False)
    paths: Mapping[str, str]
    scheduler: Scheduler
    transport: Transport
    file: str
    wait: float
    poll_interval: float
    unseen: float = 70.0
    listener: Listener = field(default_factory=Silence)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The findings of a trial; `hosts` took part in the job."""

    findings: list[Finding]
    job_id: str = ""
    hosts: frozenset[str] = frozenset()


async def carry_out(trial: Trial) -> Tried:
    """Run the job to its end and read what it left."""
    content = secrets.token_hex(16)
    line = launch_line(trial.spec.site.launcher, trial.spec.resources, quote("/bin/true"))
    launcher = trial.spec.site.launcher and line
    first = launcher_word(launcher)
    spec = replace(
        trial.spec,
        arguments=(
            *("-c", PROGRAM, CAMPAIGN, trial.file, content, first, launcher),
            *trial.paths.values(),
        ),
        # The launcher is tried by the program, so that the rest is told when it fails.
        resources=replace(trial.spec.resources, launch="single"),
        site=replace(trial.spec.site, launcher=""),
    )
    submitted = time.time()
    try:
        result = await _run(replace(trial, spec=spec), content)
    except HpcPrefectError as error:
        remedy = "see whether the scheduler still has a job of this try, then try again"
        return Tried(findings=[wrong(JOB, str(error), remedy)])
    seen = time.time()
    report = read_report(_text(trial.transport, result.stdout_path))
    found = _verdict_findings(result, trial.transport)
    found += executable_findings(report, trial.paths)
    found += launcher_findings(report, launcher, first)
    found.append(await _shared(trial, report, content))
    found += _times(trial, result, submitted, seen)
    hosts = {result.host}
    if result.job_id:
        status, host = await _status(trial, result)
        found.append(status)
        hosts.add(host)
    return Tried(findings=found, job_id=result.job_id, hosts=frozenset(hosts - {""}))


async def _run(trial: Trial, nonce: str) -> JobResult:
    spec = trial.spec
    key = job_key(CAMPAIGN, (), digest([spec.identity(), nonce]), 0)
    request = JobRequest(
        spec=spec,
        secrets=dict(trial.secrets),
        base=f"{trial.transport.root(spec.work_dir)}/{CAMPAIGN}/{spread(key)}/{key}",
        key=key,
        claimant=this_process(),
        poll_interval=min(trial.poll_interval, 10.0),
        queue_full_wait=trial.wait,
        provenance={"campaign": CAMPAIGN},
        listener=trial.listener,
    )
    with ThreadPoolExecutor(4, thread_name_prefix="hpc-prefect") as pool:
        connection = Connection(trial.scheduler, trial.transport, spec.site.options, pool)
        run = JobRun(request, connection)
        task = asyncio.ensure_future(run.carry_out())
        timer = asyncio.get_running_loop().call_later(trial.wait, run.cancel, "timeout")
        try:
            ended = await asyncio.shield(task)
            assert isinstance(ended, JobResult)  # it is not only submitted
            return ended
        except asyncio.CancelledError:  # Ctrl-C: the job is of no use any more
            run.cancel("user")
            await asyncio.wait([task])
            raise
        finally:
            timer.cancel()


def _text(transport: Transport, path: str) -> str:
    return (transport.read(path) or b"").decode(errors="replace")


def _verdict_findings(result: JobResult, transport: Transport) -> list[Finding]:
    verdict = result.verdict
    words = JobFolder(transport, result.folder).scheduler_words()
    said = " | ".join(line.strip() for line in words.split("\n")[-4:] if line.strip())
    if result.succeeded:
        queued = "" if result.queue_seconds is None else f" after {result.queue_seconds:.1f} s"
        shown = f"{result.job_id} ran on {result.host or 'a node'}{queued}; see {result.folder}"
        return [ok(JOB, shown), ok(SET_UP, "they ended without an error")]
    if verdict.reason in (Reason.SETUP_FAILED, Reason.FOLDER_NOT_WRITABLE):
        seen = f"{verdict.summary}: {said}" if said else verdict.summary
        return [
            unknown(JOB, f"{result.job_id} did not start its program; see {result.folder}"),
            wrong(SET_UP, seen, _SET_UP_REMEDY),
        ]
    if verdict.reason is Reason.TIMED_OUT and not transport.read(f"{result.folder}/{names.START}"):
        return [unknown(JOB, f"{result.job_id} did not start in time", "try again with --wait")]
    seen = f"{verdict.reason}: {verdict.summary}{f' ({said})' if said else ''}"
    return [wrong(JOB, seen, ADVICE[verdict.reason].remedy)]


async def _shared(trial: Trial, report: Report, content: str) -> Finding:
    """Whether a file that the job wrote in work_dir is visible here."""
    check, where = f"{WORK_DIR} in a job", trial.spec.work_dir
    if report.wrote is None:
        return unknown(check, "the job did not get that far")
    if not report.wrote:
        remedy = "choose a work_dir that compute nodes may write: often not $HOME, but scratch"
        return wrong(check, f"{where} cannot be written on a node", remedy)
    end = time.monotonic() + trial.unseen
    path = f"{where}/{trial.file}"
    while (seen := _text(trial.transport, path).strip()) != content:
        if time.monotonic() > end:
            remedy = "choose a work_dir on a file system that login and compute nodes share"
            shown = f"a file that the job wrote there is not visible here ({len(seen)} characters)"
            return wrong(check, shown, remedy)
        await asyncio.sleep(0.5)
    return ok(check, "the job wrote a file there, and it is visible here")


def _times(trial: Trial, result: JobResult, submitted: float, seen: float) -> list[Finding]:
    path = f"{result.folder}/{names.START}"
    starts = names.read_starts(trial.transport.read(path))
    folder = JobFolder(trial.transport, result.folder)
    exits = names.read_exits(trial.transport.read(folder.file(names.EXIT)), folder.ledger().words)
    stamp = trial.transport.status(path)
    if not starts or not exits or stamp is None:
        return [
            unknown("clock", "the job left no records"),
            unknown("exit record", "there is none"),
        ]
    server = file_server_ahead(result.folder, trial.transport)
    times = Moments(
        submitted=submitted,
        seen=seen,
        started=starts[-1].time,
        ended=exits[-1].time,
        stamped=stamp.modified,
        file_server=server,
    )
    return list(clock_findings(times))


async def _status(trial: Trial, result: JobResult) -> tuple[Finding, str]:
    """Whether the scheduler reports the end of the job, in words that are known here."""
    options = trial.spec.site.options
    remedy = (
        f"correct the options `{trial.scheduler.name}.…` of the HPC profile that say how its"
        " status and history are asked for"
    )
    absent = 0
    for _ in range(_QUESTIONS):
        dialogue = trial.scheduler.observe([result.job_id], options)
        answer = await asyncio.to_thread(converse, dialogue, trial.transport)
        seen = answer if isinstance(answer, NoAnswer) else answer.get(result.job_id)
        if isinstance(seen, NoAnswer):
            return wrong(STATUS, seen.said, remedy), ""
        if seen is None:
            if options.get("history_flag") == "none" or options.get("accounting") is False:
                shown = "no longer listed; without history, its exit record says how it ended"
                return unknown(STATUS, shown), ""
            absent += 1
            if absent == _ABSENT:
                shown = "neither queue nor history lists the job that has just ended"
                return wrong(STATUS, shown, remedy), ""
        elif seen.state is JobState.UNKNOWN:
            return wrong(STATUS, f"hpc-prefect does not know the state {seen.word!r}", remedy), ""
        elif seen.state is JobState.ENDED:
            tag = seen.tag or result.tag
            if tag != result.tag:
                shown = f"the scheduler lists the job's name as {tag!r}, not {result.tag!r}"
                return wrong(STATUS, shown, remedy), seen.host
            return ok(STATUS, f"the scheduler lists it as {seen.word!r}"), seen.host
        await asyncio.sleep(trial.scheduler.hurry)
    return unknown(STATUS, "the scheduler still lists the job as not ended"), ""
