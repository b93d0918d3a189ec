"""What is seen of a job, and the one function that judges it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hpc_prefect.job.failure import Reason, Verdict, asked_for
from hpc_prefect.job.folder import ExitRecord, StartRecord
from hpc_prefect.job.script import FOLDER_CODE, GUARD_CODE, RECORD_CODE


class JobState(enum.StrEnum):
    """Where a job is, in one word for every scheduler."""

    QUEUED = "queued"
    HELD = "held"  # waits for a person
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDING = "ending"  # the program is done, the scheduler is not
    ENDED = "ended"
    UNKNOWN = "unknown"  # listed with a word that the dialect does not know: never an end


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One line of a scheduler's answer about one job, in our words beside its own.

    Attributes:
        word: the scheduler's own state, as printed.
        cause: what the scheduler's word says about the end, or about why it can never run; None
            when it says nothing (a plain end with an exit code has SUCCEEDED or PROGRAM_FAILED).
        tag: the job's name as listed; empty when the answer does not hold it.
        message: the scheduler's own comment or reason.
        queued_at, started_at, ended_at: seconds since 1970, 0 when not told.
        final: False while the scheduler may still tell more about how it ended.
        used: resources used, such as `max_rss` (bytes) and `cpu_seconds`.
        left: for an array as a whole: the elements that still wait or run, as pairs of numbers
            (first, last). Some schedulers list only those that wait.
    """

    id: str
    state: JobState
    word: str = ""
    cause: Reason | None = None
    tag: str = ""
    exit_code: int | None = None
    signal: str = ""
    message: str = ""
    host: str = ""
    queued_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    final: bool = True
    used: dict[str, float] = field(default_factory=dict)
    left: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How many seconds to wait before something is concluded from missing information.

    Attributes:
        absent: useful answers no longer list the job, and its exit record is there; then that alone
            decides.
        lost: the same without an exit record; then the job is LOST.
        record: the scheduler says that the job ended; then its exit record is given up.
        outputs: the exit record tells of a success; then missing outputs are given up. They were
            looked for before the job, and NFS may remember for a minute (`acdirmax`) that such a
            name is not there.
        more: the job ended, but the scheduler may still tell more about it.
        silent: the scheduler gives no useful answer, or lists the job as running although its exit
            record is there; then the exit record alone decides.
        find: how long the tag is looked for after an unclear submission.
        confirm: after our own cancellation; then the caller is told that it is not confirmed.
        confirm_earlier: the same after a cancellation by an earlier run, before anything more is
            submitted. At least `confirm` + `lost`: a job that is listed nowhere is LOST by then;
            else it would block every later run.
    """

    absent: float = 60.0
    lost: float = 300.0
    record: float = 60.0
    outputs: float = 65.0
    more: float = 10.0
    silent: float = 600.0
    find: float = 60.0
    confirm: float = 20.0
    confirm_earlier: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about one job at one moment. Ages are in seconds, None for never.

    Attributes:
        observation: the newest line about this job in a useful answer.
        absent_for: since the first useful answer that did not list it; 0.0 while they do.
        silent_for: since the last useful answer.
        ended_for: since it was first seen as ended by the scheduler.
        untold_for: since useful answers list it with a state whose meaning is not known.
        record_for: since its exit record was first seen.
        spoiled: what is at the path of a record that cannot be read; empty if all can be read.
        missing_outputs: expected outputs that were not written, each with what is seen instead.
        executable: the program's path, for messages.
        nodes: how many it runs on; 0 when that is not known.
        may_requeue: its scheduler may start it again by itself.
        cancel: who asked for its end by this package: "", "user", "timeout" or "budget".
        word_is_all: no script of ours runs in it, so only the other side can tell how it ended.
        told, told_words: what the scheduler wrote into the job's own output about its end.
    """

    job_id: str
    walltime: int
    observation: Observation | None = None
    absent_for: float = 0.0
    silent_for: float = 0.0
    ended_for: float | None = None
    untold_for: float | None = None
    record_for: float | None = None
    starts: tuple[StartRecord, ...] = ()
    exits: tuple[ExitRecord, ...] = ()
    spoiled: str = ""
    missing_outputs: tuple[str, ...] = ()
    executable: str = ""
    nodes: int = 0
    may_requeue: bool = False
    cancel: str = ""
    told: Reason | None = None
    told_words: str = ""
    word_is_all: bool = False

    @property
    def start(self) -> StartRecord | None:
        """The newest start of this job."""
        for start in reversed(self.starts):
            if start.id == self.job_id:
                return start
        return None

    @property
    def exit(self) -> ExitRecord | None:
        """The exit record, if it belongs to the newest start; an older one is of an earlier run."""
        if not self.exits or (start := self.start) is None:
            return None
        for record in reversed(self.exits):
            if record.token == start.token:
                return record
        return None


