"""Completes a record from the folders of its jobs: a process that was killed could not write all.

Only the record in memory is completed; nothing is written. Facts that are in its events are not
added again. The folders have more than a killed process had written into the record: each job's
end, and for jobs without an end, what was last seen of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.identity import spread
from hpc_prefect.ledger.campaign_parts import folders_of
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.ledger.quantum_folder import RECORDS
from hpc_prefect.operations.find import ATTEMPT, KEY, call_folders, is_job_folder
from hpc_prefect.operations.snapshot import NO_SENSE, JobSnapshot, read_job
from hpc_prefect.records.fold import RUNS, Record
from hpc_prefect.records.job_folders import (
    QuantumWork,
    batch_end_before,
    made_by,
    quantum_ends,
    quantum_jobs,
)
from hpc_prefect.transports.local import reader

logger = logging.getLogger("hpc_prefect.records")

#: Seconds by which a file server's clock may differ from that of the run's host.
_CLOCKS = 3600.0


def complete(record: Record) -> None:
    """Add what is in the folders of a run's jobs but not in its events. Never raises.

    If the run has recorded its own end, only jobs without an end are looked for.
    """
    try:
        _Completion(record).carry_out()
    except NO_SENSE as error:
        logger.warning(
            "the record of run %s could not be completed from the folders of its jobs: %s",
            *(record.folder, str(error) or repr(error)),
        )


class _Completion:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.transport = reader(record.folder)
        self.told = {(key, attempt) for key, attempt, _ in record.counted}
        self.ended = {key for key, _, _ in record.counted}

    def carry_out(self) -> None:
        folders = list(self._campaigns())
        for path in self._paths(folders, quantum=False):
            key, _, attempt = os.path.basename(path).rpartition("-")
            if (key, attempt) not in self.told and self._may_be_mine(f"{path}/{names.JOURNAL}"):
                self._batch(read_job(path, self.transport, campaign_name=""))
        for path in self._paths(folders, quantum=True):
            for kind, name in RECORDS.items():
                if self._may_be_mine(f"{path}/{name}"):
                    self._quantum(path, kind)

    def _campaigns(self) -> Iterator[str]:
        """The folders of its campaigns, each once; the record's own one at its present path."""
        own, _, above = self.record.folder.rpartition(f"/{RUNS}/")
        first = [own] if above else []
        known: dict[str, None] = {}
        for folder in [*first, *self.record.campaigns]:
            if folder not in known and os.path.isdir(folder):
                known |= dict.fromkeys(folders_of(self.transport, folder))
        yield from known

    def _paths(self, folders: Iterable[str], *, quantum: bool) -> Iterator[str]:
        """The folders of calls, in order: all if the run has no end, else those of open calls."""
        for folder in folders:
            if self.record.state == "running":
                pattern = KEY if quantum else ATTEMPT
                found = call_folders(folder, pattern, self.transport)
            else:
                found = [path for key in self.record.open for path in self._of(folder, key)]
            wanted = [path for path in found if is_job_folder(path) is not quantum]
            yield from sorted(wanted, key=_in_order)

    def _of(self, folder: str, key: str) -> list[str]:
        """The folders of one call."""
        above = f"{folder}/{spread(key)}"
        found = self.transport.list(above)
        return [f"{above}/{name}" for name in found if name == key or name.startswith(f"{key}-")]

    def _may_be_mine(self, path: str) -> bool:
        """Whether a file was written since the run began, by its modification time."""
        status = self.transport.status(path)
        return status is not None and status.modified >= self.record.started - _CLOCKS

    # --- a batch job

    def _batch(self, job: JobSnapshot) -> None:
        if job.kind != "batch" or job.problem or not self._is_mine(job.key, job.claims.values()):
            return
        self._want(job.key, "batch", job.folder.path.rpartition("-")[0], job)
        if job.result is not None and self._last_by_me(job):
            digests = self.record.with_jobs
            end = batch_end_before(job, job.result, self.transport, with_digests=digests)
            self._end(end, job.status.known_at)
        self._seen(job.key, job.status.state, job.status.known_at, job.job_id)

    def _is_mine(self, key: str, by: Iterable[Claimant]) -> bool:
        return key in self.record.open or any(map(self._am, by))

    def _last_by_me(self, job: JobSnapshot) -> bool:
        """Whether this run followed the job to its end. If another run did, its record has the end.

        A command that attached to the job does not count: it has no record.
        """
        if job.members is not None and job.status.known_at < self.record.started:
            return False  # every run of an array claims its first submission, even one that ended
        by = [each for each in job.claims.values() if each.flow_run or self._am(each)]
        return bool(by) and self._am(by[-1])

    def _am(self, claimant: Claimant) -> bool:
        if claimant.flow_run or self.record.run.get("kind") == "flow":
            return claimant.flow_run == self.record.id
        process = self.record.environment.get("process")
        return bool(process) and process in (claimant.process, claimant.worker_of)

    # --- a sampling or an estimation

    def _quantum(self, path: str, kind: str) -> None:
        key = os.path.basename(path)
        jobs = quantum_jobs(path, self.transport)
        job = jobs[-1] if jobs else None
        if job is not None and job.problem:
            return
        asked_by_me = made_by(path, kind, self.transport) == self.record.id
        if not (asked_by_me or self._is_mine(key, job.claims.values() if job else ())):
            return
        self._want(key, kind, path, job)
        known = self.record.jobs.get(key, {})
        work = QuantumWork(kind, path, key, str(known.get("name") or ""))
        by_me = asked_by_me if job is None else self._last_by_me(job)
        for end in quantum_ends(work, self.record.started, self.transport):
            at = float(end.get("finished_at") or self.record.updated)
            if by_me:
                self._end(end, at)
            else:
                self._seen(key, str(end["state"]), at)
        if job is not None:
            self._seen(key, job.status.state, job.status.known_at, job.job_id)

    # --- what is added

    def _want(self, key: str, kind: str, folder: str, job: JobSnapshot | None) -> None:
        if key in self.record.open or key in self.ended:
            return
        made = job.provenance if job else {}
        facts: dict[str, Any] = {
            "key": key, "kind": kind, "name": job.name if job else "", "folder": folder,
            "scope": made.get("scope") or [], "n": made.get("n") or 0, "blocks": [],
        }  # fmt: skip
        at = job.created_at if job else self.record.updated
        self._add({"event": "job", "time": at, **facts})

    def _end(self, end: dict[str, Any], at: float) -> None:
        self._add({"event": "job-ended", "time": at, **end, "from_folder": True})

    def _add(self, event: dict[str, Any]) -> None:
        self.record.add(event)
        self.record.completed_by.append(event)

    def _seen(self, key: str, state: str, at: float, job_id: str = "") -> None:
        """Note the last known state of a job whose end this run has not seen."""
        known = self.record.jobs.get(key)
        if known is not None and key in self.record.open:
            known |= {"last_seen": str(state), "last_seen_at": at}
            known |= {"job_id": job_id} if job_id else {}


def _in_order(path: str) -> tuple[str, int]:
    """Attempts of one job in the order of their numbers."""
    key, _, attempt = path.rpartition("-")
    return (key, int(attempt)) if attempt.isdecimal() else (path, 0)
