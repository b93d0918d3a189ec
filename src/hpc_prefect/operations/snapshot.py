"""A job by its folder alone: what is known of it, and since when."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hpc_prefect.errors import HpcPrefectError, LedgerError
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import ExitRecord, Ledger, StartRecord
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Evidence, JobState, Observation
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.campaign_folder import read_campaign
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.ledger.job_folder import CLOSED, JobFolder
from hpc_prefect.ledger.quantum_folder import qpu_seconds, refuse_old
from hpc_prefect.operations.members import MemberCounts, count_members
from hpc_prefect.operations.status import UNREADABLE, JobStatus, status_of, status_told, time_of
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host
from hpc_prefect.transports.local import LocalTransport, reader


@dataclass(frozen=True, slots=True)
class Holder:
    """The last claimant of a job.

    Attributes:
        touched: when it last renewed its claim, in seconds since 1970.
        alive: by the rule for taking over its job; on another host this is a guess from `touched`,
            and Prefect is not asked.
    """

    claimant: Claimant
    touched: float
    alive: bool

    def describe(self) -> str:
        return f"{self.claimant.describe()}, {'alive' if self.alive else 'dead'}"


@dataclass(frozen=True, kw_only=True)
class JobSnapshot:
    """The content of a job's folder.

    Attributes:
        campaign, key, attempt: from the folder's path.
        campaign_name: the name that its user gave; empty in a folder of an earlier version.
        spec, tag: of the newest intent; None and empty if there is none.
        ids: the scheduler's ids; the first one is the job; others were submitted too, but may not
            start the program.
        result: the verdict's result.
        events: the journal's entries and the requests to cancel, in order.
        made_at: the time of the folder itself, in seconds since 1970.
        members: the counts of an array's members; None for other jobs.
        problem: why the folder cannot be read; empty if it can.
        user: the owner in words; empty for this user's own job.
    """

    folder: JobFolder
    campaign: str
    key: str
    attempt: int
    status: JobStatus
    campaign_name: str = ""
    spec: JobSpec | QuantumSpec | None = None
    tag: str = ""
    ids: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    result: JobResult | None = None
    start: StartRecord | None = None
    exit: ExitRecord | None = None
    claims: dict[str, Claimant] = field(default_factory=dict)
    holder: Holder | None = None
    events: tuple[dict[str, Any], ...] = ()
    made_at: float = 0.0
    members: MemberCounts | None = None
    problem: str = ""
    user: str = ""

    @property
    def kind(self) -> str:
        """`batch` or `quantum`; `batch` also if it is not known."""
        return self.spec.kind if self.spec else "batch"

    @property
    def name(self) -> str:
        """The job's name; empty if there is no intent."""
        return self.spec.name if self.spec else ""

    @property
    def job_id(self) -> str:
        """The scheduler's id; empty when none is known."""
        return self.ids[0] if self.ids else ""

    @property
    def intent(self) -> dict[str, Any]:
        """The newest intent; empty when there is none."""
        intents = [entry for entry in self.events if entry.get("event") == "intent"]
        return intents[-1] if intents else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from: flow run, parameters, blocks."""
        found = self.intent.get("provenance")
        return found if isinstance(found, dict) else {}

    @property
    def flow_run(self) -> str:
        """The flow run that last held it; a command that attached has none."""
        runs = [claimant.flow_run for claimant in self.claims.values() if claimant.flow_run]
        return runs[-1] if runs else ""

    @property
    def flow_run_name(self) -> str:
        """The name of that flow run, if the job's intent has it."""
        run = self.provenance.get("flow_run")
        known = isinstance(run, dict) and str(run.get("id", "")) == self.flow_run
        return str(run.get("name", "")) if known and isinstance(run, dict) else ""

    @property
    def scope(self) -> tuple[str, ...]:
        """Where in its flow it was called: loops, iterations, tasks, outermost first."""
        path = self.provenance.get("scope")
        return tuple(map(str, path)) if isinstance(path, list) else ()

    @property
    def work_dir(self) -> str:
        """The folder below which its records are."""
        return self.folder.path.rpartition(f"/{names.ROOT}/")[0]

    @property
    def is_over(self) -> bool:
        """Whether it has a final verdict; a LOST job may still be found."""
        return self.result is not None and self.result.verdict.reason is not Reason.LOST

    @property
    def ended_surely(self) -> bool:
        """Whether it certainly has ended, although it may have no verdict yet.

        After an exit record of a failure the job may be put back into the queue; if the profile
        allows requeueing, after any exit record.
        """
        stays = self.spec is None or not self.spec.may_requeue
        by_record = self.exit is None or (self.exit.clean and stays)
        told = self.end_was_told or by_record
        return self.is_over or (self.status.state == JobState.ENDED and told)

    @property
    def end_was_told(self) -> bool:
        """Whether a command has written down that nothing of it is left."""
        return any(entry.get("event") == "ended" for entry in self.events)

    @property
    def created_at(self) -> float:
        """The time of its first record."""
        return next((at for entry in self.events if (at := time_of(entry))), self.made_at)

    @property
    def submitted_at(self) -> float | None:
        return self.ledger.submitted_at or None

    @property
    def started_at(self) -> float | None:
        """By its own record, on the node's clock; for a quantum job by its service's."""
        return self.start.time if self.start else _moment(self.ledger.facts.get("running"))

    @property
    def ended_at(self) -> float | None:
        """By its own record; without one by the verdict, which is later."""
        if self.exit is not None:
            return self.exit.time
        if at := _moment(self.ledger.facts.get("finished")):
            return at
        verdicts = [time_of(entry) for entry in self.events if entry.get("event") == "verdict"]
        return verdicts[-1] if self.is_over and verdicts and self.ids else None

    @property
    def where(self) -> str:
        """`scheduler[:queue][@host]`."""
        if self.spec is None:
            return ""
        site = self.spec.site
        queue = f":{site.queue}" if site.queue else ""
        host = self.start.host if self.start else ""
        return f"{site.scheduler}{queue}{'@' + host if host else ''}"

    @property
    def qpu_seconds(self) -> float | None:
        """A quantum job's cost, or its estimate until that is known; None for other jobs."""
        if self.kind == "batch" or not self.ids:
            return None
        ended = [entry.get("used") for entry in self.events if entry.get("event") == "ended"]
        return qpu_seconds(self.ledger, ended[-1] if ended else None)

    def facts(self) -> dict[str, Any]:
        """Facts that only this kind of job has; JSON values."""
        own = self.spec.facts() if self.spec else {}
        if own:
            used = self.result.resources_used if self.result else {}
            own |= {"qpu_seconds": used.get("qpu_seconds"), "duplicates": self.ledger.duplicates}
        return own if self.members is None else {"members": self.members._asdict()}

    @property
    def is_kept(self) -> bool:
        """Whether it runs on when its flow run is cancelled."""
        return self.spec is not None and self.spec.on_cancel == "keep"

    def belongs_to(self, campaign: str) -> bool:
        """Whether it is in a campaign, by the campaign's name or its folder's, in any instance."""
        stem, _, instance = self.campaign.rpartition(".")
        folder = self.campaign == campaign or (stem == campaign and instance.isdecimal())
        return folder or (self.campaign_name == campaign != "")

    def seen(self, answer: Observation | NoAnswer | None) -> JobSnapshot:
        """The job, updated by the scheduler's present answer; None if that does not list it."""
        return replace(self, status=status_told(self, answer))

    def as_dict(self) -> dict[str, Any]:
        """JSON values only; times in seconds since 1970."""
        holder, cause = self.holder, self.status
        return {
            "kind": self.kind,
            "name": self.name,
            "key": self.key,
            "user": self.user,
            "attempt": self.attempt,
            "campaign": self.campaign,
            "campaign_name": self.campaign_name,
            "scheduler": self.spec.site.scheduler if self.spec else "",
            "queue": self.spec.site.queue if self.spec else "",
            "id": self.job_id,
            "tag": self.tag,
            "state": cause.state,
            "reason": cause.reason,
            "reason_code": self.result.verdict.reason.value if self.result else "",
            "known_at": cause.known_at or None,
            "submitted_at": self.submitted_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "host": self.start.host if self.start else "",
            "flow_run": self.flow_run,
            "flow_run_name": self.flow_run_name,
            "scope": list(self.scope),
            "work_dir": self.work_dir,
            "holder": holder
            and {
                "flow_run": holder.claimant.flow_run,
                "host": holder.claimant.host,
                "pid": holder.claimant.pid,
                "touched_at": holder.touched,
                "alive": holder.alive,
            },
            "folder": self.folder.path,
            **self.facts(),
        }