#: Seconds; more than the clocks of a node and of its scheduler differ.
_WELL_BEFORE = 30.0


def decide(evidence: Evidence, patience: Patience) -> Verdict | None:
    """The one judge: how the job ended, or None while that is not known.

    The scheduler decides the reason, the exit record the code. A clean exit record with all outputs
    is a success at once, unless the scheduler may requeue the job: it can do so until it says
    itself that the job has ended. Any other record waits for the scheduler, because a trap can exit
    0 after a kill. When the scheduler is silent, the record decides; without a record the job is
    LOST after a while, and a person decides. A question that failed never leads to a verdict.
    """
    seen = evidence.observation
    if _clean(evidence) and not evidence.may_requeue:
        return _success(evidence)
    if seen is not None and seen.state is JobState.ENDED:
        return _by_scheduler(evidence, seen, patience)
    if seen is not None and seen.cause in (Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET):
        return _verdict(evidence, seen.cause, f"the scheduler says: {seen.message or seen.word}")
    if evidence.exit is not None and _record_alone_counts(evidence, patience):
        return _by_record(evidence, evidence.exit, patience)
    if _gone(evidence, patience.absent) and (told := _by_output(evidence)):
        return told
    if evidence.exit is None and _gone(evidence, patience.lost):
        return _verdict(
            evidence,
            Reason.LOST,
            "neither queue nor history lists it, and its script left no exit record"
            + _spoiled(evidence),
        )
    if evidence.exit is None and seen is not None and _untold(evidence, patience.silent):
        return _verdict(
            evidence,
            Reason.LOST,
            f"the scheduler lists it as {seen.word!r}, a state that hpc-prefect does not know, and"
            " its script left no exit record",
        )
    return None


def may_have_begun(verdict: Verdict, evidence: Evidence) -> bool:
    """Whether a job that was judged as ended with its allocation may have begun since, and run,
    because its start had not been seen."""
    seen = evidence.observation
    return verdict.reason is Reason.ALLOCATION_ENDED and not (seen and seen.started_at)


def is_of_a_refused_start(seen: Observation) -> bool:
    """Whether an end is that of a start which its script refused, so that no program ran in it.

    If the job has begun, that was a second start: its first one may still run.
    """
    return seen.state is JobState.ENDED and seen.exit_code in (GUARD_CODE, FOLDER_CODE)


def tells_second_start(evidence: Evidence) -> bool:
    """Whether the job has begun, and its scheduler has told the end of a second start alone."""
    seen, record = evidence.observation, evidence.exit
    if seen is None or evidence.start is None or not is_of_a_refused_start(seen):
        return False
    return record is None or record.code != seen.exit_code


def _clean(evidence: Evidence) -> bool:
    record, start = evidence.exit, evidence.start
    if record is None or start is None or evidence.cancel or evidence.missing_outputs:
        return False
    return record.clean and record.time - start.time <= evidence.walltime


def _record_alone_counts(evidence: Evidence, patience: Patience) -> bool:
    """The exit record is there, and the scheduler no longer knows the job or does not answer."""
    record_for, seen = evidence.record_for or 0.0, evidence.observation
    # Where the job was not listed before it began, what its script had started may still run.
    if _gone(evidence, patience.absent) and record_for >= patience.absent:
        return True
    # If it is listed as waiting well after the record, it was requeued and will run again.
    requeued = (
        seen is not None
        and seen.state in (JobState.QUEUED, JobState.HELD)
        and record_for - evidence.silent_for >= patience.record
    )
    return record_for >= patience.silent and not requeued


def _gone(evidence: Evidence, patience: float) -> bool:
    """Useful answers have not listed it for so long; silence since then does not count."""
    return evidence.absent_for - evidence.silent_for >= patience


def _untold(evidence: Evidence, patience: float) -> bool:
    """Useful answers have listed it with an unknown state for so long."""
    return (evidence.untold_for or 0.0) - evidence.silent_for >= patience


def _success(evidence: Evidence) -> Verdict:
    return Verdict(reason=Reason.SUCCEEDED, summary="the program ended with 0", exit_code=0)


