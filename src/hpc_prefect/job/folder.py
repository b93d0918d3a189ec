"""The job folder: names and formats of the ledger.

    <work_dir>/.hpc-prefect/<campaign>/<2 hex>/<key>-<attempt>/
        script.sh        what the scheduler was given: guard, records, signals
        program.sh       what that runs: profile, set-up, environment, program, tear-down
        phase            how far program.sh came; only script.sh reads it
        modules          $LOADEDMODULES when the program began; no file if nothing was loaded
        journal.jsonl    what happened, appended by the one claimant; its intent has the resolved
                         job (names of secrets, never their values) and where it comes from
        cancel           requests by other processes to end the job, a JSON line each. Only the
                         claimant writes the journal: NFS loses lines that two hosts append at once
        claim-<g>        who the claimant is; the highest g counts
        guard            the start guard: a symbolic link to the scheduler id that may run (to
                         `closed` once this attempt failed: no late or requeued job may start)
        start            one JSON line for every start of the script; `restart` is the scheduler's
                         own count of its restarts, if it has one
        exit             one JSON line for every end of the script
        duplicates       ids of further jobs of this attempt that the guard turned away
        stdout, stderr   of the program
        scheduler.out, scheduler.err   the scheduler's own output: evidence
        scheduler.stats  a job's statistics, from a scheduler that writes some (PJM): evidence
        secrets          0600, read and removed by the script
        record.json      the run record, written with the verdict

Plain files that a person can read, safe on Lustre, GPFS and NFS: no database, no lock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from hpc_prefect.job.outputs import Left, Stamp, read_left, read_stamp

T = TypeVar("T")

ROOT = ".hpc-prefect"
SCRIPT = "script.sh"
PROGRAM = "program.sh"
PHASE = "phase"
MODULES = "modules"
JOURNAL = "journal.jsonl"
CANCEL = "cancel"
CLAIM = "claim-"
GUARD = "guard"
START = "start"
EXIT = "exit"
DUPLICATES = "duplicates"
STDOUT = "stdout"
STDERR = "stderr"
SCHEDULER_OUT = "scheduler.out"
SCHEDULER_ERR = "scheduler.err"
SCHEDULER_STATISTICS = "scheduler.stats"
SECRETS = "secrets"
RECORD = "record.json"
#: The fact of a verdict that the scheduler has told the end of a second start alone.
SECOND_START = "second_start"


def roots(work_dir: str, uid: int) -> tuple[str, str]:
    """The root of a user's folders in a work_dir, and the one used if the first is another user's.

    The second ends with the uid, not the user's name: it is known, and the same on every host.
    """
    return f"{work_dir}/{ROOT}", f"{work_dir}/{ROOT}-{uid}"


def is_root(name: str) -> bool:
    """Whether a folder's name is one of `roots`."""
    stem, _, uid = name.rpartition("-")
    return name == ROOT or (stem == ROOT and uid.isascii() and uid.isdecimal())


