"""What `qstat` prints, in three dialects: JSON, full text records, and a site's own table.

Any other text raises ValueError. A state that is not in the tables below never counts as an end.
Seen on OpenPBS 23.06; what was only read in its source, or is known of Torque or of a site by
hearsay, is marked "assumed".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation, signal_name

#: One job's attributes as text; a group's have names with a dot, such as `resources_used.mem`.
Record = dict[str, str]
T = TypeVar("T")

#: The letters of states in `job.h`, without `MOVED`.
_STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,  # for its start time
    "T": JobState.QUEUED,  # between two queues
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,
    "S": JobState.SUSPENDED,
    "U": JobState.SUSPENDED,  # by a busy workstation; assumed
    "E": JobState.ENDING,
    "F": JobState.ENDED,
    "X": JobState.ENDED,
    "C": JobState.ENDED,  # Torque's word; assumed
}

#: The server has moved the job to another server and tells no more of it: it counts as not listed.
MOVED = "M"

#: Substates of a job that ended, and of one that is held (`job.h`).
_TERMINATED, _FINISHED, _FAILED = "91", "92", "93"
_WAITS_FOR_JOBS = ("21", "22")

#: Exit_status below 0: PBS itself ended the job or could not start it (`job.h`). -29 and -27 were
#: seen, the others are assumed. A code that is not here is a failure of the program.
_BY_PBS: dict[int, tuple[Reason, str]] = {
    -1: (Reason.SETUP_FAILED, "PBS could not start the job"),
    -2: (Reason.SETUP_FAILED, "PBS could not start the job after its files were there"),
    -10: (Reason.SETUP_FAILED, "the user or group is not valid on the node"),
    -13: (Reason.SETUP_FAILED, "a bad password on the node"),
    -17: (Reason.SETUP_FAILED, "a hook of the site refused the job on the node"),
    -21: (Reason.SETUP_FAILED, "PBS found a folder of its own unsafe on the node"),
    -22: (Reason.SETUP_FAILED, "a hook of the site failed on the node"),
    -23: (Reason.SETUP_FAILED, "no Kerberos credentials on the node"),
    -19: (Reason.CANCELLED_ELSEWHERE, "a hook of the site deleted the job"),
    # After these PBS runs the job again; as an end they mean that it did not.
    **dict.fromkeys(
        (-3, -4, -5, -6, -7, -11, -12, -14, -15, -16, -18, -20, -30),
        (Reason.NODE_FAILURE, "the node lost the job, and PBS did not run it again"),
    ),
    -24: (Reason.PROGRAM_FAILED, "it used more cores than it asked for (burst)"),
    -25: (Reason.PROGRAM_FAILED, "it used more cores than it asked for"),
    -26: (Reason.OUT_OF_MEMORY, "it exceeded its vmem"),
    -27: (Reason.OUT_OF_MEMORY, "it exceeded its mem"),
    -28: (Reason.PROGRAM_FAILED, "it exceeded its cput, the limit of CPU time"),
    -29: (Reason.WALLTIME, "it exceeded its walltime"),
}
#: Torque, which writes `exit_status`, counts differently from -10 on; assumed.
_BY_TORQUE = _BY_PBS | {
    -10: (Reason.OUT_OF_MEMORY, "it exceeded its memory"),
    -11: (Reason.WALLTIME, "it exceeded its walltime"),
    -12: (Reason.PROGRAM_FAILED, "it exceeded its cput, the limit of CPU time"),
}
#: The ends whose exit code is the program's. After PBS's own signals it is what they left: 0, 143
#: and 271 were seen after qdel.
_WITH_CODE = (Reason.SUCCEEDED, Reason.PROGRAM_FAILED)
#: The end of a comment: tells the reason where a site hides the exit codes.
_EXCEEDED = {
    "walltime": Reason.WALLTIME,
    "mem": Reason.OUT_OF_MEMORY,
    "vmem": Reason.OUT_OF_MEMORY,
}

#: The words of a site's own table; assumed from its guide. FINISH is no success: jobs that were
#: deleted before their start show it too.
_TABLE_STATES = {
    "QUEUED": JobState.QUEUED,
    "TRANSITING": JobState.QUEUED,
    "HELD": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "EXITING": JobState.ENDING,
    "FINISH": JobState.ENDED,
    "EXPIRED": JobState.ENDED,
}
_TABLE_EMPTY = re.compile(r"^No (unfinished|finished|matching) job found\.\s*$", re.MULTILINE)

#: The line below the heads of a table of `qstat`.
_DASHES = re.compile(r"-+( +-+)+ *")

#: A line of a record. The names are words, those of resources with a dot.
_ATTRIBUTE = re.compile(r" {4}([A-Za-z][\w.-]*) = (.*)", re.ASCII)
#: Where PBS's own variables stand; the arguments of `qsub` may name them.
_ENVIRONMENT = ("Variable_List", "Submit_arguments", "submit_args")
_LETTER = re.compile(r"[A-Z]")
#: The value of a name that occurs twice: it cannot be told which one is PBS's.
_TWICE = object()

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"[A-Z][a-z]{2} +([A-Z][a-z]{2}) +(\d+) (\d+):(\d+):(\d+) (\d{4})", re.ASCII)
_SIZE = re.compile(r"(\d{1,18})([kmgtp]?)b", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,9}):(\d{1,2}):(\d{1,2})", re.ASCII)


# --- the three dialects


def read_json(text: str) -> dict[str, Record]:
    """The jobs in an answer of `qstat -f -F json`.

    Raises:
        ValueError: it cannot be parsed: for some environments PBS prints invalid JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    jobs = document.get("Jobs", {}) if isinstance(document, dict) else None
    if not isinstance(jobs, dict) or "pbs_server" not in document:
        raise ValueError("it is not what qstat -F json prints")
    return {job_id: _flat(attributes) for job_id, attributes in jobs.items()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the value of a name that occurs twice is `_TWICE`."""
    found = dict(pairs)
    twice = len(found) < len(pairs)
    return found | dict.fromkeys((name for name, _ in pairs), _TWICE) if twice else found


def _flat(attributes: Any) -> Record:
    if not isinstance(attributes, dict):
        raise ValueError("a job in it is not a JSON object")
    flat: Record = {}
    for name, value in attributes.items():
        if value is _TWICE:
            raise ValueError(f"a job in it has {name} twice")
        if isinstance(value, dict):
            flat |= {f"{name}.{part}": str(inner) for part, inner in value.items()}
        else:
            flat[name] = str(value)  # PBS writes some texts as numbers, and some numbers as text
    return flat


def read_text(text: str) -> dict[str, Record]:
    """The jobs in an answer of `qstat -f`: `Job Id:` and attributes, long lines wrapped.

    A variable's value may hold newlines, and text that looks like attributes or jobs. A record that
    may hold such text is returned empty: it tells only that the job exists.

    Raises:
        ValueError: it holds text but no record, or was cut off: without its last lines a record
            would tell of an end without an exit status.
    """
    blocks = re.split(r"^Job Id: ", text, flags=re.MULTILINE)[1:]
    if text.strip() and not blocks:
        raise ValueError("it has no line `Job Id:`")
    if blocks and not text.endswith("\n"):
        raise ValueError("it is cut off")
    found: dict[str, Record] = {}
    for block in blocks:
        head, _, rest = block.partition("\n")
        job_id = head.strip()
        record = {} if job_id in found else _record(rest)
        if not block.endswith("\n\n") and not {"Exit_status", "exit_status"} & record.keys():
            record = {}  # the exit status may have been cut off
        found[job_id] = record
    return found


def _record(text: str) -> Record:
    """A block's attributes; none when a user's text may be among them.

    PBS writes the environment with its own PBS_O_QUEUE and PBS_O_HOST after the user's variables.
    So after a value with newlines these stand in what looks like another attribute, or in a line
    that is no attribute; and an attribute that a value imitates occurs twice.
    """
    record: Record = {}
    name = ""
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("\t") and name:
            record[name] += line[1:]
            continue
        match = _ATTRIBUTE.fullmatch(line)
        if match is None or match[1] in record:
            return {}
        name = match[1]
        record[name] = match[2]  # not stripped: a long value may be wrapped at a blank
    mixed = any("PBS_O_" in value for name, value in record.items() if name not in _ENVIRONMENT)
    return {} if mixed else record


def read_letters(text: str) -> dict[str, str]:
    """The letters of the jobs' states in the table of `qstat ID...`. Its ids may be cut.

    Raises:
        ValueError: it is no such table, or a job is in it twice.
    """
    found: dict[str, str] = {}
    place = 0
    for line in text.split("\n"):
        if _DASHES.fullmatch(line):
            place = line.find(" - ") + 1
        elif place and line.strip():
            job_id, letter = line.split()[0].rstrip("*"), line[place - 1 : place + 2].strip()
            if not job_id[0].isdecimal() or not _LETTER.fullmatch(letter) or job_id in found:
                raise ValueError("a line of it shows no job, or one that was there before")
            found[job_id] = letter
    if text.strip() and not place:
        raise ValueError("it is not a table of jobs")
    return found


def read_names(text: str, *, width: int) -> set[str] | None:
    """The jobs' names in an answer of `qstat -w -u USER`; None if they cannot be read.

    Args:
        width: the length of the longest name that must be shown whole.
    """
    if not text.strip():
        return set()
    names: set[str] = set()
    column: slice | None = None
    head = ""
    for line in text.split("\n"):
        if _DASHES.fullmatch(line):
            start, end = _column(head, line)
            if end - start < width:
                return None
            column = slice(start, end)
        elif column and line.strip():
            if not line[0].isdecimal():
                return None
            names.add(line[column].strip())
        head = line
    return names if column and text.endswith("\n") else None


def _column(head: str, dashes: str) -> tuple[int, int]:
    """Start and end of the column of names, by the dashes below its head; (0, 0) if not found."""
    spans = [match.span() for match in re.finditer("-+", dashes)]
    return next((span for span in spans if head[slice(*span)].strip() == "Jobname"), (0, 0))


@dataclass(frozen=True, slots=True)
class Row:
    """A job in a site's own table; `name` may be cut."""

    id: str
    name: str
    word: str


def read_table(text: str) -> list[Row]:
    """The jobs in a site's own table, which has columns JOB_ID, JOB_NAME and STATUS.

    Raises:
        ValueError: it is neither such a table nor the sentence that there is no job.
    """
    rows: list[Row] = []
    columns: list[str] = []
    for line in text.split("\n"):
        words = line.split()
        if words[:1] == ["JOB_ID"]:
            columns = words
            if not {"JOB_NAME", "STATUS"} <= set(columns):
                break
        elif columns and words and re.match(r"\d", words[0]):
            # Cells may hold blanks, but only to the right of these columns (a date and a time).
            row = dict(zip(columns, words, strict=False))
            if row["JOB_ID"] in [each.id for each in rows]:
                raise ValueError(f"it has the job {row['JOB_ID']} twice")
            rows.append(Row(row["JOB_ID"], row.get("JOB_NAME", ""), row.get("STATUS", "")))
    if not columns and _TABLE_EMPTY.search(text):
        return []
    if not {"JOB_NAME", "STATUS"} <= set(columns):
        raise ValueError("it is not a table with the columns JOB_ID, JOB_NAME and STATUS")
    return rows


# --- what a job's record says


def row_observation(row: Row) -> Observation:
    """What a line of the table says; it has no exit code, so an end has no cause.

    The name is left out: it may be cut, and would make the job look like another one.
    """
    state = _TABLE_STATES.get(row.word, JobState.UNKNOWN)
    return Observation(id=row.id, state=state, word=row.word)


def record_observation(
    job_id: str, record: Mapping[str, str], *, codes: bool = True
) -> Observation:
    """What a full record says. Without `codes` the exit status is ignored: an end has no cause."""
    word = record.get("job_state", "")
    state = _STATES.get(word, JobState.UNKNOWN)
    if state is JobState.HELD and _waits_for_jobs(record):
        state = JobState.QUEUED
    ended = state is JobState.ENDED
    code = _exit_status(record) if ended else None
    if ended:
        cause, message = _end(record, code) if codes else (None, "")
    else:
        cause, message = _waiting(record, state)
    signal = code - 256 if code is not None and code > 256 else 0
    # 256 + n means signal n, for which a shell says 128 + n; below 0 it is PBS's own code.
    shown = 128 + signal if signal else code
    return Observation(
        id=job_id,
        state=state,
        word=word,
        cause=cause,
        tag=record.get("Job_Name", ""),
        exit_code=shown if cause in _WITH_CODE and shown in range(256) else None,
        signal=signal_name(signal),
        message=message,
        host=re.split(r"[/:+]", record.get("exec_host", ""))[0],
        queued_at=_time(record.get("ctime", "")),
        started_at=_time(record.get("stime", "")),
        ended_at=_time(record.get("obittime", "") or record.get("mtime", "")) if ended else 0.0,
        used=_used(record),
    )


def _waits_for_jobs(record: Mapping[str, str]) -> bool:
    """Whether the hold is for a dependency, and so ends by itself; others wait for a person."""
    holds = record.get("Hold_Types", "")
    dependent = record.get("substate") in _WAITS_FOR_JOBS or "depend" in record
    return dependent and holds in ("s", "")


def _waiting(record: Mapping[str, str], state: JobState) -> tuple[Reason | None, str]:
    comment = record.get("comment", "")
    never = state is JobState.QUEUED and comment.startswith("Can Never Run")
    return (Reason.CAN_NEVER_RUN if never else None), comment


def _exit_status(record: Mapping[str, str]) -> int | None:
    text = record.get("Exit_status", record.get("exit_status", ""))
    return int(text) if re.fullmatch(r"-?\d{1,6}", text, re.ASCII) else None


def _end(record: Mapping[str, str], code: int | None) -> tuple[Reason, str]:
    """Why a job ended, and PBS's words for it. It is a success only if PBS says so."""
    comment = record.get("comment", "")
    if record.get("substate") == _TERMINATED or re.search(r" and terminated( by \S+)?$", comment):
        return Reason.CANCELLED, comment or "it was deleted"
    if code is None:
        return _end_without_code(record, comment)
    exceeded = re.search(r" and exceeded resource (\w+)$", comment)
    if exceeded and exceeded[1] in _EXCEEDED:
        return _EXCEEDED[exceeded[1]], comment
    if code < 0:
        known = _BY_TORQUE if "exit_status" in record else _BY_PBS
        reason, words = known.get(
            code, (Reason.PROGRAM_FAILED, "a code that hpc-prefect does not know")
        )
        return reason, _words(comment, f"Exit_status {code}, {words}")
    if code == 254:
        return Reason.PROGRAM_FAILED, _words(
            comment, "254 may mean that the node has no such shell"
        )
    return (Reason.PROGRAM_FAILED if code else Reason.SUCCEEDED), comment


def _end_without_code(record: Mapping[str, str], comment: str) -> tuple[Reason, str]:
    """PBS knows no exit status: the job never ran, or nobody saw its end. Never a success."""
    if "Exit_status" in record or "exit_status" in record:
        return Reason.PROGRAM_FAILED, _words(
            comment, "PBS recorded an Exit_status that cannot be read"
        )
    if "stime" in record:
        if record.get("substate") == _FAILED:  # assumed: the node went away
            return Reason.NODE_FAILURE, comment or "its node no longer answers"
        return Reason.PROGRAM_FAILED, _words(comment, "PBS recorded no Exit_status")
    # A job whose predecessor failed ends with the substate of a success, and without a comment.
    if "depend" in record and record.get("substate") == _FINISHED:
        return (
            Reason.DEPENDENCY_NEVER_MET,
            comment or f"its dependency can no longer be met ({record['depend']})",
        )
    return Reason.PROGRAM_FAILED, _words(comment, "PBS recorded neither a start nor an Exit_status")


def _words(comment: str, more: str) -> str:
    return f"{comment}: {more}" if comment else more


def _time(text: str) -> float:
    """Seconds since 1970; 0 when it cannot be read. The text is UTC: `qstat` is run with TZ=UTC.

    Not by strptime, which reads the names of months in the language of the process.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None or match[1] not in _MONTHS:
        return 0.0
    day, hour, minute, second, year = (int(part) for part in match.groups()[1:])
    try:
        month = _MONTHS.index(match[1]) + 1
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _used(record: Mapping[str, str]) -> dict[str, float]:
    used = {}
    if size := _SIZE.fullmatch(record.get("resources_used.mem", "")):
        used["max_rss"] = float(int(size[1]) * 1024 ** " kmgtp".index(size[2].lower() or " "))
    if spent := _DURATION.fullmatch(record.get("resources_used.cput", "")):
        used["cpu_seconds"] = float(int(spent[1]) * 3600 + int(spent[2]) * 60 + int(spent[3]))
    return {name: value for name, value in used.items() if value}
