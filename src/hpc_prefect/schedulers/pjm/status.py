"""What PJM says of a job: `pjstat`'s table, the statistics file, the lines in the job's output.

A text that is no table raises ValueError. A state that is not in the tables below never counts as
an end. The words and codes are from Fujitsu's manuals (Technical Computing Suite V4.0L20) and from
listings of two real machines. What none of these shows is marked "assumed".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation, signal_name

#: One job's cells by the names of their columns; a `-` is read as empty.
Record = dict[str, str]

#: The column `ST`: short words as in tables, long ones as in the manuals' prose and in tables of
#: some sites (assumed).
_STATES = {
    **dict.fromkeys(("ACC", "ACCEPT", "QUE", "QUEUED"), JobState.QUEUED),
    **dict.fromkeys(("RNA", "RUNNING-A"), JobState.QUEUED),  # acquires nodes; its start is planned
    **dict.fromkeys(("RNP", "RUNNING-P", "RUN", "RUNNING"), JobState.RUNNING),
    **dict.fromkeys(("RNE", "RUNNING-E", "RNO", "RUNOUT"), JobState.ENDING),
    **dict.fromkeys(("SPP", "SUSPEND", "SPD", "SUSPENDED", "RSM", "RESUME"), JobState.SUSPENDED),
    **dict.fromkeys(("HLD", "HOLD", "ERR", "ERROR"), JobState.HELD),
    **dict.fromkeys(("EXT", "EXIT", "CCL", "CANCEL", "RJT", "REJECT"), JobState.ENDED),
}
_STOPPED = ("ERR", "ERROR")
_CANCELLED = ("CCL", "CANCEL")
_REJECTED = ("RJT", "REJECT")

#: The column `PC`, the PJM code: what the job manager did with the job. With 0, EC and SN tell how
#: it ended. While a job has not ended, 0 means nothing.
CODES: dict[int, tuple[Reason, str]] = {
    1: (Reason.CANCELLED, "it was deleted with pjdel"),
    2: (Reason.REJECTED, "PJM did not accept it"),
    3: (Reason.REJECTED, "the site's gate check did not let it run"),
    4: (Reason.CANCELLED, "pjhold ended it"),
    6: (Reason.DEPENDENCY_NEVER_MET, "the step that it depends on did not end as it had to"),
    7: (Reason.PREEMPTED, "the nodes were needed for a deadline"),
    8: (Reason.REJECTED, "the site's gate check did not let it run"),
    9: (Reason.NODE_FAILURE, "it was interrupted, and must not be run again (--norestart)"),
    10: (Reason.WALLTIME, "a process exceeded its limit of CPU time"),
    11: (Reason.WALLTIME, "it exceeded its elapsed time"),
    12: (Reason.OUT_OF_MEMORY, "it exceeded its memory"),
    13: (Reason.PROGRAM_FAILED, "it exceeded its disk space"),
    16: (
        Reason.SETUP_FAILED,
        "work_dir or the job folder could not be reached on the node; on a machine with layered"
        " storage their volume must be in pjm.gfscache",
    ),
    18: (Reason.WALLTIME, "it ran for the time it asked for, then another job needed the nodes"),
    20: (Reason.NODE_FAILURE, "a node went down"),
    21: (Reason.SETUP_FAILED, "its shell could not be started"),
    22: (Reason.NODE_FAILURE, "the interconnect failed"),
    23: (Reason.OUT_OF_MEMORY, "the kernel killed a process of it"),
    24: (Reason.NODE_FAILURE, "its statistics could not be gathered"),
    25: (Reason.NODE_FAILURE, "nodes were exchanged, and that failed"),
    26: (Reason.NODE_FAILURE, "the site's prologue or epilogue failed"),
    27: (Reason.NODE_FAILURE, "the site's exit of the resource manager failed"),
    28: (Reason.SETUP_FAILED, "its job environment (container) failed"),
    29: (Reason.SETUP_FAILED, "its job environment (container) is not valid"),
    30: (Reason.NODE_FAILURE, "it could not be suspended or resumed"),
    **dict.fromkeys(range(100, 200), (Reason.NODE_FAILURE, "an internal error of PJM")),
}

#: The column `REASON`. It counts where the site hides the codes, or for a cancelled job with code 0
#: (assumed). `-v` cuts it after 16 characters.
_REASONS = {
    "ELAPSE LIMIT EXC": Reason.WALLTIME,
    "LIMIT OVER MEMOR": Reason.OUT_OF_MEMORY,
    "NO CURRENT DIR": Reason.SETUP_FAILED,
    "FILE IO ERROR": Reason.SETUP_FAILED,
    "GATE CHECK": Reason.REJECTED,
    "ANOTHER JOB STAR": Reason.PREEMPTED,
    "DEADLINE SCHEDUL": Reason.PREEMPTED,
    "LOST COMM": Reason.NODE_FAILURE,
    "INTERNAL ERROR": Reason.NODE_FAILURE,
    "RESUME FAIL": Reason.NODE_FAILURE,
    "SUSPEND FAIL": Reason.NODE_FAILURE,
}

#: The messages that PJM writes into a job's output at its end ("PJM 70nn"), as PJM codes.
_MESSAGES = {
    7001: 7, 7002: 9, 7003: 10, 7004: 11, 7005: 12, 7007: 16, 7008: 20, 7009: 21, 7010: 22,
    7011: 23, 7012: 24, 7013: 25, 7014: 26, 7015: 27, 7016: 30, 7018: 100, 7019: 140, 7021: 180,
    7050: 12,  # a warning: the program may have gone on; it is read only if it did not end well
    7090: 1,
}  # fmt: skip
_MESSAGE = re.compile(r"^\[(?:ERR|WARN|INFO)\.?\] +PJM +(70\d\d) .*", re.MULTILINE | re.ASCII)

_STATISTICS = "Job Statistical Information"
_STATISTIC = re.compile(r"^ *(PJM CODE|REASON) +: *(.*?) *$", re.MULTILINE)

#: Sentences of sites that replace `pjstat` by a command of their own (assumed).
_NO_JOB = re.compile(r"^No (unfinished|finished|matching) job found\.\s*$", re.MULTILINE)
_HEADER = re.compile(r"\bJOB_ID +.*\bST(ATUS)?\b.*")
_ROW = re.compile(r"\d+(_\d+|\[\d+\])? ", re.ASCII)
_NOTE = re.compile(r"\[INFO\.?\] .*")


# --- the table


def read_table(text: str) -> list[Record]:
    """The jobs in an answer of `pjstat`, whichever columns it has.

    Raises:
        ValueError: it is no such table, or was cut off: without its last cells a row would show an
            end without codes.
    """
    if text and not text.endswith("\n"):
        raise ValueError("it is cut off")
    found = []
    ids: set[str] = set()
    columns: list[re.Match[str]] = []
    for line in text.split("\n"):
        # A note ("Data loading...") may precede the header, on the same line.
        if header := _HEADER.search(line):
            columns = list(re.finditer(r"\S+", header[0]))
        elif columns and _ROW.match(line + " "):
            record = _record(line, columns)
            if record["JOB_ID"] in ids:
                raise ValueError(f"it has the job {record['JOB_ID']} twice")
            ids.add(record["JOB_ID"])
            found.append(record)
    if columns or _NO_JOB.search(text):
        return found
    if any(line.strip() and not _NOTE.fullmatch(line.strip()) for line in text.split("\n")):
        raise ValueError("it is not a table with the columns JOB_ID and ST")
    return []


def _record(line: str, columns: list[re.Match[str]]) -> Record:
    """A row's cells, cut where the names of their columns begin: dates and reasons hold blanks.

    If a cell is wider than its column, the row is split at blanks, and the last column gets the
    rest. If that does not fit either, the row still tells that there is such a job.
    """
    names = [column[0] for column in columns]
    starts = [column.start() for column in columns]
    if all(line[start - 1 : start] in ("", " ") for start in starts[1:]):
        ends = [*starts[1:], len(line)]
        cells = [line[start:end] for start, end in zip(starts, ends, strict=True)]
        return {name: _plain(cell) for name, cell in zip(names, cells, strict=True)}
    cells = line.split(None, len(names) - 1)
    record = {name: _plain(cell) for name, cell in zip(names, cells, strict=False)}
    whole = len(cells) == len(names) and _word(record) in _STATES
    return record if whole else {"JOB_ID": cells[0]}


def _plain(cell: str) -> str:
    cell = cell.strip()
    return "" if cell == "-" else cell


def _word(record: Record) -> str:
    return record.get("ST") or record.get("STATUS", "")


# --- what a row says


def may_be(record: Record, tags: Sequence[str]) -> list[str]:
    """The tag that is its name, or those that begin with it: tables show only 10 characters."""
    name = record.get("JOB_NAME", "")
    if name in tags:
        return [name]
    return [tag for tag in tags if len(name) >= 10 and tag.startswith(name)]


def state(record: Record) -> JobState:
    """The state in a row."""
    return _STATES.get(_word(record), JobState.UNKNOWN)


def observation(record: Record) -> Observation:
    """What a row says. Its times have neither year nor zone, and are not read.

    A name of 10 characters is left out: it may be cut, and would make the job look like another.
    """
    word, name = _word(record), record.get("JOB_NAME", "")
    ended = state(record) is JobState.ENDED
    reason = record.get("REASON", "")
    code, signal = (_number(record, "EC"), _number(record, "SN")) if ended else (None, None)
    cause, message = _end(record, word, reason) if ended else (None, reason)
    if word in _STOPPED:
        message = _words(reason, "PJM stopped it for an error; it must be deleted with pjdel")
    own = cause in (Reason.SUCCEEDED, Reason.PROGRAM_FAILED) and _number(record, "PC") == 0
    return Observation(
        id=record["JOB_ID"],
        state=state(record),
        word=word,
        cause=cause,
        tag="" if len(name) == 10 else name,
        exit_code=code if own and signal == 0 and code in range(256) else None,
        signal=signal_name(signal or 0),
        message=message,
    )


def _end(record: Record, word: str, reason: str) -> tuple[Reason | None, str]:
    """Why a job ended, and PJM's words for it; None where the site shows no codes."""
    pc = _number(record, "PC")
    if pc in CODES:
        cause, words = CODES[pc]
        return cause, _words(reason, f"PJM code {pc}, {words}")
    if word in _REJECTED:
        return Reason.REJECTED, reason or "PJM did not accept it"
    if word in _CANCELLED:
        return _REASONS.get(reason[:16], Reason.CANCELLED), reason
    if pc is None:
        hidden = "PC" not in record
        told = _REASONS.get(reason[:16], None if hidden else Reason.PROGRAM_FAILED)
        return told, reason or ("" if hidden else "its PJM code (column PC) cannot be read")
    if pc:
        return Reason.PROGRAM_FAILED, _words(
            reason, f"PJM code {pc}, which hpc-prefect does not know"
        )
    code, signal = _number(record, "EC"), _number(record, "SN")
    if code is None or signal is None:
        return Reason.PROGRAM_FAILED, _words(
            reason, "its exit code or signal (columns EC, SN) cannot be read"
        )
    return (Reason.PROGRAM_FAILED if code or signal else Reason.SUCCEEDED), reason


def _number(record: Record, column: str) -> int | None:
    text = record.get(column, "")
    return int(text) if re.fullmatch(r"-?\d{1,6}", text, re.ASCII) else None


def _words(reason: str, more: str) -> str:
    return f"{reason}: {more}" if reason else more


# --- what PJM writes into files


def written_end(text: str) -> tuple[Reason, str] | None:
    """What PJM wrote about a job's end into its output, or else into its statistics file."""
    lines = [line for line in _MESSAGE.finditer(text) if int(line[1]) in _MESSAGES]
    if lines:
        return CODES[_MESSAGES[int(lines[-1][1])]][0], lines[-1][0].strip()
    newest = text.rpartition(_STATISTICS)
    statistics = {key: _plain(value) for key, value in _STATISTIC.findall(newest[2])}
    pc = _number(statistics, "PJM CODE")
    if not newest[1] or pc not in CODES:
        return None
    cause, words = CODES[pc]
    return cause, _words(statistics.get("REASON", ""), f"PJM code {pc}, {words}")