def read_job(
    path: str, transport: Transport | None = None, *, campaign_name: str | None = None
) -> JobSnapshot:
    """Read a job's folder. One that cannot be read is a job too, with its `problem`.

    Args:
        campaign_name: of its campaign, if known already.
    """
    transport = transport or reader(path)
    folder = JobFolder(transport, path)
    above, _, name = path.rpartition("/")
    key, _, attempt = name.rpartition("-")
    job = JobSnapshot(
        folder=folder,
        campaign=os.path.basename(os.path.dirname(above)),
        key=key or name,
        attempt=int(attempt) if attempt.isdecimal() else 0,
        status=JobStatus(UNREADABLE),
        user=transport.user if isinstance(transport, LocalTransport) else "",
    )
    try:
        status = folder.transport.status(path)
        job = replace(job, made_at=status.modified if status else 0.0)
        if campaign_name is None:
            campaign_name = name_of_campaign(folder.transport, path)
        job = replace(job, campaign_name=campaign_name)
        return _read(job)
    except NO_SENSE as error:
        return unreadable(job, error)


def _moment(iso: object) -> float | None:
    try:
        return datetime.fromisoformat(str(iso)).timestamp()
    except ValueError:
        return None


#: Errors from reading a folder that is damaged, foreign, or written by something else.
NO_SENSE = (HpcPrefectError, OSError, KeyError, TypeError, ValueError, AttributeError)


