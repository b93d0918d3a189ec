"""How a job ended: EC, PC, SN, REASON and what is written into its output."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_DELETED, _HELD, _ELAPSE, _MEMORY, _FILES, _NODE, _SHELL, _OOM = 1, 4, 11, 12, 16, 20, 21, 23
#: Why a job's nodes were taken. The first is a PJM code. The second is not: a job of low priority
#: whose nodes another job gets ends as CCL, with a REASON of its own; its codes are assumed.
DEADLINE, ANOTHER = 7, 0
_KILL, _XCPU = int(signal.SIGKILL), int(signal.SIGXCPU)

#: By PC: REASON, the number of the message and its sentence. The REASON of 7, 20, 21 and 23 is
#: assumed.
_WORDS = {
    _DELETED: ("-", 7090, ""),
    DEADLINE: (
        "DEADLINE SCHEDULE STARTED",
        7001,
        "A deadline schedule was set on nodes running the job.",
    ),
    _HELD: ("-", 7091, ""),
    _ELAPSE: ("ELAPSE LIMIT EXCEEDED", 7004, "The job exceeded its elapse time limit."),
    _MEMORY: ("LIMIT OVER MEMORY", 7005, "The job exceeded its memory limit."),
    _FILES: ("", 7007, "The current directory did not exist or have permission."),
    _NODE: ("LOST COMM", 7008, "The node running the job was down."),
    _SHELL: ("-", 7009, "The job script execution failed."),
    _OOM: ("-", 7011, "The job was killed by OOM killer."),
}
_OBSTACLES = {
    "no folder": (_FILES, "NO CURRENT DIR"),
    "no file": (_FILES, "FILE IO ERROR"),
    "no shell": (_SHELL, "-"),
}


def of_obstacle(job: Record, obstacle: str) -> Record:
    """The end of a job that could not be started."""
    pc, reason = _OBSTACLES[obstacle]
    return {**_of(job, pc, ec=0, sn=0), "reason": reason}


def of_run(job: Record, end: Record, *, oom_killer: bool) -> Record:
    """The end of a job that ran, from the engine's record of it."""
    sn = int(signal.Signals[end["signal"]]) if end["signal"] else 0
    ec = end["exit_code"] or 0
    if job["deleted"]:
        # As in the manual's example of pjwait.
        return _of(job, _DELETED, ec=1, sn=_KILL)
    if job["held"]:
        return _of(job, _HELD, ec=1, sn=_KILL)
    if taken := job["taken"]:
        if taken["why"] == DEADLINE:
            # State, EC and SN are assumed.
            return _of(job, DEADLINE, ec=0, sn=_KILL)
        codes = {"state": "CCL", "ec": 0, "pc": 0, "sn": _KILL}
        return {**codes, "reason": "ANOTHER JOB STARTED", "message": ""}
    if end["end"] == "TIMEOUT" or job["limit"]:
        # Seen on a real machine for a job that SIGXCPU ended; assumed for one that caught it.
        return _of(job, _ELAPSE, ec=ec, sn=sn or (0 if ec else _XCPU))
    if end["end"] == "OUT_OF_MEMORY":
        return _of(job, _OOM if oom_killer else _MEMORY, ec=0, sn=_KILL)
    if end["end"] == "NODE_FAIL":
        return _of(job, _NODE, ec=0, sn=0)
    if end["end"] == "LAUNCH_FAILED":
        return _of(job, _SHELL, ec=0, sn=0)
    return {"state": "EXT", "ec": ec, "pc": 0, "sn": sn, "reason": "-", "message": ""}


def _of(job: Record, pc: int, *, ec: int, sn: int) -> Record:
    reason, number, sentence = _WORDS[pc]
    level = "ERR."
    if pc in (_DELETED, _HELD):
        command = "pjdel" if pc == _DELETED else "pjhold"
        asked = job["deleted"] or job["held"]
        level, sentence = "INFO", f"User {job['user']} executed {command} command."
        reason = asked["reason"] or reason
    message = f"[{level}] PJM {number} Job {job['id']} was canceled. {sentence}\n"
    return {
        "state": _state(job, pc),
        "ec": ec,
        "pc": pc,
        "sn": sn,
        "reason": reason,
        "message": message,
    }


def _state(job: Record, pc: int) -> str:
    """The state after RNO. A job that may be started again waits: for its release, or queued."""
    if pc == _HELD:
        return "HLD" if job["restart"] else "CCL"
    if pc == _NODE and job["restart"]:
        return "QUE"
    return "CCL" if pc == _DELETED else "EXT"
