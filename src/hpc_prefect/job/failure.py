"""The reasons for which a job ends, and what a person should do about each."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.StrEnum):
    """Why a job ended, or will never run. One word for one fact, on every scheduler.

    Its value is a code that stays, on disk and in JSON; as text it is words for people.
    """

    words: str

    SUCCEEDED = "succeeded", "succeeded"
    PROGRAM_FAILED = "program_failed", "program failed"
    SETUP_FAILED = "setup_failed", "set-up failed"
    FOLDER_NOT_WRITABLE = "folder_not_writable", "job folder not writable"
    EXECUTABLE_MISSING = "executable_missing", "executable missing"
    WALLTIME = "walltime", "walltime exceeded"
    OUT_OF_MEMORY = "out_of_memory", "out of memory"
    NODE_FAILURE = "node_failure", "node failure"
    PREEMPTED = "preempted", "preempted"
    ALLOCATION_ENDED = "allocation_ended", "allocation ended"
    CANCELLED = "cancelled", "cancelled"
    CANCELLED_ELSEWHERE = "cancelled_elsewhere", "cancelled by someone else"
    TIMED_OUT = "timed_out", "timed out"
    OVER_BUDGET = "over_budget", "over budget"
    SERVICE_FAILED = "service_failed", "failed at the service"
    REJECTED = "rejected", "rejected at submit"
    QUEUE_FULL = "queue_full", "queue full"
    CAN_NEVER_RUN = "can_never_run", "can never run"
    DEPENDENCY_NEVER_MET = "dependency_never_met", "dependency never met"
    HELD = "held", "held"  # no end: it waits for a person
    OUTPUT_LOST = "output_lost", "output lost"
    NEVER_STARTED = "never_started", "never started"
    MEMBERS_FAILED = "members_failed", "members failed"  # of an array as a whole
    DUPLICATE = "duplicate", "second job of one attempt"
    LOST = "lost", "lost"

    def __new__(cls, code: str, words: str = "") -> Reason:
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.words = words
        return reason

    def __str__(self) -> str:
        return self.words

    def __format__(self, how: str) -> str:
        return format(self.words, how)

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """By its words too: earlier versions wrote them, and people do."""
        return next((each for each in cls if each.words == value), None)


#: The reason of a job that ended because somebody asked for it, by who that was.
_ASKED_FOR = {"timeout": Reason.TIMED_OUT, "budget": Reason.OVER_BUDGET}


def asked_for(by: str) -> Reason:
    """The reason of an end that was asked for by `user`, `timeout` or `budget`."""
    return _ASKED_FOR.get(by, Reason.CANCELLED)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a reason; `retryable`: the same job may well succeed if run again."""

    remedy: str
    retryable: bool = False


ADVICE: dict[Reason, Advice] = {
    Reason.SUCCEEDED: Advice("nothing to do"),
    Reason.PROGRAM_FAILED: Advice(
        "read the program's stderr; it is run again only when you start the flow again"
    ),
    Reason.SETUP_FAILED: Advice(
        "a module or set-up line of the HPC profile failed; try these lines in a shell on a node"
    ),
    Reason.FOLDER_NOT_WRITABLE: Advice(
        "often a disk or a quota is full, or the node does not see the work_dir; scheduler.err in"
        " the job folder says what it was. Correct it and start the flow again: the job is"
        " submitted again",
    ),
    Reason.EXECUTABLE_MISSING: Advice(
        "correct the path in the HPC profile's executables, or the modules that bring it"
    ),
    Reason.WALLTIME: Advice(
        "ask for a longer walltime in the execution profile, or give the program less to do", True
    ),
    Reason.OUT_OF_MEMORY: Advice(
        "ask for more memory_per_node, or spread the ranks over more nodes", True
    ),
    Reason.NODE_FAILURE: Advice("the machine failed, not the program: run it again", True),
    Reason.PREEMPTED: Advice("a job with precedence took the nodes: run it again", True),
    Reason.ALLOCATION_ENDED: Advice(
        "the held allocation that it was in ended before the job did: run it again, in another"
        " allocation or as a batch job of its own",
        True,
    ),
    Reason.CANCELLED: Advice(
        "its run, or `hpc-prefect jobs cancel`, cancelled it; start the flow again to run it"
    ),
    Reason.CANCELLED_ELSEWHERE: Advice(
        "someone cancelled it with the scheduler's own command; ask who and why"
    ),
    Reason.TIMED_OUT: Advice(
        "the call's timeout_seconds passed and the job was cancelled; allow more time"
    ),
    Reason.OVER_BUDGET: Advice(
        "it would cost more QPU seconds than max_qpu_seconds leaves; allow more, or ask for less"
    ),
    Reason.SERVICE_FAILED: Advice(
        "the service took the job and could not run it; read what it says. Running the same again"
        " buys another job"
    ),
    Reason.REJECTED: Advice("correct what the scheduler names; nothing was run"),
    Reason.QUEUE_FULL: Advice("wait for jobs of yours to end, then run it again", True),
    Reason.CAN_NEVER_RUN: Advice(
        "the scheduler says that it will never start a job like this, so the job was cancelled; ask"
        " for less, or for another queue"
    ),
    Reason.DEPENDENCY_NEVER_MET: Advice(
        "its scheduler options let it wait for another job, which did not end as they demand, so"
        " this job was cancelled; look at the other job, or change the dependency"
    ),
    Reason.HELD: Advice(
        "it waits for a person, and the flow with it: release it (scontrol release, qrls, pjrls),"
        " or cancel it"
    ),
    Reason.OUTPUT_LOST: Advice(
        "the job ended, but an expected output or its exit record is missing; check the program's"
        " output paths, the quota and the disk, then start the flow again"
    ),
    Reason.NEVER_STARTED: Advice(
        "the scheduler lost the job before its script began. Its folder is closed now: if the job"
        " turns up later, it does not start the program. The job is submitted again; after three"
        " such losses the call fails, then ask the site why its scheduler loses jobs",
        True,
    ),
    Reason.MEMBERS_FAILED: Advice(
        "some members of the array failed; read the reason of each. When you start the flow again,"
        " only these members are submitted again"
    ),
    Reason.DUPLICATE: Advice(
        "the scheduler had two jobs of the same attempt. The other one has the job folder (the link"
        " `guard` in it names that job); this one did not start the program"
    ),
    Reason.LOST: Advice(
        "nobody knows how the job ended; ask the site whether it ran. If it did not run, move its"
        " job folder away and start the flow again: the job is submitted again. If it ran, start"
        " the flow again once the job has ended: its exit record tells the result"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a job ended: the reason, in words too, with the code or signal if there was one.

    Attributes:
        summary: one sentence about this job.
        said: the scheduler's own words, kept as they were.
        exit_code: the program's exit code, None when it has none.
        signal: a name such as SIGKILL, empty when no signal ended it.
    """

    reason: Reason
    summary: str
    said: str = ""
    exit_code: int | None = None
    signal: str = ""

    @property
    def succeeded(self) -> bool:
        return self.reason is Reason.SUCCEEDED

    @property
    def remedy(self) -> str:
        return ADVICE[self.reason].remedy

    @property
    def retryable(self) -> bool:
        return ADVICE[self.reason].retryable


#: Of a job that the scheduler lost before its script began.
LOST_BEFORE_START = Verdict(
    reason=Reason.NEVER_STARTED,
    summary="neither queue nor history lists it, and its script never began",
)