def unreadable(job: JobSnapshot, error: Exception) -> JobSnapshot:
    """A job whose folder cannot be read, and why."""
    ours = isinstance(error, HpcPrefectError | OSError)
    said = str(error) if ours else f"its content cannot be read ({error!r})"
    return replace(job, problem=said, status=JobStatus(UNREADABLE, said))


def name_of_campaign(transport: Transport, job: str) -> str:
    """The exact name of the campaign of a job's folder; empty if it is not recorded."""
    campaign = read_campaign(transport, os.path.dirname(os.path.dirname(job)))
    return campaign.name if campaign else ""


def _read(job: JobSnapshot) -> JobSnapshot:
    folder = job.folder
    refuse_old(folder.transport, folder.path)
    data = folder.transport.read(folder.file(names.JOURNAL))
    requests = folder.transport.read(folder.file(names.CANCEL))
    ledger = folder.ledger()
    entries = _in_order([*names.read_entries(data)], [*names.read_entries(requests)])
    everybody = claims.history(folder.transport, folder.path)
    if not entries and not everybody:
        raise LedgerError("neither a journal nor a claim is there")
    intents = [entry for entry in entries if entry.get("event") == "intent"]
    intent = intents[-1] if intents else {}
    guard = folder.guard()
    starts = names.read_starts(folder.transport.read(folder.file(names.START)))
    # The id that the start guard let in is the job, whatever the journal says. NFS may hide the
    # guard for a minute; its record, which only that job writes, is a file that was there before.
    let_in = starts[-1].id if starts and guard in ("", CLOSED) else guard
    ids = dict.fromkeys(each for each in (let_in, ledger.job_id) if each not in ("", CLOSED))
    records = Evidence(
        job_id=next(iter(ids), ""),
        walltime=0,
        starts=starts,
        exits=names.read_exits(folder.transport.read(folder.file(names.EXIT)), ledger.words),
    )
    known = replace(
        job,
        spec=_spec(intent["job"]) if intent else None,
        tag=str(intent.get("tag", "")),
        ids=tuple(ids),
        ledger=ledger,
        result=JobResult.from_dict(ledger.result) if ledger.result else None,
        start=records.start,
        exit=records.exit,
        claims=everybody,
        holder=holder_of(folder, everybody),
        events=entries,
    )
    if "members" in intent:
        known = _with_members(known)
    return replace(known, status=status_of(known, closed=guard == CLOSED))


def _spec(values: dict[str, Any]) -> JobSpec | QuantumSpec:
    kinds: dict[Any, type[JobSpec | QuantumSpec]] = {QuantumSpec.kind: QuantumSpec}
    return kinds.get(values.get("kind"), JobSpec).from_dict(values)


def _with_members(job: JobSnapshot) -> JobSnapshot:
    """For a submission of an array: the start of its first member counts as its start."""
    folder = ArrayFolder(job.folder.transport, job.folder.path)
    counts, first = count_members(folder)
    start = None
    if first is not None:
        record = folder.transport.read(folder.member(first).file(names.START))
        start = next(iter(names.read_starts(record)), None)
    return replace(job, members=counts, start=start)


def _in_order(
    journal: list[dict[str, Any]], requests: list[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """The journal in its order, with the requests to cancel inserted by their times."""
    latest, stamped = 0.0, []
    for entry in journal:
        latest = max(latest, time_of(entry))  # an unknown time is 0
        stamped.append((latest, entry))
    stamped += [(time_of(each), each) for each in requests]
    return tuple(entry for _, entry in sorted(stamped, key=lambda each: each[0]))


def holder_of(folder: JobFolder, everybody: dict[str, Claimant]) -> Holder | None:
    """The last claimant, and whether it is alive."""
    if not everybody:
        return None
    name, claimant = list(everybody.items())[-1]
    status = folder.transport.status(folder.file(name))
    touched = status.modified if status else 0.0
    alive = claims.is_alive(claimant, lambda: host().time() - touched, lambda flow_run: False)
    return Holder(claimant, touched, alive)