def _by_scheduler(evidence: Evidence, seen: Observation, patience: Patience) -> Verdict | None:
    record = evidence.exit
    if seen.cause in (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE):
        return _cancelled(evidence, seen.message or f"the scheduler says {seen.word}")
    if (
        record is not None
        and seen.cause is Reason.NODE_FAILURE
        and _node_outlived(evidence, record, seen)
    ):
        return _by_record(evidence, record, patience)
    if record is not None and record.clean and seen.cause is Reason.ALLOCATION_ENDED:
        # It had succeeded before. If its outputs do not appear, they may have been lost with it.
        verdict = _by_record(evidence, record, patience)
        if verdict is None or verdict.succeeded:
            return verdict
    if evidence.word_is_all and seen.cause is Reason.SUCCEEDED:
        return Verdict(reason=Reason.SUCCEEDED, summary=f"the service says {seen.word}")
    if seen.cause not in (None, Reason.SUCCEEDED, Reason.PROGRAM_FAILED):
        return _verdict(evidence, seen.cause, seen.message or f"the scheduler says {seen.word}")
    if told := _by_output(evidence):
        return told
    waited = evidence.ended_for or 0.0
    if not seen.final and waited < patience.more:
        return None
    if seen.exit_code == GUARD_CODE and evidence.start is not None:
        if record is None and waited < patience.lost:
            return None
        if record is None or record.code != GUARD_CODE:
            return _started_twice(evidence, record, patience)
    if seen.exit_code == FOLDER_CODE and record is not None and record.code != FOLDER_CODE:
        return _started_twice(evidence, record, patience)  # it could not read its start guard
    if _blind_start(evidence, seen):
        return None if waited < patience.lost else _started_twice(evidence, record, patience)
    killed = seen.signal == "SIGKILL" and evidence.start is not None
    if record is None and waited < patience.record and not killed:
        return None  # the record may still be on its way; one that was killed wrote none
    if record is not None and not _ended_well(record):
        return _by_record(evidence, record, patience)
    if evidence.start is None and not evidence.spoiled:
        return _verdict(evidence, Reason.SETUP_FAILED, _never_began(seen))
    if record is None and seen.exit_code == RECORD_CODE:
        what = f"its exit record could not be written{_spoiled(evidence)}"
        return _verdict(evidence, Reason.OUTPUT_LOST, what)
    if seen.exit_code or seen.signal or seen.cause is Reason.PROGRAM_FAILED:
        code = f"exit code {seen.exit_code}" if seen.exit_code else seen.word
        what = f"signal {seen.signal}" if seen.signal else code
        return _verdict(evidence, Reason.PROGRAM_FAILED, f"the scheduler reports {what}")
    if record is None:
        what = "the scheduler says that it ended, but its script left no exit record"
        what += _spoiled(evidence)
        return _verdict(evidence, Reason.OUTPUT_LOST, what)
    return _by_record(evidence, record, patience)


def _blind_start(evidence: Evidence, seen: Observation) -> bool:
    """Whether the end is that of a second start which could not use the folder, so that the first
    start, which has no exit record, may run."""
    began = evidence.start is not None and evidence.exit is None
    return began and seen.exit_code == FOLDER_CODE


def _spoiled(evidence: Evidence) -> str:
    return f": {evidence.spoiled}" if evidence.spoiled else ""


def _started_twice(
    evidence: Evidence, record: ExitRecord | None, patience: Patience
) -> Verdict | None:
    """The verdict when the scheduler reports the end of a start that the script refused.

    The first start may still run on its own node (seen for minutes, until Slurm noticed and ended
    it). So its outputs are waited for from its own record on, not from the scheduler's end.
    """
    if record is None:
        return _verdict(evidence, Reason.LOST, _AGAIN if evidence.may_requeue else _FORGOTTEN)
    if record.signals:
        return _verdict(evidence, Reason.NODE_FAILURE, _FORGOTTEN_AND_ENDED)
    return _by_record(evidence, record, patience)


def _node_outlived(evidence: Evidence, record: ExitRecord, seen: Observation) -> bool:
    """Whether the node was still there when the program had ended by itself.

    A Slurm controller that is killed right after a job's end forgets this end. Minutes later it
    misses the job on its node and reports NODE_FAIL, with that later time. (With several nodes,
    another node may really have failed.)

    A record without a signal proves no end of the program's own. Whoever clears a node signals one
    process after another, and the script is often the last: the program may have died, and its end
    be on record, before the script got its signal (on a busy node in 8 of 48 jobs of Slurm). So a
    failure must be on record well before the node's. In doubt the scheduler is right: a program's
    own failure is run once more at most, but a node's that is taken for it never is.
    """
    if evidence.nodes != 1 or record.signals:
        return False
    told = _ended_well(record) or bool(record.oom)  # neither is what such a signal leaves
    return told or seen.ended_at - record.time >= _WELL_BEFORE


def _cancelled(evidence: Evidence, said: str) -> Verdict:
    if evidence.cancel:
        return _verdict(evidence, asked_for(evidence.cancel), said)
    return _verdict(evidence, Reason.CANCELLED_ELSEWHERE, said)


