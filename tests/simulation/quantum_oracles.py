"""What must hold of quantum jobs, whatever happens: of purchases, of what they cost, of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_entries, read_journal
from hpc_prefect.job.result import JobResult
from hpc_prefect.ledger.quantum_folder import qpu_seconds
from hpc_prefect.quantum.result_file import RESULT, data_digest, unpack
from hpc_prefect.quantum.service import CANCELLED, DONE, ERROR
from simulation.file_server import File, FileServer
from simulation.oracles import Told, entries_of
from simulation.quantum_client import result_of
from simulation.quantum_service import MOST_LAG, QuantumJob, QuantumService

if TYPE_CHECKING:
    from simulation.process import Process

#: Seconds within which whoever may post does: the product looks for a job for four seconds before
#: it posts another one. Who was stopped meanwhile is slower, and nothing can keep it from posting.
_AT_ONCE = 4.0 - MOST_LAG
#: By so much the product rounds an estimate.
_ROUNDED = 0.06
#: How each end must be at the service.
_STATUS = {
    Reason.SUCCEEDED: DONE,
    Reason.SERVICE_FAILED: ERROR,
    Reason.CANCELLED: CANCELLED,
    Reason.TIMED_OUT: CANCELLED,
    Reason.OVER_BUDGET: CANCELLED,
    Reason.CANCELLED_ELSEWHERE: CANCELLED,
}


@dataclass
class _Posted:
    """A tag that was posted: by whom last, and whether the service was asked for it since."""

    folder: str
    seconds: float
    by: int = 0
    asked: bool = True
    slow: bool = False
    refused: bool = False


class Purchases:
    """What must be so when something is bought, and when it is cancelled.

    Attributes:
        limit: QPU seconds that all of it may cost; 0 for no limit.
    """

    def __init__(self, service: QuantumService, files: FileServer, limit: float) -> None:
        self._service, self._files = service, files
        self._world = service.world
        self.limit = limit
        self._posted: dict[str, _Posted] = {}

    def posts(self, tag: str, seconds: float, process: Process) -> None:
        """Before anything is made: the intent is on disk, nobody has bought it, it can be paid."""
        fail = self._world.fail
        folder = self._folder_of(tag)
        if not folder:
            fail("lost", f"{tag} is posted, and no intent of it is on disk")
        known = self._posted.setdefault(tag, _Posted(folder, seconds))
        # The client asks for the device first: between the last look at the claim and the POST.
        began = process.work_began
        slow = began <= process.resumed_at or self._world.now - began > _AT_ONCE
        if slow:
            self._world.coverage.sometimes("a POST is made by who was stopped before")
        if known.by == process.number and not known.asked:
            fail("twice", f"{tag} is posted again, and nobody has looked for the first one")
        if self.jobs_of(tag) and not (slow or known.slow):
            fail("twice", f"{tag} is bought a second time, for {folder}")
        known.by, known.asked, known.slow = process.number, False, known.slow or slow
        known.refused = False
        # What was bought by who was stopped meanwhile may be counted by nobody.
        spent = sum(self._charged(each) for each in self._posted if not self.was_slow(each))
        if self.limit and spent > self.limit + _ROUNDED * len(self._posted):
            fail("budget", f"{spent:g} of {self.limit:g} QPU seconds are promised with {tag}")

    def _folder_of(self, tag: str) -> str:
        """Whose intent on disk has this tag; empty when none has."""
        for path in self._files.below(f"/{names.JOURNAL}"):
            folder = path.rpartition("/")[0]
            entries = entries_of(self._files, folder, on_disk=True)
            if any(e.get("event") == "intent" and e.get("tag") == tag for e in entries):
                return folder
        return ""

    def _charged(self, tag: str) -> float:
        """What a purchase costs, or may cost. What the service makes twice costs once here."""
        jobs, posted = self.jobs_of(tag), self._posted[tag]
        if not jobs or any(not job.ended for job in jobs):
            over = posted.refused or self._is_over(posted.folder)
            return posted.seconds if jobs or not over else 0.0
        return max(job.cost for job in jobs)

    def _is_over(self, folder: str) -> bool:
        return any(e.get("event") == "verdict" for e in entries_of(self._files, folder))

    def jobs_of(self, tag: str) -> list[QuantumJob]:
        return [job for job in self._service.jobs.values() if job.tag == tag]

    def not_counted(self) -> str:
        """What was bought and is not counted, by the journals, in the end; empty when all is."""
        for tag, posted in self._posted.items():
            jobs = [job for job in self.jobs_of(tag) if job.ended]
            # What a flow has left to itself is not looked at before somebody comes back for it.
            if posted.slow or not jobs or not self._is_over(posted.folder):
                continue
            told, cost = self._told_of(posted.folder), sum(job.cost for job in jobs)
            if told < cost - _ROUNDED:
                ids = ", ".join(job.id for job in jobs)
                return f"{posted.folder} is counted with {told:g} QPU seconds; {ids}: {cost:g}"
        return ""

    def _told_of(self, folder: str) -> float:
        read = {}
        for name in (names.JOURNAL, names.CANCEL):
            file = self._files.entry(f"{folder}/{name}")
            read[name] = file.data if isinstance(file, File) else b""
        ended = [e for e in read_entries(read[names.CANCEL]) if e.get("event") == "ended"]
        used = ended[-1].get("used") if ended else {}
        return qpu_seconds(read_journal(read[names.JOURNAL]), used)

    def was_slow(self, tag: str) -> bool:
        """Whether one that was stopped has posted it."""
        return tag in self._posted and self._posted[tag].slow

    def asked(self, tag: str) -> None:
        """There was a useful answer about it."""
        if tag in self._posted:
            self._posted[tag].asked = True

    def refused(self, tag: str) -> None:
        """The service has said that it did not take it."""
        self._posted[tag].asked = self._posted[tag].refused = True

    def cancels(self, job: QuantumJob) -> None:
        """Somebody has asked for its end, or it is too much, or one too many."""
        posted = self._posted[job.tag]
        wished = posted.folder.rpartition("-")[0] in self._service.wishes
        if not (wished or len(self.jobs_of(job.tag)) > 1 or job.estimate > posted.seconds):
            self._world.fail("cancelled", f"{job.id} of {posted.folder}; nobody asked for it")


class QuantumJudgements(Told):
    """What was told of each quantum job: it must be what the service has."""

    def __init__(
        self,
        service: QuantumService,
        files: FileServer,
        purchases: Purchases,
    ) -> None:
        super().__init__(service.world, files)
        self._service, self._purchases = service, purchases

    def journals(self, files: FileServer) -> None:
        """What they say in the end."""
        super().journals(files)
        if wrong := self._purchases.not_counted():
            self._world.fail("budget", wrong)

    def result(self, result: JobResult, base: str) -> None:
        """A result was handed over."""
        reason = result.verdict.reason
        sometimes = self._world.coverage.sometimes
        sometimes(f"a quantum job's end is: {reason}")
        if not self.is_written(result):
            sometimes("a quantum job's end is not confirmed")
            if reason not in (Reason.CANCELLED, Reason.TIMED_OUT, Reason.OVER_BUDGET):
                self.false(result, "its journal has no verdict")
            return
        self.stays(result)
        if reason in (Reason.CANCELLED, Reason.TIMED_OUT) and base not in self._service.wishes:
            self.false(result, "nobody asked for its end")
        if wrong := self._contradiction(result, base):
            self.false(result, wrong)

    def _contradiction(self, result: JobResult, base: str) -> str:
        """What speaks against it; empty when nothing does."""
        reason = result.verdict.reason
        if not result.job_id:
            there = self._purchases.jobs_of(result.tag)
            slow = self._purchases.was_slow(result.tag)
            return f"the service has {there[0].id} of it" if there and not slow else ""
        job = self._service.jobs[result.job_id]
        if job.status != _STATUS[reason]:
            return f"the service has {job.id} as {job.status}"
        if job.tag != result.tag and not self._purchases.was_slow(job.tag):
            return f"{job.id} is another one's"
        told = result.resources_used.get("qpu_seconds")
        if told is not None and told != job.cost:
            return f"{job.id} has cost {job.cost:g} QPU seconds, and not {told:g}"
        return self._result_of(job, base) if reason is Reason.SUCCEEDED else ""

    def _result_of(self, job: QuantumJob, base: str) -> str:
        kept = self._files.entry(f"{base}/{RESULT}")
        if not isinstance(kept, File):
            return "its result is not there"
        same = data_digest(unpack(kept.data)) == data_digest(result_of(job))
        return "" if same else f"its result is not that of {job.id}"