def root_at(path: str) -> int | None:
    """The index of the last component of an absolute path that is a root; None if there is none.

    Index 0 is the empty component before the first slash. The last one counts, because a job's
    work_dir may be inside another root.
    """
    parts = path.split("/")
    return next((i for i in reversed(range(len(parts))) if is_root(parts[i])), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """One start of the script, written by itself.

    `token` names this start; `time` is seconds since 1970 on the node.
    """

    token: str
    id: str
    host: str = ""
    boot: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """One end of the script, written by itself; it counts only for the start of the same token.

    Attributes:
        phase: `setup`, `program`, `missing` (the executable was not there), or `untold` (its shell
            ended without telling the program's own code).
        signals: names of the signals that the script received, without SIG.
        oom: what the cgroup's OOM-kill counter grew by; 0 also when it could not be read.
        cpu_seconds: of the script's children on its own node.
        detail: for `missing`: the modules that were loaded.
    """

    token: str
    code: int
    phase: str = "program"
    signals: tuple[str, ...] = ()
    oom: int = 0
    cpu_seconds: float = 0.0
    time: float = 0.0
    detail: str = ""

    @property
    def clean(self) -> bool:
        """The program ran to its end, ended 0, and nobody sent the job a signal."""
        return self.code == 0 and self.phase == "program" and not self.signals and not self.oom


#: Errors of reading a foreign record: a field is missing, or is not a finite number.
_FOREIGN = (KeyError, TypeError, ValueError, OverflowError)


def read_starts(data: bytes | None) -> tuple[StartRecord, ...]:
    """The start records in a file's bytes; what is torn or foreign is left out."""
    found = []
    for entry in read_entries(data):
        try:
            found.append(
                StartRecord(
                    token=str(entry["token"]),
                    id=str(entry["id"]),
                    host=str(entry.get("host", "")),
                    boot=str(entry.get("boot", "")),
                    time=float(entry.get("time", 0)),
                )
            )
        except _FOREIGN:
            continue
    return tuple(found)


def word_digest(word: object) -> str:
    """The sha256 of the secret word of a job's script. The journal holds only this."""
    return sha256(str(word).encode(errors="replace")).hexdigest()


def read_exits(data: bytes | None, words: Container[str]) -> tuple[ExitRecord, ...]:
    """The exit records in a file's bytes; what is torn or foreign is left out.

    Args:
        words: digests of the secret words of this attempt's scripts. A record without such a word
            was not written by a script, but by the program or a process of it.
    """
    found = []
    for entry in read_entries(data):
        if word_digest(entry.get("word")) not in words:
            continue
        try:
            found.append(
                ExitRecord(
                    token=str(entry["token"]),
                    code=int(entry["code"]),
                    phase=str(entry.get("phase", "program")),
                    signals=tuple(str(entry.get("signals", "")).split()),
                    oom=int(entry.get("oom", 0)),
                    cpu_seconds=int(entry.get("cpu", 0)) / 100,
                    time=float(entry.get("time", 0)),
                    detail=str(entry.get("detail", "")),
                )
            )
        except _FOREIGN:
            continue
    return tuple(found)


def read_entries(data: bytes | None) -> Iterator[dict[str, Any]]:
    """The JSON objects in terminated lines: a last line without its end is still being written."""
    for line in (data or b"").split(b"\n")[:-1]:
        if not line:
            continue  # as before most lines: the one before may be torn
        try:
            entry = json.loads(line.decode())  # bytes would be searched for their encoding
        except (ValueError, RecursionError):  # no JSON, or ten thousand brackets
            continue
        if isinstance(entry, dict):
            yield entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a journal says, read from its first line to its last.

    Attributes:
        intended: a submission was about to be made, and was not refused for sure; without `job_id`
            its outcome is unknown.
        intent: the newest one of the newest claim, as JSON values; empty when there is none.
        posting: a submission was begun whose outcome the other side cannot be asked for.
        job_id: the scheduler's id, once known.
        submitted_at: seconds since 1970 when the id became known.
        duplicates: QPU seconds of further jobs with its tag, by job id; None where not known.
        words: digests of the secret words of all submitted scripts; see `read_exits`.
        outputs_before: what was at the path of each expected output before the submission.
        cancel: who asked for the job's end (`user`, `timeout`), empty when nobody did.
        cancel_offset: size in bytes of the file `cancel` at the newest intent. The requests in
            these bytes are older, and not meant for it.
        result: the whole result as JSON values, once there is a verdict.
        facts: further values from the verdict; JSON values.
        outputs: the files that it left in each expected output, as at the verdict.
        states: each state that was observed, with its time.
    """

    intended: bool = False
    intent: dict[str, Any] = field(default_factory=dict)
    posting: bool = False
    job_id: str = ""
    submitted_at: float = 0.0
    duplicates: dict[str, float | None] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    outputs_before: dict[str, Stamp | None] = field(default_factory=dict)
    cancel: str = ""
    cancel_offset: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Left]] = field(default_factory=dict)
    states: tuple[tuple[float, str], ...] = ()

    @property
    def job(self) -> dict[str, Any]:
        """What the newest intent asks for, as JSON values."""
        return _dict(self.intent.get("job"))

    @property
    def resources(self) -> dict[str, Any]:
        """Its nodes, ranks, memory and so on, as JSON values."""
        return _dict(self.job.get("resources"))

    @property
    def site(self) -> dict[str, Any]:
        """Where it was submitted, as JSON values."""
        return _dict(self.job.get("site"))

    @property
    def array(self) -> dict[str, Any]:
        """The size of the array, as JSON values; empty for a single job."""
        return _dict(self.job.get("array"))

    @property
    def members(self) -> int:
        """The number of members in the newest intent; 0 for a single job."""
        return _int(self.intent.get("members"))


def read_journal(data: bytes | None) -> Ledger:
    """Read a journal. It never raises: a torn last line and foreign lines are skipped."""
    doubts, job_id, submitted_at, cancel, posting = 0, "", 0.0, "", False
    intent: dict[str, Any] = {}
    claim = 0  # the intent's
    duplicates: dict[str, float | None] = {}
    words: set[str] = set()
    result: dict[str, Any] = {}
    facts: Any = {}
    outputs: Any = {}
    before: Any = {}
    states: list[tuple[float, str]] = []
    for entry in read_entries(data):
        event = entry.get("event")
        if event == "intent" and doubts == 0:
            # While an earlier submission is in doubt, its job may have written outputs already.
            before = entry.get("outputs_before")
        if event == "intent":
            doubts += 1
            words.add(str(entry.get("word_sha256")))
            # One of an earlier claim is of a process that was stopped, and goes on after another
            # one has taken over: it submits nothing, and its tag must not hide the other's.
            if (of := _int(entry.get("claim"))) >= claim:
                # A new intent outdates earlier requests to cancel.
                intent, claim, cancel = entry, of, ""
        elif event == "refused":
            doubts, posting = doubts - 1, posting and doubts > 1
        elif event == "posting":
            posting = True
        elif event == "duplicate":
            cost = entry.get("qpu_seconds")
            duplicates[str(entry.get("id"))] = None if cost is None else _number(cost)
        elif event == "submitted" and isinstance(entry.get("id"), str):
            job_id, submitted_at = entry["id"], _number(entry.get("time"))
        elif event == "cancel":
            cancel = str(entry.get("by", "user"))
        elif event == "observed":
            states.append((_number(entry.get("time")), str(entry.get("state", ""))))
        elif event == "verdict" and result.get("state", "lost") == "lost":  # noqa: SIM102
            # The first verdict stands; only "lost" can be replaced.
            if isinstance(entry.get("result"), dict):
                result, outputs = entry["result"], entry.get("outputs")
                facts = entry.get("facts")
    return Ledger(
        intended=doubts > 0,
        intent=intent,
        posting=posting,
        job_id=job_id,
        submitted_at=submitted_at,
        duplicates=duplicates,
        words=frozenset(words),
        outputs_before=_each(before, read_stamp),
        cancel=cancel,
        cancel_offset=_int(intent.get("cancel_offset")),
        result=result,
        facts=_dict(facts),
        outputs=_each(outputs, read_left),
        states=tuple(states),
    )


def _each(value: object, read: Callable[[object], T]) -> dict[str, T]:
    return {name: read(each) for name, each in value.items()} if isinstance(value, dict) else {}


def read_cancel_request(data: bytes | None, member: int | None = None) -> str:
    """Who asked for the job's end, by the bytes of its file `cancel`; empty when nobody did.

    Args:
        member: the number of an array's member; requests for its end alone count too.
    """
    requests = [
        entry
        for entry in read_entries(data)
        if entry.get("event") == "cancel" and entry.get("member") in (None, member)
    ]
    return str(requests[0].get("by", "user")) if requests else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0


# One encoder for all: `json.dumps` would make a new one for each line.
_encode_line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def journal_line(time: float, event: str, **facts: Any) -> bytes:
    """One journal entry, terminated. Always UTF-8: a line that is not could not be read back."""
    entry = {"time": round(time, 3), "event": event, **facts}
    try:
        text = _encode_line(entry).encode()
    except UnicodeEncodeError:  # a path of bytes that are no text
        text = json.dumps(entry, separators=(",", ":"), default=str).encode()
    return text + b"\n"


_encode = json.JSONEncoder(default=str).encode


def record_text(record: dict[str, Any]) -> bytes:
    """The run record as JSON, a line for each of its parts.

    `indent` would be easier to read, but makes Python encode without its C code.
    """
    parts = (f"{_encode(key)}: {_encode(value)}" for key, value in record.items())
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()