def _by_output(evidence: Evidence) -> Verdict | None:
    """What the scheduler wrote into the job's output, about a program that did not end well."""
    record = evidence.exit
    if evidence.told is None or (
        record is not None and (record.phase != "program" or _ended_well(record))
    ):
        return None
    if evidence.told in (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE):
        return _cancelled(evidence, evidence.told_words)
    return _verdict(evidence, evidence.told, evidence.told_words)


def _ended_well(record: ExitRecord) -> bool:
    return record.code == 0 and record.phase == "program"


def _by_record(evidence: Evidence, record: ExitRecord, patience: Patience) -> Verdict | None:
    """The verdict by the script's own record, when the scheduler has nothing to add; None while a
    missing output may still appear."""
    if record.phase == "missing":
        loaded = record.detail.replace(":", ", ") or "none"
        return _verdict(
            evidence,
            Reason.EXECUTABLE_MISSING,
            f"{evidence.executable} is not there after set-up; modules loaded: {loaded}",
        )
    if record.phase in _NOT_RUN:
        summary = _NOT_RUN[record.phase].format(_exit_words(record))
        return _verdict(evidence, Reason.SETUP_FAILED, summary)
    if record.code == 0 and evidence.missing_outputs:
        if (evidence.record_for or 0.0) < patience.outputs:
            return None
        files = ", ".join(evidence.missing_outputs)
        return _verdict(
            evidence, Reason.OUTPUT_LOST, f"the program ended with 0 but did not write {files}"
        )
    if told := _by_output(evidence):
        return told
    if record.oom and record.code:
        return _verdict(evidence, Reason.OUT_OF_MEMORY, "the kernel killed a process of the job")
    if record.code:
        return _verdict(evidence, Reason.PROGRAM_FAILED, _exit_words(record))
    return _success(evidence)


#: By phase: why the program did not run, or may not have run to its end.
_NOT_RUN = {
    "setup": "a login profile, a module or a set-up line {} before the program began",
    "untold": "the job's script program.sh {} before it noted how the program ended; look for"
    " `exec`, `exit` and `trap` in the HPC profile's launcher and set-up lines",
}


def _never_began(seen: Observation) -> str:
    code = f"exit code {seen.exit_code}" if seen.exit_code is not None else seen.word
    return (
        f"the scheduler reports {f'signal {seen.signal}' if seen.signal else code}, and the job's"
        " script never began: look for a login profile that exits or starts another shell, a failed"
        " prologue of the site, or a node without /bin/bash"
    )


def _exit_words(record: ExitRecord) -> str:
    name = signal_of(record.code)
    by = f" after it received SIG{record.signals[-1]}" if record.signals else ""
    return f"ended by {name}{by}" if name else f"ended with exit code {record.code}{by}"


_FORGOTTEN_AND_ENDED = (
    "the scheduler forgot that the job was running, and ended it when it found it on its node"
)
_FORGOTTEN = (
    "the scheduler forgot that the job was running and started it a second time. The second start"
    " did not run the program; whether the first one still runs, the scheduler does not know"
)
_AGAIN = (
    "the scheduler started the job a second time. The second start did not run the program; whether"
    " the first one still runs is not known"
)
_SECOND_JOB = (
    "its script found that another job of the same attempt has the job folder, and did not start"
    " the program"
)
_NO_FOLDER = "its script could not use the job folder on the node, and did not start the program"


def _verdict(evidence: Evidence, reason: Reason, summary: str) -> Verdict:
    record, seen = evidence.exit, evidence.observation
    code = record.code if record else (seen.exit_code if seen else None)
    name = signal_of(code) or (seen.signal if seen and not record else "")
    said = f"{seen.word} {seen.message}".strip() if seen else ""
    if code == GUARD_CODE and not evidence.start:
        reason, summary = Reason.DUPLICATE, _SECOND_JOB
    if code == FOLDER_CODE and not evidence.start:
        reason, summary = Reason.FOLDER_NOT_WRITABLE, _NO_FOLDER
    return Verdict(reason=reason, summary=summary, said=said, exit_code=code, signal=name)


_SIGNALS = {
    1: "HUP",
    2: "INT",
    3: "QUIT",
    4: "ILL",
    6: "ABRT",
    7: "BUS",
    8: "FPE",
    9: "KILL",
    10: "USR1",
    11: "SEGV",
    12: "USR2",
    13: "PIPE",
    14: "ALRM",
    15: "TERM",
    24: "XCPU",
    25: "XFSZ",
}


def signal_name(number: int) -> str:
    """Such as SIGKILL for 9, with Linux's numbers; empty for what is no common signal."""
    return f"SIG{_SIGNALS[number]}" if number in _SIGNALS else ""


def signal_of(code: int | None) -> str:
    """The signal that a shell reports as 128 + n; empty for a plain exit code."""
    return signal_name(code - 128) if code else ""
